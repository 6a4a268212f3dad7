/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_header.c - a header that is written again: what a crash leaves says what the old one said, or the new one; and
 * what does not fit is refused before anything is written.
 */
#include "log_disk.h"

#include "drivers/qcow2/format.h"

enum { UPDATES = 12, STATES = 12 };

static char *random_name(GRand *rand, unsigned max)
{
    unsigned bytes = g_rand_int_range(rand, 1, (int)max + 1);
    char *name = g_malloc0(bytes + 1);

    memset(name, g_rand_int_range(rand, 'a', 'z' + 1), bytes);
    return name;
}

static void set_extension(Qcow2Header *h, GRand *rand)
{
    qcow2_header_set_bitmaps(h, 0, 0, 0);
    if (g_rand_boolean(rand)) {
        qcow2_header_set_bitmaps(h, (uint32_t)g_rand_int_range(rand, 1, 256), 65536, 64);
        h->autoclear = h->version == 3 ? h->autoclear : 0;
    }
}

/* @max_name: as long as the first sector can stand alone. */
static void change(Qcow2Header *h, GRand *rand, unsigned max_name)
{
    g_clear_pointer(&h->backing_file, g_free);
    g_clear_pointer(&h->backing_format, g_free);
    if (g_rand_int_range(rand, 0, 4) > 0) {
        h->backing_file = random_name(rand, g_rand_boolean(rand) ? max_name : 100);
        h->backing_format = random_name(rand, QCOW2_MAX_FORMAT_NAME);
    }
    h->version = g_rand_int_range(rand, 0, 3) > 0 ? 3 : 2;
    h->compatible = h->version == 3 && g_rand_boolean(rand) ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
    set_extension(h, rand);
}

static char *describe(const Qcow2Header *h)
{
    return g_strdup_printf("version %u, lazy %u, bitmaps %u (%u), format %s, backing %s", h->version,
                           (unsigned)h->compatible, h->bitmaps.count, (unsigned)h->autoclear,
                           h->backing_format ? h->backing_format : "-", h->backing_file ? h->backing_file : "-");
}

static void check_state(Test *t, LogDisk *disk, GRand *rand, const char *old, const char *new)
{
    static const unsigned percents[] = { 0, 20, 50, 80, 100 };
    uint64_t length, now = 2 + g_rand_int(rand) % disk->now;
    g_autofree uint8_t *image = log_crash(disk, now, percents[g_rand_int_range(rand, 0, 5)], rand, &length);
    BlkNode *node = try_open(t, "{'driver': 'log'}", NULL);
    Qcow2Header found = { 0 };
    g_autoptr(GError) error = NULL;

    log_set_initial(node, image, length);
    int ret = qcow2_co_read_header(node, &found, &error);
    ck_assert_msg(ret == 0, "%s -> %s: %s", old, new, error ? error->message : "");
    g_autofree char *text = describe(&found);
    ck_assert_msg(strcmp(text, old) == 0 || strcmp(text, new) == 0, "%s -> %s: there is %s", old, new, text);
    qcow2_header_clear(&found);
    blk_co_unref(node);
}

/* One image after another: each begins with the header that the last one got. */
static void run_updates(Test *t, unsigned cluster_size, unsigned max_name, GRand *rand)
{
    g_autofree char *options = g_strdup_printf("{'size': 1048576, 'cluster_size': %u}", cluster_size);
    BlkNode *node = log_new_image(t, "disk", options);

    for (unsigned i = 0; i < UPDATES; i++) {
        BlkChild *user = blk_co_attach(node, "test", BLK_PERM_ALL, BLK_PERM_ALL, NULL);
        LogDisk *disk = log_disk(node);
        Qcow2Header h;

        ck_assert_int_eq(qcow2_co_read_header(node, &h, NULL), 0);
        g_autofree char *old = describe(&h);
        change(&h, rand, max_name);
        g_autofree char *new = describe(&h);
        ck_assert_int_eq(qcow2_co_update_header(node, &h, NULL), 0);
        qcow2_header_clear(&h);
        for (unsigned state = 0; state < STATES; state++) {
            check_state(t, disk, rand, old, new);
        }
        ck_assert_int_eq(qcow2_co_read_header(node, &h, NULL), 0);
        g_autofree char *now = describe(&h);
        ck_assert_str_eq(now, new);
        qcow2_header_clear(&h);

        BlkNode *next = try_open(t, "{'driver': 'log'}", NULL);
        log_set_initial(next, disk->data, node->length);
        blk_co_detach(user);
        blk_co_unref(node);
        node = next;
    }
    blk_co_unref(node);
}

CO_TEST(test_old_or_new)
{
    static const struct {
        unsigned cluster_size, max_name;
    } cases[] = { { 512, 340 }, { 1024, 330 }, { 4096, 1023 }, { 65536, 1023 } };
    GRand *rand = g_rand_new_with_seed(1);

    ck_assert_int_eq(blk_driver_register(t->ctx, &log_driver, NULL), 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        run_updates(t, cases[i].cluster_size, cases[i].max_name, rand);
    }
    g_rand_free(rand);
}

CO_TEST(test_what_does_not_fit_is_refused)
{
    g_autoptr(GError) error = NULL;
    Qcow2Header h;

    ck_assert_int_eq(blk_driver_register(t->ctx, &log_driver, NULL), 0);
    BlkNode *node = log_new_image(t, "disk", "{'size': 1048576, 'cluster_size': 512}");
    BlkChild *user = blk_co_attach(node, "test", BLK_PERM_ALL, BLK_PERM_ALL, NULL);
    ck_assert_int_eq(qcow2_co_read_header(node, &h, NULL), 0);
    h.backing_file = g_strnfill(400, 'x');
    ck_assert_int_eq(qcow2_co_update_header(node, &h, &error), -ENOSPC);
    ck_assert_ptr_nonnull(strstr(error->message, "backing file name"));
    ck_assert_uint_eq(log_disk(node)->writes->len, 0);
    qcow2_header_clear(&h);
    blk_co_detach(user);
    blk_co_unref(node);
}

BLK_TEST_MAIN("qcow2_header", test_old_or_new, test_what_does_not_fit_is_refused)
