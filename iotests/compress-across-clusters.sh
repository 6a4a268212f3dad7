#!/bin/bash
# SPDX-License-Identifier: MIT
# Writes that cross cluster borders, with and without whole clusters between, one by one and overlapping each other.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

across() {
    new_image 32M
    both "write -P 1 $((CLUSTER - 512)) 1k" "write -P 2 $((2 * CLUSTER - 2048)) 4k" \
        "write -P 3 $((3 * CLUSTER - 4096)) $((CLUSTER + 8192))" "write -P 4 $((5 * CLUSTER + 512)) $((4 * CLUSTER))"
    agrees "into free clusters"
    both_peer "write -P 5 $((CLUSTER / 2)) $((3 * CLUSTER))"
    both "write -P 6 $((CLUSTER - 1)) 2" "write -P 7 $((CLUSTER * 2 - 4096)) $((CLUSTER * 5 + 8192))" \
        "write -P 8 $((CLUSTER * 3 - 511)) 1023"
    agrees "over plain and compressed clusters"
    zio disk.qcow2 "aio_write -P 9 0 $((CLUSTER + 4096))" "aio_write -P 10 $((CLUSTER + 4096)) $((2 * CLUSTER))" \
        "aio_write -P 11 $((3 * CLUSTER + 4096)) 4k" \
        "aio_write -P 12 $((3 * CLUSTER + 8192)) $((CLUSTER - 4096))" aio_flush
    model_io "write -P 9 0 $((CLUSTER + 4096))" "write -P 10 $((CLUSTER + 4096)) $((2 * CLUSTER))" \
        "write -P 11 $((3 * CLUSTER + 4096)) 4k" "write -P 12 $((3 * CLUSTER + 8192)) $((CLUSTER - 4096))"
    agrees "concurrent neighbours that share clusters"
}

matrix across
done_testing
