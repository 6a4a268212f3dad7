/* SPDX-License-Identifier: MIT */
/*
 * write.c - changes of guest mappings: reserve, publish, cancel, commit.
 *
 * Reserve does all that can fail: it makes or copies the L2 table, checks what the old entries refer to, takes host
 * space. Publish only changes entries in the cache and notes what they referred to before. A reservation holds the part
 * of the L2 table that it will change, and never reaches beyond it.
 *
 * New tables are written out before anything refers to them in the cache, so a commit need not order them.
 */
#include "drivers/qcow2/qcow2.h"

/* Of dropped space: what may wait for the next flush before we commit on our own, at least, and a part of the file. */
#define DROPPED_BYTES_MIN (UINT64_C(256) << 10)
enum { DROPPED_PART = 32 };

/* How long a write waits for space that was dropped, at the most. */
#define SPACE_WAIT_NS UINT64_C(500000)
enum { SPACE_WAITS = 200 };

/* ---- L2 tables ---- */

/* Fills the new table at @offset from the one at @old (0: with zeroes), past the cache: nobody changes the old one, which
 * is clean. What the cache may still have of an earlier table there is forgotten. */
static int co_fill_table(BlkNode *node, uint64_t offset, uint64_t old)
{
    Qcow2 *q = node->opaque;
    BlkNode *file = node->file->node;
    int ret;

    blk_meta_co_forget(q->meta, offset, q->cluster_size);
    blk_co_event(file, BLK_EVENT_l2_alloc_write);
    if (old == 0) {
        return blk_co_pwrite_zeroes(file, offset, q->cluster_size, 0);
    }
    void *buf = blk_buffer_try_alloc(file, q->cluster_size);
    if (!buf) {
        return -ENOMEM;
    }
    blk_co_event(file, BLK_EVENT_l2_alloc_cow_read);
    uint64_t length = blk_node_length(file), bytes = MIN(q->cluster_size, length - MIN(length, old));
    memset(buf, 0, q->cluster_size);
    ret = blk_co_pread(file, old, bytes, buf, 0);
    if (ret == 0) {
        ret = blk_co_pwrite(file, offset, q->cluster_size, buf, 0);
    }
    blk_buffer_free(buf);
    return ret;
}

int qcow2_co_new_table(BlkNode *node, uint64_t offset, uint64_t *l1_entry)
{
    Qcow2 *q = node->opaque;
    uint64_t old = *l1_entry & QCOW2_OFFSET_MASK, cluster;
    uint64_t place = q->header.l1_table_offset + (offset >> (q->cluster_bits + q->l2_bits)) * 8;
    BlkMetaBlock *block;

    blk_co_mutex_lock(&q->alloc_lock);
    gint64 got = qcow2_co_alloc_clusters(node, 1, &cluster);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (got < 0) {
        return (int)got;
    }
    uint64_t table = cluster << q->cluster_bits;
    int ret = co_fill_table(node, table, old);
    if (ret == 0) {
        ret = blk_meta_co_get(q->meta, place, &block);
    }
    if (ret < 0) {
        qcow2_drop(q, table, q->cluster_size, false);
        return ret;
    }
    *l1_entry = table | QCOW2_COPIED;
    blk_put_be64(block->data + (place - block->offset), *l1_entry);
    blk_meta_dirty(q->meta, block, BLK_META_MAP);
    blk_meta_put(q->meta, block);
    qcow2_tables_add(q, QCOW2_TABLE_ACTIVE_L2, table, q->cluster_size, NULL);   /* what was allocated is no table */
    if (old != 0) {
        qcow2_drop(q, old, q->cluster_size, false);
    }
    return 0;
}

/* The L1 entry of @offset; its table exists, belongs to nobody else, and may be changed. */
static int co_own_table(BlkNode *node, uint64_t offset, uint64_t *l1_entry)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_co_l1_entry(node, offset, l1_entry);

    if (ret == -EIO && *l1_entry != 0) {
        return qcow2_co_corrupt(node, "the L1 entry %#" PRIx64 " of guest offset %#" PRIx64 " cannot be", *l1_entry,
                                offset);
    }
    if (ret < 0 || (*l1_entry & QCOW2_COPIED)) {
        return ret;
    }
    blk_co_mutex_lock(&q->l2_lock);
    ret = qcow2_co_l1_entry(node, offset, l1_entry);
    if (ret == 0 && !(*l1_entry & QCOW2_COPIED)) {
        ret = qcow2_co_new_table(node, offset, l1_entry);
    }
    blk_co_mutex_unlock(&q->l2_lock);
    return ret;
}

/* ---- commit ---- */

static int co_commit_from(BlkNode *node, BlkMetaRank lowest, bool writes_wait)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_co_recover(node);

    if (ret == 0) {
        ret = blk_meta_co_commit_from(q->meta, lowest);
    }
    if (ret == 0 && q->tables) {
        /* A failure here leaves space unused until the next try; what was asked for is stable. */
        blk_co_mutex_lock(&q->alloc_lock);
        qcow2_co_drain_limbo(node);
        blk_co_mutex_unlock(&q->alloc_lock);
        qcow2_survey_committed(q);
        qcow2_co_punch(node, writes_wait);
    }
    return ret;
}

/* Lazy refcounts: without the counts. */
static int co_commit(BlkNode *node, bool writes_wait)
{
    Qcow2 *q = node->opaque;

    if (!q->lazy || !blk_meta_is_dirty(q->meta)) {
        return co_commit_from(node, BLK_META_COUNTS, writes_wait);      /* nothing to leave out: no need for the mark */
    }
    int ret = qcow2_co_recover(node);
    ret = ret < 0 ? ret : qcow2_co_lazy_begin(node);
    return ret < 0 ? ret : co_commit_from(node, BLK_META_MAP, writes_wait);
}

int qcow2_co_commit(BlkNode *node)
{
    return co_commit(node, false);
}

int qcow2_co_commit_all(BlkNode *node)
{
    return co_commit_from(node, BLK_META_COUNTS, false);
}

/* ---- reserve ---- */

/* The entry of guest @guest may be dropped, or written over, only if what it refers to is counted, and is no table. */
static int co_check_droppable(BlkNode *node, uint64_t guest, Qcow2Entry entry)
{
    Qcow2 *q = node->opaque;
    uint64_t offset, bytes, refcount;
    int ret = qcow2_entry_extent(q, entry.word, &offset, &bytes);

    if (ret < 0) {
        return qcow2_co_corrupt(node, "the L2 entry %#" PRIx64 " of guest offset %#" PRIx64 " cannot be", entry.word,
                                guest);
    }
    if (bytes == 0) {
        return 0;
    }
    for (uint64_t c = qcow2_cluster_of(q, offset); c <= qcow2_cluster_of(q, offset + bytes - 1); c++) {
        if (qcow2_is_table(q, c)) {
            return qcow2_co_corrupt_at(node, offset, bytes, "guest offset %#" PRIx64 " is said to lie at offset %#" PRIx64
                                       ", where %s is", guest, offset, qcow2_table_name(q, c));
        }
        ret = qcow2_co_refcount_get(node, c, &refcount);
        if (ret < 0) {
            return ret;
        }
        if (refcount == 0) {
            return qcow2_co_corrupt_at(node, c << q->cluster_bits, q->cluster_size, "the refcount of the cluster at offset %#"
                                       PRIx64 " is 0, but guest offset %#" PRIx64 " lies there", c << q->cluster_bits, guest);
        }
    }
    return 0;
}

/* Where the entry of the reservation's cluster @i lies in memory. */
static uint8_t *reservation_place(const Qcow2 *q, const BlkReservation *res, uint64_t i)
{
    const BlkMetaBlock *block = res->slice;

    return block->data + res->priv[0] + i * q->l2_entry_bytes;
}

static Qcow2Entry reservation_entry(const Qcow2 *q, const BlkReservation *res, uint64_t i)
{
    return qcow2_entry_get(q, reservation_place(q, res, i));
}

/* Bytes of its first cluster that lie before the reservation. */
static uint64_t reservation_head(const Qcow2 *q, const BlkReservation *res)
{
    return res->offset & (q->cluster_size - 1);
}

static uint64_t reservation_clusters(const Qcow2 *q, const BlkReservation *res)
{
    return (reservation_head(q, res) + res->bytes + q->cluster_size - 1) >> q->cluster_bits;
}

/* The subclusters of the reservation's cluster @i that it covers. */
static uint32_t reservation_covers(const Qcow2 *q, const BlkReservation *res, uint64_t i)
{
    uint64_t head = reservation_head(q, res), start = i << q->cluster_bits;
    unsigned from = (unsigned)((MAX(start, head) - start) >> q->subcluster_bits);
    unsigned to = (unsigned)((MIN(start + q->cluster_size, head + res->bytes) - start) >> q->subcluster_bits);

    return (uint32_t)((UINT64_C(1) << to) - (UINT64_C(1) << from));
}

/* Of the reservation's clusters, how many have own space in one run, or have none (*own tells which). */
static uint64_t reservation_run(const Qcow2 *q, const BlkReservation *res, bool *own)
{
    uint64_t count = reservation_clusters(q, res), n = 1, first = reservation_entry(q, res, 0).word;

    *own = qcow2_entry_has_own_space(q, first);
    while (n < count && (*own ? reservation_entry(q, res, n).word == first + (n << q->cluster_bits)
                              : !qcow2_entry_has_own_space(q, reservation_entry(q, res, n).word))) {
        n++;
    }
    return n;
}

/* Reduces the reservation to its first @clusters, which lie at @host_offset. */
static void reservation_set_place(const Qcow2 *q, BlkReservation *res, uint64_t clusters, uint64_t host_offset)
{
    uint64_t head = reservation_head(q, res);

    res->host_offset = host_offset + head;
    res->bytes = MIN(res->bytes, (clusters << q->cluster_bits) - head);
    res->host_bytes = res->bytes;
}

/* Finds host space for plain clusters: what the entries have already, or new. Sets res->bytes to what it is for. */
static int co_reserve_clusters(BlkNode *node, BlkReservation *res)
{
    Qcow2 *q = node->opaque;
    uint64_t n, cluster;
    bool own;

    if (q->has_data_file) {
        res->host_offset = res->offset;
        res->priv[1] = true;            /* nothing to give back */
        return 0;
    }
    n = reservation_run(q, res, &own);
    if (own) {
        reservation_set_place(q, res, n, reservation_entry(q, res, 0).word & QCOW2_OFFSET_MASK);
        res->priv[1] = true;            /* reuse */
    } else {
        blk_co_event(node->file->node, BLK_EVENT_cluster_alloc);
        gint64 got = qcow2_co_alloc_clusters(node, n, &cluster);
        if (got < 0) {
            return (int)got;
        }
        reservation_set_place(q, res, (uint64_t)got, cluster << q->cluster_bits);
    }
    return 0;
}

/* Space that is to be kept though it is read as zeroes: what is in it may go. */
static void reserve_kept(const Qcow2 *q, BlkReservation *res)
{
    bool own;
    uint64_t n = reservation_run(q, res, &own);

    reservation_set_place(q, res, n, reservation_entry(q, res, 0).word & QCOW2_OFFSET_MASK);
    if (own && q->pass_discard[QCOW2_DROP_REQUEST]) {
        res->zero_host = BLK_HOST_ZERO_IF_CHEAP;
    }
}

static int co_reserve_payload(BlkNode *node, BlkReservation *res)
{
    Qcow2 *q = node->opaque;

    qcow2_survey_start(node);
    blk_co_event(node->file->node, BLK_EVENT_cluster_alloc_bytes);
    res->bytes = q->cluster_size;
    res->host_bytes = (res->payload_bytes + 511) & ~UINT64_C(511);
    return qcow2_co_alloc_payload(node, res->host_bytes, 1, UINT64_MAX, &res->host_offset);
}

/* With the L2 entries at hand: checks what is to be dropped, takes host space. */
static int co_reserve_locked(BlkNode *node, BlkReservation *res)
{
    Qcow2 *q = node->opaque;
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < reservation_clusters(q, res); i++) {
        Qcow2Entry old = reservation_entry(q, res, i);
        bool moves = res->kind == BLK_MAP_DATA ? qcow2_entry_moves(q, old) : (old.word & QCOW2_COMPRESSED) != 0;
        g_assert(!moves || reservation_covers(q, res, i) == q->all_subclusters);
        ret = co_check_droppable(node, res->offset - reservation_head(q, res) + (i << q->cluster_bits), old);
    }
    if (ret < 0) {
        return ret;
    }
    switch (res->kind) {
    case BLK_MAP_DATA:
        return co_reserve_clusters(node, res);
    case BLK_MAP_COMPRESSED:
        return co_reserve_payload(node, res);
    default:
        if (q->has_data_file) {
            res->host_offset = res->offset;
            res->zero_host = q->data_file_raw ? BLK_HOST_ZERO : res->unmap ? BLK_HOST_ZERO_IF_CHEAP : BLK_HOST_KEEP;
        } else if (res->kind == BLK_MAP_ZERO && res->unmap && q->discard_no_unref) {
            reserve_kept(q, res);
        }
        return 0;
    }
}

/* Space that was dropped and is not free yet. */
static uint64_t pending_bytes(const Qcow2 *q)
{
    return q->dropped_bytes + q->frozen_bytes + q->limbo_bytes;
}

/* Commits when so much was dropped, while others go on: they wait, not for ever, for the commit and for readers only when
 * as much again was dropped, else the file would grow. */
static int co_bring_back_space(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    uint64_t window = MAX(DROPPED_BYTES_MIN, blk_node_length(node->file->node) / DROPPED_PART);
    int ret = 0;

    for (unsigned tries = 0; ret == 0 && tries < SPACE_WAITS; tries++) {
        if (q->dropped_bytes > window && !q->frozen_drops) {
            ret = co_commit(node, true);
        } else if (pending_bytes(q) > 2 * window) {
            blk_co_sleep_ns(SPACE_WAIT_NS);
            blk_co_mutex_lock(&q->alloc_lock);
            ret = qcow2_co_drain_limbo(node);
            blk_co_mutex_unlock(&q->alloc_lock);
        } else {
            break;
        }
    }
    return ret;
}

/* Commits early when much metadata is changed, or when a flush would bring back much space. */
static int co_throttle(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    int ret = blk_meta_wants_commit(q->meta) ? qcow2_co_commit_all(node) : 0;

    return ret < 0 ? ret : co_bring_back_space(node);
}

/* What clusters that lose their data become. */
static int choose_kind(const BlkNode *node, BlkReservation *res)
{
    const Qcow2 *q = node->opaque;

    if (res->kind == BLK_MAP_DATA || res->kind == BLK_MAP_COMPRESSED) {
        return 0;
    }
    if (res->kind == BLK_MAP_UNALLOCATED && res->bare) {
        return 0;
    }
    if (q->header.version < 3) {
        res->kind = BLK_MAP_UNALLOCATED;
        return node->backing || res->hide ? -ENOTSUP : 0;   /* version 2 cannot hide what the backing has */
    }
    if (res->kind == BLK_MAP_UNALLOCATED) {
        res->kind = BLK_MAP_ZERO;       /* discarded data must not come back, nor the backing's show through */
        res->unmap = true;
    }
    return 0;
}

int qcow2_co_reserve(BlkNode *node, BlkReservation *res)
{
    Qcow2 *q = node->opaque;
    uint64_t l1_entry, slice = MIN(q->cluster_size, 4096);
    BlkMetaBlock *block;
    int ret = !q->tables ? -EROFS : q->corrupt ? -EIO : qcow2_co_recover(node);

    ret = ret < 0 ? ret : co_throttle(node);
    if (ret < 0) {
        return ret;
    }
    ret = choose_kind(node, res);
    if (ret == 0) {
        ret = co_own_table(node, res->offset, &l1_entry);
    }
    if (ret < 0) {
        return ret;
    }
    uint64_t place = qcow2_l2_entry_offset(q, l1_entry, res->offset);
    ret = blk_meta_co_get_for(q->meta, place, BLK_EVENT_l2_load, &block);
    if (ret < 0) {
        return ret;
    }
    uint64_t unit = UINT64_C(1) << q->subcluster_bits, entries = (block->offset + slice - place) / q->l2_entry_bytes;
    res->bytes = MIN((res->bytes + unit - 1) & ~(unit - 1), (entries << q->cluster_bits) - reservation_head(q, res));
    res->host_bytes = res->bytes;
    res->child = q->data;
    res->slice = block;
    res->priv[0] = place - block->offset;
    res->priv[1] = false;
    blk_co_mutex_lock(&q->alloc_lock);
    ret = co_reserve_locked(node, res);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (ret < 0) {
        blk_meta_put(q->meta, block);
    }
    return ret;
}

/* ---- publish, cancel ---- */

/* The new entry of cluster @i of the reservation. */
static Qcow2Entry new_entry(const Qcow2 *q, const BlkReservation *res, uint64_t i, Qcow2Entry old)
{
    const uint32_t covers = reservation_covers(q, res, i);
    Qcow2Entry entry = { 0 };

    switch (res->kind) {
    case BLK_MAP_DATA:
        entry.word = (res->host_offset - reservation_head(q, res) + (i << q->cluster_bits)) | QCOW2_COPIED;
        entry.data = old.data;
        entry.zero = old.zero;
        if (!res->preallocate || !(q->header.incompatible & QCOW2_INCOMPAT_EXTENDED_L2)) {
            entry.data |= covers;
            entry.zero &= ~covers;
        }
        break;
    case BLK_MAP_COMPRESSED:
        entry.word = qcow2_compressed_encode(q->cluster_bits, res->host_offset, res->host_bytes);
        break;
    case BLK_MAP_ZERO:
        entry.data = old.data & ~covers;
        entry.zero = old.zero | covers;
        if (entry.data != 0 || ((!res->unmap || q->discard_no_unref) && qcow2_entry_has_own_space(q, old.word))) {
            entry.word = old.word;
        }
        break;
    case BLK_MAP_UNALLOCATED:       /* version 2, and bare */
        break;
    }
    return entry;
}

void qcow2_publish(BlkNode *node, BlkReservation *res)
{
    Qcow2 *q = node->opaque;
    BlkMetaBlock *block = res->slice;
    bool gives_up = res->kind == BLK_MAP_ZERO || res->kind == BLK_MAP_UNALLOCATED;
    Qcow2DropReason reason = gives_up ? QCOW2_DROP_REQUEST : QCOW2_DROP_OTHER;

    for (uint64_t i = 0; i < reservation_clusters(q, res); i++) {
        Qcow2Entry old = reservation_entry(q, res, i), entry = new_entry(q, res, i, old);
        uint64_t offset, bytes;
        qcow2_entry_put(q, reservation_place(q, res, i), entry);
        qcow2_entry_extent(q, old.word, &offset, &bytes);
        bool kept = !((old.word | entry.word) & QCOW2_COMPRESSED) &&
                    (entry.word & QCOW2_OFFSET_MASK) == (old.word & QCOW2_OFFSET_MASK);
        if (bytes > 0 && !kept) {
            qcow2_drop_for(q, offset, bytes, (old.word & QCOW2_COMPRESSED) != 0, reason);
        }
        if (old.word & QCOW2_COMPRESSED) {
            qcow2_survey_dropped(q, res->offset - reservation_head(q, res) + (i << q->cluster_bits), offset, bytes);
        }
    }
    blk_meta_dirty(q->meta, block, BLK_META_MAP);
    blk_meta_put(q->meta, block);
}

void qcow2_cancel(BlkNode *node, BlkReservation *res)
{
    Qcow2 *q = node->opaque;

    if ((res->kind == BLK_MAP_DATA && !res->priv[1]) || res->kind == BLK_MAP_COMPRESSED) {
        qcow2_drop(q, res->host_offset, res->host_bytes, res->kind == BLK_MAP_COMPRESSED);
    }
    blk_meta_put(q->meta, res->slice);
}
