/* SPDX-License-Identifier: MIT */
/*
 * test_nbd_wire.c - NBD messages as bytes: requests, replies, options, queries for metadata contexts.
 */
#include "exports/nbd/meta.h"
#include "test.h"

#include <blkstack/nbd.h>

/* ---- requests ---- */

START_TEST(compact_request)
{
    static const uint8_t bytes[NBD_REQUEST_BYTES] = {
        0x25, 0x60, 0x95, 0x13,  0x00, 0x04,  0x00, 0x00,  1, 2, 3, 4, 5, 6, 7, 8,
        0x80, 0, 0, 0, 0, 0, 0, 1,  0xff, 0xff, 0xff, 0xff,
    };
    uint8_t write[NBD_REQUEST_BYTES];
    NbdHeader h;

    ck_assert(blk_nbd_parse_request(NBD_MODE_STRUCTURED, bytes, &h));
    ck_assert_uint_eq(h.flags, NBD_CMD_FLAG_DF);
    ck_assert_uint_eq(h.type, NBD_CMD_READ);
    ck_assert_uint_eq(h.cookie, UINT64_C(0x0102030405060708));
    ck_assert_uint_eq(h.offset, UINT64_C(0x8000000000000001));
    ck_assert_uint_eq(h.length, UINT32_MAX);
    ck_assert_uint_eq(h.payload, 0);
    memcpy(write, bytes, sizeof(write));
    write[7] = NBD_CMD_WRITE;
    ck_assert(blk_nbd_parse_request(NBD_MODE_SIMPLE, write, &h));
    ck_assert_uint_eq(h.payload, UINT32_MAX);
    write[0]++;
    ck_assert(!blk_nbd_parse_request(NBD_MODE_SIMPLE, write, &h));
    ck_assert(!blk_nbd_parse_request(NBD_MODE_EXTENDED, bytes, &h));
}
END_TEST

START_TEST(extended_request)
{
    static const uint8_t bytes[NBD_EXTENDED_REQUEST_BYTES] = {
        0x21, 0xe4, 0x1c, 0x71,  0x00, 0x20,  0x00, 0x07,  1, 2, 3, 4, 5, 6, 7, 8,
        0, 0, 0, 0, 0, 0, 0, 1,  0x10, 0, 0, 0, 0, 0, 0, 12,
    };
    uint8_t plain[NBD_EXTENDED_REQUEST_BYTES];
    NbdHeader h;

    ck_assert(blk_nbd_parse_request(NBD_MODE_EXTENDED, bytes, &h));
    ck_assert_uint_eq(h.type, NBD_CMD_BLOCK_STATUS);
    ck_assert_uint_eq(h.length, UINT64_C(0x100000000000000c));
    ck_assert_uint_eq(h.payload, h.length);
    /* Without the flag not even a write has a payload. */
    memcpy(plain, bytes, sizeof(plain));
    plain[5] = 0;
    plain[7] = NBD_CMD_WRITE;
    ck_assert(blk_nbd_parse_request(NBD_MODE_EXTENDED, plain, &h));
    ck_assert_uint_eq(h.payload, 0);
}
END_TEST

/* ---- replies ---- */

static const NbdHeader request = { .cookie = 0x1122334455667788, .offset = 0x99, .length = 100 };

START_TEST(simple_reply)
{
    static const uint8_t wanted[] = {
        0x67, 0x44, 0x66, 0x98,  0, 0, 0, 28,  0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
    };
    uint8_t bytes[NBD_MAX_CHUNK_HEAD];

    ck_assert_uint_eq(blk_nbd_put_simple_reply(bytes, NBD_ENOSPC, request.cookie), sizeof(wanted));
    ck_assert_mem_eq(bytes, wanted, sizeof(wanted));
}
END_TEST

START_TEST(structured_chunks)
{
    static const uint8_t hole[] = {
        0x66, 0x8e, 0x33, 0xef,  0, 1,  0, 2,  0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,  0, 0, 0, 12,
        0, 0, 0, 0, 0, 0, 1, 0,  0, 0, 0, 50,
    };
    static const uint8_t data[] = {
        0x66, 0x8e, 0x33, 0xef,  0, 0,  0, 1,  0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,  0, 0, 0, 58,
        0, 0, 0, 0, 0, 0, 1, 0,
    };
    static const uint8_t status[] = {
        0x66, 0x8e, 0x33, 0xef,  0, 1,  0, 5,  0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,  0, 0, 0, 28,
        0, 0, 0, 9,
    };
    static const uint8_t extent[] = { 0, 0, 0x10, 0,  0, 0, 0, 3 };
    uint8_t bytes[NBD_MAX_CHUNK_HEAD];

    ck_assert_uint_eq(blk_nbd_put_hole_chunk(bytes, NBD_MODE_STRUCTURED, true, &request, 256, 50), sizeof(hole));
    ck_assert_mem_eq(bytes, hole, sizeof(hole));
    ck_assert_uint_eq(blk_nbd_put_data_chunk(bytes, NBD_MODE_STRUCTURED, false, &request, 256, 50), sizeof(data));
    ck_assert_mem_eq(bytes, data, sizeof(data));
    ck_assert_uint_eq(blk_nbd_put_status_chunk(bytes, NBD_MODE_STRUCTURED, true, &request, 9, 3), sizeof(status));
    ck_assert_mem_eq(bytes, status, sizeof(status));
    ck_assert_ptr_eq(blk_nbd_put_extent(bytes, NBD_MODE_STRUCTURED, 4096, 3), bytes + sizeof(extent));
    ck_assert_mem_eq(bytes, extent, sizeof(extent));
}
END_TEST

START_TEST(extended_chunks)
{
    static const uint8_t none[] = {
        0x6e, 0x8a, 0x27, 0x8c,  0, 1,  0, 0,  0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
        0, 0, 0, 0, 0, 0, 0, 0x99,  0, 0, 0, 0, 0, 0, 0, 0,
    };
    static const uint8_t status[] = {
        0x6e, 0x8a, 0x27, 0x8c,  0, 0,  0, 6,  0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
        0, 0, 0, 0, 0, 0, 0, 0x99,  0, 0, 0, 0, 0, 0, 0, 40,  0, 0, 0, 9,  0, 0, 0, 2,
    };
    static const uint8_t extent[] = { 1, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 3 };
    uint8_t bytes[NBD_MAX_CHUNK_HEAD];

    ck_assert_uint_eq(blk_nbd_put_chunk(bytes, NBD_MODE_EXTENDED, true, NBD_REPLY_TYPE_NONE, &request, 0),
                      sizeof(none));
    ck_assert_mem_eq(bytes, none, sizeof(none));
    ck_assert_uint_eq(blk_nbd_put_status_chunk(bytes, NBD_MODE_EXTENDED, false, &request, 9, 2), sizeof(status));
    ck_assert_mem_eq(bytes, status, sizeof(status));
    ck_assert_ptr_eq(blk_nbd_put_extent(bytes, NBD_MODE_EXTENDED, UINT64_C(1) << 56, 3), bytes + sizeof(extent));
    ck_assert_mem_eq(bytes, extent, sizeof(extent));
}
END_TEST

START_TEST(error_chunk_is_cut_to_its_room)
{
    uint8_t bytes[64];

    memset(bytes, 0xaa, sizeof(bytes));
    ck_assert_uint_eq(blk_nbd_put_error_chunk(bytes, 32, NBD_MODE_STRUCTURED, &request, NBD_EIO, "too long"), 32);
    ck_assert_uint_eq(blk_get_be16(bytes + 6), NBD_REPLY_TYPE_ERROR);
    ck_assert_uint_eq(blk_get_be32(bytes + 16), 12);
    ck_assert_uint_eq(blk_get_be32(bytes + 20), NBD_EIO);
    ck_assert_uint_eq(blk_get_be16(bytes + 24), 6);
    ck_assert_mem_eq(bytes + 26, "too lo\xaa", 7);
    ck_assert_uint_eq(blk_nbd_put_error_chunk(bytes, 64, NBD_MODE_EXTENDED, &request, NBD_EIO, NULL), 38);
    ck_assert_uint_eq(blk_get_be64(bytes + 24), 6);
}
END_TEST

START_TEST(errors_of_the_protocol)
{
    static const struct { int ret; uint32_t error; } table[] = {
        { 0, NBD_SUCCESS }, { -EROFS, NBD_EPERM }, { -EACCES, NBD_EPERM }, { -EDQUOT, NBD_ENOSPC },
        { -EFBIG, NBD_ENOSPC }, { -ENOMEM, NBD_ENOMEM }, { -EINVAL, NBD_EINVAL }, { -ENOTSUP, NBD_ENOTSUP },
        { -ESHUTDOWN, NBD_ESHUTDOWN }, { -EOVERFLOW, NBD_EOVERFLOW }, { -EIO, NBD_EIO }, { -ENOTCONN, NBD_EIO },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        ck_assert_uint_eq(blk_nbd_error(table[i].ret), table[i].error);
    }
}
END_TEST

/* ---- options ---- */

static NbdCursor cursor(const void *bytes, size_t count)
{
    return (NbdCursor) { bytes, count };
}

START_TEST(info_request)
{
    static const uint8_t bytes[] = { 0, 0, 0, 2,  'h', 'd',  0, 3,  0, 3,  0xff, 0xff,  0, 1 };
    NbdInfoRequest info;

    ck_assert_uint_eq(blk_nbd_parse_info(cursor(bytes, sizeof(bytes)), &info), 0);
    ck_assert(blk_nbd_string_is(info.name, "hd"));
    ck_assert_uint_eq(info.wanted, 1 << NBD_INFO_BLOCK_SIZE | 1 << NBD_INFO_NAME);
    /* Cut off anywhere, or with something behind: malformed. */
    for (size_t n = 0; n < sizeof(bytes); n++) {
        g_autofree uint8_t *cut = g_memdup2(bytes, n);

        ck_assert_uint_eq(blk_nbd_parse_info(cursor(cut, n), &info), NBD_REP_ERR_INVALID);
    }
    ck_assert_uint_eq(blk_nbd_parse_info(cursor(bytes, sizeof(bytes) - 2), &info), NBD_REP_ERR_INVALID);
}
END_TEST

START_TEST(names_of_absurd_length)
{
    g_autofree uint8_t *bytes = g_malloc0(4 + BLK_NBD_MAX_STRING + 1 + 2);
    NbdInfoRequest info;

    blk_put_be32(bytes, BLK_NBD_MAX_STRING);
    ck_assert_uint_eq(blk_nbd_parse_info(cursor(bytes, 4 + BLK_NBD_MAX_STRING + 2), &info), 0);
    ck_assert_uint_eq(info.name.length, BLK_NBD_MAX_STRING);
    blk_put_be32(bytes, BLK_NBD_MAX_STRING + 1);
    ck_assert_uint_eq(blk_nbd_parse_info(cursor(bytes, 4 + BLK_NBD_MAX_STRING + 3), &info), NBD_REP_ERR_TOO_BIG);
    blk_put_be32(bytes, UINT32_MAX);
    ck_assert_uint_eq(blk_nbd_parse_info(cursor(bytes, 4), &info), NBD_REP_ERR_TOO_BIG);
}
END_TEST

START_TEST(context_request)
{
    static const uint8_t bytes[] = { 0, 0, 0, 0,  0, 0, 0, 2,  0, 0, 0, 5, 'b', 'a', 's', 'e', ':',  0, 0, 0, 0 };
    NbdContextRequest contexts;
    NbdString query;

    ck_assert_uint_eq(blk_nbd_parse_contexts(cursor(bytes, sizeof(bytes)), &contexts), 0);
    ck_assert_uint_eq(contexts.count, 2);
    ck_assert_uint_eq(blk_nbd_take_string(&contexts.queries, &query), 0);
    ck_assert(blk_nbd_string_is(query, "base:"));
    ck_assert_uint_eq(blk_nbd_take_string(&contexts.queries, &query), 0);
    ck_assert(blk_nbd_string_is(query, ""));
    for (size_t n = 0; n < sizeof(bytes); n++) {
        g_autofree uint8_t *cut = g_memdup2(bytes, n);

        ck_assert_uint_eq(blk_nbd_parse_contexts(cursor(cut, n), &contexts), NBD_REP_ERR_INVALID);
    }
}
END_TEST

START_TEST(more_queries_than_there_are)
{
    static const uint8_t bytes[] = { 0, 0, 0, 0,  0xff, 0xff, 0xff, 0xff,  0, 0, 0, 0 };
    NbdContextRequest contexts;

    ck_assert_uint_eq(blk_nbd_parse_contexts(cursor(bytes, sizeof(bytes)), &contexts), NBD_REP_ERR_INVALID);
}
END_TEST

/* ---- metadata contexts ---- */

static NbdContexts match(const BlkExport *export, const char *query, bool wildcards)
{
    NbdString text = { query, (uint32_t)strlen(query) };

    return blk_nbd_contexts_match(export, blk_nbd_contexts_of(export, true), text, wildcards);
}

START_TEST(queries)
{
    BlkExportBitmap bitmaps[] = { { .name = "b0" }, { .name = "b1" } };
    GArray *array = g_array_new(FALSE, FALSE, sizeof(*bitmaps));
    BlkExport export = { .bitmaps = array };

    ck_assert_uint_eq(blk_nbd_contexts_of(&export, false), 1);
    g_array_append_vals(array, bitmaps, 2);
    ck_assert_uint_eq(blk_nbd_contexts_of(&export, true), 0xf);
    ck_assert_uint_eq(blk_nbd_contexts_of(&export, false), 0xd);
    ck_assert_uint_eq(match(&export, "base:allocation", false), 1);
    ck_assert_uint_eq(match(&export, "qemu:allocation-depth", false), 2);
    ck_assert_uint_eq(match(&export, "qemu:dirty-bitmap:b1", false), 8);
    ck_assert_uint_eq(match(&export, "qemu:dirty-bitmap:b", false), 0);
    ck_assert_uint_eq(match(&export, "qemu:dirty-bitmap:", false), 0);
    ck_assert_uint_eq(match(&export, "qemu:dirty-bitmap:", true), 0xc);
    ck_assert_uint_eq(match(&export, "qemu:", true), 0xe);
    ck_assert_uint_eq(match(&export, "base:", true), 1);
    ck_assert_uint_eq(match(&export, "base:", false), 0);
    ck_assert_uint_eq(match(&export, "", true), 0);
    ck_assert_uint_eq(match(&export, "b", true), 0);
    ck_assert_uint_eq(match(&export, "other:allocation", true), 0);
    g_array_unref(array);
}
END_TEST

BLK_TEST_MAIN("nbd_wire", compact_request, extended_request, simple_reply, structured_chunks, extended_chunks,
              error_chunk_is_cut_to_its_room, errors_of_the_protocol, info_request, names_of_absurd_length,
              context_request, more_queries_than_there_are, queries)
