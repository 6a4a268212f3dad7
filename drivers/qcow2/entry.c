/* SPDX-License-Identifier: MIT */
/*
 * entry.c - one L2 entry (format specification, "Standard Cluster Descriptor", "Extended L2 Entries").
 *
 *     standard    | COPIED | COMPRESSED | host offset or descriptor | ZERO |
 *     extended    | COPIED | COMPRESSED | host offset or descriptor |  -   | 32 zero bits | 32 allocation bits |
 *
 * In an image with an external data file no cluster is compressed; host offsets are guest offsets there, and of offset 0
 * COPIED says that it is one.
 *
 * Of a subcluster, allocation and zero bit are never both set, and without host space the allocation bit is not set. The
 * bits of a compressed cluster mean nothing.
 */
#include "drivers/qcow2/qcow2.h"

bool qcow2_entry_has_space(const Qcow2 *q, uint64_t word)
{
    return (word & QCOW2_OFFSET_MASK) != 0 || (q->has_data_file && (word & QCOW2_COPIED));
}

bool qcow2_entry_has_own_space(const Qcow2 *q, uint64_t word)
{
    return !(word & QCOW2_COMPRESSED) && (word & QCOW2_COPIED) && qcow2_entry_has_space(q, word);
}

bool qcow2_entry_moves(const Qcow2 *q, Qcow2Entry entry)
{
    return (entry.word & QCOW2_COMPRESSED) || (entry.data != 0 && !(entry.word & QCOW2_COPIED));
}

Qcow2Entry qcow2_entry_get(const Qcow2 *q, const uint8_t *place)
{
    Qcow2Entry entry = { .word = blk_get_be64(place) };

    if (entry.word & QCOW2_COMPRESSED) {
        return entry;
    }
    if (q->header.incompatible & QCOW2_INCOMPAT_EXTENDED_L2) {
        entry.zero = blk_get_be32(place + 8);
        entry.data = blk_get_be32(place + 12);
    } else if (q->header.version >= 3 && (entry.word & QCOW2_ZERO)) {
        entry.zero = 1;
    } else {
        entry.data = qcow2_entry_has_space(q, entry.word);
    }
    entry.word &= ~QCOW2_ZERO;
    return entry;
}

void qcow2_entry_put(const Qcow2 *q, uint8_t *place, Qcow2Entry entry)
{
    if (q->header.incompatible & QCOW2_INCOMPAT_EXTENDED_L2) {
        blk_put_be64(place, entry.word);
        blk_put_be32(place + 8, entry.zero);
        blk_put_be32(place + 12, entry.data);
    } else {
        blk_put_be64(place, entry.zero ? entry.word | QCOW2_ZERO : entry.word);
    }
}

int qcow2_entry_extent(const Qcow2 *q, uint64_t word, uint64_t *offset, uint64_t *bytes)
{
    *offset = *bytes = 0;
    if (q->has_data_file) {
        return word & QCOW2_COMPRESSED ? -EIO : 0;
    }
    if (word & QCOW2_COMPRESSED) {
        if (word & QCOW2_COPIED) {
            return -EIO;
        }
        qcow2_compressed_decode(q->cluster_bits, word, offset, bytes);
        /* Offset 0 would be the header; a payload that does not shrink may reach into one more sector, never further. */
        if (*offset < q->cluster_size || *bytes > q->cluster_size + 512 || *offset >= q->host_limit - *bytes) {
            return -EIO;
        }
        return 0;
    }
    *offset = word & QCOW2_OFFSET_MASK;
    if (*offset == 0) {
        return word & QCOW2_COPIED ? -EIO : 0;
    }
    if (*offset % q->cluster_size != 0 || *offset >= q->host_limit) {
        return -EIO;
    }
    *bytes = q->cluster_size;
    return 0;
}
