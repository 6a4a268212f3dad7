#!/bin/bash
# SPDX-License-Identifier: MIT
# Every cluster size from 512 bytes to 2 MiB takes compressed writes and rewrites, whole and partial.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

for COMPRESSION in zlib zstd; do
    for ((CLUSTER = 512; CLUSTER <= 2097152; CLUSTER *= 2)); do
        label="$COMPRESSION $CLUSTER"
        new_image 16M
        both "write -P 1 0 $((3 * CLUSTER))" "write -P 2 $((5 * CLUSTER)) $CLUSTER"
        both "write -P 3 0 $CLUSTER" "write -P 4 $((2 * CLUSTER - 100)) 200" "write -P 5 $((5 * CLUSTER + 256)) 128" \
            "write -P 6 $((16777216 - CLUSTER)) $CLUSTER" "write -P 7 1M 100k" "write -P 8 1M 50k"
        agrees "written and rewritten"
        [ "$COMPRESSION" = zstd ] || libyal_reads qcow disk.qcow2 model.raw "written and rewritten"
    done
done
done_testing
