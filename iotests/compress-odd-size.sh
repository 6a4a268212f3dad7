#!/bin/bash
# SPDX-License-Identifier: MIT
# An image whose size is no multiple of the cluster size: its tail is read and written, whole and in parts, and nothing
# reaches past its end.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

odd_size() {
    local tail size start

    for tail in 512 4096 $((CLUSTER / 2 + 512)) $((CLUSTER - 512)); do
        start=$((4 * CLUSTER))
        size=$((start + tail))
        new_image "$size"
        both "write -P 1 $start $tail" "read -P 1 $start $tail"
        is "$(check_number disk.qcow2 compressed-clusters)" 1 "tail of $tail: it is compressed"
        both "write -P 2 $((size - 512)) 512" "write -P 3 $((start - 512)) 1k" "write -P 4 0 $size" \
            "write -P 5 $((size - 100)) 100" "read -P 5 $((size - 100)) 100"
        agrees "tail of $tail bytes"
        fails "tail of $tail: a write past the end is refused" . \
            io --image-opts "$(filter_opts disk.qcow2)" -c "write -P 6 $((size - 512)) 1k"
        both "write -z $start $tail" "write -P 7 $start 512"
        both_peer "write -P 8 $((size - 512)) 512"
        agrees "tail of $tail bytes, zeroed and written by the peer"
    done
    is "$(virtual_size disk.qcow2)" "$size" "the length did not change"
}

matrix odd_size
done_testing
