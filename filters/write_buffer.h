/* SPDX-License-Identifier: MIT */
/*
 * write_buffer.h - gathers the writes of a filter into whole units of its child. See docs/write-buffer.md.
 *
 * All calls are for the filter's own operations: ranges lie within the node. The filter needs the permission to write to
 * its child as long as it is open, and shares it with nobody.
 */
#ifndef BLKSTACK_FILTERS_WRITE_BUFFER_H
#define BLKSTACK_FILTERS_WRITE_BUFFER_H

#include <blkstack/driver.h>

enum { WRITE_BUFFER_SECTOR = 512 };     /* bytes; writes to the buffer are multiples, but for the end of the node */

typedef struct WriteBuffer WriteBuffer;

/* @bytes: of memory for data, at least one unit is kept; @flags: of the writes to the child (BlkReqFlags). */
WriteBuffer *write_buffer_new(BlkNode *node, uint64_t bytes, unsigned flags);
/* What it still holds is lost, which is told as a message. NULL is ignored. */
void write_buffer_free(WriteBuffer *buffer);

/* The cluster size of the child, a power of two. Only while nothing is held, or to the same value. */
void write_buffer_set_unit(WriteBuffer *buffer, uint32_t bytes);
uint32_t write_buffer_unit(const WriteBuffer *buffer);
bool write_buffer_is_empty(const WriteBuffer *buffer);

/* May yield. Returns: 0; others from below. */
int write_buffer_co_read(WriteBuffer *buffer, BlkRequest *req);
/* Returns when the data is in the buffer: -ENOMEM; errors of earlier writes if these leave no room. */
int write_buffer_co_write(WriteBuffer *buffer, BlkRequest *req);

/**
 * write_buffer_co_settle:
 *
 * Writes out what was written to the range before the call. May yield.
 * Returns: 0; the error of what could not be written, which the buffer still holds.
 */
int write_buffer_co_settle(WriteBuffer *buffer, uint64_t offset, uint64_t bytes);

/* A range of the child that somebody changes; on its stack. */
typedef struct WriteBufferHold {
    uint64_t offset, bytes;
    struct WriteBufferHold *next;
} WriteBufferHold;

/* Settles the range, and lets nothing of it be written out until write_buffer_release(). May yield. After an error, which
 * is that of write_buffer_co_settle(), nothing is held. */
int write_buffer_co_hold(WriteBuffer *buffer, WriteBufferHold *hold, uint64_t offset, uint64_t bytes);
void write_buffer_release(WriteBuffer *buffer, WriteBufferHold *hold);

/* Settles everything; also reports, once, an error that came late. */
int write_buffer_co_flush(WriteBuffer *buffer);

/* Does it hold data of the cluster at @offset? *bytes: (inout): how far that answer holds. */
bool write_buffer_holds(const WriteBuffer *buffer, uint64_t offset, uint64_t *bytes);

#endif
