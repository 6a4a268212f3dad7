/* SPDX-License-Identifier: MIT */
/*
 * builtin.c - the table of the drivers that are built in.
 */
#include "drivers/builtin.h"

#include "drivers/drivers.h"

static const BlkDriver *const builtin[] = {
    &blk_driver_compress,
    &blk_driver_copy_before_write,
    &blk_driver_copy_on_read,
    &blk_driver_dmg,
    &blk_driver_fault,
    &blk_driver_file,
    &blk_driver_http,
    &blk_driver_https,
    &blk_driver_log_writes,
    &blk_driver_nbd,
    &blk_driver_null_co,
    &blk_driver_parallels,
    &blk_driver_qcow,
    &blk_driver_qcow2,
    &blk_driver_raw,
    &blk_driver_snapshot_access,
    &blk_driver_throttle,
    &blk_driver_vdi,
    &blk_driver_vhdx,
    &blk_driver_vmdk,
    &blk_driver_vpc,
};

void blk_builtin_register(GPtrArray *drivers)
{
    for (size_t i = 0; i < G_N_ELEMENTS(builtin); i++) {
        g_ptr_array_add(drivers, (gpointer)builtin[i]);
    }
}
