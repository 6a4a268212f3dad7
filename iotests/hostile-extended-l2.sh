#!/bin/bash
# SPDX-License-Identifier: MIT
# Extended L2 entries that lie: bitmaps that contradict themselves or their entry, clusters too small for them, and the
# feature bit on or off where the tables are of the other kind.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
found_by_check extended-bit
base_options=(-o extended_l2=on)
make_base
refused_at_open extended-header
found_by_check extended-length
new_case extended-header clusters-too-small
fails "the message says what is too small" "Cluster size 8192 is too small for extended L2 entries" \
    "$BLKSTACK_IMG" info disk.qcow2
found_by_check extended-entries

label="a bitmap that lies"
new_case extended-entries bit-for-both
fails "reading its cluster fails" "Input/output error" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 4k" disk.qcow2
succeeds "its neighbour can be read" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 3 64k 64k" disk.qcow2
fails "it is not written to" "Input/output error" "$BLKSTACK_IO" -f qcow2 -c "write 0 4k" disk.qcow2
new_case extended-entries bit-for-both
succeeds "a whole compressed cluster replaces it" "$BLKSTACK_IO" -f qcow2 -c "write -c -P 5 0 64k" \
    -c "read -P 5 0 64k" disk.qcow2
judge disk.qcow2 "replaced"
done_testing
