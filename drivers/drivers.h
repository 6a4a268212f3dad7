/* SPDX-License-Identifier: MIT */
/*
 * drivers.h - the driver tables that are built in. Adding a driver is adding a line here and one in builtin.c.
 */
#ifndef BLKSTACK_DRIVERS_DRIVERS_H
#define BLKSTACK_DRIVERS_DRIVERS_H

#include <blkstack/driver.h>

extern const BlkDriver blk_driver_compress;
extern const BlkDriver blk_driver_copy_before_write;
extern const BlkDriver blk_driver_copy_on_read;
extern const BlkDriver blk_driver_dmg;
extern const BlkDriver blk_driver_fault;
extern const BlkDriver blk_driver_file;
extern const BlkDriver blk_driver_http;
extern const BlkDriver blk_driver_https;
extern const BlkDriver blk_driver_log_writes;
extern const BlkDriver blk_driver_nbd;
extern const BlkDriver blk_driver_null_co;
extern const BlkDriver blk_driver_parallels;
extern const BlkDriver blk_driver_qcow;
extern const BlkDriver blk_driver_qcow2;
extern const BlkDriver blk_driver_raw;
extern const BlkDriver blk_driver_snapshot_access;
extern const BlkDriver blk_driver_throttle;
extern const BlkDriver blk_driver_vdi;
extern const BlkDriver blk_driver_vhdx;
extern const BlkDriver blk_driver_vmdk;
extern const BlkDriver blk_driver_vpc;

#endif
