#!/bin/bash
# SPDX-License-Identifier: MIT
# R01: while a compressed write is suspended, between its payload and its mapping or before, a read of the same cluster
# shows the old data; afterwards the new data. Never an error, never a mixture.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

opts="driver=compress,write-buffer=0,file.driver=qcow2,file.file.driver=fault"
opts+=",file.file.image.driver=file,file.file.image.filename=disk.qcow2"

race() {
    local kind n=0

    new_image 16M
    both_peer "write -P 1 $CLUSTER $CLUSTER"
    both "write -P 1 $((2 * CLUSTER)) $CLUSTER"
    for kind in free plain compressed; do
        old=1
        if [ "$kind" = free ]; then
            old=0
        fi
        io_run "$BLKSTACK_IO" --image-opts "$opts" -- "break write_compressed A" \
            "aio_write -P $((n + 10)) $((n * CLUSTER)) $CLUSTER" \
            "wait_break A" "read -P $old $((n * CLUSTER)) $CLUSTER" "read -P $old $((n * CLUSTER + 4096)) 4k" \
            "resume A" "aio_flush" "read -P $((n + 10)) $((n * CLUSTER)) $CLUSTER"
        model_io "write -P $((n + 10)) $((n * CLUSTER)) $CLUSTER"
        agrees "a whole $kind cluster"
        io_run "$BLKSTACK_IO" --image-opts "$opts" -- "break write_compressed A" \
            "aio_write -P 20 $((n * CLUSTER + 4096)) 4k" \
            "wait_break A" "read -P $((n + 10)) $((n * CLUSTER)) $CLUSTER" \
            "aio_read -P $((n + 10)) $((n * CLUSTER)) $CLUSTER" \
            "resume A" "aio_flush" "read -P 20 $((n * CLUSTER + 4096)) 4k" "read -P $((n + 10)) $((n * CLUSTER)) 4k"
        model_io "write -P 20 $((n * CLUSTER + 4096)) 4k"
        agrees "a part of it"
        n=$((n + 1))
    done

    # The reader is the one that is suspended: its payload must not be handed out while it looks at it.
    # It lies in a host cluster that was taken in this run: only there holes are known.
    io_run "$BLKSTACK_IO" --image-opts "$opts" -- "write -P 30 0 $CLUSTER" "break read_compressed R" "aio_read -P 30 0 $CLUSTER" "wait_break R" \
        "write -P 31 0 $CLUSTER" "flush" "write -P 32 $((3 * CLUSTER)) $CLUSTER" \
        "write -P 33 $((4 * CLUSTER)) $CLUSTER" \
        "write -P 34 0 $CLUSTER" "flush" "write -P 35 $((5 * CLUSTER)) $CLUSTER" "resume R" "aio_flush" \
        "read -P 34 0 $CLUSTER"
    is "$(grep -c "Pattern verification failed" io.out || true)" 0 "a suspended read shows the old payload"
    model_io "write -P 34 0 $CLUSTER" "write -P 32 $((3 * CLUSTER)) $CLUSTER" "write -P 33 $((4 * CLUSTER)) $CLUSTER" \
        "write -P 35 $((5 * CLUSTER)) $CLUSTER"
    agrees "a suspended read of a payload"
}

matrix race
done_testing
