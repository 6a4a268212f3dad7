/* SPDX-License-Identifier: MIT */
/*
 * damage.c - see damage.h.
 */
#include "damage.h"

#include "core/big_endian.h"
#include "core/crc32c.h"
#include "core/little_endian.h"

#include <string.h>

enum { SECTOR = 512, MOST_GROWTH = 8192 };

static guint below(GRand *rand, gsize limit)
{
    return limit ? (guint)(g_rand_int(rand) % limit) : 0;
}

static gboolean percent(GRand *rand, guint n)
{
    return below(rand, 100) < n;
}

/* A place that is not among zeroes if one is found; mostly at the begin or the end of the file. */
static guint pick_place(GRand *rand, const GByteArray *file)
{
    static const guint areas[] = { 64, 512, 4096, 65536 };
    guint area = areas[below(rand, G_N_ELEMENTS(areas))], kind = below(rand, 10), at = 0;
    area = MIN(area, file->len);

    for (guint i = 0; i < 200; i++) {
        at = kind < 4 ? below(rand, area) : kind < 6 ? file->len - 1 - below(rand, area) : below(rand, file->len);
        guint sector = at / SECTOR * SECTOR;
        for (guint j = 0; j < SECTOR && kind >= 6 && !file->data[at]; j++) {    /* the next one that says something */
            at = MIN(sector + (at + 1) % SECTOR, file->len - 1);
        }
        if (file->data[at] || percent(rand, 10)) {
            break;
        }
    }
    return at;
}

/* ---- numbers ---- */

static guint64 odd_number(GRand *rand, guint64 old, guint64 length)
{
    guint64 bit = G_GUINT64_CONSTANT(1) << below(rand, 64), few = below(rand, 4);

    switch (below(rand, 12)) {
    case 0:
        return few;
    case 1:
        return -few - 1;
    case 2:
        return bit;
    case 3:
        return bit - 1;
    case 4:
        return length - few;
    case 5:
        return length / SECTOR - few;
    case 6:
        return old + few + 1;
    case 7:
        return old - few - 1;
    case 8:
        return old * 2;
    case 9:
        return old ^ bit;
    case 10:
        return old + (few + 1) * SECTOR;
    default:
        return (guint64)g_rand_int(rand) << 32 | g_rand_int(rand);
    }
}

/* Some number of 1 to 8 bytes, in either order of bytes, becomes another. */
static void change_number(GRand *rand, guint8 *data, guint bytes, guint64 length)
{
    guint width = 1u << below(rand, 4), at;
    gboolean big = percent(rand, 50);
    guint64 old = 0, number;

    width = MIN(width, bytes);
    at = percent(rand, 50) ? 0 : bytes - width;
    for (guint i = 0; i < width; i++) {
        old |= (guint64)data[at + i] << 8 * (big ? width - 1 - i : i);
    }
    number = odd_number(rand, old, length);
    for (guint i = 0; i < width; i++) {
        data[at + i] = (guint8)(number >> 8 * (big ? width - 1 - i : i));
    }
}

/* ---- text ---- */

/* The lines of a descriptor: one goes, comes twice, or has another number. */
static void change_text(GRand *rand, GByteArray *file, guint at)
{
    guint end = at, begin = at;

    while (begin > 0 && file->data[begin - 1] != '\n') {
        begin--;
    }
    while (end < file->len && file->data[end++] != '\n') {
    }
    guint bytes = MIN(end - begin, MOST_GROWTH);
    g_autofree guint8 *line = g_memdup2(file->data + begin, bytes);
    switch (below(rand, 4)) {
    case 0:
        memset(file->data + begin, '\n', bytes);
        break;
    case 1:
        begin = below(rand, file->len);
        memcpy(file->data + begin, line, MIN(bytes, file->len - begin));
        break;
    case 2:
        file->data[at] = (guint8) "0123456789-\" \n\\/=%"[below(rand, 18)];
        break;
    default:
        for (guint i = begin; i < begin + bytes; i++) {
            if (g_ascii_isdigit(file->data[i]) && percent(rand, 50)) {
                file->data[i] = (guint8)('0' + below(rand, 10));
            }
        }
        break;
    }
}

/* ---- tables in the property list of a dmg image ---- */

/* One table in base64, whose white space stays where it is. */
static void change_base64(GRand *rand, GByteArray *file)
{
    static const char begin[] = "<data>";
    g_autoptr(GString) text = g_string_new(NULL);
    guint first = below(rand, file->len), n = 0;
    gsize bytes = 0;
    guint8 *p = NULL;

    for (guint i = 0; !p && i < 2; i++, first = 0) {
        p = memmem(file->data + first, file->len - first, begin, strlen(begin));
    }
    if (!p) {
        return;
    }
    p += strlen(begin);
    for (guint8 *q = p; q < file->data + file->len && *q != '<'; q++) {
        if (!g_ascii_isspace(*q)) {
            g_string_append_c(text, (char)*q);
        }
    }
    g_autofree guint8 *table = g_base64_decode(text->str, &bytes);
    if (bytes < 8) {
        return;
    }
    guint behind_head = 204 + below(rand, bytes) / 8 * 8, at = percent(rand, 30) ? below(rand, bytes) : behind_head;
    change_number(rand, table + MIN(at, bytes - 8), 8, file->len);
    g_autofree char *coded = g_base64_encode(table, bytes);
    for (guint8 *q = p; q < file->data + file->len && *q != '<' && coded[n]; q++) {
        if (!g_ascii_isspace(*q)) {
            *q = (guint8)coded[n++];
        }
    }
}

/* ---- checksums ---- */

/* Of a footer or header of VHD: the complement of the sum of its bytes, at @place in it. */
static void sign_vpc(GByteArray *file, guint at, guint bytes, guint place)
{
    guint sum = 0;

    if (file->len < at + bytes) {
        return;
    }
    blk_put_be32(file->data + at + place, 0);
    for (guint i = 0; i < bytes; i++) {
        sum += file->data[at + i];
    }
    blk_put_be32(file->data + at + place, ~sum);
}

static void sign_vpcs(GRand *rand, GByteArray *file)
{
    sign_vpc(file, 0, SECTOR, 64);
    sign_vpc(file, SECTOR, 2 * SECTOR, 36);
    if (file->len < 4 * SECTOR) {
        return;
    }
    if (percent(rand, 50)) {
        memcpy(file->data + file->len - SECTOR, file->data, SECTOR);
    }
    sign_vpc(file, file->len - SECTOR, SECTOR, 64);
}

/* Headers, region tables and entries of the log, wherever they stand. */
static void sign_vhdx(GByteArray *file)
{
    for (guint at = 65536; at + 4096 <= file->len && at < 4 << 20; at += 4096) {
        guint8 *p = file->data + at;
        guint bytes = memcmp(p, "head", 4) == 0 ? 4096 : memcmp(p, "regi", 4) == 0 ? 65536
                      : memcmp(p, "loge", 4) == 0 ? blk_get_le32(p + 8) : 0;

        if (bytes >= 8 && bytes <= file->len - at) {
            blk_put_le32(p + 4, 0);
            blk_put_le32(p + 4, blk_crc32c(0, p, bytes));
        }
    }
}

static void sign(GRand *rand, GByteArray *file, const char *format)
{
    if (percent(rand, 20)) {
        return;
    }
    if (strcmp(format, "vpc") == 0) {
        sign_vpcs(rand, file);
    } else if (strcmp(format, "vhdx") == 0) {
        sign_vhdx(file);
    }
}

/* ---- all ---- */

static void change_length(GRand *rand, GByteArray *file)
{
    guint old = file->len, less = below(rand, MOST_GROWTH);
    guint length = percent(rand, 50) ? old - MIN(old, less) : below(rand, old);

    if (percent(rand, 30)) {
        length = old + below(rand, MOST_GROWTH);
    }
    if (percent(rand, 50)) {
        length -= length % SECTOR;
    }
    g_byte_array_set_size(file, length);
    if (length > old) {
        memset(file->data + old, 0, length - old);
    }
}

static void move_piece(GRand *rand, GByteArray *file, guint at)
{
    guint from = pick_place(rand, file), unit = percent(rand, 50) ? 4 : SECTOR;

    from -= from % unit;
    at -= at % unit;
    memmove(file->data + at, file->data + from, MIN(unit, file->len - MAX(at, from)));
}

static void change_once(GRand *rand, GByteArray *file, const char *format)
{
    guint at = pick_place(rand, file), width = MIN(8, file->len - at), kind = below(rand, 20);
    gboolean is_text = strcmp(format, "vmdk") == 0 && g_ascii_isprint(file->data[at]) && at < 16384;

    if (strcmp(format, "dmg") == 0 && percent(rand, 60)) {
        change_base64(rand, file);
    } else if (is_text && percent(rand, 60)) {
        change_text(rand, file, at);
    } else if (kind == 0) {
        file->data[at] ^= (guint8)(1 << below(rand, 8));
    } else if (kind == 1) {
        memset(file->data + at, percent(rand, 50) ? 0 : 255, width);
    } else if (kind == 2) {
        move_piece(rand, file, at);
    } else if (kind == 3) {
        change_length(rand, file);
    } else {
        at -= at % (percent(rand, 90) ? 4 : 1);
        change_number(rand, file->data + at, MIN(8, file->len - at), file->len);
    }
}

void damage_file(GRand *rand, GByteArray *file, const char *format)
{
    guint times = percent(rand, 60) ? 1 : 1 + below(rand, percent(rand, 80) ? 4 : 20);

    for (guint i = 0; i < times && file->len > 0; i++) {
        change_once(rand, file, format);
    }
    sign(rand, file, format);
}
