/* SPDX-License-Identifier: MIT */
/* test_iov.c - views of scattered buffers, buffers, errors. */
#include "test.h"

#include <string.h>

typedef struct Scattered {
    char a[5], b[1], c[10];
    struct iovec vec[5];
    BlkIov iov;
} Scattered;

static void scatter(Scattered *s)
{
    memcpy(s->a, "01234", 5);
    memcpy(s->b, "5", 1);
    memcpy(s->c, "6789abcdef", 10);
    s->vec[0] = (struct iovec){ s->a, 5 };
    s->vec[1] = (struct iovec){ s->b, 0 };
    s->vec[2] = (struct iovec){ s->b, 1 };
    s->vec[3] = (struct iovec){ s->c, 10 };
    s->vec[4] = (struct iovec){ NULL, 0 };
    s->iov = (BlkIov){ .vec = s->vec, .count = 5 };
}

START_TEST(copies_every_range)
{
    for (size_t from = 0; from <= 16; from++) {
        for (size_t to = from; to <= 16; to++) {
            Scattered s;
            char buf[17] = "", expected[17];

            scatter(&s);
            blk_iov_to_buf(blk_iov_advance(s.iov, from), buf, to - from);
            ck_assert_mem_eq(buf, "0123456789abcdef" + from, to - from);
            ck_assert_int_eq(buf[to - from], '\0');

            blk_iov_from_buf(blk_iov_advance(s.iov, from), "ABCDEFGHIJKLMNOP", to - from);
            memcpy(expected, "0123456789abcdef", 17);
            memcpy(expected + from, "ABCDEFGHIJKLMNOP", to - from);
            blk_iov_to_buf(s.iov, buf, 16);
            ck_assert_mem_eq(buf, expected, 16);
        }
    }
}
END_TEST

START_TEST(zeroes_every_range)
{
    for (size_t from = 0; from <= 16; from++) {
        for (size_t to = from; to <= 16; to++) {
            Scattered s;
            char buf[16], expected[17] = "0123456789abcdef";

            scatter(&s);
            blk_iov_zero(blk_iov_advance(s.iov, from), to - from);
            memset(expected + from, 0, to - from);
            blk_iov_to_buf(s.iov, buf, 16);
            ck_assert_mem_eq(buf, expected, 16);
            ck_assert(blk_iov_is_zero(blk_iov_advance(s.iov, from), to - from));
            ck_assert(from == 0 || !blk_iov_is_zero(blk_iov_advance(s.iov, from - 1), to - from + 1));
            ck_assert(to == 16 || !blk_iov_is_zero(blk_iov_advance(s.iov, from), to - from + 1));
        }
    }
}
END_TEST

START_TEST(contiguous_only_in_one_piece)
{
    Scattered s;

    scatter(&s);
    ck_assert_ptr_eq(blk_iov_contiguous(s.iov, 5), s.a);
    ck_assert_ptr_null(blk_iov_contiguous(s.iov, 6));
    ck_assert_ptr_eq(blk_iov_contiguous(blk_iov_advance(s.iov, 2), 3), s.a + 2);
    ck_assert_ptr_eq(blk_iov_contiguous(blk_iov_advance(s.iov, 5), 1), s.b);
    ck_assert_ptr_null(blk_iov_contiguous(blk_iov_advance(s.iov, 5), 2));
    ck_assert_ptr_eq(blk_iov_contiguous(blk_iov_advance(s.iov, 6), 10), s.c);
    ck_assert_ptr_eq(blk_iov_contiguous(blk_iov_advance(s.iov, 15), 1), s.c + 9);
}
END_TEST

START_TEST(fill_is_bounded)
{
    Scattered s;
    struct iovec out[4];
    size_t done;

    scatter(&s);
    ck_assert_uint_eq(blk_iov_fill(s.iov, 16, out, 4, &done), 3);
    ck_assert_uint_eq(done, 16);
    ck_assert_ptr_eq(out[1].iov_base, s.b);
    ck_assert_uint_eq(blk_iov_fill(blk_iov_advance(s.iov, 3), 5, out, 4, &done), 3);
    ck_assert_uint_eq(done, 5);
    ck_assert_ptr_eq(out[0].iov_base, s.a + 3);
    ck_assert_uint_eq(out[0].iov_len, 2);
    ck_assert_uint_eq(out[2].iov_len, 2);
    ck_assert_uint_eq(blk_iov_fill(s.iov, 16, out, 2, &done), 2);
    ck_assert_uint_eq(done, 6);
    ck_assert_uint_eq(blk_iov_fill(s.iov, 0, out, 4, &done), 0);
    ck_assert_uint_eq(done, 0);
}
END_TEST

START_TEST(finds_a_single_byte)
{
    enum { MAX = 4200 };
    g_autofree char *buf = g_malloc0(MAX);
    static const size_t lengths[] = { 0, 1, 7, 63, 64, 65, 100, 127, 128, 129, 512, 4096, MAX - 8 };

    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        for (size_t skip = 0; skip < 8; skip++) {
            char *start = buf + skip;

            ck_assert(blk_buffer_is_zero(start, lengths[i]));
            for (size_t at = 0; at < lengths[i]; at++) {
                start[at] = 1;
                ck_assert(!blk_buffer_is_zero(start, lengths[i]));
                start[at] = 0;
            }
        }
    }
    memset(buf, 3, MAX);
    ck_assert(!blk_buffer_is_zero(buf, MAX));
}
END_TEST

START_TEST(buffers_are_aligned)
{
    static const size_t lengths[] = { 0, 1, 512, 4096, 65536, 1 << 21 };

    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        BlkNode node = { .limits.mem_align = 16384 }, easy = { .limits.mem_align = 1 };
        void *any = blk_buffer_try_alloc(NULL, lengths[i]);
        void *fitting = blk_buffer_try_alloc(&node, lengths[i]), *page = blk_buffer_try_alloc(&easy, lengths[i]);

        ck_assert_ptr_nonnull(any);
        ck_assert_ptr_nonnull(fitting);
        ck_assert_ptr_nonnull(page);
        ck_assert_uint_eq((uintptr_t)any % 4096, 0);
        ck_assert_uint_eq((uintptr_t)fitting % 16384, 0);
        ck_assert_uint_eq((uintptr_t)page % (lengths[i] < 4096 ? 512 : 4096), 0);
        memset(any, 1, lengths[i]);
        memset(fitting, 1, lengths[i]);
        blk_buffer_free(any);
        blk_buffer_free(fitting);
        blk_buffer_free(page);
    }
    blk_buffer_free(NULL);
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
START_TEST(too_large_buffer_is_null)
{
    ck_assert_ptr_null(blk_buffer_try_alloc(NULL, SIZE_MAX / 2));
    ck_assert_ptr_null(blk_buffer_try_alloc(NULL, SIZE_MAX));
}
END_TEST
#else
START_TEST(too_large_buffer_is_null)
{
}
END_TEST
#endif

START_TEST(errors_have_code_and_text)
{
    g_autoptr(GError) plain = NULL;
    g_autoptr(GError) with_errno = NULL;

    ck_assert_int_eq(blk_error(&plain, -EINVAL, "bad %s at %d", "entry", 5), -EINVAL);
    ck_assert(g_error_matches(plain, BLK_ERROR, EINVAL));
    ck_assert_str_eq(plain->message, "bad entry at 5");
    ck_assert_int_eq(blk_error_errno(&with_errno, -ENOENT, "cannot open '%s'", "100%"), -ENOENT);
    ck_assert(g_error_matches(with_errno, BLK_ERROR, ENOENT));
    ck_assert_str_eq(with_errno->message, "cannot open '100%': No such file or directory");
    ck_assert_int_eq(blk_error(NULL, -EIO, "nobody listens"), -EIO);
}
END_TEST

BLK_TEST_MAIN("iov", copies_every_range, zeroes_every_range, contiguous_only_in_one_piece, fill_is_bounded,
              finds_a_single_byte, buffers_are_aligned, too_large_buffer_is_null, errors_have_code_and_text)
