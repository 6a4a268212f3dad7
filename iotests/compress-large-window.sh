#!/bin/bash
# SPDX-License-Identifier: MIT
# Our deflate streams refer back up to 32 KiB, more than the 4 KiB of other writers; the peer reads them all the same.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

# Clusters of 16 KiB of noise, 8 KiB of other noise, and the first 16 KiB again, then zeroes: 24 KiB back, and no nearer.
random_file a.raw 16384 1
random_file b.raw 8192 2
for ((i = 0; i < 16; i++)); do
    cat a.raw b.raw a.raw
    head -c 24576 /dev/zero
done >disk.raw
is "$(stat -c %s disk.raw)" 1048576 "sixteen clusters"

for how in convert filter; do
    label=$how
    rm -f disk.qcow2
    if [ "$how" = convert ]; then
        succeeds "convert -c" "$BLKSTACK_IMG" convert -c -f raw -O qcow2 disk.raw disk.qcow2
    else
        img create -q -f qcow2 disk.qcow2 1M
        zio disk.qcow2 "write -s disk.raw 0 1M"
    fi
    is "$(check_number disk.qcow2 compressed-clusters)" 16 "all is compressed"
    # Found again, the second 16 KiB take next to nothing: with a window of 4 KiB each cluster would take 40 KiB.
    num_ok "$(stat -c %s disk.qcow2) < 16 * 30 * 1024 + 6 * 65536" "the streams refer back that far"
    succeeds "the peer reads them" "$QEMU_IMG" compare -f raw -F qcow2 disk.raw disk.qcow2
    judge disk.qcow2 "as written"
done
done_testing
