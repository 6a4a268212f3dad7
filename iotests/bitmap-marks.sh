#!/bin/bash
# SPDX-License-Identifier: MIT
# Writes, zero writes and discards mark the same granules as the peer's do, over several sessions and through the compress
# filter; the peer reads our bitmaps, we read the peer's.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/bitmap-lib.inc"

# A session of each program on its own copy.
session() {     # COMMAND...
    io_run "$BLKSTACK_IO" -d unmap -f qcow2 ours.qcow2 -- "$@"
    io_run "$QEMU_IO" -d unmap -f qcow2 peer.qcow2 -- "$@"
    for name in coarse fine off; do
        is "$(dirty ours.qcow2 $name)" "$(dirty peer.qcow2 $name)" "bitmap $name: $*"
    done
}

for cluster in 512 65536 2097152; do
    label="cluster size $cluster"
    qimg create -q -f qcow2 -o cluster_size=$cluster peer.qcow2 20000000
    qimg bitmap --add -f qcow2 peer.qcow2 coarse
    qimg bitmap --add -g 512 -f qcow2 peer.qcow2 fine
    qimg bitmap --add --disable -g 4k -f qcow2 peer.qcow2 off
    cp peer.qcow2 ours.qcow2
    session "write -P 1 100 1000" "write -P 2 3M 300k"
    session "write -z 5M 70k" "discard 3100k 1M" "discard 6000001 511"
    session "read 0 1M" "flush"
    session "write -P 3 19999000 1000" "write -P 4 0 0" "write -P 5 8M 8M"
    is "$(flags ours.qcow2 coarse)/$(flags ours.qcow2 fine)/$(flags ours.qcow2 off)" "auto/auto/" "all are stored"
    judge ours.qcow2 "$label"
    # Granules that we read from the peer's file, and the other way round.
    for name in coarse fine; do
        img bitmap --add -g 512 --merge $name -f qcow2 peer.qcow2 copy
        qimg bitmap --add -g 512 --merge $name -f qcow2 ours.qcow2 copy
        is "$(dirty peer.qcow2 copy)" "$(dirty ours.qcow2 copy)" "$name, read by the other program"
        img bitmap --remove -f qcow2 peer.qcow2 copy
        qimg bitmap --remove -f qcow2 ours.qcow2 copy
    done
    judge peer.qcow2 "the peer's image with bitmaps of ours"
done

label="through the filter"
new_image 16M
img bitmap --add -g 512 disk.qcow2 fine
img bitmap --add disk.qcow2 coarse
both "write -P 1 1M 4k" "write -P 2 2M 64k" "write -z 3M 64k" "discard 4M 128k"
is_dirty disk.qcow2 coarse "1048576+65536 2097152+65536 3145728+65536 4194304+131072" "the clusters that were written"
is_dirty disk.qcow2 fine "1048576+65536 2097152+65536 3145728+65536 4194304+131072" \
    "a compressed write is one of its whole cluster"
agrees "bitmaps below the filter"
img bitmap --clear --disable disk.qcow2 fine
both "write -P 3 5M 1M"
is_dirty disk.qcow2 fine "" "disabled"
is_dirty disk.qcow2 coarse "1048576+65536 2097152+65536 3145728+65536 4194304+131072 5242880+1048576" "enabled"
agrees "one of two is disabled"
done_testing
