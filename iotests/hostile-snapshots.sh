#!/bin/bash
# SPDX-License-Identifier: MIT
# Snapshot tables that lie: info refuses them with one message, within bounds, image untouched;
# check finds and repairs them.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
for name in $("$(dirname "$0")/craft.py" list snapshot); do
    new_case snapshot "$name"
    ends 1 1 "$name: info" "$BLKSTACK_IMG" info disk.qcow2
    ends 2 100 "$name: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    survives "$name: read" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
    unchanged "$name"
    "$BLKSTACK_IMG" check -r all -f qcow2 disk.qcow2 >repair.out 2>&1 || true
    like "$(cat repair.out)" "given up" "$name: the repair says what is given up"
    judge disk.qcow2 "$name: repaired"
    same base.qcow2 disk.qcow2 "$name: repaired, every byte as before"
done
done_testing
