/* SPDX-License-Identifier: MIT */
/*
 * builtin.c - the table of the drivers that are built in.
 */
#include "drivers/builtin.h"

#include "drivers/drivers.h"

static const BlkDriver *const builtin[] = {
    &blk_driver_compress,
    &blk_driver_copy_on_read,
    &blk_driver_fault,
    &blk_driver_file,
    &blk_driver_log_writes,
    &blk_driver_nbd,
    &blk_driver_null_co,
    &blk_driver_qcow2,
    &blk_driver_raw,
};

void blk_builtin_register(GPtrArray *drivers)
{
    for (size_t i = 0; i < G_N_ELEMENTS(builtin); i++) {
        g_ptr_array_add(drivers, (gpointer)builtin[i]);
    }
}
