/* SPDX-License-Identifier: MIT */
/*
 * drivers.h - the driver tables that are built in. Adding a driver is adding a line here and one in builtin.c.
 */
#ifndef BLKSTACK_DRIVERS_DRIVERS_H
#define BLKSTACK_DRIVERS_DRIVERS_H

#include <blkstack/driver.h>

extern const BlkDriver blk_driver_compress;
extern const BlkDriver blk_driver_copy_on_read;
extern const BlkDriver blk_driver_fault;
extern const BlkDriver blk_driver_file;
extern const BlkDriver blk_driver_log_writes;
extern const BlkDriver blk_driver_nbd;
extern const BlkDriver blk_driver_null_co;
extern const BlkDriver blk_driver_qcow2;
extern const BlkDriver blk_driver_raw;

#endif
