#!/bin/bash
# SPDX-License-Identifier: MIT
# qcow (version 1) and Parallels images whose numbers lie: refused with one message, or an error of the cluster that
# lies; the image is as it was.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
craft="$BLKSTACK_SOURCE/iotests/old_formats_craft.py"

qimg create -q -f raw base.raw 1M
qimg create -q -f qcow base.qcow 1M
qio -f qcow -c "write -P 1 0 64k" base.qcow >/dev/null
for offset in 128k 132k 136k; do qio -f qcow -c "write -c -P 2 $offset 4k" base.qcow >/dev/null; done
# The peer gives images with a backing file clusters of 512 bytes: this one gets a name at its end.
python3 -c 'import os, struct
f = open("base.qcow", "r+b"); end = f.seek(0, 2); f.write(b"base.raw"); f.seek(8); f.write(struct.pack(">QI", end, 8))'
qimg create -q -f parallels -o cluster_size=64k base.parallels 1M
qio -f parallels -c "write -P 1 0 128k" base.parallels >/dev/null

new() {         # FORMAT GROUP CASE
    label=$3
    cp "base.$1" disk
    python3 "$craft" disk "$2" "$3"
    sum=$(sha256sum <disk)
}

kept() {
    is "$(sha256sum <disk)" "$sum" "the image is as it was"
}

refused() {     # FORMAT
    ends 1 1 "info" "$BLKSTACK_IMG" info -f "$1" disk
    ends 1 1 "convert" "$BLKSTACK_IMG" convert -f "$1" -O raw disk out.raw
    kept
}

cluster_lies() {    # FORMAT OFFSET OTHER-OFFSET PATTERN
    ends 0 20 "info" "$BLKSTACK_IMG" info -f "$1" disk
    survives "map" "$BLKSTACK_IMG" map -f "$1" disk
    ends 1 1 "read" "$BLKSTACK_IO" -r -f "$1" -c "read $2 4k" disk
    like "$(cat cmd.out)" "read failed: " "read: says so"
    ends 1 3 "convert" "$BLKSTACK_IMG" convert -f "$1" -O raw disk out.raw
    if [ -n "${3-}" ]; then
        io_run "$BLKSTACK_IO" -r -f "$1" disk -- "read -P $4 $3 4k"
    fi
    kept
}

for format in qcow parallels; do
    for case in $(python3 "$craft" list "$format-header"); do
        new "$format" "$format-header" "$case"
        refused "$format"
    done
done
for case in $(python3 "$craft" list qcow-plain); do
    new qcow qcow-plain "$case"
    if [[ $case == l1-* ]]; then cluster_lies qcow 0; else cluster_lies qcow 0 128k 2; fi
done
for case in $(python3 "$craft" list qcow-packed); do
    new qcow qcow-packed "$case"
    cluster_lies qcow 128k 0 1
done
for case in $(python3 "$craft" list parallels-entry); do
    new parallels parallels-entry "$case"
    cluster_lies parallels 0
done

label="a backing file elsewhere"
mkdir in
qimg create -q -f qcow -u -b "$PWD/base.raw" -F raw in/disk.qcow 1M
ends 1 1 "is not followed" "$BLKSTACK_IO" -r -c "read 0 4k" in/disk.qcow
like "$(cat cmd.out)" "was detected, not given" "and why"
io_run "$BLKSTACK_IO" -r -f qcow in/disk.qcow -- "read -P 0 0 4k"
done_testing
