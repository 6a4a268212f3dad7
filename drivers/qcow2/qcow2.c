/* SPDX-License-Identifier: MIT */
/*
 * qcow2.c - the qcow2 format driver: open, close and its table. See qcow2.h for the files and docs/qcow2.md for how it works.
 *
 * Limitations: no encryption.
 */
#include "drivers/qcow2/qcow2.h"

#include "drivers/drivers.h"
#include "drivers/qcow2/bitmaps.h"

#include <string.h>

enum {
    MIN_CACHE_ENTRY = 512,              /* bytes, of l2-cache-entry-size */
    META_BLOCK_BYTES = 4096,            /* part of a table that is cached as one */
    SETTLE_ROUNDS = 4,                  /* commits until nothing is left to be given back */
    SMALL_HOLES = 256 << 10,            /* bytes */
};

/* The L2 cache covers this much of the disk by default, within bounds; bytes of tables. */
#define CACHE_MIN (UINT64_C(1) << 20)
#define CACHE_MAX (UINT64_C(32) << 20)

static const BlkOption qcow2_options[] = {
    { "file", BLK_OPTION_NODE, "the image file", .required = true },
    { "backing", BLK_OPTION_NODE, "where unallocated clusters are read from; null: nowhere (default: as the image says)" },
    { "data-file", BLK_OPTION_NODE, "the external data file (default: as the image says)" },
    { "cache-size", BLK_OPTION_SIZE, "memory for tables (default: enough for the whole disk, 1 MiB to 32 MiB)" },
    { "l2-cache-size", BLK_OPTION_SIZE, "a part of cache-size, which then is the sum of its parts: all tables share it" },
    { "refcount-cache-size", BLK_OPTION_SIZE, "the other part of cache-size" },
    { "l2-cache-entry-size", BLK_OPTION_SIZE, "checked, and without effect: tables are cached in parts of 4 KiB, whatever the cluster size" },
    { "cache-clean-interval", BLK_OPTION_UINT, "seconds after which parts of tables that nobody uses leave the cache; 0: never", "600",
      .max = UINT32_MAX },
    { "decompressed-cache", BLK_OPTION_SIZE, "memory for decompressed clusters; 0: none", "16M" },
    { "compression-level", BLK_OPTION_STRING, "of compressed writes, as the image's codec counts (default: the codec's)" },
    { "lazy-refcounts", BLK_OPTION_BOOL, "write reference counts late; after a crash the next who opens the image for writing "
      "repairs it (default: as the image says)" },
    { "overlap-check", BLK_OPTION_ENUM, "which tables nothing else may be written over (default: cached)", "cached",
      qcow2_overlap_templates },
    { "overlap-check.template", BLK_OPTION_ENUM, "the same as overlap-check", NULL, qcow2_overlap_templates },
    { "overlap-check.main-header", BLK_OPTION_BOOL, "overlaps with the header" },
    { "overlap-check.active-l1", BLK_OPTION_BOOL, "overlaps with the active L1 table" },
    { "overlap-check.active-l2", BLK_OPTION_BOOL, "overlaps with active L2 tables" },
    { "overlap-check.refcount-table", BLK_OPTION_BOOL, "overlaps with the refcount table" },
    { "overlap-check.refcount-block", BLK_OPTION_BOOL, "overlaps with refcount blocks" },
    { "overlap-check.snapshot-table", BLK_OPTION_BOOL, "overlaps with the snapshot table" },
    { "overlap-check.inactive-l1", BLK_OPTION_BOOL, "overlaps with the L1 tables of snapshots" },
    { "overlap-check.inactive-l2", BLK_OPTION_BOOL, "overlaps with L2 tables that only snapshots use" },
    { "overlap-check.bitmap-directory", BLK_OPTION_BOOL, "overlaps with tables of bitmaps" },
    { "discard-no-unref", BLK_OPTION_BOOL, "clusters that are discarded keep their place in the file", "off" },
    { "pass-discard-request", BLK_OPTION_BOOL, "punch space that discards and zeroes free out of the file", "on" },
    { "pass-discard-snapshot", BLK_OPTION_BOOL, "the same of space that deleted snapshots free", "on" },
    { "pass-discard-other", BLK_OPTION_BOOL, "the same of space that is free for other reasons, such as rewriting", "on" },
    { 0 },
};

/* All but the children. */
static const char *const qcow2_reopen_options[] = {
    "cache-size", "l2-cache-size", "refcount-cache-size", "l2-cache-entry-size", "cache-clean-interval", "decompressed-cache",
    "compression-level", "lazy-refcounts", "overlap-check", "overlap-check.template", "overlap-check.main-header", "overlap-check.active-l1",
    "overlap-check.active-l2", "overlap-check.refcount-table", "overlap-check.refcount-block", "overlap-check.snapshot-table", "overlap-check.inactive-l1",
    "overlap-check.inactive-l2", "overlap-check.bitmap-directory", "discard-no-unref", "pass-discard-request",
    "pass-discard-snapshot", "pass-discard-other", NULL,
};

static uint64_t default_cache_bytes(const Qcow2 *q)
{
    /* An L2 entry, and 8 bytes for counts, for each cluster. */
    uint64_t tables = (q->header.size >> q->cluster_bits) * (q->l2_entry_bytes + 8);

    return CLAMP(tables, CACHE_MIN, CACHE_MAX);
}

/* The size of the cache: one number, or the peer's two, of which one that is missing is the rest of the whole. */
static int qcow2_cache_bytes(Qcow2 *q, const BlkOptions *options, GError **error)
{
    static const char *const parts[] = { "l2-cache-size", "refcount-cache-size" };
    bool whole = blk_options_has(options, "cache-size");
    uint64_t sum = 0;
    unsigned given = 0;

    q->cache_bytes = whole ? blk_options_uint(options, "cache-size") : default_cache_bytes(q);
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++) {
        if (!blk_options_has(options, parts[i])) {
            continue;
        }
        uint64_t part = blk_options_uint(options, parts[i]);
        if (whole && part > q->cache_bytes) {
            return blk_error(error, -EINVAL, "%s may not exceed cache-size", parts[i]);
        }
        sum = part > UINT64_MAX - sum ? UINT64_MAX : sum + part;
        given++;
    }
    if (whole && given == G_N_ELEMENTS(parts)) {
        return blk_error(error, -EINVAL, "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
    }
    if (!whole && given > 0) {
        q->cache_bytes = given == G_N_ELEMENTS(parts) ? sum : MAX(sum, q->cache_bytes);
    }
    return 0;
}

/* What the option could do, small reads of tables, is so for all images; the values that the peer refuses are wrong here, too. */
static int qcow2_check_entry_size(const Qcow2 *q, const BlkOptions *options, GError **error)
{
    uint64_t size = blk_options_has(options, "l2-cache-entry-size") ? blk_options_uint(options, "l2-cache-entry-size") : q->cluster_size;

    return size >= MIN_CACHE_ENTRY && size <= q->cluster_size && (size & (size - 1)) == 0 ? 0
        : blk_error(error, -EINVAL, "L2 cache entry size must be a power of two between %d and the cluster size (%" G_GUINT64_FORMAT
                    ")", MIN_CACHE_ENTRY, (guint64)q->cluster_size);
}

static int qcow2_open_codec(Qcow2 *q, const BlkOptions *options, GError **error)
{
    const char *text = blk_options_string(options, "compression-level");
    gint64 level = -1;

    if (text && !g_ascii_string_to_signed(text, 10, -1, 22, &level, NULL)) {
        return blk_error(error, -EINVAL, "compression-level '%s' is no number from -1 to 22", text);
    }
    q->codec = blk_codec_new(q->header.compression_type == QCOW2_COMPRESSION_ZSTD ? BLK_CODEC_ZSTD : BLK_CODEC_DEFLATE,
                             (int)level, error);
    return q->codec ? 0 : -EINVAL;
}

/* Features that a writer who does not keep them up must clear (specification, "autoclear_features"); and what is left of
 * bitmaps when somebody else did. */
static int qcow2_co_clear_autoclear(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;
    uint64_t kept = QCOW2_AUTOCLEAR_BITMAPS | (q->has_data_file ? QCOW2_AUTOCLEAR_RAW_DATA : 0);
    bool lost = q->header.version >= 3 && q->header.bitmaps.present && !qcow2_header_has_bitmaps(&q->header);

    if ((q->header.autoclear & ~kept) == 0 && !lost) {
        return 0;
    }
    q->header.autoclear &= kept;
    if (lost) {
        qcow2_header_set_bitmaps(&q->header, 0, 0, 0);
    }
    int ret = qcow2_co_update_header(node->file->node, &q->header, error);
    if (ret == 0) {
        ret = blk_co_flush(node->file->node);
        if (ret < 0) {
            blk_error_errno(error, ret, "could not write the header");
        }
    }
    return ret;
}

void qcow2_set_geometry(Qcow2 *q)
{
    q->cluster_bits = q->header.cluster_bits;
    q->cluster_size = qcow2_cluster_size(&q->header);
    q->l2_bits = qcow2_l2_bits(&q->header);
    q->l2_entry_bytes = qcow2_l2_entry_bytes(&q->header);
    q->subcluster_bits = qcow2_subcluster_bits(&q->header);
    q->all_subclusters = q->subcluster_bits == q->cluster_bits ? 1 : UINT32_MAX;
    q->refblock_bits = q->cluster_bits + 3 - q->header.refcount_order;
    q->refcount_max = qcow2_refcount_max(q->header.refcount_order);
    q->has_data_file = q->header.incompatible & QCOW2_INCOMPAT_DATA_FILE;
    q->data_file_raw = q->has_data_file && (q->header.autoclear & QCOW2_AUTOCLEAR_RAW_DATA);
    q->host_limit = MIN(QCOW2_MAX_HOST_OFFSET, UINT64_C(1) << qcow2_compressed_offset_bits(q->cluster_bits));
}

/* The header, judged as far as what the node was opened for needs it. */
static int qcow2_co_load_header(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;

    return blk_node_open_flags(node)->check_only ? qcow2_co_read_damaged_header(node->file->node, &q->header, error)
                                                 : qcow2_co_read_header(node->file->node, &q->header, error);
}

/* An image that is opened for its metadata only may be repaired, however broken it is, but not written to. */
static bool guest_may_write(const BlkNode *node)
{
    const BlkOpenFlags *flags = blk_node_open_flags(node);

    return !node->read_only && !flags->no_backing && !flags->check_only;
}

/* Are counts to be written late? */
static int qcow2_open_lazy(Qcow2 *q, const BlkOptions *options, GError **error)
{
    q->lazy = (q->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS) != 0;
    if (blk_options_has(options, "lazy-refcounts")) {
        q->lazy = blk_options_bool(options, "lazy-refcounts");
    }
    if (q->lazy && q->header.version < 3) {
        return blk_error(error, -EINVAL, "lazy-refcounts=on needs an image of compat 1.1: version 2 has no mark for images "
                         "whose refcounts lag behind");
    }
    return 0;
}

static int qcow2_open_discard(Qcow2 *q, const BlkOptions *options, GError **error)
{
    q->discard_no_unref = blk_options_bool(options, "discard-no-unref");
    q->pass_discard[QCOW2_DROP_REQUEST] = blk_options_bool(options, "pass-discard-request");
    q->pass_discard[QCOW2_DROP_SNAPSHOT] = blk_options_bool(options, "pass-discard-snapshot");
    q->pass_discard[QCOW2_DROP_OTHER] = blk_options_bool(options, "pass-discard-other");
    if (q->discard_no_unref && q->header.version < 3) {
        return blk_error(error, -EINVAL, "discard-no-unref=on needs an image of compat 1.1: version 2 has no zero clusters");
    }
    return 0;
}

static size_t meta_block_bytes(const Qcow2 *q)
{
    return MIN(q->cluster_size, META_BLOCK_BYTES);
}

static uint64_t clean_interval_ns(const BlkOptions *options)
{
    return blk_options_uint(options, "cache-clean-interval") * UINT64_C(1000000000);
}

/* Those that do not name children, and can change while the image is open. */
static int qcow2_take_options(Qcow2 *q, const BlkOptions *options, GError **error)
{
    int ret = qcow2_open_lazy(q, options, error);

    ret = ret < 0 ? ret : qcow2_overlap_options(q, options, error);
    ret = ret < 0 ? ret : qcow2_open_discard(q, options, error);
    ret = ret < 0 ? ret : qcow2_cache_bytes(q, options, error);
    ret = ret < 0 ? ret : qcow2_check_entry_size(q, options, error);
    return ret < 0 ? ret : qcow2_open_codec(q, options, error);
}

/* What comes before an image's tables are used for writing. */
static int qcow2_co_open_for_writing(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_header_check_writable(&q->header, error);

    return ret < 0 ? ret : qcow2_co_dirty_repair(node, error);
}

/* Most files have only small holes, in clusters that were written in part: these are not worth a question for each range, nor
 * an answer of their own. */
static bool co_is_sparse(BlkNode *file)
{
    uint64_t length = blk_node_length(file);
    bool sparse = false;
    BlkInfo info;

    if (blk_co_info(file, &info, NULL) == 0) {
        sparse = info.has_allocated && info.allocated_bytes + MAX(length / 10, SMALL_HOLES) < length;
        blk_info_clear(&info);
    }
    return sparse;
}

static int qcow2_co_open_data(BlkNode *node, const BlkOptions *options, GError **error)
{
    Qcow2 *q = node->opaque;

    node->caps = BLK_CAP_ZERO_INIT;
    if (!q->has_data_file) {
        if (blk_options_has(options, "data-file")) {
            return blk_error(error, -EINVAL, "the option 'data-file' is for images with an external data file: this one "
                             "has none");
        }
        q->data = blk_node_open_flags(node)->check_only ? NULL : node->file;
        q->may_have_holes = co_is_sparse(node->file->node);
        node->caps |= BLK_CAP_COMPRESSED_WRITE | BLK_CAP_COMPRESSED_REWRITE;
    } else if (!blk_node_open_flags(node)->no_backing) {
        q->data = blk_co_open_data_file(node, options, q->header.data_file, error);
        return q->data ? 0 : -EINVAL;
    }
    return 0;
}

static int qcow2_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    Qcow2 *q = node->opaque;
    BlkMetaHooks hooks = {
        .freeze = qcow2_commit_freeze,
        .done = qcow2_commit_done,
        .opaque = node,
        .events = { BLK_EVENT_refblock_update, BLK_EVENT_reftable_update, BLK_EVENT_l2_update },
    };

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    int ret = qcow2_co_load_header(node, error);
    if (ret == 0 && !blk_node_open_flags(node)->no_backing) {
        ret = qcow2_header_check_readable(&q->header, error);
        if (ret == 0) {
            ret = qcow2_header_check_refcounts(&q->header, blk_node_length(node->file->node), error);
        }
    }
    if (ret == 0 && guest_may_write(node)) {
        ret = qcow2_co_open_for_writing(node, error);
    }
    if (ret < 0) {
        return ret;
    }
    qcow2_set_geometry(q);
    node->length = q->header.size;
    ret = qcow2_take_options(q, options, error);
    if (ret < 0) {
        return ret;
    }
    q->meta = blk_meta_new(node, meta_block_bytes(q), q->cache_bytes / meta_block_bytes(q), &hooks);
    blk_meta_set_clean_interval(q->meta, clean_interval_ns(options));
    blk_engine_set_decompressed_cache(node, blk_options_uint(options, "decompressed-cache"));
    ret = qcow2_co_open_data(node, options, error);
    if (ret == 0) {
        ret = blk_co_open_backing(node, options, q->header.backing_file, q->header.backing_format, error);
    }
    if (ret == 0) {
        ret = qcow2_co_bitmaps_open(node, guest_may_write(node), error);
    }
    if (ret == 0 && guest_may_write(node)) {
        ret = qcow2_co_alloc_open(node, error);
        if (ret == 0) {
            ret = qcow2_co_clear_autoclear(node, error);
        }
    }
    return ret;
}

int qcow2_co_settle(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    int ret = 0;

    for (unsigned round = 0; ret == 0 && round < SETTLE_ROUNDS; round++) {
        if (!blk_meta_is_dirty(q->meta) && q->drops->len == 0 && g_queue_is_empty(&q->limbo)) {
            break;
        }
        ret = qcow2_co_commit_all(node);
    }
    return ret < 0 ? ret : qcow2_co_lazy_end(node);
}

static void qcow2_co_close(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    qcow2_co_survey_stop(node);
    if (q->tables && q->meta) {
        qcow2_co_bitmaps_finish(node);
        /* Who wants to know flushes first; a mark that stays is repaired by the next. */
        if (qcow2_co_settle(node) == 0) {
            qcow2_co_give_up_free_space(node);
        }
    }
    qcow2_bitmaps_close(node);
    qcow2_alloc_close(q);
    g_clear_pointer(&q->meta, blk_meta_free);
    g_clear_pointer(&q->codec, blk_codec_free);
    qcow2_header_clear(&q->header);
}

/* ---- reopening ---- */

/* All that was held back is stable. What is open for writing stays so until the commit. */
static int qcow2_co_end_writing(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;

    qcow2_co_survey_stop(node);
    q->surveyed = false;
    int ret = qcow2_co_bitmaps_store(node, error);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_co_settle(node);
    if (ret == 0) {
        qcow2_co_give_up_free_space(node);
        ret = blk_co_flush(node->file->node);
    }
    return ret < 0 ? blk_error_errno(error, ret, "The image '%s' cannot become read-only, since its tables could not be "
                                     "written", blk_node_filename(node)) : 0;
}

/* As when it is opened for writing; what was kept while it was read-only is read anew. */
static int qcow2_co_begin_writing(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_co_open_for_writing(node, error);
    qcow2_bitmaps_close(node);
    blk_meta_co_forget(q->meta, 0, UINT64_MAX);
    if (ret == 0) {
        ret = qcow2_co_bitmaps_open(node, true, error);
    }
    if (ret == 0) {
        q->begun_writing = true;
        ret = qcow2_co_alloc_open(node, error);
    }
    return ret < 0 ? ret : qcow2_co_clear_autoclear(node, error);
}

/* What was, while a reopening with other options may still be taken back. */
typedef struct Qcow2Before {
    bool lazy, discard_no_unref, pass_discard[QCOW2_DROP_REASONS];
    unsigned overlap_kinds;
    uint64_t cache_bytes;
    uint64_t decompressed_bytes, clean_ns;      /* what will be */
    BlkCodec *codec;
    GHashTable *tables;                         /* NULL: the set is the same */
} Qcow2Before;

static void restore_options(Qcow2 *q)
{
    Qcow2Before *before = g_steal_pointer(&q->before);

    q->lazy = before->lazy;
    q->discard_no_unref = before->discard_no_unref;
    memcpy(q->pass_discard, before->pass_discard, sizeof(q->pass_discard));
    q->overlap_kinds = before->overlap_kinds;
    q->cache_bytes = before->cache_bytes;
    blk_codec_free(q->codec);
    q->codec = before->codec;
    if (before->tables) {
        g_hash_table_unref(q->tables);
        q->tables = before->tables;
    }
    g_free(before);
}

/* The set of tables, by q->overlap_kinds. */
static int qcow2_co_collect_tables(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;

    if (!q->tables || q->overlap_kinds == q->before->overlap_kinds) {
        return 0;
    }
    q->before->tables = q->tables;
    q->tables = g_hash_table_new(NULL, NULL);
    return qcow2_co_tables_open(node, error);
}

static int qcow2_co_change_options(BlkNode *node, const BlkOptions *options, GError **error)
{
    Qcow2 *q = node->opaque;
    int ret = q->tables ? qcow2_co_settle(node) : 0;        /* no mark is left that only lazy-refcounts explains */

    if (ret < 0) {
        return blk_error_errno(error, ret, "The options of '%s' cannot change, since its tables could not be written",
                               blk_node_filename(node));
    }
    q->before = g_new0(Qcow2Before, 1);
    *q->before = (Qcow2Before) {
        .lazy = q->lazy,
        .discard_no_unref = q->discard_no_unref,
        .overlap_kinds = q->overlap_kinds,
        .cache_bytes = q->cache_bytes,
        .decompressed_bytes = blk_options_uint(options, "decompressed-cache"),
        .clean_ns = clean_interval_ns(options),
        .codec = g_steal_pointer(&q->codec),
    };
    memcpy(q->before->pass_discard, q->pass_discard, sizeof(q->pass_discard));
    ret = qcow2_take_options(q, options, error);
    return ret < 0 ? ret : qcow2_co_collect_tables(node, error);
}

static void commit_options(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    Qcow2Before *before = g_steal_pointer(&q->before);

    blk_meta_set_max_blocks(q->meta, q->cache_bytes / meta_block_bytes(q));
    blk_meta_set_clean_interval(q->meta, before->clean_ns);
    blk_engine_set_decompressed_cache(node, before->decompressed_bytes);
    blk_codec_free(before->codec);
    g_clear_pointer(&before->tables, g_hash_table_unref);
    g_free(before);
}

static void qcow2_co_reopen_abort(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    if (q->begun_writing) {
        qcow2_alloc_close(q);
        q->begun_writing = false;
    }
    if (q->before) {
        restore_options(q);
    }
}

static int qcow2_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error)
{
    Qcow2 *q = node->opaque;
    bool writes = q->tables != NULL, will_write = !to->read_only && guest_may_write(node);
    int ret = to->options ? qcow2_co_change_options(node, to->options, error) : 0;

    if (ret == 0 && writes && !will_write) {
        ret = qcow2_co_end_writing(node, error);
    }
    if (ret == 0 && !writes && will_write) {
        ret = blk_bitmaps_check_unclaimed(node, error);
    }
    if (ret < 0) {
        qcow2_co_reopen_abort(node);
    }
    if (ret < 0 || writes == will_write || writes) {
        return ret;
    }
    ret = qcow2_co_begin_writing(node, error);
    if (ret < 0) {
        qcow2_co_reopen_abort(node);
        qcow2_bitmaps_close(node);
        qcow2_co_bitmaps_open(node, false, NULL);
    }
    return ret;
}

static void qcow2_co_reopen_commit(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    q->begun_writing = false;
    if (q->before) {
        commit_options(node);
    }
    if (q->tables && !guest_may_write(node)) {
        qcow2_alloc_close(q);
    }
}

static void qcow2_refresh_limits(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    node->limits.read_align = node->limits.write_align = 1;
    node->limits.max_transfer = 0;
    node->limits.zeroes_align = 1;
    node->limits.discard_align = node->limits.cluster_size = (uint32_t)q->cluster_size;
    node->limits.subcluster_size = UINT32_C(1) << q->subcluster_bits;
}

static const BlkCodec *qcow2_codec(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    return q->codec;
}

/* Repairing works on the file: the caches are emptied before and after. */
static int qcow2_co_check_image(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error)
{
    Qcow2 *q = node->opaque;
    bool writable = q->tables != NULL;

    bool repair = !node->read_only && (options->fix_errors || options->fix_leaks);
    int ret;

    qcow2_co_survey_stop(node);
    ret = writable && repair ? qcow2_co_bitmaps_store(node, error) : 0;
    if (ret < 0) {
        return ret;
    }
    ret = writable ? qcow2_co_settle(node) : 0;
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not write the tables");
    }
    ret = qcow2_co_check(node->file->node, options, result, error);
    if (ret < 0 || !repair) {
        return ret;
    }
    qcow2_bitmaps_close(node);
    qcow2_alloc_close(q);
    blk_meta_co_forget(q->meta, 0, UINT64_MAX);
    qcow2_header_clear(&q->header);
    ret = qcow2_co_load_header(node, error);
    if (ret == 0) {
        ret = qcow2_co_bitmaps_open(node, writable, error);
    }
    return ret == 0 && writable ? qcow2_co_alloc_open(node, error) : ret;
}

static const BlkFormatOps qcow2_format = {
    .co_map = qcow2_co_map,
    .co_reserve = qcow2_co_reserve,
    .publish = qcow2_publish,
    .cancel = qcow2_cancel,
    .co_commit = qcow2_co_commit,
    .codec = qcow2_codec,
};

const BlkDriver blk_driver_qcow2 = {
    .name = "qcow2",
    .kind = BLK_FORMAT,
    .help = "disk image with snapshots, compression and backing files",
    .options = qcow2_options,
    .create_options = qcow2_create_options,
    .amend_options = qcow2_amend_options,
    .instance_size = sizeof(Qcow2),
    .probe = qcow2_probe,
    .format = &qcow2_format,
    .bitmaps = &qcow2_bitmap_ops,
    .snapshots = &qcow2_snapshot_ops,
    .co_open = qcow2_co_open,
    .co_close = qcow2_co_close,
    .reopen_options = qcow2_reopen_options,
    .co_reopen_prepare = qcow2_co_reopen_prepare,
    .co_reopen_commit = qcow2_co_reopen_commit,
    .co_reopen_abort = qcow2_co_reopen_abort,
    .refresh_limits = qcow2_refresh_limits,
    .co_truncate = qcow2_co_truncate,
    .co_info = qcow2_co_info,
    .info_members = qcow2_info_members,
    .co_check = qcow2_co_check_image,
    .co_compact = qcow2_co_compact,
    .co_amend = qcow2_co_amend,
    .co_change_backing = qcow2_co_change_backing,
    .co_make_empty = qcow2_co_make_empty,
    .check_create = qcow2_check_create,
    .co_measure = qcow2_co_measure,
    .co_stream = qcow2_co_stream,
    .co_create = qcow2_co_create,
};
