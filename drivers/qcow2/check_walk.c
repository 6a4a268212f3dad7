/* SPDX-License-Identifier: MIT */
/*
 * check_walk.c - walks over all L1 and L2 tables: who refers to which cluster, and which entries cannot be.
 *
 *     L1 tables, all entries: judged, counted -> places of L2 tables, each once -> their entries: judged, counted
 *
 * Each L2 table is read once, in the order of the file, and counted as often as L1 entries point to it, so the time is
 * bounded by the length of the file, also where tables overlap or point in circles. When there are more L2 tables than
 * fit in memory they are taken in several rounds.
 *
 * Repairs: guest data on a table is copied to the end of the file (whatever is right, the table or the mapping, the
 * guest reads the same before and after), and so is what more refer to than a count can say, L2 tables first; an entry
 * that cannot be is given up, and the guest reads zeroes there (version 2 with a backing file: what the backing has).
 */
#include "drivers/qcow2/check.h"

enum { L1_PART = 1 << 20, MAX_TABLES = 1 << 20, AVOID_CLUSTERS = 1 << 16 };

/* The whole file is one cluster for judging: what does not depend on the window is said in the first one only. */
static bool first_window(const Qcow2Check *check)
{
    return check->first == 0;
}

static bool in_window(const Qcow2Check *check, uint64_t offset)
{
    const uint64_t cluster = offset >> check->cluster_bits;

    return cluster >= check->first && cluster < check->end;
}

/* ---- COPIED ---- */

/* Compares the flag of @entry, which refers to a cluster of the window, with what it should be; corrects it in the step
 * FLAGS. Returns: whether *entry was changed. */
static bool judge_copied(Qcow2Check *check, uint64_t *entry, bool l2, uint64_t l1_index)
{
    const uint64_t offset = *entry & QCOW2_OFFSET_MASK;
    const bool fix = check->step == QCOW2_CHECK_FLAGS;
    uint32_t counter;
    bool one;

    if (offset == 0 || !in_window(check, offset) || (check->step != QCOW2_CHECK_LOOK && !fix)) {
        return false;
    }
    counter = qcow2_check_counter(check, offset >> check->cluster_bits);
    one = fix ? (counter & QCOW2_REFS_MAX) == 1 : (counter & QCOW2_REFS_IS_ONE) != 0;
    if (one == !!(*entry & QCOW2_COPIED)) {
        return false;
    }
    if (!fix) {
        if (l2) {
            qcow2_check_found(check, &check->found.flags, "ERROR OFLAG_COPIED data cluster: l2_entry=%" PRIx64
                              " refcount is%s 1", *entry, one ? "" : " not");
        } else {
            qcow2_check_found(check, &check->found.flags, "ERROR OFLAG_COPIED L2 cluster: l1_index=%" PRIu64
                              " l1_entry=%" PRIx64 " refcount is%s 1", l1_index, *entry, one ? "" : " not");
        }
        return false;
    }
    if (l2) {
        qcow2_check_repaired(check, "Repairing OFLAG_COPIED data cluster: l2_entry=%" PRIx64, *entry);
    } else {
        qcow2_check_repaired(check, "Repairing OFLAG_COPIED L2 cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64,
                             l1_index, *entry);
    }
    *entry ^= QCOW2_COPIED;
    return true;
}

/* ---- L1 ---- */

/* Says which part of whose disk is meant. */
static char *describe_l1_range(const Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t index)
{
    const uint64_t bytes = check->cluster_size << check->l2_bits;

    return g_strdup_printf("guest offset %#" PRIx64 " to %#" PRIx64 "%s%s", index * bytes, (index + 1) * bytes - 1,
                           l1->snapshot ? " of snapshot " : "", l1->snapshot ? l1->snapshot : "");
}

/* (nullable): why no L2 table can be at @offset. */
static const char *why_no_table(const Qcow2Check *check, uint64_t offset)
{
    if ((offset & (check->cluster_size - 1)) != 0) {
        return "table is not cluster aligned";
    }
    if (!qcow2_check_inside(check, offset, check->cluster_size)) {
        return "table is outside the file";
    }
    return qcow2_check_region_at(check, offset >> check->cluster_bits);
}

/* Judges *@entry. Returns: whether it was changed. */
static bool judge_l1_entry(Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t index, uint64_t *entry)
{
    const uint64_t offset = *entry & QCOW2_OFFSET_MASK;
    const char *why = offset == 0 ? NULL : why_no_table(check, offset);

    if (why != NULL) {
        g_autofree char *range = describe_l1_range(check, l1, index);

        if (check->step == QCOW2_CHECK_CLEAN) {
            qcow2_check_repaired(check, "Repairing L1 entry %" PRIu64 ", l2_offset=%" PRIx64 " (%s): %s is given up",
                                 index, offset, why, range);
            *entry = 0;
            return true;
        }
        if (check->step == QCOW2_CHECK_LOOK && first_window(check)) {
            qcow2_check_found(check, &check->found.entries, "ERROR L1 entry %" PRIu64 ", l2_offset=%" PRIx64
                              " (%s): %s cannot be read", index, offset, why, range);
        }
        return false;
    }
    const uint64_t forbidden = offset == 0 ? UINT64_MAX : QCOW2_L1_RESERVED;

    if (*entry & forbidden) {
        if (check->step == QCOW2_CHECK_CLEAN) {
            qcow2_check_repaired(check, "Repairing L1 entry with reserved bits set: %" PRIx64, *entry);
            *entry &= ~forbidden;
            return true;
        }
        if (check->step == QCOW2_CHECK_LOOK && first_window(check)) {
            qcow2_check_found(check, &check->found.entries, "ERROR found L1 entry with reserved bits set: %" PRIx64,
                              *entry);
        }
    }
    return l1->snapshot == NULL && judge_copied(check, entry, false, index);
}

/* 1: *entry was changed; 0: it was not; an error of a repair. */
typedef int L1Visit(Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t index, uint64_t *entry);

/* Writes a table that was changed. */
static int co_write_table(Qcow2Check *check, uint64_t offset, uint64_t bytes, const uint8_t *buf)
{
    const bool copied = check->step == QCOW2_CHECK_MOVE || check->step == QCOW2_CHECK_UNSHARE;
    int ret = copied ? blk_co_flush(check->file) : 0;   /* what was copied is there before the table says so */

    return ret == 0 ? qcow2_check_co_write(check, offset, bytes, buf) : ret;
}

/* Calls @visit for each entry that is not 0, and writes what it changes. */
static int walk_l1(Qcow2Check *check, const Qcow2CheckL1 *l1, L1Visit *visit, uint8_t *buf)
{
    int ret = 0;

    for (uint64_t pos = 0; ret == 0 && pos < l1->entries * 8; pos += L1_PART) {
        const uint64_t bytes = MIN(L1_PART, l1->entries * 8 - pos);
        bool changed = false;

        if (qcow2_check_co_is_hole(check, l1->offset + pos, bytes) ||
            qcow2_check_co_read(check, l1->offset + pos, bytes, buf) < 0) {
            continue;
        }
        for (uint64_t i = 0; i < bytes; i += 8) {
            uint64_t entry = blk_get_be64(buf + i);

            ret = entry == 0 ? 0 : visit(check, l1, (pos + i) / 8, &entry);
            if (ret < 0) {
                return ret;
            }
            if (ret > 0) {
                blk_put_be64(buf + i, entry);
                changed = true;
            }
        }
        ret = changed ? co_write_table(check, l1->offset + pos, bytes, buf) : 0;
    }
    return ret;
}

static int walk_all_l1(Qcow2Check *check, L1Visit *visit)
{
    g_autofree uint8_t *buf = g_try_malloc(L1_PART);
    int ret = buf == NULL ? -ENOMEM : 0;

    for (guint i = 0; ret == 0 && i < check->l1s->len; i++) {
        const Qcow2CheckL1 *l1 = g_ptr_array_index(check->l1s, i);

        ret = l1->bad ? 0 : walk_l1(check, l1, visit, buf);
    }
    return ret;
}

static int judge_only(Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t index, uint64_t *entry)
{
    const bool changed = judge_l1_entry(check, l1, index, entry);
    const uint64_t offset = *entry & QCOW2_OFFSET_MASK;

    if (offset != 0 && why_no_table(check, offset) == NULL) {
        qcow2_check_count(check, offset, check->cluster_size, 0, QCOW2_REFS_IS_TABLE);
    }
    return changed;
}

static int judge_and_count(Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t index, uint64_t *entry)
{
    const bool changed = judge_only(check, l1, index, entry);
    const uint64_t offset = *entry & QCOW2_OFFSET_MASK;

    if (offset != 0 && why_no_table(check, offset) == NULL) {
        qcow2_check_count(check, offset, check->cluster_size, 1, 0);
    }
    return changed;
}

/* The table has more references than a count can say: gives this one a table of its own, at the end of the file. */
static int co_unshare(Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t index, uint64_t *entry)
{
    const uint64_t offset = *entry & QCOW2_OFFSET_MASK, place = qcow2_check_new_place(check);
    g_autofree uint8_t *table = NULL;
    int ret;

    if (offset == 0 || why_no_table(check, offset) != NULL || !in_window(check, offset) ||
        qcow2_check_refs(check, offset >> check->cluster_bits) <= qcow2_refcount_max(check->header.refcount_order) ||
        qcow2_check_may_copy(check, check->cluster_size) < 0) {
        return 0;
    }
    table = g_try_malloc(check->cluster_size);
    if (table == NULL) {
        return -ENOMEM;
    }
    ret = qcow2_check_co_read(check, offset, check->cluster_size, table);
    if (ret == 0) {
        ret = qcow2_check_co_write(check, place, check->cluster_size, table);
    }
    if (ret < 0) {
        return ret;
    }
    qcow2_check_uncount(check, offset, check->cluster_size, 1);
    qcow2_check_count(check, place, check->cluster_size, 1, 0);
    qcow2_check_repaired(check, "Repairing L1 entry %" PRIu64 "%s%s, l2_offset=%" PRIx64 ": too many refer to the table, and "
                         "this one gets a copy", index, l1->snapshot ? " of snapshot " : "",
                         l1->snapshot ? l1->snapshot : "", offset);
    *entry = (*entry & ~(QCOW2_OFFSET_MASK | QCOW2_COPIED)) | place;
    return 1;
}

int qcow2_check_co_unshare_tables(Qcow2Check *check)
{
    return walk_all_l1(check, co_unshare);
}

/* ---- the places of L2 tables ---- */

static int table_compare(const void *a, const void *b)
{
    const Qcow2CheckTable *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Makes one of all that are at the same place. */
static void merge_tables(Qcow2Check *check)
{
    Qcow2CheckTable *table = (Qcow2CheckTable *)(void *)check->tables->data;
    guint kept = 0;

    g_array_sort(check->tables, table_compare);
    for (guint i = 0; i < check->tables->len; i++) {
        Qcow2CheckTable *last = kept > 0 ? &table[kept - 1] : NULL;

        if (last == NULL || last->offset != table[i].offset) {
            table[kept++] = table[i];
            continue;
        }
        last->refs = MIN((uint64_t)last->refs + table[i].refs, QCOW2_REFS_MAX);
        if (table[i].active && (!last->active || table[i].l1_index < last->l1_index)) {
            last->l1_index = table[i].l1_index;
            last->active = true;
        }
    }
    g_array_set_size(check->tables, kept);
}

static int collect_table(Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t index, uint64_t *entry)
{
    Qcow2CheckTable table = { .offset = *entry & QCOW2_OFFSET_MASK, .refs = 1, .l1_index = index,
                              .active = !l1->snapshot };

    if (table.offset < MAX(check->table_first, 1) || table.offset >= check->table_end ||
        why_no_table(check, table.offset) != NULL) {
        return 0;
    }
    if (check->tables->len == MAX_TABLES) {
        merge_tables(check);
        if (check->tables->len > MAX_TABLES / 2) {
            check->table_end = g_array_index(check->tables, Qcow2CheckTable, MAX_TABLES / 2).offset;
            g_array_set_size(check->tables, MAX_TABLES / 2);
        }
        if (table.offset >= check->table_end) {
            return 0;
        }
    }
    g_array_append_val(check->tables, table);
    return 0;
}

/* ---- L2 ---- */

/* An entry as it is judged: where it lies, and what it refers to. */
typedef struct L2Entry {
    uint8_t *place;
    uint64_t word;
    uint64_t guest;                 /* offset */
    uint64_t offset, bytes;         /* in the file; 0 bytes: nothing */
    const Qcow2CheckTable *table;
} L2Entry;

/* What the entry refers to; flags that are wrong do not matter. */
static void set_extent(const Qcow2Check *check, L2Entry *e)
{
    if (e->word & QCOW2_COMPRESSED) {
        qcow2_compressed_decode(check->cluster_bits, e->word & ~QCOW2_COPIED, &e->offset, &e->bytes);
    } else {
        e->offset = e->word & QCOW2_OFFSET_MASK;
        e->bytes = e->offset == 0 || check->has_data_file ? 0 : check->cluster_size;
    }
}

/* Does the plain entry say that there is space for data? In a data file that may be at offset 0. */
static bool has_space(const Qcow2Check *check, uint64_t word)
{
    return (word & QCOW2_OFFSET_MASK) != 0 || (check->has_data_file && (word & QCOW2_COPIED));
}

static uint64_t forbidden_bits(const Qcow2Check *check, uint64_t word)
{
    const bool zero_flag = check->header.version >= 3 && check->l2_entry_bytes == 8;

    if (word & QCOW2_COMPRESSED) {
        return QCOW2_COPIED;
    }
    return QCOW2_L2_RESERVED | (zero_flag ? 0 : QCOW2_ZERO) | (has_space(check, word) ? 0 : QCOW2_COPIED);
}

bool qcow2_check_reads_as_l2(const Qcow2Check *check, const uint8_t *buf)
{
    for (uint64_t pos = 0; pos < check->cluster_size; pos += check->l2_entry_bytes) {
        L2Entry e = { .word = blk_get_be64(buf + pos) };

        set_extent(check, &e);
        if ((e.word & forbidden_bits(check, e.word)) != 0 || !qcow2_check_inside(check, e.offset, e.bytes) ||
            (!(e.word & QCOW2_COMPRESSED) && (e.offset & (check->cluster_size - 1)) != 0)) {
            return false;
        }
    }
    return true;
}

static const char *whose(const L2Entry *e)
{
    return e->table->active ? "" : " of a snapshot";
}

static bool on_table(Qcow2Check *check, const L2Entry *e)
{
    for (uint64_t i = e->offset >> check->cluster_bits; i <= (e->offset + e->bytes - 1) >> check->cluster_bits; i++) {
        qcow2_check_data_at(check, i);
        if (qcow2_check_region_at(check, i) != NULL || (qcow2_check_counter(check, i) & QCOW2_REFS_IS_TABLE)) {
            return true;
        }
    }
    return false;
}

/* Are there more references to a cluster than a count can say, and may it be copied? Of a table that is shared by more than
 * that itself the copy would have as many. */
static bool may_unshare(Qcow2Check *check, const L2Entry *e)
{
    const uint64_t max = qcow2_refcount_max(check->header.refcount_order);

    for (uint64_t i = e->offset >> check->cluster_bits; i <= (e->offset + e->bytes - 1) >> check->cluster_bits; i++) {
        if (qcow2_check_refs(check, i) > max) {
            return e->table->refs <= max && qcow2_check_may_copy(check, e->bytes) == 0;
        }
    }
    return false;
}

/* The guest reads zeroes there. */
static void give_up(Qcow2Check *check, L2Entry *e, const char *why)
{
    qcow2_check_repaired(check, "Repairing L2 entry %" PRIx64 " (%s): the cluster at guest offset %#" PRIx64 "%s is "
                         "given up", e->word, why, e->guest, whose(e));
    e->bytes = 0;
    e->word = check->header.version >= 3 ? QCOW2_ZERO : 0;
    if (check->l2_entry_bytes == 16) {
        e->word = 0;
        blk_put_be64(e->place + 8, UINT64_C(0xffffffff00000000));    /* all subclusters read as zeroes */
    }
    blk_put_be64(e->place, e->word);
}

/* Copies what the entry refers to, to the end of the file. */
static int co_move(Qcow2Check *check, L2Entry *e)
{
    const bool compressed = e->word & QCOW2_COMPRESSED;
    const uint64_t place = qcow2_check_new_place(check) + (e->offset & 511);
    g_autofree uint8_t *buf = NULL;
    int ret;

    if (!compressed && (e->word & QCOW2_ZERO) && check->l2_entry_bytes == 8 && check->header.version >= 3) {
        qcow2_check_uncount(check, e->offset, e->bytes, e->table->refs);
        e->word = QCOW2_ZERO;               /* the space is not used */
        e->bytes = 0;
    } else if (place + e->bytes > (compressed ? UINT64_C(1) << qcow2_compressed_offset_bits(check->cluster_bits)
                                              : QCOW2_MAX_HOST_OFFSET)) {
        return -EFBIG;
    } else {
        buf = g_try_malloc(e->bytes);
        if (buf == NULL) {
            return -ENOMEM;
        }
        if (qcow2_check_co_read(check, e->offset, e->bytes, buf) < 0) {
            return -EIO;
        }
        ret = qcow2_check_co_write(check, place, e->bytes, buf);
        if (ret < 0) {
            return ret;
        }
        qcow2_check_uncount(check, e->offset, e->bytes, e->table->refs);
        qcow2_check_count(check, place, e->bytes, e->table->refs, 0);
        e->word = compressed ? qcow2_compressed_encode(check->cluster_bits, place, e->bytes)
                             : (e->word & ~(QCOW2_OFFSET_MASK | QCOW2_COPIED)) | place;
        e->offset = place;
    }
    qcow2_check_repaired(check, "Repairing the cluster at guest offset %#" PRIx64 "%s: something else lies there, and "
                         "it is moved", e->guest, whose(e));
    blk_put_be64(e->place, e->word);
    return 0;
}

/* Flags and bits that must not be set. */
static bool judge_bits(Qcow2Check *check, L2Entry *e)
{
    const bool compressed = e->word & QCOW2_COMPRESSED;
    const uint64_t reserved = forbidden_bits(check, e->word);

    if ((e->word & reserved) == 0) {
        return false;
    }
    if (check->step == QCOW2_CHECK_CLEAN) {
        qcow2_check_repaired(check, "Repairing L2 entry %" PRIx64 ": flags that must not be set", e->word);
        e->word &= ~reserved;
        blk_put_be64(e->place, e->word);
        return true;
    }
    if (check->step == QCOW2_CHECK_LOOK && first_window(check)) {
        if (compressed) {
            qcow2_check_found(check, &check->found.entries, "ERROR: coffset=%#" PRIx64 ": copied flag must never be "
                              "set for compressed clusters", e->offset);
        } else {
            qcow2_check_found(check, &check->found.entries, "ERROR found l2 entry with reserved bits set: %" PRIx64,
                              e->word);
        }
    }
    return false;
}

/* The bits of the subclusters of an extended entry: data and zero exclude each other, and data needs a place. */
static bool judge_subclusters(Qcow2Check *check, const L2Entry *e)
{
    const uint64_t bitmap = blk_get_be64(e->place + 8);
    const uint32_t data = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
    const bool compressed = e->word & QCOW2_COMPRESSED, homeless = !compressed && !has_space(check, e->word);

    if (compressed ? bitmap == 0 : (data & zero) == 0 && (data == 0 || !homeless)) {
        return false;
    }
    if (check->step == QCOW2_CHECK_CLEAN) {
        qcow2_check_repaired(check, "Repairing the bitmap of subclusters at guest offset %#" PRIx64 "%s: some read as "
                             "zeroes now", e->guest, whose(e));
        blk_put_be64(e->place + 8, compressed ? 0 : homeless ? (uint64_t)(zero | data) << 32
                                                            : (uint64_t)zero << 32 | (data & ~zero));
        return true;
    }
    if (check->step != QCOW2_CHECK_LOOK || !first_window(check)) {
        return false;
    }
    if (compressed) {
        qcow2_check_found(check, &check->found.entries, "ERROR compressed cluster at guest offset %#" PRIx64 "%s with "
                          "non-zero subcluster allocation bitmap, entry=%#" PRIx64, e->guest, whose(e), e->word);
    } else if (homeless) {
        qcow2_check_found(check, &check->found.entries, "ERROR guest offset=%" PRIx64 "%s: Unallocated cluster has "
                          "non-zero subcluster allocation map", e->guest, whose(e));
    } else {
        qcow2_check_found(check, &check->found.entries, "ERROR offset=%" PRIx64 ": Allocated cluster has corrupted "
                          "subcluster allocation bitmap (guest offset %#" PRIx64 "%s)", e->offset, e->guest, whose(e));
    }
    return false;
}

/* In a data file a cluster lies at its guest offset, is not compressed, and belongs to nobody else. */
static void judge_data_file(Qcow2Check *check, L2Entry *e, bool *changed)
{
    const bool compressed = e->word & QCOW2_COMPRESSED;
    const uint64_t right = (e->word & ~QCOW2_OFFSET_MASK) | e->guest | QCOW2_COPIED;

    if (compressed ? false : !has_space(check, e->word) || e->word == right) {
        return;
    }
    if (check->step == QCOW2_CHECK_CLEAN && compressed) {
        give_up(check, e, "compressed, with a data file");
        *changed = true;
    } else if (check->step == QCOW2_CHECK_CLEAN) {
        qcow2_check_repaired(check, "Repairing L2 entry %" PRIx64 ": the cluster of guest offset %#" PRIx64 " lies there in "
                             "the data file", e->word, e->guest);
        e->word = right;
        blk_put_be64(e->place, right);
        *changed = true;
    } else if (check->step == QCOW2_CHECK_LOOK && first_window(check) && compressed) {
        qcow2_check_found(check, &check->found.entries, "ERROR compressed cluster at guest offset %#" PRIx64 " with data "
                          "file, entry=%#" PRIx64, e->guest, e->word);
    } else if (check->step == QCOW2_CHECK_LOOK && first_window(check) && e->offset == e->guest) {
        qcow2_check_found(check, &check->found.entries, "ERROR OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " lies in the "
                          "data file", e->word);
    } else if (check->step == QCOW2_CHECK_LOOK && first_window(check)) {
        qcow2_check_found(check, &check->found.entries, "ERROR offset=%" PRIx64 ": the cluster of guest offset %#" PRIx64
                          " does not lie there in the data file; L2 entry corrupted", e->offset, e->guest);
    }
}

/* Can the entry refer to where it does? *changed: it was given up or moved. Returns: 0; an error of a repair. */
static int judge_place(Qcow2Check *check, L2Entry *e, bool *changed)
{
    const bool unaligned = !(e->word & QCOW2_COMPRESSED) && (e->offset & (check->cluster_size - 1)) != 0;
    const bool outside = !qcow2_check_inside(check, e->offset, e->bytes);

    if (unaligned || outside) {
        if (check->step == QCOW2_CHECK_CLEAN) {
            give_up(check, e, unaligned ? "not cluster aligned" : "outside the file");
            *changed = true;
        } else if (check->step == QCOW2_CHECK_LOOK && first_window(check) && unaligned) {
            qcow2_check_found(check, &check->found.entries, "ERROR offset=%" PRIx64 ": Cluster is not properly "
                              "aligned; L2 entry corrupted (guest offset %#" PRIx64 "%s)", e->offset, e->guest,
                              whose(e));
        } else if (check->step == QCOW2_CHECK_LOOK && first_window(check)) {
            qcow2_check_found(check, &check->found.entries, "ERROR: counting reference for region exceeding the end of "
                              "the file by one cluster or more: offset %#" PRIx64 " size %#" PRIx64 " (guest offset %#"
                              PRIx64 "%s)", e->offset, e->bytes, e->guest, whose(e));
        }
        e->bytes = outside ? 0 : e->bytes;
        return 0;
    }
    if (!in_window(check, e->offset)) {
        return 0;
    }
    if (check->step == QCOW2_CHECK_LOOK && on_table(check, e)) {
        qcow2_check_found(check, &check->found.overlaps, "ERROR the cluster at guest offset %#" PRIx64 "%s (host "
                          "offset %#" PRIx64 ") lies on a table", e->guest, whose(e), e->offset);
        return 0;
    }
    if (check->step == QCOW2_CHECK_MOVE && (on_table(check, e) || may_unshare(check, e))) {
        *changed = true;
        return co_move(check, e);
    }
    return 0;
}

/* Numbers for the result, once per table. @next: where the next cluster would continue this one; 0: none yet. */
static void note_statistics(Qcow2Check *check, const L2Entry *e, uint64_t *next)
{
    if (!e->table->active || check->step != QCOW2_CHECK_LOOK || !first_window(check)) {
        return;
    }
    check->result->allocated_clusters++;
    if (e->word & QCOW2_COMPRESSED) {
        check->result->compressed_clusters++;
        check->result->fragmented_clusters++;
        return;
    }
    check->result->fragmented_clusters += *next != 0 && *next != e->offset;
    *next = e->offset + check->cluster_size;
}

static int co_decode(Qcow2Check *check, const L2Entry *e)
{
    if (check->codec == NULL || check->step != QCOW2_CHECK_LOOK || !(e->word & QCOW2_COMPRESSED) ||
        !in_window(check, e->offset) || e->offset >= check->file_bytes) {
        return 0;
    }
    return qcow2_check_co_decode(check, e->guest, e->offset, MIN(e->bytes, check->file_bytes - e->offset));
}

static int visit_entry(Qcow2Check *check, L2Entry *e, bool count, uint64_t *next, bool *changed)
{
    int ret;

    set_extent(check, e);
    *changed |= judge_bits(check, e);
    if (check->l2_entry_bytes == 16) {
        *changed |= judge_subclusters(check, e);
    }
    if (check->has_data_file) {
        judge_data_file(check, e, changed);
        if (has_space(check, e->word)) {
            note_statistics(check, e, next);
        }
        return 0;
    }
    if (e->bytes == 0) {
        return 0;
    }
    note_statistics(check, e, next);
    ret = judge_place(check, e, changed);
    if (ret < 0 || e->bytes == 0) {
        return ret;
    }
    if (count) {
        qcow2_check_count(check, e->offset, e->bytes, e->table->refs, 0);
    }
    if (e->table->active && !(e->word & QCOW2_COMPRESSED) && judge_copied(check, &e->word, true, 0)) {
        blk_put_be64(e->place, e->word);
        *changed = true;
    }
    return co_decode(check, e);
}

/* Does nothing but L1 entries refer to the table? Not known outside the window. */
static bool table_is_alone(Qcow2Check *check, const Qcow2CheckTable *table)
{
    return in_window(check, table->offset) &&
           qcow2_check_refs(check, table->offset >> check->cluster_bits) == table->refs;
}

/* Nothing new may be put where entries of a table that is left alone point to. */
static void avoid_entries(Qcow2Check *check, const uint8_t *buf)
{
    for (uint64_t pos = 0; pos < check->cluster_size; pos += check->l2_entry_bytes) {
        L2Entry e = { .word = blk_get_be64(buf + pos) };
        uint64_t end;

        set_extent(check, &e);
        end = (e.offset + e.bytes + check->cluster_size - 1) >> check->cluster_bits;
        if (end > check->clusters && end <= check->clusters + AVOID_CLUSTERS) {
            check->avoid = MAX(check->avoid, end);
        }
    }
}

static int visit_table(Qcow2Check *check, uint64_t index, uint8_t *buf, bool count)
{
    const Qcow2CheckTable *table = &g_array_index(check->tables, Qcow2CheckTable, index);
    uint64_t next = 0;
    bool changed = false;
    int ret = 0;

    if (check->careful && buf != NULL && !table_is_alone(check, table)) {
        avoid_entries(check, buf);
        return 0;
    }
    for (uint64_t i = 0; buf != NULL && ret == 0 && i < UINT64_C(1) << check->l2_bits; i++) {
        uint8_t *place = buf + i * check->l2_entry_bytes;
        L2Entry e = { .place = place, .word = blk_get_be64(place), .table = table,
                      .guest = (((uint64_t)table->l1_index << check->l2_bits) + i) << check->cluster_bits };

        if (e.word != 0 || check->l2_entry_bytes == 16) {
            ret = visit_entry(check, &e, count, &next, &changed);
        }
    }
    if (ret == 0 && changed) {
        ret = co_write_table(check, table->offset, check->cluster_size, buf);
    }
    qcow2_check_progress(check, (double)(index + 1) / check->tables->len);
    return ret;
}

static int visit_and_count(Qcow2Check *check, uint64_t index, uint8_t *buf)
{
    return visit_table(check, index, buf, true);
}

static int visit_only(Qcow2Check *check, uint64_t index, uint8_t *buf)
{
    return visit_table(check, index, buf, false);
}

static uint64_t table_place(Qcow2Check *check, uint64_t index)
{
    return g_array_index(check->tables, Qcow2CheckTable, index).offset;
}

int qcow2_check_co_walk(Qcow2Check *check, bool count)
{
    int ret = walk_all_l1(check, count ? judge_and_count : judge_only);

    check->table_end = 0;
    while (ret == 0 && check->table_end < UINT64_MAX) {
        check->table_first = check->table_end;
        check->table_end = UINT64_MAX;
        g_array_set_size(check->tables, 0);
        ret = walk_all_l1(check, collect_table);
        if (ret == 0) {
            merge_tables(check);
            ret = qcow2_check_co_visit(check, check->tables->len, table_place, count ? visit_and_count : visit_only);
        }
    }
    return ret;
}
