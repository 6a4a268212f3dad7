#!/bin/bash
# SPDX-License-Identifier: MIT
# L1, refcount and snapshot tables of absurd size or place are refused at open; check repairs the refcount table.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
refused_at_open tables

# A refcount table that cannot be there: only check can do without, and makes a new one.
for name in $("$(dirname "$0")/craft.py" list refcount-table); do
    new_case refcount-table "$name"
    ends 2 2000 "$name: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    survives "$name: read" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
    unchanged "$name"
    survives "$name: write" "$BLKSTACK_IO" -f qcow2 -c "write -P 9 0 64k" disk.qcow2
    unchanged "$name"
    "$BLKSTACK_IMG" check -r all -f qcow2 disk.qcow2 >/dev/null 2>&1 || true
    judge disk.qcow2 "$name: repaired"
    same base.qcow2 disk.qcow2 "$name: repaired, every byte as before"
done
done_testing
