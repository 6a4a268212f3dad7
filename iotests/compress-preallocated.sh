#!/bin/bash
# SPDX-License-Identifier: MIT
# Preallocated images (metadata, falloc, full), made by the peer and by us, take compressed writes.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

preallocated() {
    local mode maker

    for mode in metadata falloc full; do
        for maker in peer ours; do
            new_image 16M -o "preallocation=$mode"
            if [ "$maker" = ours ]; then
                rm disk.qcow2
                img create -q -f qcow2 -o "cluster_size=$CLUSTER,compression_type=$COMPRESSION,preallocation=$mode" \
                    disk.qcow2 16M
            fi
            judge disk.qcow2 "$mode, $maker: before writing"
            both "write -P 1 0 $CLUSTER" "write -P 2 $((CLUSTER + 4096)) 4k" "write -P 3 $((3 * CLUSTER - 512)) 1k"
            is "$(check_number disk.qcow2 compressed-clusters)" 4 "$mode, $maker: four clusters are compressed"
            both "write -P 4 0 512" "write -z $((2 * CLUSTER)) $CLUSTER" "write -P 5 $((2 * CLUSTER)) 4k"
            agrees "$mode, $maker"
        done
    done
}

matrix preallocated
done_testing
