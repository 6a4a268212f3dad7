/* SPDX-License-Identifier: MIT */
/*
 * check_l1.c - L1 tables as a check sees them: can each lie where it is said to lie, and be as long?
 *
 *     length that cannot be    what the disk needs, if entries of L1 tables are there: nothing is lost
 *     another L1 table's place the snapshot gets a copy: what can be read stays
 *     place that cannot be     a snapshot is given up. The active table is lost: nothing is repaired then, since all that it
 *                              referred to would be taken for free
 *
 * Of two that claim the same place the active L1 table is trusted, unless what lies there is a whole snapshot table, or a
 * refcount table and leads to no L2 table.
 */
#include "drivers/qcow2/check.h"

enum { L1_PART = 1 << 20, HEADER_L1_ENTRIES_AT = 36 };      /* bytes */

/* (nullable): why nothing that begins at @offset can be an L1 table. */
static const char *why_not_at(const Qcow2Check *check, uint64_t offset)
{
    if ((offset & (check->cluster_size - 1)) != 0) {
        return "is not cluster aligned";
    }
    if (offset == 0) {
        return "is where the header lies";
    }
    return qcow2_check_inside(check, offset, 1) ? NULL : "is outside the file";
}

static bool length_can_be(const Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t entries)
{
    return entries >= l1->needed && entries * 8 <= QCOW2_MAX_L1_BYTES &&
           qcow2_check_inside(check, l1->offset, entries * 8);
}

static bool entry_can_be(const Qcow2Check *check, uint64_t entry)
{
    const uint64_t offset = entry & QCOW2_OFFSET_MASK;

    return (entry & QCOW2_L1_RESERVED) == 0 && (offset & (check->cluster_size - 1)) == 0 &&
           qcow2_check_inside(check, offset, check->cluster_size);
}

/* Called for each entry that is not 0. false: no more. */
typedef bool EntryFn(Qcow2Check *check, uint64_t entry, void *opaque);

static int co_each_entry(Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t from, uint64_t to, EntryFn *fn, void *opaque)
{
    g_autofree uint8_t *buf = g_try_malloc(L1_PART);
    bool more = true;

    if (buf == NULL) {
        return -ENOMEM;
    }
    for (uint64_t i = from; i < to && more; i += L1_PART / 8) {
        const uint64_t entries = MIN(to - i, L1_PART / 8);

        if (qcow2_check_co_is_hole(check, l1->offset + i * 8, entries * 8) ||
            qcow2_check_co_read(check, l1->offset + i * 8, entries * 8, buf) < 0) {
            continue;
        }
        for (uint64_t j = 0; j < entries && more; j++) {
            const uint64_t entry = blk_get_be64(buf + j * 8);

            more = entry == 0 || fn(check, entry, opaque);
        }
    }
    return 0;
}

static bool note_possible(Qcow2Check *check, uint64_t entry, void *opaque)
{
    bool *possible = opaque;

    *possible = entry_can_be(check, entry);
    return *possible;
}

/* Where the entries of what may be an L1 table lead. */
typedef struct Leads {
    bool anywhere, to_l2;           /* they are not all 0; one leads to an L2 table that is not full of zeroes */
} Leads;

static bool note_lead(Qcow2Check *check, uint64_t entry, void *opaque)
{
    Leads *leads = opaque;
    g_autofree uint8_t *table = g_try_malloc(check->cluster_size);

    leads->anywhere = true;
    leads->to_l2 = table != NULL && entry_can_be(check, entry) &&
                   qcow2_check_co_read(check, entry & QCOW2_OFFSET_MASK, check->cluster_size, table) == 0 &&
                   !blk_buffer_is_zero(table, check->cluster_size) && qcow2_check_reads_as_l2(check, table);
    return !leads->to_l2;
}

/* Does @offset lie in the clusters of entries @from..@to-1? Not in one that entries before them are in, too. */
static bool l1_holds(const Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t from, uint64_t to, uint64_t offset)
{
    const uint64_t first = (l1->offset >> check->cluster_bits) + qcow2_check_clusters_for(check, from * 8);

    return offset >> check->cluster_bits >= first &&
           offset >> check->cluster_bits < (l1->offset >> check->cluster_bits) + qcow2_check_clusters_for(check, to * 8);
}

/* Makes l1->entries a length that can be. *sound: (out): there is one. */
static int co_fit_length(Qcow2Check *check, Qcow2CheckL1 *l1, bool *sound)
{
    const Qcow2Header *h = &check->header;
    const uint64_t said = l1->entries;
    bool fits = length_can_be(check, l1, said);
    int ret = 0;

    *sound = fits || length_can_be(check, l1, l1->needed);
    if (fits && said > l1->needed && l1->snapshot == NULL) {    /* behind the disk is nothing that the guest could miss */
        ret = co_each_entry(check, l1, l1->needed, said, note_possible, &fits);
        fits &= !l1_holds(check, l1, l1->needed, said, h->refcount_table_offset) &&
                !(h->nb_snapshots > 0 && l1_holds(check, l1, l1->needed, said, h->snapshots_offset));
    } else if (!fits && *sound) {
        ret = co_each_entry(check, l1, 0, l1->needed, note_possible, sound);
    }
    l1->mended = *sound && !fits;
    l1->entries = l1->mended ? l1->needed : said;
    return ret;
}

static void tell_length(Qcow2Check *check, const Qcow2CheckL1 *l1, uint64_t said)
{
    qcow2_check_found(check, &check->found.structure, "ERROR %s%s: the L1 table at %#" PRIx64 " cannot have %" PRIu64
                      " entries, and needs only %" PRIu64, l1->snapshot ? "snapshot " : "the active disk",
                      l1->snapshot ? l1->snapshot : "", l1->offset, said, l1->needed);
}

/* ---- the active one ---- */

void qcow2_check_lose_active_l1(Qcow2Check *check, const char *why)
{
    Qcow2CheckL1 *l1 = g_ptr_array_index(check->l1s, 0);

    l1->bad = true;
    check->found.structure++;
    g_free(check->lost);
    check->lost = g_strdup_printf("the active L1 table at %#" PRIx64 " %s: where the data of the disk lies is not known, and "
                                  "nothing is repaired, since that would give the data up", l1->offset, why);
}

int qcow2_check_co_place_active_l1(Qcow2Check *check)
{
    Qcow2CheckL1 *l1 = g_ptr_array_index(check->l1s, 0);
    const uint64_t said = l1->entries;
    const char *why = why_not_at(check, l1->offset);
    Leads leads = { false, false };
    bool sound;
    int ret;

    if (said == 0 && l1->needed == 0) {
        return 0;
    }
    if (why != NULL) {
        qcow2_check_lose_active_l1(check, why);
        return 0;
    }
    ret = co_fit_length(check, l1, &sound);
    if (ret == 0 && l1_holds(check, l1, 0, l1->entries, check->header.refcount_table_offset)) {
        ret = co_each_entry(check, l1, 0, l1->entries, note_lead, &leads);
    }
    if (ret < 0) {
        return ret;
    }
    if (!sound) {
        qcow2_check_lose_active_l1(check, "cannot be as long as the disk needs");
    } else if (leads.anywhere && !leads.to_l2) {
        qcow2_check_lose_active_l1(check, "is where the refcount table lies, and leads to no L2 table");
    } else if (l1->mended) {
        tell_length(check, l1, said);
    }
    if (!l1->bad && l1->entries > 0) {
        qcow2_check_add_region(check, l1->offset, l1->entries * 8, "the L1 table")->l1 = l1;
    }
    return 0;
}

int qcow2_check_co_mend_active_l1(Qcow2Check *check)
{
    const Qcow2CheckL1 *l1 = g_ptr_array_index(check->l1s, 0);
    uint8_t field[4];
    int ret;

    if (!l1->mended) {
        return 0;
    }
    blk_put_be32(field, (uint32_t)l1->entries);
    ret = qcow2_check_co_write(check, HEADER_L1_ENTRIES_AT, sizeof(field), field);
    if (ret == 0) {
        qcow2_check_repaired(check, "Repairing the length of the active L1 table: it has %" PRIu64 " entries", l1->entries);
        check->header.l1_size = (uint32_t)l1->entries;
    }
    return ret == 0 ? blk_co_flush(check->file) : ret;
}

/* ---- those of snapshots ---- */

void qcow2_check_bad_snapshot(Qcow2Check *check, Qcow2CheckL1 *l1, const char *why)
{
    l1->bad = true;
    check->snapshots_bad = true;
    qcow2_check_found(check, &check->found.structure, "ERROR snapshot %s: its L1 table at %#" PRIx64 " %s",
                      l1->snapshot, l1->offset, why);
}

/* Is it the table of another L1, or its begin? */
static bool is_twin(const Qcow2Check *check, const Qcow2CheckL1 *l1)
{
    const uint64_t first = l1->offset >> check->cluster_bits;
    const Qcow2CheckRegion *region = qcow2_check_find_region(check, first);

    return region != NULL && region->l1 != NULL && region->first == first &&
           first + qcow2_check_clusters_for(check, l1->entries * 8) <= region->end;
}

int qcow2_check_co_place_snapshot_l1(Qcow2Check *check, Qcow2CheckL1 *l1)
{
    const uint64_t said = l1->entries;
    const char *why = why_not_at(check, l1->offset);
    Qcow2CheckRegion *region;
    bool sound = true;
    int ret = 0;

    if (!l1->bad && l1->entries == 0 && l1->needed == 0) {
        return 0;
    }
    if (!l1->bad && why == NULL) {
        ret = co_fit_length(check, l1, &sound);
    }
    if (ret < 0) {
        return ret;
    }
    if (l1->bad || !sound) {
        qcow2_check_bad_snapshot(check, l1, "is too large or too small");
        return 0;
    }
    if (why != NULL) {
        qcow2_check_bad_snapshot(check, l1, why);
        return 0;
    }
    if (l1->mended) {
        check->snapshots_bad = true;
        tell_length(check, l1, said);
    }
    region = qcow2_check_add_region(check, l1->offset, l1->entries * 8, "a snapshot's L1 table");
    if (region != NULL) {
        region->l1 = l1;
        region->of_snapshots = true;
    } else if (is_twin(check, l1)) {
        l1->twin = check->snapshots_bad = true;
        qcow2_check_found(check, &check->found.structure, "ERROR snapshot %s: its L1 table at %#" PRIx64 " is also "
                          "another one's", l1->snapshot, l1->offset);
    } else {
        qcow2_check_bad_snapshot(check, l1, "overlaps another table");
    }
    return 0;
}

int qcow2_check_co_copy_l1(Qcow2Check *check, Qcow2CheckL1 *l1)
{
    const uint64_t place = qcow2_check_new_place(check), bytes = l1->entries * 8;
    g_autofree uint8_t *table = NULL;
    int ret = qcow2_check_may_copy(check, bytes);

    if (ret < 0) {
        return ret;
    }
    table = g_try_malloc(bytes);
    if (table == NULL) {
        return -ENOMEM;
    }
    ret = qcow2_check_co_read(check, l1->offset, bytes, table);
    if (ret == 0) {
        ret = qcow2_check_co_write(check, place, bytes, table);
    }
    if (ret == 0) {
        qcow2_check_repaired(check, "Repairing snapshot %s: it gets an L1 table of its own", l1->snapshot);
        l1->offset = place;
        l1->twin = false;
    }
    return ret;
}
