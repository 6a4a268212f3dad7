/* SPDX-License-Identifier: MIT */
/*
 * crc32c.h - the checksum CRC-32C (Castagnoli), as VHDX has it.
 */
#ifndef BLKSTACK_CORE_CRC32C_H
#define BLKSTACK_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of @bytes more bytes, if those before have @crc; 0: none were before. */
uint32_t blk_crc32c(uint32_t crc, const void *data, size_t bytes);

#endif
