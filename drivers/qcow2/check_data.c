/* SPDX-License-Identifier: MIT */
/*
 * check_data.c - decodes compressed clusters, several at once, and reports those that do not decode.
 */
#include "drivers/qcow2/check.h"

typedef struct DecodeTask {
    Qcow2Check *check;
    uint64_t guest_offset, offset, bytes;
} DecodeTask;

static int decode_co(void *opaque)
{
    DecodeTask *task = opaque;
    Qcow2Check *check = task->check;
    g_autofree uint8_t *payload = g_try_malloc(task->bytes);
    g_autofree uint8_t *cluster = g_try_malloc(check->cluster_size);
    int ret;

    if (payload == NULL || cluster == NULL) {
        g_free(task);
        return -ENOMEM;
    }
    ret = qcow2_check_co_read(check, task->offset, task->bytes, payload);
    if (ret == 0) {
        ret = blk_co_codec_decompress(check->codec, cluster, check->cluster_size, payload, task->bytes);
        if (ret == -EIO) {
            check->result->data_errors++;
            qcow2_check_message(check, "ERROR compressed cluster at guest offset %#" PRIx64 " (host offset %#" PRIx64
                                ") does not decode", task->guest_offset, task->offset);
        }
    }
    g_free(task);
    return ret == -EIO ? 0 : ret;
}

int qcow2_check_co_decode(Qcow2Check *check, uint64_t guest_offset, uint64_t offset, uint64_t bytes)
{
    DecodeTask *task = g_new(DecodeTask, 1);
    int ret;

    *task = (DecodeTask) { .check = check, .guest_offset = guest_offset, .offset = offset, .bytes = bytes };
    ret = blk_co_group_run(&check->group, decode_co, task);
    if (ret < 0) {
        g_free(task);
    }
    return ret;
}
