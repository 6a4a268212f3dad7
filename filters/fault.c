/* SPDX-License-Identifier: MIT */
/*
 * fault.c - filter "fault", also named "blkdebug": for tests of what stands above it.
 *
 * It lets requests fail and wait at events that the layers above report (fault_rules.c, fault_break.c), makes the limits
 * of its child stricter, and counts what passes. Its info reports the counters.
 *
 * The name "blkdebug:CONFIG:IMAGE" opens IMAGE through it with the rules of the file CONFIG, which may be left empty.
 */
#include "filters/fault.h"

#include <core/options.h>
#include <inttypes.h>
#include <string.h>

static const char *const perm_names[] = { "consistent-read", "write", "write-unchanged", "resize", NULL };
static const BlkOption perm_element[] = {
    { "permission", BLK_OPTION_ENUM, "a permission", .values = perm_names },
    { NULL },
};
static const BlkType perms_type = { .kind = BLK_TYPE_ARRAY, .members = perm_element };

static const BlkOption fault_options[] = {
    { "image", BLK_OPTION_NODE, "the node below", .required = true },
    { "config", BLK_OPTION_STRING, "file with rules" },
    { "inject-error", BLK_OPTION_JSON, "array of rules: which requests fail after which event", .json = &fault_inject_type },
    { "set-state", BLK_OPTION_JSON, "array of rules: which event changes the state of the filter",
      .json = &fault_set_state_type },
    { "align", BLK_OPTION_SIZE, "alignment of requests in bytes, a power of two" },
    { "max-transfer", BLK_OPTION_SIZE, "longest read or write in bytes" },
    { "opt-write-zero", BLK_OPTION_SIZE, "best alignment of zero writes in bytes" },
    { "max-write-zero", BLK_OPTION_SIZE, "longest zero write in bytes" },
    { "opt-discard", BLK_OPTION_SIZE, "best alignment of discards in bytes" },
    { "max-discard", BLK_OPTION_SIZE, "longest discard in bytes" },
    { "take-child-perms", BLK_OPTION_JSON, "array of permissions to take on the image in any case", .json = &perms_type },
    { "unshare-child-perms", BLK_OPTION_JSON, "array of permissions not to share on the image in any case",
      .json = &perms_type },
    { NULL },
};

/* ---- opening ---- */

static bool is_power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* Reads a limit: 0 if not given, else a multiple of @unit of at most 1 GiB. */
static int load_limit(const BlkOptions *options, const char *name, uint64_t unit, uint64_t *value, GError **error)
{
    *value = blk_options_uint(options, name);
    if (*value > BLK_MAX_REQUEST || *value % unit != 0) {
        return blk_error(error, -EINVAL, "Cannot meet constraints with %s %" PRIu64 ": it must be a multiple of %" PRIu64
                         " of at most %" PRIu64, name, *value, unit, BLK_MAX_REQUEST);
    }
    return 0;
}

static int load_limits(FaultState *s, const BlkOptions *options, GError **error)
{
    s->align = blk_options_uint(options, "align");
    if (s->align != 0 && (!is_power_of_two(s->align) || s->align > (1 << 20))) {
        return blk_error(error, -EINVAL, "Cannot meet constraints with align %" PRIu64 ": it must be a power of two of "
                         "at most 1 MiB", s->align);
    }
    uint64_t unit = MAX(s->align, 1);
    int ret = load_limit(options, "max-transfer", unit, &s->max_transfer, error);
    if (ret == 0) {
        ret = load_limit(options, "opt-write-zero", unit, &s->zeroes_align, error);
    }
    if (ret == 0) {
        ret = load_limit(options, "max-write-zero", MAX(s->zeroes_align, unit), &s->max_zeroes, error);
    }
    if (ret == 0) {
        ret = load_limit(options, "opt-discard", unit, &s->discard_align, error);
    }
    if (ret == 0) {
        ret = load_limit(options, "max-discard", MAX(s->discard_align, unit), &s->max_discard, error);
    }
    return ret;
}

static int load_perms(const BlkOptions *options, const char *name, unsigned *perms, GError **error)
{
    JsonNode *node = blk_options_json(options, name);

    *perms = 0;
    if (!node) {
        return 0;
    }
    bool good = JSON_NODE_HOLDS_ARRAY(node);
    guint count = good ? json_array_get_length(json_node_get_array(node)) : 0;
    for (guint i = 0; good && i < count; i++) {
        JsonNode *element = json_array_get_element(json_node_get_array(node), i);
        good = false;
        for (unsigned bit = 0; perm_names[bit]; bit++) {
            if (json_node_get_value_type(element) == G_TYPE_STRING &&
                g_str_equal(json_node_get_string(element), perm_names[bit])) {
                *perms |= 1u << bit;
                good = true;
            }
        }
    }
    if (!good) {
        return blk_error(error, -EINVAL, "driver 'blkdebug': option '%s' must be an array of \"consistent-read\", "
                         "\"write\", \"write-unchanged\" and \"resize\"", name);
    }
    return 0;
}

static int fault_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    FaultState *s = node->opaque;

    s->rules = g_ptr_array_new_with_free_func(g_free);
    s->state = 1;
    int ret = fault_rules_load(s, options, error);
    if (ret == 0) {
        ret = load_limits(s, options, error);
    }
    if (ret == 0) {
        ret = load_perms(options, "take-child-perms", &s->take_perm, error);
    }
    if (ret == 0) {
        ret = load_perms(options, "unshare-child-perms", &s->unshare_perm, error);
    }
    if (ret == 0 && !blk_co_open_child(node, options, "image", BLK_ROLE_FILTERED, error)) {
        ret = -EINVAL;
    }
    if (ret == 0) {
        fault_rules_event(s, FAULT_EVENT_NONE);
    }
    return ret;
}

static void fault_co_close(BlkNode *node)
{
    FaultState *s = node->opaque;

    fault_break_resume(s, "*", true);
    g_clear_pointer(&s->rules, g_ptr_array_unref);
}

static void fault_refresh_limits(BlkNode *node)
{
    FaultState *s = node->opaque;
    BlkLimits *limits = &node->limits;

    limits->read_align = MAX(limits->read_align, s->align);
    limits->write_align = MAX(limits->write_align, s->align);
    if (s->max_transfer != 0 && (limits->max_transfer == 0 || limits->max_transfer > s->max_transfer)) {
        limits->max_transfer = MAX(s->max_transfer, limits->write_align);
    }
    if (s->zeroes_align != 0) {
        limits->zeroes_align = s->zeroes_align;
    }
    if (s->discard_align != 0) {
        limits->discard_align = s->discard_align;
    }
}

static void fault_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared,
                             unsigned *child_perm, unsigned *child_shared)
{
    FaultState *s = node->opaque;

    *child_perm = perm | s->take_perm;
    *child_shared = shared & ~s->unshare_perm;
}

/* ---- requests ---- */

static int fault_co_preadv(BlkNode *node, BlkRequest *req)
{
    int ret = fault_co_inject(node->opaque, FAULT_IO_READ, req->offset, req->bytes);

    return ret < 0 ? ret : blk_co_pass_through_read(node, req);
}

static int fault_co_pwritev(BlkNode *node, BlkRequest *req)
{
    int ret = fault_co_inject(node->opaque, FAULT_IO_WRITE, req->offset, req->bytes);

    return ret < 0 ? ret : blk_co_pass_through_write(node, req);
}

/* Hands zeroes or a discard down in pieces of at most @max bytes; 0: in one. */
static int fault_co_pieces(BlkNode *node, FaultIo io, const BlkRequest *req, uint64_t max)
{
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < req->bytes) {
        uint64_t offset = req->offset + done, bytes = req->bytes - done;

        if (max != 0 && bytes > max - offset % max) {
            bytes = max - offset % max;
        }
        ret = fault_co_inject(node->opaque, io, offset, bytes);
        if (ret == 0) {
            BlkNode *image = node->file->node;
            ret = io == FAULT_IO_DISCARD ? blk_co_discard(image, offset, bytes)
                                         : blk_co_pwrite_zeroes(image, offset, bytes, req->flags);
        }
        done += bytes;
    }
    return ret;
}

static int fault_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    FaultState *s = node->opaque;

    return fault_co_pieces(node, FAULT_IO_WRITE_ZEROES, req, s->max_zeroes);
}

static int fault_co_discard(BlkNode *node, BlkRequest *req)
{
    FaultState *s = node->opaque;

    return fault_co_pieces(node, FAULT_IO_DISCARD, req, s->max_discard);
}

static int fault_co_flush(BlkNode *node)
{
    return fault_co_inject(node->opaque, FAULT_IO_FLUSH, 0, 0);
}

static int fault_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    int ret = fault_co_inject(node->opaque, FAULT_IO_BLOCK_STATUS, offset, bytes);

    return ret < 0 ? ret : blk_co_block_status(node->file->node, offset, bytes, status);
}

/* ---- events, information, names ---- */

static void fault_co_event(BlkNode *node, BlkEvent event)
{
    FaultState *s = node->opaque;

    s->events[event]++;
    fault_rules_event(node->opaque, event);
    fault_co_break(node->opaque, event);
}

static int fault_breakpoint_set(BlkNode *node, const char *event, const char *tag, GError **error)
{
    return fault_break_set(node->opaque, event, tag, error);
}

static int fault_breakpoint_resume(BlkNode *node, const char *tag, bool remove)
{
    return fault_break_resume(node->opaque, tag, remove);
}

static bool fault_breakpoint_is_suspended(BlkNode *node, const char *tag)
{
    return fault_break_is_suspended(node->opaque, tag);
}

/* Adds {"type": "blkdebug", "data": {"read": {"requests": 1, "bytes": 4096}, ..., "events": {"l2_load": 1, ...},
 * "injected": 0}} to what the child says,
 * in place of the child's own specific part. */
static int fault_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    FaultState *s = node->opaque;

    int ret = blk_co_info(node->file->node, info, error);
    if (ret < 0) {
        return ret;
    }
    JsonObject *data = json_object_new();
    for (unsigned io = 0; io < FAULT_IO_COUNT; io++) {
        JsonObject *counters = json_object_new();
        json_object_set_int_member(counters, "requests", s->requests[io]);
        json_object_set_int_member(counters, "bytes", s->bytes[io]);
        json_object_set_object_member(data, fault_io_names[io], counters);
    }
    JsonObject *events = json_object_new();
    for (unsigned event = 0; event < BLK_EVENT_COUNT; event++) {
        if (s->events[event] > 0) {
            json_object_set_int_member(events, blk_event_name(event), s->events[event]);
        }
    }
    json_object_set_object_member(data, "events", events);
    json_object_set_int_member(data, "injected", s->injected);
    json_object_set_int_member(data, "state", s->state);
    g_clear_pointer(&info->specific, json_object_unref);
    info->specific = json_object_new();
    json_object_set_string_member(info->specific, "type", "blkdebug");
    json_object_set_object_member(info->specific, "data", data);
    return 0;
}

static const char *const fault_prefixes[] = { "blkdebug", "fault", NULL };

static JsonObject *fault_parse_filename(const char *name, GError **error)
{
    const char *config = strchr(name, ':');
    const char *image_name = config ? strchr(config + 1, ':') : NULL;

    if (!image_name || image_name[1] == '\0') {
        blk_error(error, -EINVAL, "'%s' must have the form blkdebug:CONFIG:IMAGE; CONFIG may be empty", name);
        return NULL;
    }
    if (blk_filename_has_prefix(image_name + 1)) {
        blk_error(error, -EINVAL, "'%s': the image must be a file; for other protocols use json:{...}", name);
        return NULL;
    }
    JsonObject *options = json_object_new(), *image = json_object_new();
    json_object_set_string_member(image, "driver", "file");
    json_object_set_string_member(image, "filename", image_name + 1);
    if (image_name > config + 1) {
        g_autofree char *text = g_strndup(config + 1, image_name - config - 1);
        json_object_set_string_member(options, "config", text);
    }
    json_object_set_object_member(options, "image", image);
    return options;
}

const BlkDriver blk_driver_fault = {
    .name = "fault",
    .alias = "blkdebug",
    .kind = BLK_FILTER,
    .help = "lets requests fail or wait at chosen events, and counts them",
    .options = fault_options,
    .instance_size = sizeof(FaultState),
    .prefixes = fault_prefixes,
    .parse_filename = fault_parse_filename,
    .co_open = fault_co_open,
    .co_close = fault_co_close,
    .reopens_as_it_is = true,
    .refresh_limits = fault_refresh_limits,
    .child_perm = fault_child_perm,
    .co_preadv = fault_co_preadv,
    .co_pwritev = fault_co_pwritev,
    .co_pwrite_zeroes = fault_co_pwrite_zeroes,
    .co_discard = fault_co_discard,
    .co_flush = fault_co_flush,
    .co_block_status = fault_co_block_status,
    .co_info = fault_co_info,
    .co_event = fault_co_event,
    .breakpoint_set = fault_breakpoint_set,
    .breakpoint_resume = fault_breakpoint_resume,
    .breakpoint_is_suspended = fault_breakpoint_is_suspended,
};
