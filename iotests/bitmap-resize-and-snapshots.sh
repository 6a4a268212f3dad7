#!/bin/bash
# SPDX-License-Identifier: MIT
# Bitmaps follow a resize as the peer's do, and internal snapshots leave them alone.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/bitmap-lib.inc"

both_have() {   # TEXT
    local name

    for name in b512 b2m off; do
        is "$(dirty ours.qcow2 $name)" "$(dirty peer.qcow2 $name)" "$name: $1"
    done
    judge ours.qcow2 "$1"
}

qimg create -q -f qcow2 -o cluster_size=4096 peer.qcow2 3999744
qimg bitmap --add -g 512 -f qcow2 peer.qcow2 b512
qimg bitmap --add -g 2M -f qcow2 peer.qcow2 b2m
peer_io peer.qcow2 qcow2 "write 0 100k" "write 3990000 9744"
qimg bitmap --add -g 4k --merge b512 --disable -f qcow2 peer.qcow2 off
cp peer.qcow2 ours.qcow2
for size in 9000448 3G 3M 3500k 512 1M; do
    img resize -q --shrink -f qcow2 ours.qcow2 $size
    qimg resize -q --shrink -f qcow2 peer.qcow2 $size
    both_have "resized to $size"
done
img amend -o size=1500k ours.qcow2
qimg amend -o size=1500k peer.qcow2
both_have "amended to 1500k"
img bitmap --clear -f qcow2 ours.qcow2 b512
qimg bitmap --clear -f qcow2 peer.qcow2 b512
pio ours.qcow2 "write 1000k 1k"
peer_io peer.qcow2 qcow2 "write 1000k 1k"
both_have "written after all"
qimg snapshot -c one ours.qcow2
qimg snapshot -c one peer.qcow2
pio ours.qcow2 "write 500k 1k" "write -z 0 64k"
peer_io peer.qcow2 qcow2 "write 500k 1k" "write -z 0 64k"
both_have "written beside a snapshot"
qimg snapshot -d one ours.qcow2
qimg snapshot -d one peer.qcow2
both_have "the snapshot is gone"
qimg create -q -f qcow2 ours.qcow2 4M
qimg bitmap --add ours.qcow2 b
fails "compat=0.10 has no bitmaps" "dirty bitmaps" "$BLKSTACK_IMG" amend -o compat=0.10 ours.qcow2
done_testing
