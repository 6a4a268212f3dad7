#!/bin/bash
# SPDX-License-Identifier: MIT
# What an image held behind an end that it was given reads as zeroes when it grows again, in every version and with any
# backing file: neither the old data nor the backing file's shows.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

shrunk_and_grown() {    # BACKING-SIZE OPTION...
    local backing=$1

    shift
    label="$VERSION backing $backing $*"
    rm -f base.raw
    if [ "$backing" != none ]; then
        peer_make_base "$backing"
        new_image 1M -b base.raw -F raw "$@"
    else
        new_image 1M "$@"
    fi
    zio disk.qcow2 "write -P 1 0 1M" "write -P 2 512k 100k"
    img resize -q -f qcow2 --shrink disk.qcow2 300k
    img resize -q -f qcow2 disk.qcow2 2M
    pio disk.qcow2 "read -P 1 0 300k" "read -P 0 300k 1748k"
    judge disk.qcow2 "shrunk and grown"
}

peer_make_base() {
    truncate -s "$1" base.raw
    peer_io base.raw raw "write -P 9 0 $1"
}

for VERSION in v3 v2; do
    for backing in none 100k 600k 1M 3M; do
        shrunk_and_grown "$backing"
        shrunk_and_grown "$backing" -o cluster_size=4096
    done
done
done_testing
