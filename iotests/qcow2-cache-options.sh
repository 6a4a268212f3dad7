#!/bin/bash
# SPDX-License-Identifier: MIT
# The sizes of the caches are given as to the peer, and what contradicts itself is refused in its words.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
any_backend

qimg create -q -f qcow2 disk.qcow2 64M
for options in cache-size=1M l2-cache-size=1M refcount-cache-size=256k l2-cache-size=1M,refcount-cache-size=256k \
    cache-size=2M,l2-cache-size=1M cache-size=2M,refcount-cache-size=1M l2-cache-entry-size=4k; do
    succeeds "$options" "$BLKSTACK_IO" --image-opts "driver=qcow2,file.filename=disk.qcow2,$options" -c "write -P 1 0 1M" \
        -c "read -P 1 0 1M"
done
for options in cache-size=1M,l2-cache-size=1M,refcount-cache-size=1M cache-size=1M,l2-cache-size=2M \
    cache-size=1M,refcount-cache-size=2M l2-cache-entry-size=256 l2-cache-entry-size=1000 l2-cache-entry-size=128k; do
    reason=$(qio --image-opts "driver=qcow2,file.filename=disk.qcow2,$options" -c length 2>&1 | sed "s/.*can't open: //; s/[()]/./g" || true)
    fails "$options: in the peer's words" "$reason" "$BLKSTACK_IO" --image-opts \
        "driver=qcow2,file.filename=disk.qcow2,$options" -c length
done
judge disk.qcow2 "all sizes"
done_testing
