#!/bin/bash
# SPDX-License-Identifier: MIT
# R03: two compressed writes to one free cluster at once, one of them suspended before its payload is written: both
# succeed, and one wins whole.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

opts="driver=compress,write-buffer=0,file.driver=qcow2,file.file.driver=fault"
opts+=",file.file.image.driver=file,file.file.image.filename=disk.qcow2"

two_writes() {
    local winner

    new_image 16M
    io_run "$BLKSTACK_IO" --image-opts "$opts" -- "break write_compressed A" "aio_write -P 1 0 $CLUSTER" \
        "wait_break A" \
        "aio_write -P 2 0 $CLUSTER" "resume A" "aio_flush"
    is "$(grep -c "^wrote $CLUSTER/$CLUSTER bytes" io.out || true)" 2 "both writes succeed"
    "$QEMU_IMG" convert -f qcow2 -O raw disk.qcow2 now.raw
    winner=$(od -An -tu1 -N1 now.raw | tr -d ' ')
    like "$winner" "^[12]$" "one of them won"
    model_io "write -P $winner 0 $CLUSTER"
    agrees "one wins whole"
    is "$(check_number disk.qcow2 compressed-clusters)" 1 "one compressed cluster"

    io_run "$BLKSTACK_IO" --image-opts "$opts" -- "break write_compressed A" "aio_write -P 3 $CLUSTER $CLUSTER" \
        "wait_break A" \
        "aio_write -P 4 $((CLUSTER + 4096)) 4k" "aio_write -P 5 $((CLUSTER + 8192)) 4k" "resume A" "aio_flush"
    # The parts were sent after the whole cluster; a part that came first would be covered by it.
    "$QEMU_IMG" convert -f qcow2 -O raw disk.qcow2 now.raw
    model_io "write -P 3 $CLUSTER $CLUSTER"
    for part in 4096 8192; do
        value=$(od -An -tu1 -N1 -j$((CLUSTER + part)) now.raw | tr -d ' ')
        like "$value" "^[345]$" "the part at $part has one writer's data"
        model_io "write -P $value $((CLUSTER + part)) 4k"
    done
    agrees "parts after a whole cluster"
}

matrix two_writes
done_testing
