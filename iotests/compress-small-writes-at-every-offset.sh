#!/bin/bash
# SPDX-License-Identifier: MIT
# Writes of 4 KiB and of 512 bytes, at every 4 KiB and 512-byte position of a cluster and at odd bytes, over free,
# compressed and plain clusters.
# timeout: 400
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

# Write commands for all positions STEP apart in one cluster at OFFSET.
positions() {   # OFFSET STEP BYTES
    local position pattern=1

    commands=()
    for ((position = 0; position + $3 <= CLUSTER; position += $2)); do
        commands+=("write -P $pattern $(($1 + position)) $3")
        pattern=$((pattern % 255 + 1))
    done
}

every_offset() {
    local stride=512 step=4096

    # In a 2 MiB cluster a sample, with a stride prime to the number of positions, is enough.
    if [ "$CLUSTER" -gt 65536 ]; then
        stride=$((512 * 61)) step=$((4096 * 7))
    fi
    new_image 16M
    both_peer "write -P 200 $((2 * CLUSTER)) $((2 * CLUSTER))"
    both "write -P 201 $((4 * CLUSTER)) $((2 * CLUSTER))"
    for kind in 0 2 4; do
        positions $((kind * CLUSTER)) "$step" 4096
        both "${commands[@]}"
        positions $(((kind + 1) * CLUSTER)) "$stride" 512
        both "${commands[@]}"
    done
    agrees "every position of a free, a plain and a compressed cluster"
    is "$(check_number disk.qcow2 compressed-clusters)" 6 "all six are compressed"
    both "write -P 1 1 1" "write -P 2 511 2" "write -P 3 $((CLUSTER - 1)) 1" "write -P 4 $((CLUSTER - 1)) 2" \
        "write -P 5 $((2 * CLUSTER + 1)) 4096" "write -P 6 $((3 * CLUSTER - 2049)) 4097" \
        "write -P 7 $((4 * CLUSTER + 4095)) 513"
    agrees "odd bytes"
}

commands=()
matrix every_offset
done_testing
