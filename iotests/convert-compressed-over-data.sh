#!/bin/bash
# SPDX-License-Identifier: MIT
# `convert -c -n` writes compressed clusters over an image that already holds data, plain and compressed.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

over_data() {
    random_file random $((2 * CLUSTER))
    text_file text 16777216
    new_image 16M
    both_peer "write -P 1 0 8M" "write -s random $((2 * CLUSTER)) $((2 * CLUSTER))"
    both "write -P 2 8M 4M"
    succeeds "convert -c -n over data" img convert -c -n -f raw -O qcow2 text disk.qcow2
    cp text model.raw
    agrees "text over plain and compressed clusters"
    is "$(check_number disk.qcow2 compressed-clusters)" $((16777216 / CLUSTER)) "all clusters are compressed"
    truncate -s 0 sparse.raw
    truncate -s 16M sparse.raw
    dd if=random of=sparse.raw bs="$CLUSTER" seek=3 conv=notrunc status=none
    cp sparse.raw model.raw
    succeeds "convert -c -n of a mostly empty image" img convert -c -n -f raw -O qcow2 sparse.raw disk.qcow2
    agrees "zeroes and random data over it"
    succeeds "convert -c -n from qcow2 through the filter" \
        img convert -n -f raw --target-image-opts text "$(filter_opts disk.qcow2)"
    cp text model.raw
    agrees "through the filter"
}

matrix over_data
done_testing
