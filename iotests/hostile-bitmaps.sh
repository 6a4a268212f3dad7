#!/bin/bash
# SPDX-License-Identifier: MIT
# Bitmap directories and tables that lie: the disk can still be read, and is written to only when the bitmaps are repaired;
# check finds the fault, and its repair keeps what is sound.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/bitmap-lib.inc"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
qimg bitmap --add base.qcow2 b0
qimg bitmap --add -g 4k base.qcow2 b1
peer_io base.qcow2 qcow2 "write -P 3 16k 16k"

names() {       # FILE
    img info "$1" | sed -n 's/^ *name: //p' | xargs
}

for group in bitmaps-all bitmaps-one; do
    for name in $("$(dirname "$0")/craft.py" list $group); do
        new_case $group "$name"
        ends 2 60 "$name: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
        survives "$name: info" "$BLKSTACK_IMG" info disk.qcow2
        ends 0 20 "$name: read" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 3 0 512k" -c "read -P 2 4M 1M" disk.qcow2
        if [ $group = bitmaps-all ] && [ "$name" != directory-is-table ] && [ "$name" != directory-is-l2 ]; then
            like "$(cat cmd.out)" "dirty bitmaps cannot be used" "$name: read says so"
        fi
        survives "$name: merge" "$BLKSTACK_IMG" bitmap --merge b0 -b disk.qcow2 base.qcow2 b1
        unchanged "$name"
        if [ "$name" = granularity-other ] || [ "$name" = table-size-2 ]; then
            survives "$name: write" "$BLKSTACK_IO" -f qcow2 -c "write 0 64k" disk.qcow2
        else
            ends 1 1 "$name: write" "$BLKSTACK_IO" -f qcow2 -c "write 0 64k" disk.qcow2
            unchanged "$name"
        fi
        ends 0 40 "$name: repair" "$BLKSTACK_IMG" check -r all -f qcow2 disk.qcow2
        if [ $group = bitmaps-one ]; then
            like "$(names disk.qcow2)" '^(b0|b1|b0 b1)$' "$name: what is sound is kept"
        else
            is "$(names disk.qcow2)" "" "$name: none is left"
        fi
        pio disk.qcow2 "read -P 3 0 512k" "write -P 9 0 64k" "read -P 2 4M 1M"
        judge disk.qcow2 "$name: written to"
    done
done
for name in $("$(dirname "$0")/craft.py" list bitmaps-costly); do
    new_case bitmaps-costly "$name"
    survives "$name: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    survives "$name: info" "$BLKSTACK_IMG" info disk.qcow2
    ends 0 20 "$name: read" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 3 0 512k" disk.qcow2
    survives "$name: write" "$BLKSTACK_IO" -f qcow2 -c "write 0 64k" disk.qcow2
    unchanged "$name"
    survives "$name: repair" "$BLKSTACK_IMG" check -r all -f qcow2 disk.qcow2
done
done_testing
