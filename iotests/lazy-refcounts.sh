#!/bin/bash
# SPDX-License-Identifier: MIT
# Lazy refcounts: the image is marked dirty before counts lag behind, reads work, whoever opens it for writing (we or the
# peer) rebuilds the counts, and a clean close leaves nothing to rebuild.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3

# Our program writes and flushes, and then dies.
crashes() {     # OPTIONS COMMAND...
    local opts=driver=qcow2,file.driver=file,file.filename=disk.qcow2$1
    local -a commands=()

    shift
    for command in "$@" flush abort; do commands+=(-c "$command"); done
    { (ulimit -c 0; exec "$BLKSTACK_IO" --image-opts "$opts" "${commands[@]}") >crash.out 2>&1 || true; } 2>/dev/null
}

# How many lines of the peer's check match.
findings() {    # REGEX
    { "$QEMU_IMG" check disk.qcow2 2>&1 || true; } | grep -c "$1" || true
}

marked() {      # WANTED TEXT: as both programs see it
    local ours peer

    ours=$("$BLKSTACK_IMG" info disk.qcow2 | grep -c '^cleanly shut down: no' || true)
    peer=$("$QEMU_IMG" info disk.qcow2 | grep -c '^cleanly shut down: no' || true)
    is "$ours $peer" "$1 $1" "$2"
}

data_is_there() { # TEXT
    succeeds "$1: the peer reads it" "$QEMU_IO" -r -f qcow2 -c "read -P 1 0 1M" -c "read -P 2 1M 64k" disk.qcow2
    succeeds "$1: we read it" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 1 0 1M" -c "read -P 2 1M 64k" disk.qcow2
}

crashed() {     # OPTIONS: a dirty image with 17 clusters that nothing counts
    crashes "$1" "write -P 1 0 1M" "write -c -P 2 1M 64k"
}

new() {         # PROGRAM OPTIONS
    rm -f disk.qcow2
    "$1" create -q -f qcow2 -o "$2" disk.qcow2 64M
}

for program in "$BLKSTACK_IMG" "$QEMU_IMG"; do
    for bits in 1 16 64; do
        label="${program##*/}, $bits bits"
        new "$program" lazy_refcounts=on,refcount_bits=$bits
        marked 0 "new"
        crashed ""
        marked 1 "after a crash"
        is "$(findings 'refcount=0 reference=1')" 18 "the counts lag behind"
        data_is_there "before the repair"
        "$BLKSTACK_IMG" check disk.qcow2 >/dev/null 2>&1 || true
        marked 1 "looking at it repairs nothing"
        cp disk.qcow2 crashed.qcow2
        "$BLKSTACK_IO" -f qcow2 -c "read 0 64k" disk.qcow2 >/dev/null 2>repair.out
        like "$(cat repair.out)" "not closed cleanly; .*repaired now" "opened by us for writing: we say so"
        marked 0 "opened by us for writing"
        judge disk.qcow2 "opened by us for writing"
        data_is_there "opened by us for writing"
        cp crashed.qcow2 disk.qcow2
        "$QEMU_IO" -f qcow2 -c "write -P 3 2M 64k" disk.qcow2 >/dev/null 2>&1
        judge disk.qcow2 "opened by the peer for writing"
        data_is_there "opened by the peer for writing"
        cp crashed.qcow2 disk.qcow2
        "$BLKSTACK_IMG" check -r all disk.qcow2 >/dev/null 2>&1
        marked 0 "check -r all"
        judge disk.qcow2 "check -r all"
        data_is_there "check -r all"
    done
done
label=

# What the peer leaves, we repair.
new "$QEMU_IMG" lazy_refcounts=on
printf '%s\n' "write -P 1 0 1M" "write -c -P 2 1M 64k" flush abort >commands
{ (ulimit -c 0; exec "$QEMU_IO" -f qcow2 disk.qcow2) <commands >crash.out 2>&1 || true; } 2>/dev/null
marked 1 "the peer crashed"
pio disk.qcow2 "write -P 3 2M 64k"
marked 0 "the peer crashed, we wrote"
judge disk.qcow2 "the peer crashed, we wrote"
data_is_there "the peer crashed, we wrote"

# A clean close.
new_image 64M -o lazy_refcounts=on
both "write -P 1 0 3M" "write -P 2 1M 8k" flush "discard 2M 1M" flush "write -z 0 256k" "write -P 4 0 64k"
marked 0 "closed"
agrees "closed"
# Little memory: counts are written before, since they need room.
new_image 1G -o lazy_refcounts=on,cluster_size=4k
zio disk.qcow2 "write -P 1 0 4M"
io_run "$BLKSTACK_IO" --image-opts driver=qcow2,cache-size=64k,file.driver=file,file.filename=disk.qcow2 -- \
    "write -P 1 0 64M" flush "write -P 2 64M 64M" flush "read -P 1 0 64M"
judge disk.qcow2 "little memory"
marked 0 "little memory"

# The option decides, whatever the image says.
new "$QEMU_IMG" lazy_refcounts=on
crashed ,lazy-refcounts=off
marked 0 "lazy-refcounts=off"
like "$("$QEMU_IMG" check disk.qcow2)" "No errors were found" "lazy-refcounts=off: the counts are there"
new "$QEMU_IMG" lazy_refcounts=off
crashed ,lazy-refcounts=on
marked 1 "lazy-refcounts=on"
new "$QEMU_IMG" lazy_refcounts=on
crashes "" "read 0 1M"
marked 0 "nothing was written"
new "$QEMU_IMG" compat=0.10
fails "version 2 has no mark" "compat 1.1" "$BLKSTACK_IO" -c "read 0 64k" --image-opts \
    driver=qcow2,lazy-refcounts=on,file.driver=file,file.filename=disk.qcow2

# The mark cannot be written: then nothing refers to what is not counted.
new "$QEMU_IMG" lazy_refcounts=on
cat >mark.conf <<'END'
[inject-error]
event = "none"
errno = "5"
sector = "0"
iotype = "write"
END
"$BLKSTACK_IO" --image-opts "driver=qcow2,file.driver=fault,file.config=mark.conf,file.image.driver=file,\
file.image.filename=disk.qcow2" -c "write -P 1 0 64k" -c flush >mark.out 2>&1 || true
like "$(cat mark.out)" "Input/output error" "the mark cannot be written: the flush fails"
is "$(findings ERROR)" 0 "the mark cannot be written: no errors in the image"

# Dirty and damaged beyond its counts: not opened for writing.
new "$QEMU_IMG" lazy_refcounts=on
crashed ""
python3 - <<'END'
import struct
f = open('disk.qcow2', 'r+b')
def u64(o):
    f.seek(o)
    return struct.unpack('>Q', f.read(8))[0]
f.seek((u64(u64(40)) & (1 << 56) - 512) + 8)
f.write(struct.pack('>Q', 1 << 63 | 1 << 45))
END
fails "dirty and damaged: refused" "check -r all" "$BLKSTACK_IO" -f qcow2 -c "write 0 64k" disk.qcow2
done_testing
