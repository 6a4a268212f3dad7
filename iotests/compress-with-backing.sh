#!/bin/bash
# SPDX-License-Identifier: MIT
# Above a backing file, raw or qcow2 with compressed clusters, partial writes through the filter keep the backing's
# bytes, and the backing file is not changed.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

with_backing() {
    local format sum

    for format in raw qcow2; do
        text_file text 16777216
        cp text "base.raw"
        "$QEMU_IMG" convert -f raw -O qcow2 -c base.raw base.qcow2
        sum=$(sha256sum "base.$format")
        new_image 16M -b "base.$format" -F "$format"
        model_from_image
        both "write -P 1 4096 4k" "write -P 2 $((2 * CLUSTER - 512)) 1k" "write -P 3 $((4 * CLUSTER)) $CLUSTER"
        is "$(check_number disk.qcow2 compressed-clusters)" 4 "$format: four clusters in the overlay"
        both "write -P 4 4096 512" "write -P 5 $((4 * CLUSTER + 1)) 1" "write -z $((5 * CLUSTER)) 512"
        agrees "above $format"
        is "$(sha256sum "base.$format")" "$sum" "$format: the backing file is unchanged"
    done
}

matrix with_backing
done_testing
