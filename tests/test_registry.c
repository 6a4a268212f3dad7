/* SPDX-License-Identifier: MIT */
/*
 * test_registry.c - the small parts of the control path: registered drivers, errors, names of events, info and checks
 * of an image.
 */
#include "node_test.h"

#include "core/node.h"

static int probe_sure(const uint8_t *head, size_t bytes, const char *filename)
{
    return bytes > 0 && head[0] == 'S' ? 90 : 0;
}

static int probe_unsure(const uint8_t *head, size_t bytes, const char *filename)
{
    return bytes > 0 && head[0] != 0 ? 10 : 0;
}

static const BlkDriver unsure = { .name = "unsure", .kind = BLK_FORMAT, .probe = probe_unsure };
static const BlkDriver sure = { .name = "sure", .alias = "certain", .kind = BLK_FORMAT, .probe = probe_sure };
static const BlkDriver same_name = { .name = "sure", .kind = BLK_FORMAT };
static const BlkDriver same_alias = { .name = "other", .alias = "unsure", .kind = BLK_FORMAT };
static const BlkDriver name_is_alias = { .name = "certain", .kind = BLK_FORMAT };

CO_TEST(test_drivers)
{
    static const BlkDriver *const taken[] = { &sure, &same_name, &same_alias, &name_is_alias };
    unsigned before = 0, after = 0;
    int score;

    while (blk_driver_nth(t->ctx, before)) {
        before++;
    }
    ck_assert_int_eq(blk_driver_register(t->ctx, &unsure, NULL), 0);
    ck_assert_int_eq(blk_driver_register(t->ctx, &sure, NULL), 0);
    for (size_t i = 0; i < G_N_ELEMENTS(taken); i++) {
        g_autoptr(GError) error = NULL;
        ck_assert_int_eq(blk_driver_register(t->ctx, taken[i], &error), -EEXIST);
        ck_assert(g_error_matches(error, BLK_ERROR, EEXIST));
    }
    while (blk_driver_nth(t->ctx, after)) {
        after++;
    }
    ck_assert_uint_eq(after, before + 2);
    ck_assert_ptr_eq(blk_driver_find(t->ctx, "sure"), &sure);
    ck_assert_ptr_eq(blk_driver_find(t->ctx, "certain"), &sure);
    ck_assert_ptr_null(blk_driver_find(t->ctx, "other"));

    ck_assert_ptr_eq(blk_driver_probe(t->ctx, (const uint8_t *)"Some", 4, "x", &score), &sure);
    ck_assert_int_eq(score, 90);
    ck_assert_ptr_eq(blk_driver_probe(t->ctx, (const uint8_t *)"none", 4, "x", &score), &unsure);
    ck_assert_int_eq(score, 10);
}

CO_TEST(test_errors)
{
    g_autoptr(GError) plain = NULL, with_errno = NULL;

    ck_assert_int_eq(blk_error(&plain, -ENOSPC, "disk %d is full", 7), -ENOSPC);
    ck_assert(g_error_matches(plain, BLK_ERROR, ENOSPC));
    ck_assert_str_eq(plain->message, "disk 7 is full");
    ck_assert_int_eq(blk_error_errno(&with_errno, -ENOENT, "could not open '%s'", "x"), -ENOENT);
    g_autofree char *expected = g_strdup_printf("could not open 'x': %s", g_strerror(ENOENT));
    ck_assert_str_eq(with_errno->message, expected);
    ck_assert_int_eq(blk_error(NULL, -EIO, "nobody listens"), -EIO);
    ck_assert_int_eq(blk_error_errno(NULL, -EIO, "nobody listens"), -EIO);
}

CO_TEST(test_event_names)
{
    BlkEvent event;

    for (unsigned i = 0; i < BLK_EVENT_COUNT; i++) {
        ck_assert_ptr_nonnull(blk_event_name(i));
        ck_assert(blk_event_find(blk_event_name(i), &event));
        ck_assert_uint_eq(event, i);
    }
    ck_assert_str_eq(blk_event_name(BLK_EVENT_l2_update), "l2_update");
    ck_assert(!blk_event_find("l2_updat", &event));
    ck_assert(!blk_event_find("", &event));
}

/* An image tells of itself; a filter lets its child speak; what has no check says so. */
CO_TEST(test_info_and_check)
{
    g_autofree char *path = test_text(t, "@/image"), *backing = test_text(t, "@/base");
    const char *text = "{'size': '1M', 'backing_file': 'base', 'backing_fmt': 'raw'}";
    g_autoptr(JsonObject) options = blk_json_parse_object(text, -1, "test", NULL);
    BlkCheckOptions check_options = { 0 };
    g_autoptr(GError) error = NULL;
    BlkCheckResult result;
    BlkInfo info;

    make_file(t, "base", 65536, 512, 1);
    ck_assert_int_eq(blk_co_create(t->ctx, path, "qcow2", options, NULL), 0);
    BlkChild *user = open_for(t, BLK_PERM_READ, "{'driver': 'compress', 'read-only': true, 'file': {'driver': 'qcow2', "
                              "'file': {'driver': 'file', 'filename': '@/image'}}}");
    ck_assert_int_eq(blk_co_info(blk_child_node(user), &info, NULL), 0);
    ck_assert_uint_eq(info.cluster_size, 65536);
    ck_assert_str_eq(info.backing_filename, "base");
    ck_assert_str_eq(info.backing_format, "raw");
    ck_assert_str_eq(info.full_backing_filename, backing);
    ck_assert(info.has_allocated);      /* summed up from the file below */
    ck_assert_uint_gt(info.allocated_bytes, 0);
    ck_assert_ptr_nonnull(info.specific);
    blk_info_clear(&info);
    ck_assert_ptr_null(info.backing_filename);
    ck_assert_int_eq(blk_co_check(blk_child_node(user), &check_options, &result, NULL), 0);
    ck_assert_uint_eq(result.corruptions + result.leaks + result.check_errors, 0);
    ck_assert_uint_eq(result.total_clusters, 16);

    BlkNode *base = blk_node_backing(blk_child_node(user));
    ck_assert_ptr_nonnull(base);
    ck_assert_int_eq(blk_co_check(base, &check_options, &result, &error), -ENOTSUP);
    ck_assert_str_eq(error->message, "This image format does not support checks");
    blk_co_detach(user);
}

BLK_TEST_MAIN("registry", test_drivers, test_errors, test_event_names, test_info_and_check)
