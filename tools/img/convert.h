/* SPDX-License-Identifier: MIT */
/*
 * convert.h - the copying part of convert.
 */
#ifndef BLKSTACK_TOOLS_IMG_CONVERT_H
#define BLKSTACK_TOOLS_IMG_CONVERT_H

#include "img/img.h"

typedef struct ConvertJob {
    GPtrArray *sources;         /* BlkChild: one after the other */
    BlkChild *target;
    uint64_t length;            /* of all sources */
    bool keep_backing;          /* the target's backing has what the sources' top images do not */
    uint64_t backing_length;    /* of the target's backing */
    bool target_is_zero;        /* what is not written reads as zeroes */
    bool compressed;
    bool in_order;
    bool fua;
    uint64_t sparse;            /* runs of zeroes of this length are left out; 0: none */
    unsigned workers;           /* requests in flight */
    uint64_t rate;              /* bytes a second; 0: no limit */
    ImgProgress progress;
} ConvertJob;

/* Copies everything and flushes; reports errors. Context: coroutine; may yield. Returns: the exit status. */
int convert_co_copy(ConvertJob *job);

#endif
