#!/bin/bash
# SPDX-License-Identifier: MIT
# An amendment of which one part is refused changes nothing, also where another part would come first: version 3 and
# counters that are too narrow for what snapshots share.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
any_backend

qimg create -q -f qcow2 -o compat=0.10 disk.qcow2 1M
qio -f qcow2 -c "write -q -P 1 0 64k" disk.qcow2
for name in one two three four; do
    qimg snapshot -c $name disk.qcow2
done
sum=$(sha256sum <disk.qcow2)
fails "counts of 5 in 2 bits" "has a refcount of 5" "$BLKSTACK_IMG" amend -f qcow2 -o compat=1.1,refcount_bits=2 disk.qcow2
is "$(sha256sum <disk.qcow2)" "$sum" "the image is as it was"
succeeds "in 4 bits" "$BLKSTACK_IMG" amend -f qcow2 -o compat=1.1,refcount_bits=4 disk.qcow2
like "$(qimg info disk.qcow2)" 'compat: 1\.1.*refcount bits: 4' "both are changed"
judge disk.qcow2 "in 4 bits"
done_testing
