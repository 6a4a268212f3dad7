#!/bin/bash
# SPDX-License-Identifier: MIT
# A whole cluster that is written twice through the compress filter holds the second data, compressed.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

whole_cluster_twice() {
    new_image 16M
    both "write -P 1 0 $CLUSTER" "write -P 1 $CLUSTER $CLUSTER"
    is "$(check_number disk.qcow2 compressed-clusters)" 2 "both clusters are compressed"
    both "write -P 2 0 $CLUSTER" "read -P 2 0 $CLUSTER" "read -P 1 $CLUSTER $CLUSTER"
    is "$(check_number disk.qcow2 compressed-clusters)" 2 "both clusters are still compressed"
    agrees "rewritten in a second run"
    both "write -P 3 0 $CLUSTER" "write -P 4 0 $CLUSTER" "write -P 5 0 $((2 * CLUSTER))" "read -P 5 0 $((2 * CLUSTER))"
    agrees "rewritten three times in one run"
}

matrix whole_cluster_twice
done_testing
