/* SPDX-License-Identifier: MIT */
/*
 * check_structure.c - the tables that the header names: where they lie, whether they can be there, what overlaps.
 *
 * Where two tables claim the same clusters, one of them is right and the other is bad. The order of trust:
 *
 *     header, active L1 table, active L2 tables (if they read as such), snapshot table, L1 tables of snapshots, bitmaps
 *
 * Refcount structures come last: they say nothing that cannot be counted again, and are made anew elsewhere when
 * anything else lies in the same place. L2 tables and data are not here: see check_walk.c.
 */
#include "drivers/qcow2/check.h"

enum { L1_PART = 1 << 20 };         /* bytes of an L1 table that are read at once */

static int region_compare(const void *a, const void *b, void *unused)
{
    const gsize x = GPOINTER_TO_SIZE(a), y = GPOINTER_TO_SIZE(b);

    return x < y ? -1 : x > y;
}

/* The last region that begins at or before @cluster. */
static Qcow2CheckRegion *region_before(const Qcow2Check *check, uint64_t cluster)
{
    GTreeNode *node = g_tree_upper_bound(check->regions, GSIZE_TO_POINTER(cluster));

    node = node != NULL ? g_tree_node_previous(node) : g_tree_node_last(check->regions);
    return node == NULL ? NULL : g_tree_node_value(node);
}

Qcow2CheckRegion *qcow2_check_find_region(const Qcow2Check *check, uint64_t cluster)
{
    /* Most of a file lies behind all tables. */
    Qcow2CheckRegion *region = cluster < check->regions_end ? region_before(check, cluster) : NULL;

    return region == NULL || cluster >= region->end ? NULL : region;
}

const char *qcow2_check_region_at(const Qcow2Check *check, uint64_t cluster)
{
    const Qcow2CheckRegion *region = qcow2_check_find_region(check, cluster);

    return region == NULL ? NULL : region->what;
}

void qcow2_check_data_at(Qcow2Check *check, uint64_t cluster)
{
    const Qcow2CheckRegion *region = check->bitmaps->len > 0 ? qcow2_check_find_region(check, cluster) : NULL;

    if (region != NULL && region->bitmap != NULL) {
        qcow2_check_bad_bitmap(check, region->bitmap, "data of the guest is where it lies");
    }
}

Qcow2CheckRegion *qcow2_check_add_region(Qcow2Check *check, uint64_t offset, uint64_t bytes, const char *what)
{
    const uint64_t first = offset >> check->cluster_bits, end = first + qcow2_check_clusters_for(check, bytes);
    const Qcow2CheckRegion *before = region_before(check, end - 1);
    Qcow2CheckRegion *region;

    if (before != NULL && before->end > first) {
        return NULL;
    }
    region = g_new(Qcow2CheckRegion, 1);
    *region = (Qcow2CheckRegion) { .first = first, .end = end, .what = what };
    g_tree_insert(check->regions, GSIZE_TO_POINTER(first), region);
    check->regions_end = MAX(check->regions_end, end);
    return region;
}

/* ---- L1 tables ---- */

static void l1_free(gpointer data)
{
    Qcow2CheckL1 *l1 = data;

    g_free(l1->snapshot);
    g_free(l1);
}

/* Nothing that the snapshot table says is true. */
static void distrust_snapshots(Qcow2Check *check)
{
    for (guint i = 1; i < check->l1s->len; i++) {
        const Qcow2CheckL1 *l1 = g_ptr_array_index(check->l1s, i);

        if (!l1->bad && !l1->twin && l1->entries > 0) {
            g_tree_remove(check->regions, GSIZE_TO_POINTER(l1->offset >> check->cluster_bits));
        }
    }
    g_tree_remove(check->regions, GSIZE_TO_POINTER(check->header.snapshots_offset >> check->cluster_bits));
    g_ptr_array_set_size(check->l1s, 1);
    check->snapshots_bad = true;
    qcow2_check_found(check, &check->found.structure, "ERROR the snapshot table at %#" PRIx64 " overlaps an L2 table",
                      check->header.snapshots_offset);
}

static void distrust_l1s_at(Qcow2Check *check, uint64_t offset)
{
    for (guint i = 1; i < check->l1s->len; i++) {
        Qcow2CheckL1 *l1 = g_ptr_array_index(check->l1s, i);

        if (!l1->bad && l1->offset == offset) {
            qcow2_check_bad_snapshot(check, l1, "overlaps an L2 table");
        }
    }
}

/* An active L1 entry names a cluster of @region: if that reads as an L2 table it is the snapshots, or the bitmap, that are
 * wrong. */
static int co_judge_claim(Qcow2Check *check, const Qcow2CheckRegion *region, uint64_t offset)
{
    g_autofree uint8_t *table = g_try_malloc(check->cluster_size);

    if (table == NULL) {
        return -ENOMEM;
    }
    if (qcow2_check_co_read(check, offset, check->cluster_size, table) < 0 || !qcow2_check_reads_as_l2(check, table)) {
        return 0;
    }
    if (region->bitmap != NULL) {
        qcow2_check_bad_bitmap(check, region->bitmap, "an L2 table is where it lies");
        g_tree_remove(check->regions, GSIZE_TO_POINTER(region->first));
    } else if (region->l1 != NULL) {
        distrust_l1s_at(check, region->l1->offset);
        g_tree_remove(check->regions, GSIZE_TO_POINTER(region->first));
    } else {
        distrust_snapshots(check);
    }
    return 0;
}

/* Looks for active L2 tables where tables of snapshots, or @bitmaps, are. */
static int co_trust_active_l2s(Qcow2Check *check, bool bitmaps)
{
    const bool any = bitmaps ? check->bitmaps->len > 0 : check->l1s->len > 1;
    const Qcow2CheckL1 *active = g_ptr_array_index(check->l1s, 0);
    g_autofree uint8_t *buf = g_try_malloc(L1_PART);
    int ret = buf == NULL ? -ENOMEM : 0;

    for (uint64_t pos = 0; ret == 0 && any && pos < active->entries * 8; pos += L1_PART) {
        const uint64_t bytes = MIN(L1_PART, active->entries * 8 - pos);

        if (qcow2_check_co_is_hole(check, active->offset + pos, bytes) ||
            qcow2_check_co_read(check, active->offset + pos, bytes, buf) < 0) {
            continue;
        }
        for (uint64_t i = 0; ret == 0 && i < bytes / 8; i++) {
            const uint64_t offset = blk_get_be64(buf + i * 8) & QCOW2_OFFSET_MASK;
            const Qcow2CheckRegion *region = qcow2_check_find_region(check, offset >> check->cluster_bits);

            if (region != NULL && (bitmaps ? region->bitmap != NULL : region->of_snapshots) && (offset & (check->cluster_size - 1)) == 0) {
                ret = co_judge_claim(check, region, offset);
            }
        }
    }
    return ret;
}

/* ---- refcount structures ---- */

static int compare_offsets(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Marks blocks that several entries of the table refer to. */
static int mark_twins(Qcow2Check *check)
{
    g_autofree uint64_t *sorted = g_try_new(uint64_t, check->reftable_entries);

    if (sorted == NULL) {
        return -ENOMEM;
    }
    memcpy(sorted, check->reftable, check->reftable_entries * sizeof(*sorted));
    qsort(sorted, check->reftable_entries, sizeof(*sorted), compare_offsets);
    for (uint64_t i = 0; i < check->reftable_entries; i++) {
        const uint64_t offset = check->reftable[i];
        const uint64_t *at = offset == 0 ? NULL : bsearch(&offset, sorted, check->reftable_entries, sizeof(*sorted),
                                                          compare_offsets);

        if (at != NULL && ((at > sorted && at[-1] == offset) ||
                           (at + 1 < sorted + check->reftable_entries && at[1] == offset))) {
            check->reftable[i] |= QCOW2_CHECK_SHARED;
        }
    }
    return 0;
}

static void bad_refcounts(Qcow2Check *check, const char *what, uint64_t index, const char *why)
{
    check->rebuild = true;
    qcow2_check_found(check, &check->found.refcounts, "ERROR %s %" PRIu64 " %s", what, index, why);
}

static uint64_t judge_reftable_entry(Qcow2Check *check, uint64_t index, uint64_t entry)
{
    const uint64_t offset = entry & QCOW2_REFTABLE_OFFSET_MASK;
    const char *region;

    if (entry & QCOW2_REFTABLE_RESERVED) {
        bad_refcounts(check, "refcount table entry", index, "has reserved bits set");
    }
    if (offset == 0) {
        return 0;
    }
    if ((offset & (check->cluster_size - 1)) != 0) {
        bad_refcounts(check, "refcount block", index, "is not cluster aligned; refcount table entry corrupted");
        return 0;
    }
    if (!qcow2_check_inside(check, offset, check->cluster_size)) {
        bad_refcounts(check, "refcount block", index, "is outside image");
        return 0;
    }
    region = qcow2_check_region_at(check, offset >> check->cluster_bits);
    if (region != NULL) {
        g_autofree char *why = g_strdup_printf("lies on %s", region);

        bad_refcounts(check, "refcount block", index, why);
        return 0;
    }
    return offset;
}

static bool reftable_can_be(const Qcow2Check *check)
{
    const Qcow2Header *h = &check->header;

    return h->refcount_table_offset != 0 && (h->refcount_table_offset & (check->cluster_size - 1)) == 0 &&
           check->reftable_entries > 0 && check->reftable_entries * 8 <= QCOW2_MAX_REFCOUNT_TABLE_BYTES &&
           qcow2_check_inside(check, h->refcount_table_offset, check->reftable_entries * 8);
}

static bool reftable_overlaps(const Qcow2Check *check)
{
    const uint64_t first = check->header.refcount_table_offset >> check->cluster_bits;
    const Qcow2CheckRegion *before = region_before(check, first + check->header.refcount_table_clusters - 1);

    return before != NULL && before->end > first;
}

/* What is bad becomes 0 in check->reftable. */
static int read_reftable(Qcow2Check *check)
{
    const uint64_t bytes = (uint64_t)check->header.refcount_table_clusters << check->cluster_bits;

    check->reftable_entries = bytes / 8;
    if (!reftable_can_be(check) || reftable_overlaps(check)) {
        check->rebuild = true;
        check->reftable_entries = 0;
        qcow2_check_found(check, &check->found.refcounts, "ERROR the refcount table at %#" PRIx64 " cannot be there",
                          check->header.refcount_table_offset);
        return 0;
    }
    check->reftable = g_try_malloc(bytes);
    if (check->reftable == NULL) {
        return -ENOMEM;
    }
    if (qcow2_check_co_read(check, check->header.refcount_table_offset, bytes, check->reftable) < 0) {
        memset(check->reftable, 0, bytes);
        return 0;
    }
    for (uint64_t i = 0; i < check->reftable_entries; i++) {
        const uint64_t entry = GUINT64_FROM_BE(check->reftable[i]);

        check->reftable[i] = entry == 0 ? 0 : judge_reftable_entry(check, i, entry);
    }
    return mark_twins(check);
}

/* ---- encryption ---- */

/* The keys of an image with LUKS encryption: header extension: offset 8, bytes 8. */
static void place_keys(Qcow2Check *check)
{
    for (guint i = 0; i < check->header.extensions->len; i++) {
        const Qcow2Extension *extension = &g_array_index(check->header.extensions, Qcow2Extension, i);
        uint64_t offset, bytes;

        if (extension->type != QCOW2_EXT_ENCRYPTION || extension->bytes < 16) {
            continue;
        }
        offset = blk_get_be64(extension->data);
        bytes = blk_get_be64(extension->data + 8);
        if (bytes == 0 || (offset & (check->cluster_size - 1)) != 0 || !qcow2_check_inside(check, offset, bytes) ||
            qcow2_check_add_region(check, offset, bytes, "the encryption header") == NULL) {
            qcow2_check_found(check, &check->found.structure, "ERROR the encryption header at %#" PRIx64 " cannot be "
                              "there", offset);
        }
    }
}

/* ---- all of it ---- */

void qcow2_check_free_structure(Qcow2Check *check)
{
    g_clear_pointer(&check->l1s, g_ptr_array_unref);
    g_clear_pointer(&check->regions, g_tree_unref);
    g_clear_pointer(&check->bitmaps, g_ptr_array_unref);
    g_clear_pointer(&check->bad_bitmaps, g_hash_table_unref);
    g_clear_pointer(&check->reftable, g_free);
    g_clear_pointer(&check->lost, g_free);
    check->reftable_entries = 0;
    check->snapshots_bad = check->bitmaps_bad = check->rebuild = check->overflow = false;
}

int qcow2_check_co_read_structure(Qcow2Check *check)
{
    const Qcow2Header *h = &check->header;
    Qcow2CheckL1 *active = g_new0(Qcow2CheckL1, 1);
    int ret;

    qcow2_check_free_structure(check);
    check->l1s = g_ptr_array_new_with_free_func(l1_free);
    check->regions = g_tree_new_full(region_compare, NULL, NULL, g_free);
    check->regions_end = 0;
    active->offset = h->l1_table_offset;
    active->entries = h->l1_size;
    active->needed = qcow2_l1_entries_for(h, h->size);
    g_ptr_array_add(check->l1s, active);
    qcow2_check_add_region(check, 0, check->cluster_size, "the header");
    ret = qcow2_check_co_place_active_l1(check);
    if (ret < 0) {
        return ret;
    }
    if (h->crypt_method == QCOW2_CRYPT_LUKS) {
        place_keys(check);
    }
    ret = qcow2_check_co_read_snapshots(check);
    for (guint i = 1; ret == 0 && i < check->l1s->len; i++) {
        ret = qcow2_check_co_place_snapshot_l1(check, g_ptr_array_index(check->l1s, i));
    }
    if (ret < 0 || check->lost != NULL) {
        return ret;
    }
    ret = co_trust_active_l2s(check, false);
    if (ret == 0) {
        ret = qcow2_check_co_read_bitmaps(check);
    }
    if (ret == 0) {
        ret = co_trust_active_l2s(check, true);
    }
    return ret == 0 ? read_reftable(check) : ret;
}

static gboolean count_region(gpointer unused, gpointer value, gpointer opaque)
{
    Qcow2Check *check = opaque;
    const Qcow2CheckRegion *region = value;

    qcow2_check_count(check, region->first << check->cluster_bits,
                      (region->end - region->first) << check->cluster_bits, 1, 0);
    return FALSE;
}

void qcow2_check_count_structure(Qcow2Check *check, bool refcounts)
{
    g_tree_foreach(check->regions, count_region, check);
    if (!refcounts) {
        return;
    }
    qcow2_check_count(check, check->header.refcount_table_offset, check->reftable_entries * 8, 1, 0);
    for (uint64_t i = 0; i < check->reftable_entries; i++) {
        if (check->reftable[i] != 0) {
            qcow2_check_count(check, check->reftable[i] & ~QCOW2_CHECK_SHARED, check->cluster_size, 1, 0);
        }
    }
}

int qcow2_check_co_repair_structure(Qcow2Check *check)
{
    int ret = qcow2_check_co_mend_active_l1(check);

    if (ret == 0 && check->snapshots_bad) {
        ret = qcow2_check_co_repair_snapshots(check);
    }
    return ret == 0 && check->bitmaps_bad ? qcow2_check_co_drop_bitmaps(check) : ret;
}
