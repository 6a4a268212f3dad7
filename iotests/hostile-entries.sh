#!/bin/bash
# SPDX-License-Identifier: MIT
# Entries of tables that point outside, on metadata or on each other: check finds and repairs them,
# nothing crashes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
found_by_check entries
for group in entries payload; do
    for name in $("$(dirname "$0")/craft.py" list $group); do
        new_case $group "$name"
        succeeds "$name: repaired" "$BLKSTACK_IMG" check -r all -f qcow2 disk.qcow2
        succeeds "$name: the peer finds nothing" "$QEMU_IMG" check -f qcow2 disk.qcow2
        succeeds "$name: we find nothing" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
        succeeds "$name: writable again" "$BLKSTACK_IO" -f qcow2 -c "write -P 9 0 1M" -c "write -P 9 4M 1M" disk.qcow2
        succeeds "$name: ... and sound" "$QEMU_IMG" check -f qcow2 disk.qcow2
    done
done
done_testing
