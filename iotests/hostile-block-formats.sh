#!/bin/bash
# SPDX-License-Identifier: MIT
# vdi and vpc images whose fields lie: refused by one sentence and not changed, or harmless; bounded in time and memory.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
. "$(dirname "$0")/block-formats-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit

# All that may be done with an image ends by itself, without a signal.
harmless() {    # TEXT IMAGE
    survives "$1: check" "$BLKSTACK_IMG" check -f "$FORMAT" "$2"
    survives "$1: convert" "$BLKSTACK_IMG" convert -f "$FORMAT" -O raw "$2" /dev/null
}

base() {        # a sound image of 16 MiB with blocks for 3 MiB and 5 MiB
    rm -f base
    qimg create -q -f "$FORMAT" -o "$CREATE" base 16M
    peer_io base "$FORMAT" "write -P 1 3M 64k" "write -P 2 5M 64k"
}

# Puts a NUMBER of struct's type at OFFSET of a copy; VHD footers and headers get their checksums again.
changed() {     # OFFSET TYPE NUMBER
    cp base disk
    python3 -c '
import struct, sys
offset, kind, number = int(sys.argv[1], 0), sys.argv[2], int(sys.argv[3], 0)
with open("disk", "r+b") as file:
    data = bytearray(file.read())
    data[offset:offset + struct.calcsize(kind)] = struct.pack(kind, number)
    if sys.argv[4] == "vpc":
        for at, size, place in (0, 512, 64), (512, 1024, 36):
            if at <= offset < at + size and offset != at + place:
                data[at + place:at + place + 4] = bytes(4)
                data[at + place:at + place + 4] = struct.pack(">I", ~sum(data[at:at + size]) & 0xffffffff)
        data[-512:] = data[:512]
    file.seek(0)
    file.write(data)' "$@" "$FORMAT"
}

lies() {        # TEXT REGEX OFFSET TYPE NUMBER
    changed "$3" "$4" "$5"
    refused "$1" "$2" disk
    harmless "$1" disk
}

FORMAT=vdi CREATE=static=off label=vdi
base
lies "version" "version 1.2" 0x44 "<I" 0x10002
lies "type" "neither dynamic nor static" 0x4c "<I" 4
lies "map that is not aligned" "unaligned block map" 0x154 "<I" 511
lies "map in the header" "overlap" 0x154 "<I" 0
lies "map behind the end" "ends within its block map|behind its data" 0x154 "<I" 0xfffffe00
lies "data that are not aligned" "unaligned data" 0x158 "<I" 600
lies "data over the map" "overlap" 0x158 "<I" 512
lies "sectors of 4k" "sector size" 0x168 "<I" 4096
lies "a disk of 8 EiB" "Unsupported VDI image size" 0x170 "<Q" 0x8000000000000000
lies "a disk larger than its map" "has room for" 0x170 "<Q" 17825792
lies "blocks of 0 bytes" "block size 0" 0x178 "<I" 0
lies "blocks of 3 MiB" "block size" 0x178 "<I" 3145728
lies "blocks with a head" "bytes before their data" 0x17c "<I" 512
lies "no blocks" "has room for 0" 0x180 "<I" 0
lies "too many blocks" "too many blocks" 0x180 "<I" 0xffffffff
lies "a map longer than the file" "ends within its block map|overlap" 0x180 "<I" 0x1fffff00
lies "a link" "non-NULL link" 0x1a8 "<I" 1
lies "a parent" "non-NULL parent" 0x1b8 "<I" 1
lies "an entry that is too large" "cannot be" 512 "<I" 1000
lies "an entry behind the end of the file" "cannot be" 512 "<I" 15
changed 512 "<I" 17
truncate -s 40M disk
refused "an entry that is too large, of a file that is long enough" "cannot be" disk
lies "two entries for one block" "same place" 512 "<I" 0
changed 0x184 "<I" 99
harmless "a count that is too large" disk
io_run "$BLKSTACK_IO" -f vdi disk -- "write -P 7 1M 64k" "read -P 1 3M 64k" "read -P 2 5M 64k" "read -P 7 1M 64k"
changed 0x184 "<I" 0
io_run "$BLKSTACK_IO" -f vdi disk -- "write -P 7 1M 64k"
io_run "$QEMU_IO" -f vdi disk -- "read -P 1 3M 64k" "read -P 2 5M 64k" "read -P 7 1M 64k"
succeeds "a count that is too small is put right" qimg check -f vdi disk
: >disk
refused "a file that is shorter than the header" "shorter" disk

FORMAT=vpc CREATE=force_size=on label=vpc
base
lies "cookie" "invalid VPC image|Incorrect header checksum" 0 ">Q" 5
lies "version" "Unsupported VHD version" 12 ">I" 0x20000
lies "header behind the end" "cannot be at offset" 16 ">Q" 0x4000000000000000
lies "header in the footer" "cannot be at offset" 16 ">Q" 0
lies "header elsewhere" "Invalid header magic" 16 ">Q" 1024
lies "a disk that is too large" "larger than 2040 GiB" 48 ">Q" 0x4000000000000000
lies "a disk larger than its table" "Page table too small" 48 ">Q" 0x10000000
lies "no known type" "neither fixed nor dynamic" 60 ">I" 9
lies "differencing" "Differencing" 60 ">I" 4
lies "checksum" "Incorrect header checksum" 64 ">I" 5
lies "cookie of the header" "Invalid header magic" 512 ">Q" 5
lies "table that is not aligned" "cannot be at offset" 528 ">Q" 1537
lies "table behind the end" "cannot be at offset" 528 ">Q" 0x4000000000000000
lies "table over the header" "overlap" 528 ">Q" 1024
lies "table over the footer" "cannot be at offset" 528 ">Q" 0
lies "version of the header" "version" 536 ">I" 0x20000
lies "no entries" "Page table too small" 540 ">I" 0
lies "too many entries" "cannot be at offset" 540 ">I" 0xffffffff
lies "blocks of 0 bytes" "Invalid block size 0" 544 ">I" 0
lies "blocks of 3 MiB" "Invalid block size" 544 ">I" 3145728
lies "blocks of 2 GiB" "Unsupported block size" 544 ">I" 0x80000000
lies "tiny blocks" "Page table too small" 544 ">I" 512
lies "checksum of the header" "checksum of the dynamic" 548 ">I" 5
lies "an entry in the footer" "cannot be" 1536 ">I" 0
lies "an entry in the header" "cannot be" 1536 ">I" 1
lies "an entry in the table" "cannot be" 1536 ">I" 3
lies "an entry behind the end of the file" "cannot be" 1536 ">I" 0x10000000
lies "two entries for one block" "same place" 1536 ">I" 4
lies "blocks that overlap" "same place" 1536 ">I" 5
lies "fixed, and too short" "shorter than the fixed disk" 60 ">I" 2
cp base disk
printf 'x' | dd of=disk bs=1 seek=8 conv=notrunc status=none
refused "the copy of the footer is damaged" "copy of its footer" disk
io_run "$BLKSTACK_IO" -r -f vpc disk -- "read -P 1 3M 64k" "read -P 2 5M 64k"
cp base disk
truncate -s -512 disk
io_run "$BLKSTACK_IO" -f vpc disk -- "write -P 7 9M 64k" "read -P 1 3M 64k" "read -P 2 5M 64k"
io_run "$QEMU_IO" -f vpc disk -- "read -P 1 3M 64k" "read -P 2 5M 64k" "read -P 7 9M 64k"
succeeds "a footer that is missing at the end is there again" cmp <(head -c 512 disk) <(tail -c 512 disk)
: >disk
refused "a file that is shorter than the footer" "too small" disk
done_testing
