/* SPDX-License-Identifier: MIT */
/*
 * test_codec.c - deflate and zstd: round trips, damaged and hostile payloads, other implementations, many threads.
 */
#include "config.h"
#include "test.h"

#include <core/codec.h>
#include <zlib.h>
#include <zstd.h>

#define CLUSTER 65536

typedef enum Kind { ZEROES, TEXT, NOISE, DISTANT, KINDS } Kind;

/* What a guest may write; DISTANT repeats itself only at a distance that needs a window of 32 KiB. */
static void fill(uint8_t *data, size_t bytes, Kind kind, guint32 seed)
{
    static const char *const words[] = { "block ", "node ", "cluster ", "filter ", "the ", "of ", "\n", "0x7f " };
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

    for (size_t i = 0; i < bytes;) {
        if (kind == TEXT) {
            const char *word = words[g_rand_int_range(rand, 0, G_N_ELEMENTS(words))];

            for (; *word != '\0' && i < bytes; word++) {
                data[i++] = *word;
            }
        } else {
            data[i] = kind == ZEROES ? 0 : kind == DISTANT && i >= 30000 ? data[i - 30000] : g_rand_int(rand);
            i++;
        }
    }
}

static BlkCodec *new_codec(BlkCodecType type, int level)
{
    GError *error = NULL;
    BlkCodec *codec = blk_codec_new(type, level, &error);

    ck_assert_msg(codec != NULL, "%s", error != NULL ? error->message : "");
    return codec;
}

static size_t pack(BlkCodecType type, uint8_t *dst, size_t dst_bytes, const uint8_t *src, size_t src_bytes)
{
    BlkCodec *codec = new_codec(type, -1);
    gssize bytes = blk_codec_compress(codec, 0, dst, dst_bytes, src, src_bytes);

    blk_codec_free(codec);
    ck_assert_int_gt(bytes, 0);
    return bytes;
}

static int unpack(BlkCodecType type, uint8_t *dst, size_t dst_bytes, const uint8_t *src, size_t src_bytes)
{
    /* An exact copy, so that a sanitizer sees a read past its end. */
    g_autofree uint8_t *exact = g_memdup2(src, src_bytes);
    BlkCodec *codec = new_codec(type, -1);
    int ret = blk_codec_decompress(codec, dst, dst_bytes, exact, src_bytes);

    blk_codec_free(codec);
    return ret;
}

static const BlkCodecType types[] = { BLK_CODEC_DEFLATE, BLK_CODEC_ZLIB, BLK_CODEC_ZSTD };

static void check_round_trip(const BlkCodec *codec, size_t bytes, Kind kind)
{
    g_autofree uint8_t *src = g_malloc(bytes), *back = g_malloc(bytes), *dst = g_malloc(bytes + 1024);
    gssize length;

    fill(src, bytes, kind, bytes);
    length = blk_codec_compress(codec, 0, dst, bytes - 1, src, bytes);
    if (kind == NOISE) {
        ck_assert_int_eq(length, -ENOSPC);
        length = blk_codec_compress(codec, 0, dst, bytes + 1024, src, bytes);
    }
    ck_assert_int_gt(length, 0);
    ck_assert(kind == NOISE || length < (gssize)bytes);
    memset(dst + length, 0xa5, bytes + 1024 - length);      /* what follows is ignored */
    ck_assert_int_eq(blk_codec_decompress(codec, back, bytes, dst, bytes + 1024), 0);
    ck_assert(memcmp(src, back, bytes) == 0);
    memset(back, 0, bytes);
    ck_assert_int_eq(blk_codec_decompress(codec, back, bytes, dst, length), 0);
    ck_assert(memcmp(src, back, bytes) == 0);
}

START_TEST(test_round_trips)
{
    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        BlkCodec *codec = new_codec(types[t], -1);

        for (size_t bytes = 512; bytes <= 2 << 20; bytes *= 4) {
            check_round_trip(codec, bytes, ZEROES);
            check_round_trip(codec, bytes, TEXT);
            check_round_trip(codec, bytes, NOISE);
        }
        check_round_trip(codec, 2 << 20, DISTANT);
        blk_codec_free(codec);
    }
}
END_TEST

START_TEST(test_levels)
{
    static const int levels[] = { 1, 9, 3 };

    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        for (size_t i = 0; i < G_N_ELEMENTS(levels); i++) {
            BlkCodec *codec = new_codec(types[t], levels[i]);

            check_round_trip(codec, CLUSTER, TEXT);
            blk_codec_free(codec);
        }
    }
}
END_TEST

/* What decodes to less fills up with zeroes where that is allowed; what decodes to more is an error all the same. */
START_TEST(test_short)
{
    static const BlkCodecType deflates[] = { BLK_CODEC_DEFLATE, BLK_CODEC_ZLIB };
    uint8_t src[1000], dst[2000], back[1500];

    for (size_t t = 0; t < G_N_ELEMENTS(deflates); t++) {
        BlkCodec *codec = new_codec(deflates[t], -1);

        fill(src, sizeof(src), TEXT, 1);
        gssize length = blk_codec_compress(codec, 0, dst, sizeof(dst), src, sizeof(src));
        ck_assert_int_gt(length, 0);
        memset(back, 0xa5, sizeof(back));
        ck_assert_int_eq(blk_codec_decompress(codec, back, sizeof(back), dst, length), -EIO);
        memset(back, 0xa5, sizeof(back));
        ck_assert_int_eq(blk_codec_decompress_short(codec, back, sizeof(back), dst, length), 0);
        ck_assert(memcmp(src, back, sizeof(src)) == 0);
        ck_assert(blk_buffer_is_zero(back + sizeof(src), sizeof(back) - sizeof(src)));
        ck_assert_int_eq(blk_codec_decompress_short(codec, back, sizeof(src) - 1, dst, length), -EIO);
        ck_assert_int_eq(blk_codec_decompress_short(codec, back, sizeof(back), dst, length / 2), -EIO);
        blk_codec_free(codec);
    }
}
END_TEST

/* Zlib streams are those of the field: the header names deflate, the end is a checksum. */
START_TEST(test_zlib)
{
    static const uint8_t stored[] = { 0x78, 0x01, 0x01, 0x03, 0x00, 0xfc, 0xff, 'a', 'b', 'c', 0x02, 0x4d, 0x01, 0x27 };
    uint8_t src[4096], dst[8192], back[4096], wrong[sizeof(stored)];

    ck_assert_int_eq(unpack(BLK_CODEC_ZLIB, back, 3, stored, sizeof(stored)), 0);
    ck_assert(memcmp(back, "abc", 3) == 0);
    memcpy(wrong, stored, sizeof(stored));
    wrong[13] ^= 1;
    ck_assert_int_eq(unpack(BLK_CODEC_ZLIB, back, 3, wrong, sizeof(wrong)), -EIO);
    fill(src, sizeof(src), TEXT, 1);
    size_t length = pack(BLK_CODEC_ZLIB, dst, sizeof(dst), src, sizeof(src));
    ck_assert_uint_eq(dst[0], 0x78);
    ck_assert_uint_eq((dst[0] << 8 | dst[1]) % 31, 0);
    ck_assert_int_eq(unpack(BLK_CODEC_DEFLATE, back, sizeof(back), dst + 2, length - 6), 0);
    ck_assert(memcmp(src, back, sizeof(src)) == 0);
}
END_TEST

/* Whatever does not compress fits in the bound. */
START_TEST(test_bound)
{
    static const size_t sizes[] = { 1, 512, 4096, 65535, 65536, 1 << 20, 2 << 20 };

    for (size_t t = 0; t < 2; t++) {
        BlkCodec *codec = new_codec(types[t], -1);

        for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
            g_autofree uint8_t *src = g_malloc(sizes[i]), *dst = g_malloc(blk_codec_bound(sizes[i]));

            fill(src, sizes[i], NOISE, i);
            ck_assert_int_gt(blk_codec_compress(codec, 0, dst, blk_codec_bound(sizes[i]), src, sizes[i]), 0);
        }
        blk_codec_free(codec);
    }
}
END_TEST

START_TEST(test_wrong_levels)
{
    static const int wrong[] = { 0, -2, 23, 100, G_MININT, G_MAXINT };

    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
            g_autoptr(GError) error = NULL;

            ck_assert_ptr_null(blk_codec_new(types[t], wrong[i], &error));
            ck_assert_ptr_nonnull(error);
            ck_assert_int_eq(error->code, EINVAL);
        }
    }
    blk_codec_free(NULL);
}
END_TEST

/* -ENOSPC up to the length that it needs, and never a byte behind what it was given. */
START_TEST(test_room)
{
    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        BlkCodec *codec = new_codec(types[t], -1);
        uint8_t src[4096], dst[4096 + 1];
        size_t needed;

        fill(src, sizeof(src), TEXT, 3);
        needed = pack(types[t], dst, sizeof(src), src, sizeof(src));
        for (size_t room = 1; room <= sizeof(src); room += 7) {
            gssize ret;

            memset(dst, 0x5a, sizeof(dst));
            ret = blk_codec_compress(codec, 0, dst, room, src, sizeof(src));
            ck_assert_uint_eq(dst[room], 0x5a);
            ck_assert(ret == -ENOSPC || (ret > 0 && (size_t)ret <= room));
            ck_assert(room >= needed || ret == -ENOSPC);
            ck_assert(room < needed + 64 || ret > 0);
        }
        blk_codec_free(codec);
    }
}
END_TEST

START_TEST(test_truncated)
{
    g_autofree uint8_t *src = g_malloc(CLUSTER), *dst = g_malloc(CLUSTER), *back = g_malloc(CLUSTER);

    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        size_t length;

        fill(src, CLUSTER, TEXT, 5);
        length = pack(types[t], dst, CLUSTER, src, CLUSTER);
        for (size_t cut = 0; cut < length; cut += cut < 64 || cut + 64 > length ? 1 : 61) {
            ck_assert_int_eq(unpack(types[t], back, CLUSTER, dst, cut), -EIO);
        }
        ck_assert_int_eq(unpack(types[t], back, CLUSTER, dst, length), 0);
    }
}
END_TEST

/* Decodes to less or to more than the cluster; a bomb is more by far. */
START_TEST(test_wrong_length)
{
    size_t bomb_bytes = 64 << 20;
    g_autofree uint8_t *src = g_malloc0(bomb_bytes), *dst = g_malloc(bomb_bytes), *back = g_malloc(CLUSTER + 1);

    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        size_t length = pack(types[t], dst, CLUSTER, src, CLUSTER);

        ck_assert_int_eq(unpack(types[t], back, CLUSTER - 1, dst, length), -EIO);
        back[CLUSTER] = 0x5a;
        ck_assert_int_eq(unpack(types[t], back, CLUSTER + 1, dst, length), -EIO);
        length = pack(types[t], dst, bomb_bytes, src, bomb_bytes);
        back[CLUSTER] = 0x5a;
        ck_assert_int_eq(unpack(types[t], back, CLUSTER, dst, length), -EIO);
        ck_assert_uint_eq(back[CLUSTER], 0x5a);
    }
}
END_TEST

START_TEST(test_garbage)
{
    guint32 seed = 97;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    uint8_t src[600], back[4096];

    g_print("# seed %u\n", seed);
    for (unsigned i = 0; i < 20000; i++) {
        size_t bytes = g_rand_int_range(rand, 0, sizeof(src));

        for (size_t j = 0; j < bytes; j++) {
            src[j] = g_rand_int(rand);
        }
        if (i % 2 == 0 && bytes >= 4) {
            memcpy(src, "\x28\xb5\x2f\xfd", 4);
        }
        for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
            int ret = unpack(types[t], back, sizeof(back), src, bytes);

            ck_assert(ret == -EIO || (ret == 0 && types[t] == BLK_CODEC_DEFLATE));
        }
    }
}
END_TEST

/* ---- zstd only ---- */

/* A bit may be without meaning, or another way of saying the same; never does it decode to other data. */
START_TEST(test_zstd_flipped_bits)
{
    uint8_t src[4096], dst[4096], back[4096];
    size_t length, same = 0;

    fill(src, sizeof(src), TEXT, 11);
    length = pack(BLK_CODEC_ZSTD, dst, sizeof(dst), src, sizeof(src));
    for (size_t bit = 0; bit < length * 8; bit++) {
        int ret;

        dst[bit / 8] ^= 1 << bit % 8;
        ret = unpack(BLK_CODEC_ZSTD, back, sizeof(back), dst, length);
        ck_assert(ret == -EIO || (ret == 0 && memcmp(src, back, sizeof(src)) == 0));
        same += ret == 0;
        dst[bit / 8] ^= 1 << bit % 8;
    }
    ck_assert_uint_lt(same, length * 8 / 20);
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, sizeof(back), dst, length), 0);
}
END_TEST

START_TEST(test_zstd_several_frames)
{
    static const uint8_t skippable[] = { 0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3 };
    static const uint8_t skippable_lies[] = { 0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1 };
    g_autofree uint8_t *src = g_malloc(CLUSTER), *dst = g_malloc(CLUSTER), *back = g_malloc(CLUSTER);
    size_t half = CLUSTER / 2, at = 0, first;

    fill(src, CLUSTER, TEXT, 13);
    memcpy(dst, skippable, sizeof(skippable));
    at += sizeof(skippable);
    first = pack(BLK_CODEC_ZSTD, dst + at, CLUSTER - at, src, half);
    at += first;
    at += ZSTD_compress(dst + at, CLUSTER - at, src, 0, 3);     /* a frame of nothing */
    memcpy(dst + at, skippable, sizeof(skippable));
    at += sizeof(skippable);
    at += pack(BLK_CODEC_ZSTD, dst + at, CLUSTER - at, src + half, half);
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, CLUSTER, dst, at), 0);
    ck_assert(memcmp(src, back, CLUSTER) == 0);
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, CLUSTER, dst, at - 1), -EIO);
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, CLUSTER - 1, dst, at), -EIO);
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, CLUSTER, dst, sizeof(skippable)), -EIO);
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, CLUSTER, skippable_lies, sizeof(skippable_lies)), -EIO);
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, half, dst, sizeof(skippable) + first), 0);
    /* Room for nothing more, and what follows is garbage: it is not looked at. */
    memset(dst + sizeof(skippable) + first, 0xff, 32);
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, half, dst, sizeof(skippable) + first + 32), 0);
}
END_TEST

/* A frame whose header asks for a window of 2 GiB, with one raw block of 5 bytes. */
START_TEST(test_zstd_huge_window)
{
    static const uint8_t frame[] = {
        0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x29, 0x00, 0x00, 'h', 'e', 'l', 'l', 'o',
    };
    uint8_t wider[sizeof(frame)], back[5];

    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, sizeof(back), frame, sizeof(frame)), 0);
    ck_assert(memcmp(back, "hello", 5) == 0);
    memcpy(wider, frame, sizeof(frame));
    wider[5] = 0xff;        /* 3.75 TiB */
    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, sizeof(back), wider, sizeof(wider)), -EIO);
}
END_TEST

/* Content size in the header that the blocks do not have. */
START_TEST(test_zstd_lying_content_size)
{
    static const uint8_t frame[] = {
        0x28, 0xb5, 0x2f, 0xfd, 0xe0, 5, 0, 0, 0, 0, 0, 0, 0, 0x29, 0x00, 0x00, 'h', 'e', 'l', 'l', 'o',
    };
    uint8_t lies[sizeof(frame)], back[5];

    ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, sizeof(back), frame, sizeof(frame)), 0);
    for (unsigned i = 5; i < 13; i++) {
        memcpy(lies, frame, sizeof(frame));
        lies[i] ^= 0x80;
        ck_assert_int_eq(unpack(BLK_CODEC_ZSTD, back, sizeof(back), lies, sizeof(lies)), -EIO);
    }
}
END_TEST

START_TEST(test_zstd_has_checksum)
{
    uint8_t src[4096], dst[4096];

    fill(src, sizeof(src), TEXT, 17);
    pack(BLK_CODEC_ZSTD, dst, sizeof(dst), src, sizeof(src));
    ck_assert(dst[4] & 0x04);       /* the flag in the frame header's descriptor */
}
END_TEST

/* ---- deflate against zlib ---- */

static size_t zlib_deflate(int window_bits, uint8_t *dst, size_t dst_bytes, const uint8_t *src, size_t src_bytes)
{
    z_stream stream = { .next_in = (Bytef *)src, .avail_in = src_bytes, .next_out = dst, .avail_out = dst_bytes };

    ck_assert_int_eq(deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 9, Z_DEFAULT_STRATEGY), Z_OK);
    ck_assert_int_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return stream.total_out;
}

/* As readers of images do it: one call, a window of 4 KiB, the whole cluster as the buffer. */
static void check_zlib_inflates(int window_bits, const uint8_t *payload, size_t payload_bytes, const uint8_t *expected,
                                size_t bytes)
{
    g_autofree uint8_t *back = g_malloc(bytes);
    z_stream stream = {
        .next_in = (Bytef *)payload, .avail_in = payload_bytes, .next_out = back, .avail_out = bytes,
    };

    ck_assert_int_eq(inflateInit2(&stream, window_bits), Z_OK);
    ck_assert_int_eq(inflate(&stream, Z_FINISH), Z_STREAM_END);
    inflateEnd(&stream);
    ck_assert_uint_eq(stream.total_out, bytes);
    ck_assert(memcmp(back, expected, bytes) == 0);
}

START_TEST(test_deflate_and_zlib)
{
    for (size_t bytes = 512; bytes <= 2 << 20; bytes *= 16) {
        g_autofree uint8_t *src = g_malloc(bytes), *dst = g_malloc(2 * bytes + 64), *back = g_malloc(bytes);

        for (Kind kind = 0; kind < KINDS; kind++) {
            size_t length;

            fill(src, bytes, kind, 19);
            for (int window_bits = 12; window_bits <= 15; window_bits += 3) {
                length = zlib_deflate(-window_bits, dst, 2 * bytes + 64, src, bytes);
                ck_assert_int_eq(unpack(BLK_CODEC_DEFLATE, back, bytes, dst, length), 0);
                ck_assert(memcmp(src, back, bytes) == 0);
            }
            length = pack(BLK_CODEC_DEFLATE, dst, 2 * bytes + 64, src, bytes);
            check_zlib_inflates(-12, dst, length, src, bytes);
            check_zlib_inflates(-15, dst, length, src, bytes);
        }
    }
}
END_TEST

/* ---- on the worker pool ---- */

#define TASKS 64

typedef struct Task {
    const BlkCodec *codec;
    guint32 seed;
    unsigned *done;
} Task;

static int co_task(void *opaque)
{
    Task *task = opaque;
    g_autofree uint8_t *src = g_malloc(CLUSTER), *dst = g_malloc(CLUSTER), *back = g_malloc(CLUSTER);
    gssize length;

    for (unsigned i = 0; i < 4; i++) {
        fill(src, CLUSTER, TEXT, task->seed + i);
        length = blk_co_codec_compress(task->codec, 0, dst, CLUSTER, src, CLUSTER);
        ck_assert_int_gt(length, 0);
        ck_assert_int_eq(blk_co_codec_decompress(task->codec, back, CLUSTER, dst, length), 0);
        ck_assert(memcmp(src, back, CLUSTER) == 0);
        ck_assert_int_eq(blk_co_codec_compress(task->codec, 0, dst, 10, src, CLUSTER), -ENOSPC);
        ck_assert_int_eq(blk_co_codec_decompress(task->codec, back, CLUSTER, dst, 10), -EIO);
    }
    ++*task->done;
    return 0;
}

static int co_all(void *opaque)
{
    BlkCodec *codecs[] = {
        new_codec(BLK_CODEC_DEFLATE, -1), new_codec(BLK_CODEC_ZSTD, -1), new_codec(BLK_CODEC_DEFLATE, 6),
        new_codec(BLK_CODEC_ZSTD, 1),
    };
    BlkCoGroup group = BLK_CO_GROUP_INIT(TASKS);
    Task tasks[TASKS];
    unsigned done = 0;

    for (unsigned i = 0; i < TASKS; i++) {
        tasks[i] = (Task){ .codec = codecs[i % G_N_ELEMENTS(codecs)], .seed = i, .done = &done };
        ck_assert_int_eq(blk_co_group_run(&group, co_task, &tasks[i]), 0);
    }
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    ck_assert_uint_eq(done, TASKS);
    for (size_t i = 0; i < G_N_ELEMENTS(codecs); i++) {
        blk_codec_free(codecs[i]);
    }
    return 0;
}

START_TEST(test_many_threads)
{
    GError *error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, &error);

    ck_assert_msg(ctx != NULL, "%s", error != NULL ? error->message : "");
    ck_assert_int_eq(blk_run(ctx, co_all, NULL), 0);
}
END_TEST

BLK_TEST_MAIN("codec", test_round_trips, test_levels, test_short, test_zlib, test_bound, test_wrong_levels, test_room,
              test_truncated, test_wrong_length, test_garbage, test_zstd_flipped_bits, test_zstd_several_frames,
              test_zstd_huge_window, test_zstd_lying_content_size, test_zstd_has_checksum, test_deflate_and_zlib,
              test_many_threads)
