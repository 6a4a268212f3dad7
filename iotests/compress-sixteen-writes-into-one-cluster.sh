#!/bin/bash
# SPDX-License-Identifier: MIT
# Sixteen 4 KiB writes into one cluster all land, one after the other and all at once, into a free, a compressed and a
# plain cluster.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

sixteen() {
    local kind n
    local -a commands

    new_image 16M
    both_peer "write -P 200 $((4 * CLUSTER)) $((2 * CLUSTER))"
    both "write -P 201 $((2 * CLUSTER)) $((2 * CLUSTER))"
    for kind in free compressed plain; do
        case $kind in free) n=0 ;; compressed) n=2 ;; plain) n=4 ;; esac
        commands=()
        for ((i = 0; i < 16; i++)); do
            commands+=("write -P $((i + 1)) $((n * CLUSTER + i * CLUSTER / 16)) 4k")
        done
        both "${commands[@]}"
        agrees "16 sequential writes into a $kind cluster"
        commands=()
        for ((i = 0; i < 16; i++)); do
            commands+=("aio_write -P $((i + 101)) $(((n + 1) * CLUSTER + i * CLUSTER / 16)) 4k")
        done
        both "${commands[@]}" aio_flush
        agrees "16 concurrent writes into a $kind cluster"
    done
    is "$(check_number disk.qcow2 compressed-clusters)" 6 "all six clusters are compressed"
}

matrix sixteen
done_testing
