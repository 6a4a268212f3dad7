/* SPDX-License-Identifier: MIT */
/*
 * amend.c - changes of an image's properties: version, refcount width, lazy refcounts, backing file, size.
 *
 * All refusals come before anything is changed. Then: to version 3, the width, what only the header says, the size, to
 * version 2; each step leaves a whole image, so an error or a crash between two of them leaves the first ones done. Nothing
 * else uses the node meanwhile (core drains it).
 *
 * Limitation: the backing file and the data file that are open stay in use until the image is opened again.
 */
#include "core/bitmap.h"
#include "drivers/qcow2/qcow2.h"

static const char *const compat_values[] = { "0.10", "v2", "1.1", "v3", NULL };

const BlkOption qcow2_amend_options[] = {
    { "backing_file", BLK_OPTION_STRING, "image to read what is not in this one; empty: none" },
    { "backing_fmt", BLK_OPTION_STRING, "format of the backing file" },
    { "compat", BLK_OPTION_ENUM, "version of the format: 0.10 (v2) or 1.1 (v3)", .values = compat_values },
    { "data_file", BLK_OPTION_STRING, "name of the external data file" },
    { "data_file_raw", BLK_OPTION_BOOL, "external data file stays a raw image" },
    { "lazy_refcounts", BLK_OPTION_BOOL, "write refcounts late; after a crash they are rebuilt" },
    { "refcount_bits", BLK_OPTION_UINT, "width of a refcount, 1 to 64 bits" },
    { "size", BLK_OPTION_SIZE, "size of the virtual disk" },
    { NULL },
};

static int check_backing_names(const char *file, const char *format, GError **error)
{
    if (!file && format) {
        return blk_error(error, -EINVAL, "Backing format cannot be used without backing file");
    }
    if (file && !format) {
        return blk_error(error, -EINVAL, "Backing file specified without backing format");
    }
    if (format && strlen(format) > QCOW2_MAX_FORMAT_NAME) {
        return blk_error(error, -EINVAL, "Backing format name is too long: the limit is %d bytes",
                         QCOW2_MAX_FORMAT_NAME);
    }
    return 0;
}

int qcow2_co_change_backing(BlkNode *node, const char *file, const char *format, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Header header;
    g_autofree char *old_file = NULL, *old_format = NULL;
    int ret = !q->tables ? blk_error(error, -EROFS, "the image is not open for writing")
                         : check_backing_names(file, format, error);

    if (ret == 0 && file && q->data_file_raw) {
        ret = blk_error(error, -EINVAL, "Backing file and data_file_raw cannot be used at the same time");
    }
    if (ret == 0) {
        ret = qcow2_co_switch_begin(node, &header, error);
    }
    if (ret < 0) {
        return ret;
    }
    header.backing_file = g_strdup(file);
    header.backing_format = g_strdup(format);
    old_file = q->header.backing_file;
    old_format = q->header.backing_format;
    ret = qcow2_co_switch_end(node, &header, error);
    if (ret < 0) {      /* q->header has the old ones still */
        old_file = header.backing_file;
        old_format = header.backing_format;
    }
    return ret;
}

/* ---- amend ---- */

typedef struct Amend {
    BlkNode *node;
    Qcow2 *q;
    const BlkOptions *options;
    unsigned version, refcount_order;
    bool lazy;
    uint64_t size;
    bool changes_backing;
    const char *backing_file, *backing_format;
    const char *data_file;
    bool data_file_raw;
    Qcow2Progress progress;
} Amend;

static const char *not_empty(const char *text)
{
    return text && *text ? text : NULL;
}

/* The name that is given; else what the image has. */
static void plan_backing(Amend *a)
{
    const Qcow2Header *h = &a->q->header;

    a->backing_file = h->backing_file;
    a->backing_format = h->backing_format;
    if (blk_options_has(a->options, "backing_file")) {
        a->backing_file = not_empty(blk_options_string(a->options, "backing_file"));
        if (!a->backing_file) {
            a->backing_format = NULL;
        }
    }
    if (blk_options_has(a->options, "backing_fmt")) {
        a->backing_format = not_empty(blk_options_string(a->options, "backing_fmt"));
    }
    a->changes_backing = g_strcmp0(a->backing_file, h->backing_file) != 0 ||
                         g_strcmp0(a->backing_format, h->backing_format) != 0;
}

static int plan_width(Amend *a, GError **error)
{
    bool given = blk_options_has(a->options, "refcount_bits");
    uint64_t bits = given ? blk_options_uint(a->options, "refcount_bits") : UINT64_C(1) << a->q->header.refcount_order;

    if (bits == 0 || bits > 64 || (bits & (bits - 1)) != 0) {
        return blk_error(error, -EINVAL, "Refcount width must be a power of two and may not exceed 64 bits");
    }
    if (a->version < 3 && bits != 16) {
        return given ? blk_error(error, -EINVAL, "Refcount widths other than 16 bits require compatibility level 1.1 or above "
                                 "(use compat=1.1 or greater)")
                     : blk_error(error, -EINVAL, "compat=0.10 requires refcount_bits=16");
    }
    a->refcount_order = (unsigned)__builtin_ctzll(bits);
    return 0;
}

static int plan_data_file(Amend *a, GError **error)
{
    const Qcow2Header *h = &a->q->header;
    bool was_raw = h->autoclear & QCOW2_AUTOCLEAR_RAW_DATA;

    a->data_file_raw = blk_options_has(a->options, "data_file_raw") ? blk_options_bool(a->options, "data_file_raw") : was_raw;
    if (a->data_file_raw && !was_raw) {
        return blk_error(error, -EINVAL, "data-file-raw cannot be set on existing images");
    }
    a->data_file = h->data_file;
    if (!blk_options_has(a->options, "data_file")) {
        return 0;
    }
    if (!(h->incompatible & QCOW2_INCOMPAT_DATA_FILE)) {
        return blk_error(error, -EINVAL, "data-file can only be set for images that use an external data file");
    }
    a->data_file = not_empty(blk_options_string(a->options, "data_file"));
    return 0;
}

static int plan_header(Amend *a, GError **error)
{
    const Qcow2Header *h = &a->q->header;
    bool was_lazy = h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;

    a->version = h->version;
    if (blk_options_has(a->options, "compat")) {
        a->version = blk_options_enum(a->options, "compat") < 2 ? 2 : 3;
    }
    a->lazy = blk_options_has(a->options, "lazy_refcounts") ? blk_options_bool(a->options, "lazy_refcounts") : was_lazy;
    if (a->version < 3 && a->lazy && !was_lazy) {
        return blk_error(error, -EINVAL, "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 "
                         "or greater)");
    }
    return plan_data_file(a, error);
}

static int plan_size(Amend *a, GError **error)
{
    a->size = a->node->length;
    if (!blk_options_has(a->options, "size")) {
        return 0;
    }
    a->size = blk_options_uint(a->options, "size");
    if (a->size % 512 != 0) {
        return blk_error(error, -EINVAL, "The new size must be a multiple of 512");
    }
    return 0;
}

static int co_plan(Amend *a, GError **error)
{
    int ret = plan_header(a, error);

    if (ret == 0) {
        ret = plan_width(a, error);
    }
    if (ret == 0) {
        ret = plan_size(a, error);
    }
    if (ret == 0) {
        plan_backing(a);
        ret = a->changes_backing ? check_backing_names(a->backing_file, a->backing_format, error) : 0;
    }
    if (ret == 0 && a->version < a->q->header.version) {
        ret = qcow2_co_check_downgrade(a->node, a->size, error);
    }
    return ret;
}

static int co_upgrade(Amend *a, GError **error)
{
    Qcow2Header header;
    int ret = qcow2_co_switch_begin(a->node, &header, error);

    if (ret < 0) {
        return ret;
    }
    header.version = 3;
    header.header_length = QCOW2_HEADER_V3_BYTES;
    return qcow2_co_switch_end(a->node, &header, error);
}

static int co_set_lazy(Amend *a, GError **error)
{
    const bool lazy = a->q->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;
    Qcow2Header header;

    if (a->q->header.version < 3 || lazy == a->lazy) {
        return 0;
    }
    int ret = qcow2_co_switch_begin(a->node, &header, error);
    if (ret < 0) {
        return ret;
    }
    header.compatible ^= QCOW2_COMPAT_LAZY_REFCOUNTS;
    a->q->lazy = a->lazy;
    return qcow2_co_switch_end(a->node, &header, error);
}

static int co_change_size(Amend *a, GError **error)
{
    int ret = blk_bitmaps_co_before_change(a->node, a->size, error);

    if (ret == 0) {
        ret = qcow2_co_truncate(a->node, a->size, BLK_PREALLOC_OFF, error);
    }
    blk_bitmaps_length_changed(a->node);
    return ret;
}

/* What the image says of its data file. */
static int co_set_data_file(Amend *a, GError **error)
{
    Qcow2 *q = a->q;
    Qcow2Header header;
    bool renamed = g_strcmp0(a->data_file, q->header.data_file) != 0;
    bool clear_raw = !a->data_file_raw && (q->header.autoclear & QCOW2_AUTOCLEAR_RAW_DATA);
    g_autofree char *old = NULL;

    if (!renamed && !clear_raw) {
        return 0;
    }
    int ret = qcow2_co_switch_begin(a->node, &header, error);
    if (ret < 0) {
        return ret;
    }
    if (clear_raw) {
        header.autoclear &= ~QCOW2_AUTOCLEAR_RAW_DATA;
    }
    if (renamed) {
        old = header.data_file;
        header.data_file = g_strdup(a->data_file);
    }
    ret = qcow2_co_switch_end(a->node, &header, error);
    if (ret < 0 && renamed) {
        g_free(header.data_file);
        g_steal_pointer(&old);          /* it is still the image's */
    } else if (ret == 0) {
        q->data_file_raw = a->data_file_raw;
    }
    return ret;
}

static int co_perform(Amend *a, GError **error)
{
    Qcow2 *q = a->q;
    bool width = a->refcount_order != q->header.refcount_order;
    bool upgrade = a->version > q->header.version;
    int ret = upgrade && width ? qcow2_co_refcounts_fit(a->node, a->refcount_order, error) : 0;

    if (ret == 0 && upgrade) {
        ret = co_upgrade(a, error);
    }

    a->progress.phases = width + (a->version < q->header.version);
    if (ret == 0 && width) {
        ret = qcow2_co_change_refcount_width(a->node, a->refcount_order, &a->progress, error);
        a->progress.phase++;
    }
    if (ret == 0) {
        ret = co_set_lazy(a, error);
    }
    if (ret == 0 && a->changes_backing) {
        ret = qcow2_co_change_backing(a->node, a->backing_file, a->backing_format, error);
    }
    if (ret == 0) {
        ret = co_set_data_file(a, error);
    }
    if (ret == 0 && a->size != a->node->length) {
        ret = co_change_size(a, error);
    }
    if (ret == 0 && a->version < q->header.version) {
        ret = qcow2_co_downgrade(a->node, &a->progress, error);
    }
    return ret;
}

static int co_settle(BlkNode *node, GError **error)
{
    int ret = qcow2_co_settle(node);

    return ret < 0 ? blk_error_errno(error, ret, "could not write the tables") : 0;
}

int qcow2_co_amend(BlkNode *node, const BlkOptions *options, const BlkAmendOptions *amend, GError **error)
{
    Amend a = {
        .node = node, .q = node->opaque, .options = options,
        .progress = { .report = amend->progress, .opaque = amend->opaque },
    };

    if (!a.q->tables) {
        return blk_error(error, -EROFS, "the image is not open for writing");
    }
    int ret = co_plan(&a, error);
    if (ret == 0) {
        ret = co_settle(node, error);
    }
    if (ret == 0) {
        ret = co_perform(&a, error);
    }
    return ret < 0 ? ret : co_settle(node, error);
}
