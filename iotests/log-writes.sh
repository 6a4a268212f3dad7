#!/bin/bash
# SPDX-License-Identifier: MIT
# The log-writes filter: the same log as the peer's blklogwrites writes, readable by an independent reader, whose replay
# gives the same file; marks, growth, log sectors, appending, refusals.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3

reader() { python3 "$BLKSTACK_SOURCE/iotests/replay_log.py" "$@"; }

opts() {        # LOG-OPTIONS: the graph, with either program
    echo "driver=blklogwrites,discard=unmap,file.driver=file,file.filename=disk.raw,log.driver=file,log.filename=log$1"
}

logged() {      # PROGRAM LOG-OPTIONS COMMAND...: on what is there
    local program=$1 options=$2 command
    local -a commands=()

    shift 2
    for command; do
        commands+=(-c "$command")
    done
    "$program" -d unmap --image-opts "$(opts "$options")" "${commands[@]}" >io.out 2>&1
}

fresh() {       # an empty disk and no log (of a fixed length, since the peer's log does not grow by itself)
    rm -f disk.raw log
    truncate -s 1M disk.raw
    truncate -s 16M log
}

replays() {     # TEXT: the replay of all of it is the disk
    truncate -s 0 replay.raw
    truncate -s "$(file_bytes disk.raw)" replay.raw
    reader replay log replay.raw
    succeeds "$1: the replay is the disk" cmp disk.raw replay.raw
}

commands=('write -P 1 0 1k' 'write -z 4k 4k' 'discard 8k 4k' flush 'write -P 2 16k 512' 'write -P 3 100 10'
    'write -P 4 1000 3000' flush 'discard 64k 64k' 'write -zu 128k 4k' 'writev -P 7 512k 512 3k 64k')
for options in "" ,log-sector-size=4k; do
    for program in "$QEMU_IO" "$BLKSTACK_IO"; do
        fresh
        logged "$program" "$options" "${commands[@]}"
        reader list log >"${program##*/}.list"
        head -c 16 log | od -An -tx1 >"${program##*/}.head"
        replays "${program##*/}$options"
    done
    # When a program flushes on its own, at the end, is its own affair.
    is "$(grep -v flush blkstack-io.list)" "$(grep -v flush "${QEMU_IO##*/}.list")" "the peer's entries$options"
    is "$(cat blkstack-io.head)" "$(cat "${QEMU_IO##*/}.head")" "magic and version$options"
    num_ok "$(grep -c flush blkstack-io.list) >= 2" "both flushes are in the log$options"
    is "$(sed '/flush/q' blkstack-io.list | wc -l)" 4 "a flush comes behind what it makes stable$options"
done

label="growth"
rm -f disk.raw log
truncate -s 1000 disk.raw
: >log
logged "$BLKSTACK_IO" "" 'truncate 3000' 'write -P 5 2990 10' 'truncate 1M' 'write -P 7 1048000 576' flush
replays "an odd length that grows"
rm -f disk.qcow2 log
qimg create -q -f qcow2 disk.qcow2 4M
cp disk.qcow2 disk.raw
: >log
graph=driver=qcow2,file.driver=log-writes,file.file.driver=file,file.file.filename=disk.raw
graph+=,file.log.driver=file,file.log.filename=log
io --image-opts "$graph" -c 'write -P 1 0 2M' -c 'mark halfway' -c 'write -P 2 2M 2M' -c flush >io.out
cp disk.qcow2 replay.raw
reader replay log replay.raw
succeeds "a qcow2 image that grows: the replay is the file" cmp -n "$(file_bytes disk.raw)" disk.raw replay.raw
is "$(reader list log | grep mark)" "mark halfway" "the mark is there"
cp disk.qcow2 replay.raw
reader replay log replay.raw "$(reader list log | grep -n mark | cut -d: -f1)"
status=0
qimg check -q -f qcow2 replay.raw >check.out 2>&1 || status=$?
num_ok "$status == 0 || $status == 3" "up to the mark the image has no errors"

label="shrinking"
fresh
logged "$BLKSTACK_IO" "" 'write -P 9 0 1M' 'truncate 512k' 'truncate 1M' flush
replays "what was cut off is recorded"

label="FUA"
fresh
logged "$BLKSTACK_IO" "" 'write -f -P 1 0 4k'
like "$(reader list log)" "write(-fua)? 0 4096" "a write that must be stable is recorded"

label="append"
fresh
logged "$BLKSTACK_IO" ,log-append=on 'write -P 1 0 1k'
logged "$QEMU_IO" ,log-append=on 'write -P 2 512 1k'
logged "$BLKSTACK_IO" ,log-append=on 'write -P 3 4k 1k' 'discard 8k 4k'
logged "$BLKSTACK_IO" ,log-append=on,log-super-update-interval=1 'write -P 4 1k 512'
replays "four runs of both programs in one log"
is "$(reader list log | grep -c write)" 4 "all of them are there"
logged "$BLKSTACK_IO" "" 'write -P 5 0 512'
is "$(reader list log | grep -c write)" 1 "without log-append a new log begins"

label="crash"
fresh
logged "$BLKSTACK_IO" ,log-super-update-interval=1 'write -P 1 0 1k' 'write -P 2 4k 1k' abort || true
is "$(reader list log | grep -c write)" 2 "what returned before the program died is in the log"
replays "after the program died"

label="refusals"
fails "two options that contradict" "log-append and log-sector-size are mutually exclusive" \
    img info --image-opts "$(opts ,log-append=on,log-sector-size=1k)"
fails "a size that is no power of two" "Invalid log sector size 1000" \
    img info --image-opts "$(opts ,log-sector-size=1000)"
fails "a size that is too small" "Invalid log sector size 256" img info --image-opts "$(opts ,log-sector-size=256)"
fails "no interval" "Invalid log superblock update interval 0" \
    img info --image-opts "$(opts ,log-super-update-interval=0)"
fails "no log" "log" img info --image-opts driver=log-writes,file.driver=file,file.filename=disk.raw
printf 'no log' | dd of=log conv=notrunc status=none
fails "appending to something else" "is no log" io --image-opts "$(opts ,log-append=on)" -c 'write 0 512'
fresh
logged "$BLKSTACK_IO" "" 'write -P 1 0 1k'
printf '\377\377\377\377\377\377\377' | dd of=log bs=1 seek=16 conv=notrunc status=none        # number of entries
fails "a log that lies about its entries" "is damaged" io --image-opts "$(opts ,log-append=on)" -c 'write 0 512'
fresh
fails "a mark without a recorder" "no log-writes filter" io -f raw disk.raw -c 'mark x'
logged "$BLKSTACK_IO" "" "mark $(printf '%0479d' 0)"
fails "a mark that is too long" "A mark has 1 to 479 bytes" \
    io --image-opts "$(opts "")" -c "mark $(printf '%0480d' 0)"
done_testing
