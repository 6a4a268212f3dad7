#!/bin/bash
# SPDX-License-Identifier: MIT
# R02: a cluster is discarded while a compressed write to it is suspended, and other clusters are written meanwhile: the
# freed space is not handed out too early, no other cluster changes, the cluster itself is old, new or zero as a whole.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

opts="driver=compress,write-buffer=0,discard=unmap,file.driver=qcow2,file.discard=unmap,file.file.driver=fault,file.file.discard=unmap"
opts+=",file.file.image.driver=file,file.file.image.filename=disk.qcow2"

# The one value that all bytes of cluster N have, or "mixed".
whole_value() { # N
    "$QEMU_IMG" dd -f qcow2 -O raw bs="$CLUSTER" skip="$1" count=$(($1 + 1)) if=disk.qcow2 of=cluster.raw >/dev/null
    od -An -v -tu1 -w1 cluster.raw | sort -u | awk '{ value = $1 } END { print NR == 1 ? value : "mixed" }'
}

race() {
    local event=$1 value

    new_image 16M
    both "write -P 1 0 $((4 * CLUSTER))"
    both_peer "write -P 2 $((2 * CLUSTER)) $CLUSTER"
    io_run "$BLKSTACK_IO" --image-opts "$opts" -- "break $event A" "aio_write -P 10 $CLUSTER $CLUSTER" "wait_break A" \
        "aio_write -z -u $CLUSTER $CLUSTER" "aio_write -P 11 0 $CLUSTER" "aio_write -P 12 $((2 * CLUSTER)) $CLUSTER" \
        "aio_write -P 13 $((4 * CLUSTER)) $CLUSTER" "aio_write -P 14 $((5 * CLUSTER)) $CLUSTER" \
        "resume A" "aio_flush" "write -P 15 $((6 * CLUSTER)) $CLUSTER" "read -P 13 $((4 * CLUSTER)) $CLUSTER"
    value=$(whole_value 1)
    like "$value" "^(0|10)$" "$event: the cluster is wholly zero or wholly new"
    model_io "write -P $value $CLUSTER $CLUSTER" "write -P 11 0 $CLUSTER" "write -P 12 $((2 * CLUSTER)) $CLUSTER" \
        "write -P 13 $((4 * CLUSTER)) $CLUSTER" "write -P 14 $((5 * CLUSTER)) $CLUSTER" \
        "write -P 15 $((6 * CLUSTER)) $CLUSTER"
    agrees "$event: no other cluster changed"
}

races() {
    race write_compressed
    # A discard of its own kind, as its own request, and a write that was begun before it.
    io_run "$BLKSTACK_IO" --image-opts "$opts" -- "write -P 20 $CLUSTER $CLUSTER" "discard $CLUSTER $CLUSTER" \
        "aio_write -P 21 0 $CLUSTER" "aio_write -P 22 $CLUSTER $CLUSTER" "aio_write -z -u 0 $((2 * CLUSTER))" \
        "aio_flush" \
        "discard $((2 * CLUSTER)) $((2 * CLUSTER))" "write -P 23 $((7 * CLUSTER)) $CLUSTER"
    for n in 0 1; do
        value=$(whole_value "$n")
        like "$value" "^(0|2[12])$" "cluster $n is wholly zero or wholly new"
        model_io "write -P $value $((n * CLUSTER)) $CLUSTER"
    done
    model_io "write -z $((2 * CLUSTER)) $((2 * CLUSTER))" "write -P 23 $((7 * CLUSTER)) $CLUSTER"
    agrees "discards and writes at once"
}

matrix races
done_testing
