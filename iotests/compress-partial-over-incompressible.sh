#!/bin/bash
# SPDX-License-Identifier: MIT
# Partial writes over an incompressible cluster keep the rest of it; when enough has been overwritten, it is compressed.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

partial() {
    random_file random "$CLUSTER"
    new_image 16M
    both "write -s random 0 $CLUSTER" "write -s random $CLUSTER $CLUSTER"
    is "$(check_number disk.qcow2 compressed-clusters)" 0 "two incompressible clusters"
    both "write -P 1 4096 512" "write -P 2 $((2 * CLUSTER - 512)) 1k"
    agrees "a few bytes over incompressible clusters"
    both "write -P 3 0 $((CLUSTER / 2))"
    agrees "half of one overwritten"
    is "$(compressed_at 0)" yes "a half of repeated bytes makes the cluster compress"
    both "write -s random 0 $((CLUSTER / 2))"
    is "$(compressed_at 0)" no "random data over that makes it plain again"
    agrees "random data over the half"
}

matrix partial
done_testing
