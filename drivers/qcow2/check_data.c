/* SPDX-License-Identifier: MIT */
/*
 * check_data.c - decodes compressed clusters, several at once, and reports those that do not decode.
 *
 *     ring of slots:  | told | decoding, with the messages that come behind it | decoding | free |
 *                              ^ told                                            ^ last      ^ started
 *
 * Findings are told in the order in which the walk meets what they are about, whatever is decoded first: a message that
 * comes while clusters are being decoded is kept with the last of these. When all slots are in use the walk waits for
 * the oldest, so memory is bounded, and messages that are too many to be told are only counted.
 */
#include "drivers/qcow2/check.h"

enum { BUFFER_BYTES = 24 << 20, MAX_SLOTS = 64, SPARE_SLOTS = 2 };

typedef struct DecodeSlot {
    Qcow2Check *check;
    uint64_t guest_offset, offset, bytes;
    uint8_t *payload, *cluster;
    int ret;                        /* of the read, then of the decoding */
    bool was_read, busy;
    BlkCoQueue waiter;
    GPtrArray *messages;            /* (nullable): that come behind what is found here */
    uint64_t dropped;               /* messages that come behind these */
} DecodeSlot;

struct Qcow2CheckData {
    DecodeSlot *slots;
    unsigned count;
    uint64_t told, started;         /* slot number % count */
    uint64_t kept;                  /* messages */
    uint8_t *buffers;
    BlkCoGroup group;
};

static int co_decode(void *opaque)
{
    DecodeSlot *slot = opaque;
    Qcow2Check *check = slot->check;

    slot->ret = qcow2_check_co_try_read(check, slot->offset, slot->bytes, slot->payload);
    slot->was_read = slot->ret == 0;
    if (slot->was_read) {
        slot->ret = blk_co_codec_decompress(check->codec, slot->cluster, check->cluster_size, slot->payload,
                                            slot->bytes);
    }
    slot->busy = false;
    blk_co_queue_wake_all(&slot->waiter);
    return 0;
}

/* ---- telling ---- */

static void tell_kept(Qcow2Check *check, DecodeSlot *slot)
{
    for (guint i = 0; slot->messages != NULL && i < slot->messages->len; i++) {
        qcow2_check_tell(check, g_ptr_array_index(slot->messages, i));
        check->data->kept--;
    }
    g_clear_pointer(&slot->messages, g_ptr_array_unref);
    check->messages += slot->dropped;
    slot->dropped = 0;
}

/* Waits for the oldest slot and tells what was found. Returns: 0; -ENOMEM. */
static int co_tell_oldest(Qcow2Check *check)
{
    DecodeSlot *slot = &check->data->slots[check->data->told % check->data->count];

    while (slot->busy) {
        blk_co_queue_wait(&slot->waiter);
    }
    if (slot->ret < 0 && !slot->was_read) {
        g_autofree char *text = qcow2_check_read_failed(check, slot->offset, slot->ret);

        qcow2_check_tell(check, text);
    } else if (slot->ret == -EIO) {
        g_autofree char *text = g_strdup_printf("ERROR compressed cluster at guest offset %#" PRIx64 " (host offset %#"
                                                PRIx64 ") does not decode", slot->guest_offset, slot->offset);

        check->result->data_errors++;
        qcow2_check_tell(check, text);
    }
    tell_kept(check, slot);
    check->data->told++;
    return slot->ret == -ENOMEM ? -ENOMEM : 0;
}

bool qcow2_check_data_keep(Qcow2Check *check, const char *text)
{
    Qcow2CheckData *data = check->data;
    DecodeSlot *last;

    if (data == NULL || data->told == data->started) {
        return false;
    }
    last = &data->slots[(data->started - 1) % data->count];
    if (last->dropped > 0 || check->messages + data->kept >= QCOW2_CHECK_MAX_MESSAGES) {
        last->dropped++;
        return true;
    }
    if (last->messages == NULL) {
        last->messages = g_ptr_array_new_with_free_func(g_free);
    }
    g_ptr_array_add(last->messages, g_strdup(text));
    data->kept++;
    return true;
}

/* ---- the ring ---- */

static int begin(Qcow2Check *check)
{
    const uint64_t payload_bytes = check->cluster_size * 2, slot_bytes = payload_bytes + check->cluster_size;
    Qcow2CheckData *data = g_new0(Qcow2CheckData, 1);

    check->data = data;
    data->count = MAX(MIN(BUFFER_BYTES / slot_bytes, MAX_SLOTS), blk_context_workers(check->file->ctx) + SPARE_SLOTS);
    data->slots = g_new0(DecodeSlot, data->count);
    data->buffers = g_try_malloc(data->count * slot_bytes);
    data->group = (BlkCoGroup) BLK_CO_GROUP_INIT(data->count);
    if (data->buffers == NULL) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < data->count; i++) {
        data->slots[i] = (DecodeSlot) { .check = check, .payload = data->buffers + i * slot_bytes,
                                        .cluster = data->buffers + i * slot_bytes + payload_bytes };
    }
    return 0;
}

int qcow2_check_co_decode(Qcow2Check *check, uint64_t guest_offset, uint64_t offset, uint64_t bytes)
{
    DecodeSlot *slot;
    int ret = check->data == NULL ? begin(check) : 0;

    if (ret == 0 && check->data->started - check->data->told == check->data->count) {
        ret = co_tell_oldest(check);
    }
    if (ret < 0) {
        return ret;
    }
    slot = &check->data->slots[check->data->started % check->data->count];
    slot->guest_offset = guest_offset;
    slot->offset = offset;
    slot->bytes = bytes;
    slot->busy = true;
    ret = blk_co_group_run(&check->data->group, co_decode, slot);
    if (ret == 0) {
        check->data->started++;
    }
    return ret;
}

int qcow2_check_co_decode_end(Qcow2Check *check)
{
    Qcow2CheckData *data = check->data;
    int ret = 0;

    if (data == NULL) {
        return 0;
    }
    while (data->told < data->started) {
        int told = co_tell_oldest(check);

        ret = ret < 0 ? ret : told;
    }
    blk_co_group_wait(&data->group);
    g_free(data->buffers);
    g_free(data->slots);
    g_free(g_steal_pointer(&check->data));
    return ret;
}
