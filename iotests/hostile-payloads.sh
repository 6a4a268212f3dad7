#!/bin/bash
# SPDX-License-Identifier: MIT
# Payloads that do not decode: a read fails, check --data names the guest offset, check without it finds nothing.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
for name in $("$(dirname "$0")/craft.py" list data); do
    new_case data "$name"
    ends 0 10 "$name: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    ends 2 10 "$name: check --data" "$BLKSTACK_IMG" check -f qcow2 --data disk.qcow2
    like "$(cat cmd.out)" 0x400000 "$name: the guest offset is named"
    ends 1 1 "$name: read" "$BLKSTACK_IO" -r -f qcow2 -c "read 4M 64k" disk.qcow2
    unchanged "$name"
    survives "$name: a whole rewrite" "$BLKSTACK_IO" --image-opts "$(filter_opts disk.qcow2)" -c "write -P 9 4M 64k"
    ends 0 10 "$name: and it reads back" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 9 4M 64k" disk.qcow2
done
done_testing
