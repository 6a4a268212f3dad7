/* SPDX-License-Identifier: MIT */
/*
 * tree.c - all references of one L1 table: to L2 tables, and theirs to clusters and payloads.
 *
 *     L1 table --> L2 table --> cluster      each entry refers to the host clusters that it touches: one reference each
 *                           --> payload
 *
 * The tables are walked through in the cache, part by part, and changes are committed when they have become many: memory
 * is bounded. The entries of an L2 table come before the L1 entry that refers to it, so that a table that loses its last
 * reference is not looked at any more.
 *
 * Nothing else may use the node meanwhile: it is drained, and no survey runs.
 */
#include "drivers/qcow2/qcow2.h"

/* What is done with an entry that refers to something, with alloc_lock held. It may change *entry. */
typedef struct Visitor Visitor;
struct Visitor {
    int (*co_visit)(BlkNode *node, Visitor *visitor, uint64_t *entry, bool is_table);
    bool tables_only;               /* only L1 entries */
    bool go_on;                     /* after an error, with what can still be reached */
    uint64_t done, limit;           /* entries visited, and how many at most */
};

/* ---- the walk ---- */

/* Visits @count entries, @stride bytes apart, from @place on; they lie in one part of the cache. */
static int co_visit_part(BlkNode *node, Visitor *v, uint64_t place, uint64_t count, unsigned stride, bool is_table)
{
    Qcow2 *q = node->opaque;
    BlkMetaBlock *block;
    int ret = blk_meta_co_get(q->meta, place, &block), result = ret;

    if (ret < 0) {
        return ret;
    }
    uint8_t *p = block->data + (place - block->offset);
    blk_co_mutex_lock(&q->alloc_lock);
    for (uint64_t i = 0; i < count && v->done < v->limit && (result == 0 || v->go_on); i++, p += stride) {
        uint64_t old = blk_get_be64(p), entry = old;
        if ((entry & (QCOW2_OFFSET_MASK | QCOW2_COMPRESSED)) == 0) {
            continue;
        }
        ret = v->co_visit(node, v, &entry, is_table);
        v->done += ret == 0;
        result = result < 0 ? result : ret;
        if (entry != old) {
            blk_put_be64(p, entry);
            blk_meta_dirty(q->meta, block, BLK_META_MAP);
        }
    }
    blk_co_mutex_unlock(&q->alloc_lock);
    blk_meta_put(q->meta, block);
    ret = blk_meta_wants_commit(q->meta) ? qcow2_co_commit_all(node) : 0;
    return result < 0 ? result : ret;
}

static int co_visit_l2(BlkNode *node, Visitor *v, uint64_t table)
{
    Qcow2 *q = node->opaque;
    uint64_t slice = MIN(q->cluster_size, 4096);
    int result = 0;

    for (uint64_t pos = 0; pos < q->cluster_size && (result == 0 || v->go_on); pos += slice) {
        int ret = co_visit_part(node, v, table + pos, slice / q->l2_entry_bytes, q->l2_entry_bytes, false);
        result = result < 0 ? result : ret;
    }
    return result;
}

static int co_visit_l1_entry(BlkNode *node, Visitor *v, uint64_t place)
{
    Qcow2 *q = node->opaque;
    BlkMetaBlock *block;
    int ret = blk_meta_co_get(q->meta, place, &block);

    if (ret < 0) {
        return ret;
    }
    uint64_t table = blk_get_be64(block->data + (place - block->offset)) & QCOW2_OFFSET_MASK;
    blk_meta_put(q->meta, block);
    if (table == 0) {
        return 0;
    }
    if (table % q->cluster_size != 0 || table >= MIN(q->host_limit, blk_node_length(node->file->node))) {
        return -EIO;
    }
    int result = v->tables_only ? 0 : co_visit_l2(node, v, table);
    if (result < 0 && !v->go_on) {
        return result;
    }
    ret = co_visit_part(node, v, place, 1, 8, true);
    return result < 0 ? result : ret;
}

static int co_walk(BlkNode *node, const Qcow2Tree *tree, Visitor *v)
{
    int result = 0;

    for (uint64_t i = 0; i < tree->l1_size && v->done < v->limit && (result == 0 || v->go_on); i++) {
        int ret = co_visit_l1_entry(node, v, tree->l1_table_offset + i * 8);
        result = result < 0 ? result : ret;
    }
    return result;
}

/* ---- what is done with the entries ---- */

static int entry_clusters(const Qcow2 *q, uint64_t entry, uint64_t *first, uint64_t *count)
{
    uint64_t offset, bytes;
    int ret = qcow2_entry_extent(q, entry, &offset, &bytes);

    *first = qcow2_cluster_of(q, offset);
    *count = bytes > 0 ? qcow2_cluster_of(q, offset + bytes - 1) - *first + 1 : 0;
    return ret;
}

static int co_visit_check(BlkNode *node, Visitor *v, uint64_t *entry, bool is_table)
{
    Qcow2 *q = node->opaque;
    uint64_t first, count, refcount;
    int ret = entry_clusters(q, *entry, &first, &count);

    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        ret = qcow2_co_refcount_get(node, first + i, &refcount);
        if (ret == 0 && (refcount == 0 || (!is_table && qcow2_is_table(q, first + i)))) {
            ret = -EIO;
        }
    }
    return ret;
}

static int co_visit_raise(BlkNode *node, Visitor *v, uint64_t *entry, bool is_table)
{
    uint64_t first, count;
    int ret = entry_clusters(node->opaque, *entry, &first, &count);

    return ret < 0 ? ret : qcow2_co_raise_run(node, first, count, 1);
}

static int co_visit_lower(BlkNode *node, Visitor *v, uint64_t *entry, bool is_table)
{
    Qcow2 *q = node->opaque;
    uint64_t first, count;
    int ret = entry_clusters(q, *entry, &first, &count);

    Qcow2Drop drop = {
        .offset = first << q->cluster_bits, .bytes = count << q->cluster_bits, .refs = 1, .reason = QCOW2_DROP_SNAPSHOT,
    };
    return ret < 0 ? ret : qcow2_co_give_back(node, &drop);
}

static int co_visit_flag(BlkNode *node, Visitor *v, uint64_t *entry, bool is_table)
{
    Qcow2 *q = node->opaque;
    uint64_t refcount;

    if (*entry & QCOW2_COMPRESSED) {
        return 0;
    }
    int ret = qcow2_co_refcount_get(node, qcow2_cluster_of(q, *entry & QCOW2_OFFSET_MASK), &refcount);
    if (ret == 0) {
        *entry = refcount == 1 ? *entry | QCOW2_COPIED : *entry & ~QCOW2_COPIED;
    }
    return ret;
}

static int co_visit_unflag(BlkNode *node, Visitor *v, uint64_t *entry, bool is_table)
{
    if (!(*entry & QCOW2_COMPRESSED)) {
        *entry &= ~QCOW2_COPIED;
    }
    return 0;
}

static int co_visit_register(BlkNode *node, Visitor *v, uint64_t *entry, bool is_table)
{
    qcow2_tables_register_l2(node->opaque, *entry & QCOW2_OFFSET_MASK);
    return 0;
}

/* ---- the operations ---- */

int qcow2_co_tree_check(BlkNode *node, const Qcow2Tree *tree)
{
    Visitor v = { .co_visit = co_visit_check, .limit = UINT64_MAX };

    return co_walk(node, tree, &v);
}

int qcow2_co_tree_raise(BlkNode *node, const Qcow2Tree *tree, bool *undone)
{
    Visitor v = { .co_visit = co_visit_raise, .limit = UINT64_MAX };
    int ret = co_walk(node, tree, &v);

    if (ret < 0) {
        Visitor undo = { .co_visit = co_visit_lower, .limit = v.done };
        *undone = co_walk(node, tree, &undo) == 0;
    }
    return ret;
}

int qcow2_co_tree_lower(BlkNode *node, const Qcow2Tree *tree)
{
    Visitor v = { .co_visit = co_visit_lower, .go_on = true, .limit = UINT64_MAX };

    return co_walk(node, tree, &v);
}

int qcow2_co_tree_set_flags(BlkNode *node, const Qcow2Tree *tree)
{
    Visitor v = { .co_visit = co_visit_flag, .go_on = true, .limit = UINT64_MAX };

    return co_walk(node, tree, &v);
}

int qcow2_co_tree_clear_flags(BlkNode *node, const Qcow2Tree *tree)
{
    Visitor v = { .co_visit = co_visit_unflag, .limit = UINT64_MAX };
    int ret = co_walk(node, tree, &v);

    return ret < 0 ? ret : qcow2_co_commit_all(node);
}

int qcow2_co_tree_register(BlkNode *node, const Qcow2Tree *tree)
{
    Visitor v = { .co_visit = co_visit_register, .tables_only = true, .limit = UINT64_MAX };

    return co_walk(node, tree, &v);
}
