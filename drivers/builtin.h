/* SPDX-License-Identifier: MIT */
/*
 * builtin.h - core's way to the drivers that are built in, without knowing any by name.
 */
#ifndef BLKSTACK_DRIVERS_BUILTIN_H
#define BLKSTACK_DRIVERS_BUILTIN_H

#include <glib.h>

/* Appends the tables (const BlkDriver *) to @drivers. */
void blk_builtin_register(GPtrArray *drivers);

#endif
