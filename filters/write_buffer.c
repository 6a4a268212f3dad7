/* SPDX-License-Identifier: MIT */
/*
 * write_buffer.c - gathers the writes of a filter into whole units of its child.
 *
 *     unit   |sector|sector|......|sector|    one cluster; a bit for each sector that was written
 *
 * A unit is in one of three lists: it gathers in IDLE (in order of the last write) or READY (to be written out as soon as
 * it can be), or it is WRITING. docs/write-buffer.md has the rules.
 *
 * Limitations: the sectors around a unit's are read when it is written out, all at once; whole units are copied, too. Each
 * unit for which that is a whole cluster takes memory for a second one meanwhile.
 */
#include "filters/write_buffer.h"

#include <string.h>

#include "core/codec.h"
#include "core/node.h"

typedef enum UnitState { UNIT_IDLE, UNIT_READY, UNIT_WRITING, UNIT_STATES } UnitState;

typedef struct Unit {
    WriteBuffer *buffer;
    uint64_t number;                /* guest offset / size of a unit */
    UnitState state;
    uint8_t *data;
    uint64_t *valid;                /* one bit for each sector: was it written? */
    unsigned valid_count;
    unsigned pins;                  /* readers that look at it, over a yield */
    bool gone;                      /* freed with the last pin */
    uint64_t birth;                 /* clock at the first write */
    uint64_t tried;                 /* clock when writing it out last failed */
    int error;                      /* of that; 0: it has not failed */
    GList link;                     /* in lists[state] */
} Unit;

struct WriteBuffer {
    BlkNode *node;
    uint64_t max_bytes;
    unsigned flags;
    uint32_t unit_bytes;
    unsigned sectors;               /* in a unit */
    unsigned max_units, max_writing;
    unsigned spare;                 /* so many units are free or about to be */

    GQueue lists[UNIT_STATES];
    GHashTable *gathering, *writing;    /* number -> Unit */
    GPtrArray *unused;              /* Unit *, memory to be used again */
    GPtrArray *spare_data;          /* the same, of data alone; at most @spare */
    unsigned count;                 /* units that hold data, or are pinned */
    WriteBufferHold *holds;
    uint64_t clock;                 /* counts calls that wait for what was written before */
    unsigned failures;
    int late_error;                 /* not reported yet */
    bool told;
    unsigned waiting;               /* writes that wait for room */
    BlkCoQueue room;
    BlkCoQueue written;             /* wait until a unit was written, or was not */
};

/* ---- units ---- */

static Unit *find(GHashTable *table, uint64_t number)
{
    return g_hash_table_lookup(table, GSIZE_TO_POINTER(number));
}

static void unit_free(gpointer data)
{
    Unit *unit = data;

    blk_buffer_free(unit->data);
    g_free(unit->valid);
    g_free(unit);
}

/* Memory of a unit's size, or NULL; some is kept for the next one. */
static uint8_t *data_take(WriteBuffer *wb)
{
    return wb->spare_data->len > 0 ? g_ptr_array_steal_index_fast(wb->spare_data, wb->spare_data->len - 1)
                                   : blk_buffer_try_alloc(wb->node->file->node, wb->unit_bytes);
}

static void data_give(WriteBuffer *wb, uint8_t *data)
{
    if (data && wb->spare_data->len < wb->spare) {
        g_ptr_array_add(wb->spare_data, data);
    } else {
        blk_buffer_free(data);
    }
}

static Unit *unit_new(WriteBuffer *wb, uint64_t number)
{
    Unit *unit = wb->unused->len > 0 ? g_ptr_array_steal_index_fast(wb->unused, wb->unused->len - 1) : NULL;
    unsigned words = (wb->sectors + 63) / 64;

    if (!unit) {
        uint8_t *data = data_take(wb);
        if (!data) {
            return NULL;
        }
        unit = g_new0(Unit, 1);
        unit->data = data;
        unit->valid = g_new(uint64_t, words);
        unit->link.data = unit;
        unit->buffer = wb;
    }
    memset(unit->valid, 0, words * sizeof(*unit->valid));
    unit->number = number;
    unit->valid_count = 0;
    unit->gone = false;
    unit->birth = wb->clock;
    unit->tried = 0;
    unit->error = 0;
    unit->state = UNIT_IDLE;
    g_queue_push_tail_link(&wb->lists[UNIT_IDLE], &unit->link);
    g_hash_table_insert(wb->gathering, GSIZE_TO_POINTER(number), unit);
    wb->count++;
    return unit;
}

static void unit_move(WriteBuffer *wb, Unit *unit, UnitState state)
{
    g_queue_unlink(&wb->lists[unit->state], &unit->link);
    unit->state = state;
    g_queue_push_tail_link(&wb->lists[state], &unit->link);
}

static void unit_recycle(WriteBuffer *wb, Unit *unit)
{
    g_ptr_array_add(wb->unused, unit);
    wb->count--;
    blk_co_queue_wake_one(&wb->room);
}

/* It holds nothing any more that is not below; it is in no table. */
static void unit_drop(WriteBuffer *wb, Unit *unit)
{
    g_queue_unlink(&wb->lists[unit->state], &unit->link);
    unit->gone = true;
    if (unit->pins == 0) {
        unit_recycle(wb, unit);
    }
}

static void unit_pin(Unit *unit)
{
    if (unit) {
        unit->pins++;
    }
}

static void unit_unpin(WriteBuffer *wb, Unit *unit)
{
    if (unit && --unit->pins == 0 && unit->gone) {
        unit_recycle(wb, unit);
    }
}

/* ---- sectors ---- */

static bool has_sector(const Unit *unit, unsigned sector)
{
    return unit->valid[sector / 64] >> (sector % 64) & 1;
}

/* The end of the run of sectors from @from on, before @end, that are valid or not as @from is. */
static unsigned run_end(const Unit *unit, unsigned from, unsigned end)
{
    unsigned sector = from + 1;

    while (sector < end && has_sector(unit, sector) == has_sector(unit, from)) {
        sector++;
    }
    return sector;
}

static void add_sectors(Unit *unit, unsigned from, unsigned to)
{
    for (unsigned sector = from; sector < to; sector++) {
        if (!has_sector(unit, sector)) {
            unit->valid[sector / 64] |= UINT64_C(1) << (sector % 64);
            unit->valid_count++;
        }
    }
}

static unsigned sectors_of(uint64_t bytes)
{
    return (unsigned)((bytes + WRITE_BUFFER_SECTOR - 1) / WRITE_BUFFER_SECTOR);
}

/* Bytes of the unit that are within the node. */
static uint64_t unit_length(const WriteBuffer *wb, const Unit *unit)
{
    uint64_t offset = unit->number * wb->unit_bytes, length = blk_node_length(wb->node);

    return offset < length ? MIN(wb->unit_bytes, length - offset) : 0;
}

static bool is_whole(const WriteBuffer *wb, const Unit *unit)
{
    return unit->valid_count >= sectors_of(unit_length(wb, unit));
}

/* ---- writing out ---- */

/* The first run of missing sectors. Returns: there is no other. */
static bool find_missing(const Unit *unit, uint64_t bytes, uint64_t *from, uint64_t *until)
{
    unsigned end = sectors_of(bytes), first = has_sector(unit, 0) ? run_end(unit, 0, end) : 0;
    unsigned stop = run_end(unit, first, end);

    *from = (uint64_t)first * WRITE_BUFFER_SECTOR;
    *until = MIN(bytes, (uint64_t)stop * WRITE_BUFFER_SECTOR);
    return unit->valid_count + (stop - first) >= end;
}

/* Copies those of the first @bytes of the unit that it has. */
static void copy_written(const Unit *unit, uint64_t bytes, uint8_t *to)
{
    unsigned end = sectors_of(bytes), stop;

    for (unsigned sector = 0; sector < end; sector = stop) {
        uint64_t pos = (uint64_t)sector * WRITE_BUFFER_SECTOR;
        stop = run_end(unit, sector, end);
        if (has_sector(unit, sector)) {
            memcpy(to + pos, unit->data + pos, MIN(bytes, (uint64_t)stop * WRITE_BUFFER_SECTOR) - pos);
        }
    }
}

/* Reads all to other memory, which becomes the unit's: so a compressed cluster is decoded where it is compressed again. */
static int co_fill_anew(WriteBuffer *wb, Unit *unit, uint64_t bytes)
{
    BlkNode *child = wb->node->file->node;
    uint8_t *data = data_take(wb);
    int ret = data ? blk_co_pread(child, unit->number * wb->unit_bytes, bytes, data, 0) : -ENOMEM;

    if (ret == 0) {
        uint8_t *before = unit->data;
        copy_written(unit, bytes, data);
        unit->data = data;
        data = before;
    }
    data_give(wb, data);
    return ret;
}

/* Reads what was not written. */
static int co_fill(WriteBuffer *wb, Unit *unit, uint64_t bytes)
{
    uint64_t offset = unit->number * wb->unit_bytes, from, until;
    int ret;

    if (unit->valid_count >= sectors_of(bytes)) {
        return 0;
    }
    if (find_missing(unit, bytes, &from, &until) && until - from <= bytes / 2) {
        ret = blk_co_pread(wb->node->file->node, offset + from, until - from, unit->data + from, 0);
    } else {
        ret = co_fill_anew(wb, unit, bytes);
    }
    if (ret == 0) {
        add_sectors(unit, 0, sectors_of(bytes));
    }
    return ret;
}

/* What was cut off is nobody's. */
static int co_write_unit(WriteBuffer *wb, Unit *unit)
{
    uint64_t bytes = unit_length(wb, unit);
    int ret = bytes > 0 ? co_fill(wb, unit, bytes) : 0;

    if (ret == 0 && bytes > 0) {
        ret = blk_co_pwrite(wb->node->file->node, unit->number * wb->unit_bytes, bytes, unit->data, wb->flags);
    }
    return ret;
}

/* The unit gathers again; what was written to its cluster meanwhile is newer. */
static void unit_failed(WriteBuffer *wb, Unit *unit, int error)
{
    Unit *newer = find(wb->gathering, unit->number);

    unit->tried = wb->clock;
    unit->error = error;
    wb->failures++;
    wb->late_error = wb->late_error < 0 ? wb->late_error : error;
    unit_move(wb, unit, UNIT_IDLE);
    if (newer) {
        for (unsigned sector = 0, end; sector < wb->sectors; sector = end) {
            end = run_end(newer, sector, wb->sectors);
            if (has_sector(newer, sector)) {
                uint64_t pos = (uint64_t)sector * WRITE_BUFFER_SECTOR;
                memcpy(unit->data + pos, newer->data + pos, (uint64_t)(end - sector) * WRITE_BUFFER_SECTOR);
                add_sectors(unit, sector, end);
            }
        }
        unit_drop(wb, newer);
    }
    g_hash_table_insert(wb->gathering, GSIZE_TO_POINTER(unit->number), unit);
    if (!wb->told) {
        wb->told = true;
        blk_node_message(wb->node, "the cluster at offset %" G_GUINT64_FORMAT " could not be written: %s; its data is kept "
                         "in memory, and the next flush writes it again", unit->number * wb->unit_bytes, g_strerror(-error));
    }
}

static void kick(WriteBuffer *wb);

static int co_write_out(void *opaque)
{
    Unit *unit = opaque;
    WriteBuffer *wb = unit->buffer;
    int ret = co_write_unit(wb, unit);
    g_hash_table_remove(wb->writing, GSIZE_TO_POINTER(unit->number));
    if (ret < 0) {
        unit_failed(wb, unit, ret);
        blk_co_queue_wake_all(&wb->room);
    } else {
        wb->told = false;
        unit_drop(wb, unit);
    }
    blk_co_queue_wake_all(&wb->written);
    kick(wb);
    return 0;
}

static void start(WriteBuffer *wb, Unit *unit)
{
    g_hash_table_remove(wb->gathering, GSIZE_TO_POINTER(unit->number));
    g_hash_table_insert(wb->writing, GSIZE_TO_POINTER(unit->number), unit);
    unit_move(wb, unit, UNIT_WRITING);
    blk_co_spawn(wb->node->ctx, co_write_out, unit);
}

static bool in_range(const WriteBuffer *wb, const Unit *unit, uint64_t offset, uint64_t bytes)
{
    uint64_t start_of_unit = unit->number * wb->unit_bytes;

    return start_of_unit < offset + bytes && offset < start_of_unit + wb->unit_bytes;
}

/* May not be written out now: an older unit of its cluster is, or somebody changes what is below. */
static bool is_held_up(const WriteBuffer *wb, const Unit *unit)
{
    if (find(wb->writing, unit->number)) {
        return true;
    }
    for (const WriteBufferHold *hold = wb->holds; hold; hold = hold->next) {
        if (in_range(wb, unit, hold->offset, hold->bytes)) {
            return true;
        }
    }
    return false;
}

/* The first unit of the list that may be written out; @failed: also one that could not be written before. */
static Unit *first_free(WriteBuffer *wb, UnitState state, bool failed)
{
    for (GList *l = wb->lists[state].head; l; l = l->next) {
        Unit *unit = l->data;
        if ((failed || unit->error == 0) && !is_held_up(wb, unit)) {
            return unit;
        }
    }
    return NULL;
}

/* Is there need of units that gather no longer? Those being written will be free soon. */
static bool lacks_room(const WriteBuffer *wb)
{
    return wb->max_units - MIN(wb->max_units, wb->count) + wb->lists[UNIT_WRITING].length < wb->spare + wb->waiting;
}

/* Starts to write out what is ready and what is in the way. Does not yield. */
static void kick(WriteBuffer *wb)
{
    while (wb->lists[UNIT_WRITING].length < wb->max_writing) {
        Unit *unit = first_free(wb, UNIT_READY, true);

        if (!unit && lacks_room(wb)) {
            unit = first_free(wb, UNIT_IDLE, wb->waiting > 0);    /* else nobody needs it so much */
        }
        if (!unit) {
            break;
        }
        start(wb, unit);
    }
}

/* ---- waiting ---- */

/* Is there a unit in the range, older than @until, that was not tried since? *error: of one that was. */
static bool has_unwritten(const WriteBuffer *wb, uint64_t offset, uint64_t bytes, uint64_t until, int *error)
{
    *error = 0;
    for (unsigned state = 0; state < UNIT_STATES; state++) {
        for (GList *l = wb->lists[state].head; l; l = l->next) {
            const Unit *unit = l->data;
            if (unit->birth >= until || !in_range(wb, unit, offset, bytes)) {
                continue;
            }
            if (unit->tried < until) {
                return true;
            }
            *error = unit->error;
        }
    }
    return false;
}

int write_buffer_co_settle(WriteBuffer *wb, uint64_t offset, uint64_t bytes)
{
    uint64_t until = ++wb->clock;
    int ret = 0;

    for (GList *l = wb->lists[UNIT_IDLE].head, *next; l; l = next) {
        Unit *unit = l->data;
        next = l->next;
        if (in_range(wb, unit, offset, bytes)) {
            unit_move(wb, unit, UNIT_READY);
        }
    }
    kick(wb);
    while (has_unwritten(wb, offset, bytes, until, &ret)) {
        blk_co_queue_wait(&wb->written);
    }
    return ret;
}

static bool is_writing(const WriteBuffer *wb, uint64_t offset, uint64_t bytes)
{
    for (GList *l = wb->lists[UNIT_WRITING].head; l; l = l->next) {
        if (in_range(wb, l->data, offset, bytes)) {
            return true;
        }
    }
    return false;
}

int write_buffer_co_hold(WriteBuffer *wb, WriteBufferHold *hold, uint64_t offset, uint64_t bytes)
{
    int ret = write_buffer_co_settle(wb, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    *hold = (WriteBufferHold) { .offset = offset, .bytes = bytes, .next = wb->holds };
    wb->holds = hold;
    while (is_writing(wb, offset, bytes)) {     /* what came after the call */
        blk_co_queue_wait(&wb->written);
    }
    return 0;
}

void write_buffer_release(WriteBuffer *wb, WriteBufferHold *hold)
{
    WriteBufferHold **link = &wb->holds;

    while (*link != hold) {
        link = &(*link)->next;
    }
    *link = hold->next;
    kick(wb);
}

int write_buffer_co_flush(WriteBuffer *wb)
{
    int ret = write_buffer_co_settle(wb, 0, BLK_MAX_LENGTH), late = wb->late_error;

    wb->late_error = 0;
    return late < 0 ? late : ret;
}

/* ---- writes ---- */

/* Waits until there may be another unit; gives up when what is in the way cannot be written. */
static int co_wait_for_room(WriteBuffer *wb)
{
    unsigned failures = wb->failures;

    wb->waiting++;
    while (wb->count >= wb->max_units && wb->failures == failures) {
        kick(wb);
        blk_co_queue_wait(&wb->room);
    }
    wb->waiting--;
    return wb->count < wb->max_units ? 0 : wb->late_error < 0 ? wb->late_error : -EIO;
}

static int co_get_unit(WriteBuffer *wb, uint64_t number, Unit **unit)
{
    int ret = 0;

    while (ret == 0 && !(*unit = find(wb->gathering, number))) {
        if (wb->count < wb->max_units) {
            *unit = unit_new(wb, number);
            ret = *unit ? 0 : -ENOMEM;
            break;
        }
        ret = co_wait_for_room(wb);
    }
    if (wb->count < wb->max_units) {
        blk_co_queue_wake_one(&wb->room);       /* it was woken for this room, which is not needed */
    }
    return ret;
}

/* Writes to one unit; @bytes are whole sectors, or end with the node. */
static int co_write_part(WriteBuffer *wb, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    uint64_t pos = offset & (wb->unit_bytes - 1);
    Unit *unit;
    int ret = co_get_unit(wb, offset / wb->unit_bytes, &unit);

    if (ret < 0) {
        return ret;
    }
    blk_iov_to_buf(iov, unit->data + pos, bytes);
    if (bytes % WRITE_BUFFER_SECTOR != 0) {
        memset(unit->data + pos + bytes, 0, WRITE_BUFFER_SECTOR - bytes % WRITE_BUFFER_SECTOR);
    }
    add_sectors(unit, (unsigned)(pos / WRITE_BUFFER_SECTOR), sectors_of(pos + bytes));
    if (unit->state == UNIT_IDLE) {
        unit_move(wb, unit, is_whole(wb, unit) ? UNIT_READY : UNIT_IDLE);
    }
    kick(wb);
    return 0;
}

int write_buffer_co_write(WriteBuffer *wb, BlkRequest *req)
{
    int ret = 0;

    for (uint64_t done = 0, bytes; ret == 0 && done < req->bytes; done += bytes) {
        uint64_t offset = req->offset + done;

        bytes = MIN(req->bytes - done, wb->unit_bytes - (offset & (wb->unit_bytes - 1)));
        ret = co_write_part(wb, offset, bytes, blk_iov_advance(req->iov, done));
    }
    return ret;
}

/* ---- reads ---- */

/* Copies those of the @bytes at @pos of the unit that it has. */
static void copy_valid(const WriteBuffer *wb, const Unit *unit, uint64_t pos, uint64_t bytes, BlkIov iov)
{
    unsigned end = sectors_of(pos + bytes), next;

    for (unsigned sector = (unsigned)(pos / WRITE_BUFFER_SECTOR); unit && sector < end; sector = next) {
        next = run_end(unit, sector, end);
        if (has_sector(unit, sector)) {
            uint64_t from = MAX(pos, (uint64_t)sector * WRITE_BUFFER_SECTOR);
            uint64_t until = MIN(pos + bytes, (uint64_t)next * WRITE_BUFFER_SECTOR);
            blk_iov_from_buf(blk_iov_advance(iov, from - pos), unit->data + from, until - from);
        }
    }
}

/* Has one of the two units, each of which may be NULL, all of the range? */
static bool covered(const Unit *older, const Unit *newer, uint64_t pos, uint64_t bytes)
{
    for (unsigned sector = (unsigned)(pos / WRITE_BUFFER_SECTOR); sector < sectors_of(pos + bytes); sector++) {
        if (!(older && has_sector(older, sector)) && !(newer && has_sector(newer, sector))) {
            return false;
        }
    }
    return true;
}

static int co_read_part(WriteBuffer *wb, const BlkRequest *part)
{
    uint64_t number = part->offset / wb->unit_bytes, pos = part->offset & (wb->unit_bytes - 1);
    Unit *older = find(wb->writing, number), *newer = find(wb->gathering, number);
    int ret = 0;

    /* They may be written out meanwhile; the node below is known to have all only after they are gone. */
    unit_pin(older);
    unit_pin(newer);
    if (!covered(older, newer, pos, part->bytes)) {
        ret = blk_co_preadv(wb->node->file->node, part->offset, part->bytes, part->iov, part->flags);
    }
    if (ret == 0) {
        copy_valid(wb, older, pos, part->bytes, part->iov);
        copy_valid(wb, newer, pos, part->bytes, part->iov);
    }
    unit_unpin(wb, newer);
    unit_unpin(wb, older);
    return ret;
}

int write_buffer_co_read(WriteBuffer *wb, BlkRequest *req)
{
    int ret = 0;

    if (write_buffer_is_empty(wb)) {
        return blk_co_pass_through_read(wb->node, req);
    }
    for (uint64_t done = 0, bytes; ret == 0 && done < req->bytes; done += bytes) {
        BlkRequest part = { req->offset + done, 0, blk_iov_advance(req->iov, done), req->flags };

        bytes = req->bytes - done;
        bool held = write_buffer_holds(wb, part.offset, &bytes);
        part.bytes = bytes;
        ret = held ? co_read_part(wb, &part) : blk_co_pass_through_read(wb->node, &part);
    }
    return ret;
}

/* ---- the whole ---- */

/* The first unit behind @number, or @last + 1 if it is behind that. */
static uint64_t next_held(const WriteBuffer *wb, uint64_t number, uint64_t last)
{
    uint64_t next = last + 1;

    if (last == number) {
        return next;
    }
    for (unsigned state = 0; state < UNIT_STATES; state++) {
        for (GList *l = wb->lists[state].head; l; l = l->next) {
            uint64_t other = ((Unit *)l->data)->number;
            next = other > number ? MIN(next, other) : next;
        }
    }
    return next;
}

bool write_buffer_holds(const WriteBuffer *wb, uint64_t offset, uint64_t *bytes)
{
    uint64_t number = offset / wb->unit_bytes, last = (offset + *bytes - 1) / wb->unit_bytes;

    if (write_buffer_is_empty(wb)) {
        return false;
    }
    if (find(wb->gathering, number) || find(wb->writing, number)) {
        *bytes = MIN(*bytes, (number + 1) * wb->unit_bytes - offset);
        return true;
    }
    uint64_t next = next_held(wb, number, last);
    *bytes = MIN(*bytes, next * wb->unit_bytes - offset);
    return false;
}

bool write_buffer_is_empty(const WriteBuffer *wb)
{
    return g_hash_table_size(wb->gathering) == 0 && g_hash_table_size(wb->writing) == 0;
}

uint32_t write_buffer_unit(const WriteBuffer *wb)
{
    return wb->unit_bytes;
}

void write_buffer_set_unit(WriteBuffer *wb, uint32_t bytes)
{
    unsigned workers = blk_context_workers(wb->node->ctx);

    if (bytes == wb->unit_bytes) {
        return;
    }
    g_assert(wb->count == 0);
    g_ptr_array_set_size(wb->unused, 0);
    g_ptr_array_set_size(wb->spare_data, 0);
    wb->unit_bytes = bytes;
    wb->sectors = MAX(1, bytes / WRITE_BUFFER_SECTOR);
    wb->max_units = (unsigned)MIN(UINT_MAX / 2, MAX(1, wb->max_bytes / bytes));
    wb->max_writing = MIN(wb->max_units, blk_codec_tasks(wb->node->ctx, bytes, wb->node->length));
    wb->spare = MIN(wb->max_units / 4, 2 * workers);
}

WriteBuffer *write_buffer_new(BlkNode *node, uint64_t bytes, unsigned flags)
{
    WriteBuffer *wb = g_new0(WriteBuffer, 1);

    wb->node = node;
    wb->max_bytes = bytes;
    wb->flags = flags;
    wb->gathering = g_hash_table_new(g_direct_hash, g_direct_equal);
    wb->writing = g_hash_table_new(g_direct_hash, g_direct_equal);
    wb->unused = g_ptr_array_new_with_free_func(unit_free);
    wb->spare_data = g_ptr_array_new_with_free_func(blk_buffer_free);
    return wb;
}

void write_buffer_free(WriteBuffer *wb)
{
    if (!wb) {
        return;
    }
    g_assert(wb->lists[UNIT_WRITING].length == 0);
    if (wb->lists[UNIT_IDLE].length + wb->lists[UNIT_READY].length > 0) {
        uint64_t sectors = 0;
        for (unsigned state = UNIT_IDLE; state <= UNIT_READY; state++) {
            for (Unit *unit; (unit = g_queue_peek_head(&wb->lists[state]));) {
                sectors += unit->valid_count;
                unit_drop(wb, unit);
            }
        }
        blk_node_message(wb->node, "%" G_GUINT64_FORMAT " bytes that could not be written are lost, since the node is "
                         "closed", sectors * WRITE_BUFFER_SECTOR);
    }
    g_hash_table_unref(wb->gathering);
    g_hash_table_unref(wb->writing);
    g_ptr_array_unref(wb->unused);
    g_ptr_array_unref(wb->spare_data);
    g_free(wb);
}
