/* SPDX-License-Identifier: MIT */
/*
 * check.c - is a qcow2 image sound? And repairs.
 *
 *     look:    structure -> window by window: count references, judge entries and flags, compare counts
 *     repair:  look -> mark dirty -> give up entries that cannot be -> structure -> copy tables and data that too many
 *              share, move data off tables, and give up again -> look again -> counts (in place, or all refcount
 *              structures anew) -> COPIED flags -> unmark
 *
 * Repairs of mappings come before those of counts, so that the counts are those of the image as it will be. While the
 * mark is set (version 3) a repair that is cut off can be repeated. When something could not be read nothing is
 * repaired: what it refers to is not known.
 *
 * Limitation: of an entry that lies nobody knows what it should say: it is given up.
 */
#include "drivers/qcow2/check.h"

enum { IN_FLIGHT = 8, COPY_BYTES = 256 << 20 };

/* ---- messages ---- */

void qcow2_check_tell(Qcow2Check *check, const char *text)
{
    if (check->options->message != NULL && check->messages++ < QCOW2_CHECK_MAX_MESSAGES) {
        check->options->message(text, check->options->opaque);
    }
}

static void message_va(Qcow2Check *check, const char *format, va_list args)
{
    const bool told = check->messages < QCOW2_CHECK_MAX_MESSAGES;
    g_autofree char *text = NULL;

    if (check->options->message == NULL) {
        return;
    }
    text = told ? g_strdup_vprintf(format, args) : NULL;
    if (!qcow2_check_data_keep(check, text)) {
        qcow2_check_tell(check, text);
    }
}

void qcow2_check_message(Qcow2Check *check, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    message_va(check, format, args);
    va_end(args);
}

void qcow2_check_found(Qcow2Check *check, uint64_t *counter, const char *format, ...)
{
    va_list args;

    ++*counter;
    if (!check->silent) {
        va_start(args, format);
        message_va(check, format, args);
        va_end(args);
    }
}

void qcow2_check_repaired(Qcow2Check *check, const char *format, ...)
{
    va_list args;

    check->result->corruptions_fixed++;
    va_start(args, format);
    message_va(check, format, args);
    va_end(args);
}

/* No image makes us print without end; how much was left out is said. */
static void end_messages(Qcow2Check *check)
{
    if (check->options->message != NULL && check->messages > QCOW2_CHECK_MAX_MESSAGES) {
        g_autofree char *text = g_strdup_printf("... and %" PRIu64 " more findings, which are counted but not listed.",
                                                check->messages - QCOW2_CHECK_MAX_MESSAGES);

        check->options->message(text, check->options->opaque);
    }
}

void qcow2_check_progress(Qcow2Check *check, double fraction)
{
    const double clusters = MAX(check->clusters, 1);
    const double from = MIN(check->first / clusters, 1), to = MIN(MIN(check->end, check->clusters) / clusters, 1);
    const double done = from + (to - from) * fraction;

    if (check->options->progress != NULL) {
        check->options->progress(check->progress_from + (check->progress_to - check->progress_from) * done,
                                 check->options->opaque);
    }
}

/* ---- I/O ---- */

char *qcow2_check_read_failed(Qcow2Check *check, uint64_t offset, int ret)
{
    check->result->check_errors++;
    return g_strdup_printf("ERROR: I/O error at %#" PRIx64 ": %s", offset, g_strerror(-ret));
}

static void read_failed(Qcow2Check *check, uint64_t offset, int ret)
{
    g_autofree char *text = qcow2_check_read_failed(check, offset, ret);

    qcow2_check_message(check, "%s", text);
}

int qcow2_check_co_try_read(Qcow2Check *check, uint64_t offset, uint64_t bytes, void *buf)
{
    const uint64_t there = offset >= check->file_bytes ? 0 : MIN(bytes, check->file_bytes - offset);

    memset((uint8_t *)buf + there, 0, bytes - there);
    return there > 0 ? blk_co_pread(check->file, offset, there, buf, 0) : 0;
}

int qcow2_check_co_read(Qcow2Check *check, uint64_t offset, uint64_t bytes, void *buf)
{
    int ret = qcow2_check_co_try_read(check, offset, bytes, buf);

    if (ret < 0) {
        read_failed(check, offset, ret);
        return -EIO;
    }
    return 0;
}

int qcow2_check_co_write(Qcow2Check *check, uint64_t offset, uint64_t bytes, const void *buf)
{
    int ret = blk_co_pwrite(check->file, offset, bytes, buf, 0);

    if (ret == 0 && offset + bytes > check->file_bytes) {
        check->file_bytes = offset + bytes;
        check->clusters = qcow2_check_clusters_for(check, check->file_bytes);
    }
    return ret;
}

bool qcow2_check_co_is_hole(Qcow2Check *check, uint64_t offset, uint64_t bytes)
{
    BlkStatus status;

    if (!check->sparse || offset >= check->file_bytes) {
        return false;
    }
    bytes = MIN(bytes, check->file_bytes - offset);
    return blk_co_block_status(check->file, offset, bytes, &status) == 0 && (status.flags & BLK_STATUS_ZERO) &&
           status.bytes >= bytes;
}

int qcow2_check_may_copy(Qcow2Check *check, uint64_t bytes)
{
    if (bytes > check->copy_limit) {
        return -EFBIG;
    }
    check->copy_limit -= bytes;
    return 0;
}

/* One of the clusters that are read ahead. */
typedef struct ReadAhead {
    Qcow2Check *check;
    uint64_t offset;                /* UINT64_MAX: nothing is read */
    uint8_t *buf;
    int ret;
    bool busy;
    BlkCoQueue waiter;
} ReadAhead;

static int co_read_one(void *opaque)
{
    ReadAhead *read = opaque;
    Qcow2Check *check = read->check;

    if (qcow2_check_co_is_hole(check, read->offset, check->cluster_size)) {
        memset(read->buf, 0, check->cluster_size);
    } else {
        read->ret = qcow2_check_co_try_read(check, read->offset, check->cluster_size, read->buf);
    }
    read->busy = false;
    blk_co_queue_wake_all(&read->waiter);
    return 0;
}

static int co_start_read(BlkCoGroup *group, ReadAhead *read, uint64_t offset)
{
    read->offset = offset;
    read->ret = 0;
    read->busy = offset != UINT64_MAX;
    return read->busy ? blk_co_group_run(group, co_read_one, read) : 0;
}

int qcow2_check_co_visit(Qcow2Check *check, uint64_t count, uint64_t (*place)(Qcow2Check *, uint64_t),
                         Qcow2CheckVisit *visit)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(IN_FLIGHT);
    g_autofree uint8_t *buffers = g_try_malloc(IN_FLIGHT << check->cluster_bits);
    ReadAhead reads[IN_FLIGHT] = { 0 };
    uint64_t started = 0;
    int ret = buffers == NULL ? -ENOMEM : 0, waited;

    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        ReadAhead *read = &reads[i % IN_FLIGHT];

        for (; ret == 0 && started < count && started < i + IN_FLIGHT; started++) {
            const unsigned slot = started % IN_FLIGHT;

            reads[slot].check = check;
            reads[slot].buf = buffers + ((size_t)slot << check->cluster_bits);
            ret = co_start_read(&group, &reads[slot], place(check, started));
        }
        while (ret == 0 && read->busy) {
            blk_co_queue_wait(&read->waiter);
        }
        if (ret == 0 && read->offset != UINT64_MAX) {
            if (read->ret < 0) {
                read_failed(check, read->offset, read->ret);
            }
            ret = visit(check, i, read->ret < 0 ? NULL : read->buf);
        }
    }
    waited = blk_co_group_wait(&group);
    return ret < 0 ? ret : waited;
}

/* ---- windows ---- */

/* What is done in each window, and between the windows. */
typedef int WindowFn(Qcow2Check *check, void *opaque);

static int co_each_window(Qcow2Check *check, WindowFn *fn, void *opaque)
{
    const uint64_t clusters = check->clusters;      /* what a repair adds behind them is sound */
    uint64_t first = 0;
    int ret = 0;

    do {
        qcow2_check_window_begin(check, first);
        ret = fn(check, opaque);
        if (ret == 0 && check->short_of_memory) {
            ret = -ENOMEM;
        }
        first = check->end;
    } while (ret == 0 && first < clusters);
    return ret;
}

static int co_look_window(Qcow2Check *check, void *unused)
{
    int ret = qcow2_check_co_note_ones(check);

    if (ret == 0) {
        qcow2_check_count_structure(check, true);
        ret = qcow2_check_co_walk(check, true);
    }
    return ret == 0 ? qcow2_check_co_compare(check, false) : ret;
}

/* For the steps that change mappings. */
static int co_change_window(Qcow2Check *check, void *opaque)
{
    const Qcow2CheckStep *step = opaque;
    int ret;

    check->step = QCOW2_CHECK_COUNT;
    qcow2_check_count_structure(check, false);
    ret = qcow2_check_co_walk(check, true);
    check->step = *step;
    if (ret < 0) {
        return ret;
    }
    return *step == QCOW2_CHECK_UNSHARE ? qcow2_check_co_unshare_tables(check) : qcow2_check_co_walk(check, false);
}

static int co_counts_window(Qcow2Check *check, void *opaque)
{
    Qcow2Rebuild *rebuild = opaque;
    int ret;

    check->step = QCOW2_CHECK_COUNT;
    qcow2_check_count_structure(check, rebuild == NULL);
    ret = qcow2_check_co_walk(check, true);
    if (ret == 0) {
        ret = rebuild != NULL ? qcow2_check_co_rebuild_window(check, rebuild) : qcow2_check_co_compare(check, true);
    }
    if (ret == 0 && check->options->fix_errors) {
        check->step = QCOW2_CHECK_FLAGS;
        ret = qcow2_check_co_walk(check, false);
    }
    if (ret == 0 && rebuild != NULL && check->end >= rebuild->area) {
        ret = qcow2_check_co_rebuild_end(check, rebuild);
    }
    return ret;
}

/* ---- steps ---- */

static void set_progress(Qcow2Check *check, double from, double to)
{
    check->progress_from = from;
    check->progress_to = to;
}

static int co_look(Qcow2Check *check)
{
    BlkCheckResult *result = check->result;
    int ret;

    check->found = (Qcow2Findings) { 0 };
    check->step = QCOW2_CHECK_LOOK;
    result->allocated_clusters = result->compressed_clusters = result->fragmented_clusters = 0;
    result->image_end_offset = 0;
    ret = qcow2_check_co_read_structure(check);
    return ret == 0 && check->lost == NULL ? co_each_window(check, co_look_window, NULL) : ret;
}

static uint64_t errors_of_mappings(const Qcow2Findings *found)
{
    return found->structure + found->overlaps + found->entries;
}

static uint64_t errors_of_counts(const Qcow2Findings *found)
{
    return found->refcounts + found->low + found->flags;
}

static int co_step(Qcow2Check *check, Qcow2CheckStep step)
{
    return co_each_window(check, co_change_window, &step);
}

/*
 * Entries that point behind the end of the file are given up before the file grows. What seems to be an L2 table may
 * be guest data, if an L1 entry lies; so a table that something else refers to is not changed before that was copied.
 */
static int co_repair_mappings(Qcow2Check *check)
{
    const Qcow2Findings before = check->found;
    /* Encrypted data says something else in another place. */
    const bool encrypted = check->header.crypt_method != QCOW2_CRYPT_NONE;
    const bool unshare = check->overflow && !encrypted, move = unshare || (before.overlaps > 0 && !encrypted);
    int ret = 0;

    if (before.entries > 0) {
        check->careful = true;
        ret = co_step(check, QCOW2_CHECK_CLEAN);
        check->careful = false;
    }
    if (ret == 0 && before.structure > 0) {
        ret = qcow2_check_co_repair_structure(check);
        if (ret == 0) {
            ret = qcow2_check_co_read_structure(check);
        }
    }
    if (ret == 0 && unshare) {
        ret = co_step(check, QCOW2_CHECK_UNSHARE);
    }
    check->careful = true;
    if (ret == 0 && move) {
        ret = co_step(check, QCOW2_CHECK_MOVE);
    }
    check->careful = false;
    if (ret == 0 && move) {
        ret = co_step(check, QCOW2_CHECK_MOVE);
    }
    if (ret == 0 && before.entries + before.structure + before.overlaps > 0) {
        ret = co_step(check, QCOW2_CHECK_CLEAN);
    }
    return ret == 0 ? co_look(check) : ret;
}

static int co_repair_counts(Qcow2Check *check)
{
    const Qcow2Findings before = check->found;
    Qcow2Rebuild rebuild = { 0 };
    int ret;

    if (!check->rebuild || !check->options->fix_errors) {
        return co_each_window(check, co_counts_window, NULL);
    }
    qcow2_check_message(check, "Rebuilding refcount structure");
    qcow2_check_rebuild_begin(check, &rebuild);
    ret = co_each_window(check, co_counts_window, &rebuild);
    g_array_unref(rebuild.blocks);
    if (ret == 0) {
        check->result->corruptions_fixed += before.refcounts + before.low;
        check->result->leaks_fixed += before.leaks;
    }
    return ret;
}

/* Version 3: sets or takes away the marks of an image that must not be written to as it is. */
static int co_set_marks(Qcow2Check *check, uint64_t marks)
{
    const uint64_t both = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
    g_autoptr(GError) error = NULL;
    uint8_t field[8];
    int ret;

    if (check->header.version < 3 || (check->header.incompatible & both) == marks) {
        return 0;
    }
    check->header.incompatible = (check->header.incompatible & ~both) | marks;
    blk_put_be64(field, check->header.incompatible);
    ret = blk_co_flush(check->file);
    if (ret == 0) {
        ret = qcow2_check_co_write(check, QCOW2_HEADER_INCOMPATIBLE_AT, sizeof(field), field);
    }
    return ret == 0 ? blk_co_flush(check->file) : ret;
}

static int co_repair(Qcow2Check *check, bool mappings)
{
    BlkCheckResult *result = check->result;
    const Qcow2Findings *found = &check->found;
    int ret = 0;

    if (result->check_errors > 0) {
        result->corruptions = errors_of_mappings(found) + errors_of_counts(found);
        result->leaks = found->leaks;
        return 0;
    }
    if (check->options->fix_errors && errors_of_mappings(found) + errors_of_counts(found) > 0) {
        ret = co_set_marks(check, check->header.incompatible & QCOW2_INCOMPAT_CORRUPT ? QCOW2_INCOMPAT_DIRTY |
                           QCOW2_INCOMPAT_CORRUPT : QCOW2_INCOMPAT_DIRTY);
    }
    if (ret == 0 && mappings && check->options->fix_errors && (errors_of_mappings(found) > 0 || check->overflow)) {
        set_progress(check, 0.25, 0.5);
        ret = co_repair_mappings(check);
    }
    check->silent = false;
    result->corruptions = errors_of_mappings(found);
    if (ret == 0 && found->leaks + errors_of_counts(found) > 0) {
        if (!check->options->fix_errors) {
            result->corruptions += found->refcounts + found->flags;
        }
        set_progress(check, 0.5, 1);
        ret = co_repair_counts(check);
    }
    if (ret == 0 && check->options->fix_errors && result->corruptions == 0 && result->check_errors == 0) {
        ret = co_set_marks(check, 0);
    }
    return ret == 0 ? blk_co_flush(check->file) : ret;
}

/* ---- all of it ---- */

static int prepare(Qcow2Check *check, GError **error)
{
    const BlkCodecType type = check->header.compression_type == QCOW2_COMPRESSION_ZSTD ? BLK_CODEC_ZSTD
                                                                                       : BLK_CODEC_DEFLATE;
    BlkInfo info;

    if (blk_co_info(check->file, &info, NULL) == 0) {
        check->sparse = info.has_allocated && info.allocated_bytes < check->file_bytes / 2;
        blk_info_clear(&info);
    }
    check->cluster_bits = check->header.cluster_bits;
    check->cluster_size = qcow2_cluster_size(&check->header);
    check->l2_bits = qcow2_l2_bits(&check->header);
    check->l2_entry_bytes = qcow2_l2_entry_bytes(&check->header);
    check->clusters = qcow2_check_clusters_for(check, check->file_bytes);
    check->has_data_file = check->header.incompatible & QCOW2_INCOMPAT_DATA_FILE;
    check->per_block = check->cluster_size * 8 >> check->header.refcount_order;
    check->copy_limit = check->file_bytes + COPY_BYTES;
    check->tables = g_array_new(FALSE, FALSE, sizeof(Qcow2CheckTable));
    check->result->total_clusters = qcow2_check_clusters_for(check, check->header.size);
    if (check->options->data && check->header.crypt_method == QCOW2_CRYPT_NONE) {
        check->codec = blk_codec_new(type, -1, error);
        return check->codec == NULL ? -ENOMEM : 0;
    }
    return 0;
}

static void finish(Qcow2Check *check)
{
    qcow2_check_window_clear(check);
    qcow2_check_free_structure(check);
    g_clear_pointer(&check->tables, g_array_unref);
    blk_codec_free(check->codec);
    qcow2_header_clear(&check->header);
}

/* Where the disk's data lies is not known: what is there stays as it is. What a normal open would call an invalid offset is
 * no image that could be checked. */
static int end_lost(Qcow2Check *check, GError **error)
{
    const uint64_t offset = check->header.l1_table_offset;

    if ((offset & (check->cluster_size - 1)) != 0 || offset > QCOW2_MAX_HOST_OFFSET) {
        return blk_error(error, -EINVAL, "%s", check->lost);
    }
    qcow2_check_message(check, "ERROR %s", check->lost);
    check->result->corruptions = errors_of_mappings(&check->found);
    return 0;
}

static int run(Qcow2Check *check, bool mappings, GError **error)
{
    const bool fix = check->options->fix_leaks || check->options->fix_errors;
    BlkCheckResult *result = check->result;
    int ret, decoded;

    check->silent = fix;
    set_progress(check, 0, fix ? 0.25 : 1);
    ret = co_look(check);
    decoded = qcow2_check_co_decode_end(check);
    ret = ret < 0 ? ret : decoded;
    g_clear_pointer(&check->codec, blk_codec_free);
    if (ret < 0) {
        return blk_error_errno(error, ret, "The check could not be finished");
    }
    if (check->lost != NULL) {
        return end_lost(check, error);
    }
    if (fix) {
        ret = co_repair(check, mappings);
        result->corruptions += result->data_errors;
        return ret < 0 ? blk_error_errno(error, ret, "The repair could not be finished") : 0;
    }
    result->corruptions = errors_of_mappings(&check->found) + errors_of_counts(&check->found) + result->data_errors;
    result->leaks = check->found.leaks;
    return 0;
}

static int check_file(BlkNode *file_node, const BlkCheckOptions *options, bool mappings, BlkCheckResult *result,
                      GError **error)
{
    Qcow2Check check = {
        .file = file_node,
        .options = options,
        .result = result,
        .file_bytes = blk_node_length(file_node),
    };
    int ret = qcow2_co_read_damaged_header(file_node, &check.header, error);

    if (ret == 0) {
        ret = prepare(&check, error);
    }
    if (ret == 0) {
        ret = run(&check, mappings, error);
    }
    if (ret == 0 && options->progress != NULL) {
        options->progress(1.0, options->opaque);
    }
    end_messages(&check);
    finish(&check);
    return ret;
}

int qcow2_co_check(BlkNode *file_node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error)
{
    return check_file(file_node, options, true, result, error);
}

int qcow2_co_rebuild_counts(BlkNode *file_node, BlkCheckResult *result, GError **error)
{
    const BlkCheckOptions options = { .fix_leaks = true, .fix_errors = true };

    return check_file(file_node, &options, false, result, error);
}
