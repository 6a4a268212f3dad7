#!/bin/bash
# SPDX-License-Identifier: MIT
# Discards through the filter: whole clusters read as zeroes and give up their space, parts of clusters keep their data
# or read as zeroes, and data can follow.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

discard_opts="$(filter_opts disk.qcow2),discard=unmap,file.discard=unmap,file.file.discard=unmap"

discards() {
    local before

    new_image 32M
    both_peer "write -P 1 0 $((3 * CLUSTER))"
    both "write -P 2 $((3 * CLUSTER)) $((5 * CLUSTER))"
    io_run "$BLKSTACK_IO" --image-opts "$discard_opts" -- "discard $CLUSTER $CLUSTER" \
        "discard $((4 * CLUSTER)) $((2 * CLUSTER))"
    model_io "discard $CLUSTER $CLUSTER" "discard $((4 * CLUSTER)) $((2 * CLUSTER))"
    is "$(check_number disk.qcow2 compressed-clusters)" 3 "discarded compressed clusters are gone"
    is "$(check_number disk.qcow2 allocated-clusters)" 5 "discarded plain clusters are gone too"
    agrees "whole clusters"

    # Of a partial discard only whole clusters in the range may change, so the model discards those.
    io_run "$BLKSTACK_IO" --image-opts "$discard_opts" -- "discard 4096 4k" "discard $((3 * CLUSTER + 512)) 512" \
        "discard $((7 * CLUSTER - 512)) 1k"
    agrees "parts of clusters keep what they hold"
    io_run "$BLKSTACK_IO" --image-opts "$discard_opts" -- "discard $((2 * CLUSTER - 4096)) $((2 * CLUSTER))"
    model_io "discard $((2 * CLUSTER)) $CLUSTER"
    agrees "a discard with a whole cluster and two parts"

    before=$(check_number disk.qcow2 allocated-clusters)
    both "write -P 4 $CLUSTER $CLUSTER" "write -P 5 $((4 * CLUSTER + 4096)) 4k" "write -P 6 0 512"
    is "$(check_number disk.qcow2 allocated-clusters)" $((before + 2)) "two discarded clusters hold data again"
    agrees "data after discards"
    io_run "$BLKSTACK_IO" --image-opts "$(filter_opts disk.qcow2),discard=ignore" -- "discard 0 32M"
    agrees "with discard=ignore a discard is ignored"
}

matrix discards
done_testing
