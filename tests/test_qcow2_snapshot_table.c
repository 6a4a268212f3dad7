/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_snapshot_table.c - the snapshot table: what is read from bytes written by hand after the specification, and
 * what is written from it.
 */
#include "node_test.h"

#include "drivers/qcow2/format.h"

#define TABLE_AT 65536
#define MEBI (UINT64_C(1) << 20)

/* Three entries: of version 2, without extra data; with icount and extra data that nobody knows; with a name that is no text. */
static const uint8_t table[] = {
    /* L1 offset, entries, id and name length, date, clock, vm state, extra length */
    0, 0, 0, 0, 0, 2, 0, 0,  0, 0, 0, 1,  0, 1, 0, 3,  0x65, 0, 0, 1,  0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 9,
    0, 0, 0, 5,  0, 0, 0, 0,
    '7', 'o', 'n', 'e',  0, 0, 0, 0,
    0, 0, 0, 0, 0, 3, 0, 0,  0, 0, 0, 2,  0, 2, 0, 0,  0x65, 0, 0, 2,  0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0,  0, 0, 0, 27,
    0, 0, 0, 1, 0, 0, 0, 0,  0, 0, 0, 0, 0x20, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 42,  'e', 'x', 't',
    '1', '2',  0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0,  0, 1, 0, 4,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0,  0, 0, 0, 16,
    0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
    'x', 'a', 0xff, 0, 'b',  0, 0, 0,
};

static const Qcow2Header header = {
    .version = 3, .cluster_bits = 16, .size = 16 * MEBI, .nb_snapshots = 3, .snapshots_offset = TABLE_AT,
};

/* Reads a table that is put at the end of a file. */
static GArray *co_parse(Test *t, const void *bytes, size_t count, const Qcow2Header *h, uint64_t *table_bytes, GError **error)
{
    GArray *snapshots = NULL;

    make_file(t, "image", h->snapshots_offset + count, 0, 0);
    BlkChild *user = open_rw(t, "{\"driver\": \"file\", \"filename\": \"@/image\"}");
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), h->snapshots_offset, count, bytes, 0), 0);
    qcow2_snapshot_co_read_all(blk_child_node(user), h, &snapshots, table_bytes, error);
    blk_co_detach(user);
    return snapshots;
}

static const Qcow2Snapshot *at(const GArray *snapshots, unsigned i)
{
    return &g_array_index(snapshots, Qcow2Snapshot, i);
}

CO_TEST(what_the_bytes_say)
{
    g_autoptr(GError) error = NULL;
    uint64_t bytes;
    g_autoptr(GArray) snapshots = co_parse(t, table, sizeof(table), &header, &bytes, &error);

    ck_assert_msg(snapshots != NULL, "%s", error ? error->message : "");
    ck_assert_uint_eq(bytes, sizeof(table));
    ck_assert_uint_eq(snapshots->len, 3);
    const Qcow2Snapshot *s = at(snapshots, 0);
    ck_assert_str_eq(s->info.id, "7");
    ck_assert_str_eq(s->info.name, "one");
    ck_assert_uint_eq(s->l1_table_offset, 0x20000);
    ck_assert_uint_eq(s->l1_size, 1);
    ck_assert_uint_eq(s->info.date_sec, 0x65000001);
    ck_assert_uint_eq(s->info.date_nsec, 7);
    ck_assert_uint_eq(s->info.vm_clock_nsec, 9);
    ck_assert_uint_eq(s->info.vm_state_size, 5);
    ck_assert_uint_eq(s->info.disk_size, 16 * MEBI);
    ck_assert(!s->info.has_icount);
    s = at(snapshots, 1);
    ck_assert_str_eq(s->info.id, "12");
    ck_assert_str_eq(s->info.name, "");
    ck_assert_uint_eq(s->info.vm_state_size, UINT64_C(1) << 32);
    ck_assert_uint_eq(s->info.disk_size, 512 * MEBI);
    ck_assert(s->info.has_icount);
    ck_assert_uint_eq(s->info.icount, 42);
    s = at(snapshots, 2);
    ck_assert(g_utf8_validate(s->info.name, -1, NULL));
    ck_assert_uint_eq(s->info.disk_size, 0);
}

/* The first entry tells the disk's size now, which pushes the others by 16 bytes; they are as they were, to the bit. */
CO_TEST(what_is_written)
{
    enum { FIRST = 48, FIRST_EXTRA = 16 };
    g_autoptr(GArray) snapshots = co_parse(t, table, sizeof(table), &header, NULL, NULL);
    ck_assert_ptr_nonnull(snapshots);
    uint64_t bytes = qcow2_snapshots_table_bytes(snapshots);
    g_autofree uint8_t *written = g_malloc0(bytes);

    ck_assert_uint_eq(bytes, sizeof(table) + FIRST_EXTRA);
    qcow2_snapshots_encode(snapshots, written);
    ck_assert_mem_eq(written, table, QCOW2_SNAPSHOT_BYTES - 4);
    ck_assert_uint_eq(blk_get_be32(written + 36), FIRST_EXTRA);
    ck_assert_uint_eq(blk_get_be64(written + 40), 5);
    ck_assert_uint_eq(blk_get_be64(written + 48), 16 * MEBI);
    ck_assert_mem_eq(written + 56, "7one", 4);
    ck_assert_mem_eq(written + FIRST + FIRST_EXTRA, table + FIRST, sizeof(table) - FIRST);
}

CO_TEST(new_entries)
{
    static const char *const names[] = { "", "a", "seven b", "ein längerer Name mit Umlauten" };
    g_autoptr(GArray) snapshots = qcow2_snapshots_new(), again = NULL;
    Qcow2Header h = header;
    uint64_t read_bytes;

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        Qcow2Snapshot *s = qcow2_snapshots_add(snapshots, i % 2 ? "1" : "1234567", names[i]);
        s->info.disk_size = i * MEBI;
        s->info.has_icount = i > 1;
        s->info.icount = i;
        s->l1_table_offset = (i + 1) * 65536;
        s->l1_size = 1;
    }
    uint64_t bytes = qcow2_snapshots_table_bytes(snapshots);
    g_autofree uint8_t *written = g_malloc0(bytes);
    qcow2_snapshots_encode(snapshots, written);
    h.nb_snapshots = snapshots->len;
    again = co_parse(t, written, bytes, &h, &read_bytes, NULL);
    ck_assert_ptr_nonnull(again);
    ck_assert_uint_eq(read_bytes, bytes);
    for (unsigned i = 0; i < again->len; i++) {
        ck_assert_str_eq(at(again, i)->info.name, names[i]);
        ck_assert_str_eq(at(again, i)->info.id, i % 2 ? "1" : "1234567");
        ck_assert_uint_eq(at(again, i)->info.disk_size, i * MEBI);
        ck_assert_uint_eq(at(again, i)->info.has_icount, i > 1);
        ck_assert_uint_eq(at(again, i)->l1_table_offset, (i + 1) * 65536);
    }
}

/* The file ends at a sector, where no padding hides that something is missing. */
CO_TEST(cut_off)
{
    for (size_t count = sizeof(table) - 8; count > 40; count -= 40) {
        g_autoptr(GError) error = NULL;
        Qcow2Header h = header;

        h.snapshots_offset = TABLE_AT - count;
        ck_assert_ptr_null(co_parse(t, table, count, &h, NULL, &error));
        ck_assert_ptr_nonnull(error);
    }
}

BLK_TEST_MAIN("qcow2_snapshot_table", what_the_bytes_say, what_is_written, new_entries, cut_off)
