#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-nbd -P serves one partition of an MBR, with logical partitions, or of a GPT, and nothing else can be read or
# changed through it; tables that lie are refused in one sentence. The peer has no such option any more; nbdkit's filter
# judges.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-io nbdkit nbdinfo nbdcopy nbdsh python3
any_backend

craft() {       # FILE TABLE [FLAW]
    python3 "$(dirname "$0")/partition_craft.py" "$@"
}

part_of() {     # OFFSET BYTES FILE
    tail -c "+$(($1 + 1))" "$3" | head -c "$2" | md5sum
}

served() {      # URI
    echo "$(nbdinfo --size "$1") $(nbdcopy "$1" - | md5sum)"
}

# Each partition of disk.raw is what it says, and what nbdkit says.
shows() {       # TABLE [FLAW]
    local number offset bytes

    cp random.raw disk.raw
    craft disk.raw "$@" >list
    while read -r number offset bytes; do
        our_serve -r -f raw -P "$number" disk.raw
        is "$(served "$our_uri")" "$bytes $(part_of "$offset" "$bytes" disk.raw)" "$*: partition $number"
        stop_server
        if [ "${2:-}" != "" ] || [ "$1" = 4096 ]; then continue; fi     # where nbdkit sees other things
        kit_serve -r --filter=partition file disk.raw "partition=$number"
        is "$(served "$nbd_uri")" "$bytes $(part_of "$offset" "$bytes" disk.raw)" "nbdkit agrees: $*: partition $number"
        stop_server
    done <list
}

refuses() {     # REGEX NUMBER [TABLE [FLAW]]
    local regex=$1 number=$2

    shift 2
    if [ $# -gt 0 ]; then
        cp random.raw disk.raw
        craft disk.raw "$@" >/dev/null
    fi
    cp disk.raw before.raw
    fails "refused: partition $number, $*" "^blkstack-nbd: Could not find partition $number of 'disk.raw': .*$regex" \
        timeout 10 "$BLKSTACK_NBD" -k "$nbd_dir/o" -f raw -P "$number" disk.raw
    is "$(wc -l <cmd.out)" 1 "in one sentence"
    cmp -s before.raw disk.raw || not_ok "and the disk is as it was" "partition $number, $*"
}

random_file random.raw 8388608
shows mbr
shows mbr gap
shows 512
shows 4096
shows 512 first-header
shows 4096 first-array

# ---- nothing beside it changes ----
cp random.raw disk.raw
craft disk.raw mbr >/dev/null
cp disk.raw model.raw
our_serve -f raw -P 6 disk.raw
succeeds "writes at its ends" nbdsh -u "$our_uri" -c 'h.pwrite(b"a" * 700, 0); n = h.get_size()' \
    -c 'h.pwrite(b"z" * 512, n - 512); h.trim(512, 1024); h.zero(512, 2048); h.flush()'
fails "nothing behind it can be written" 'No space' nbdsh -u "$our_uri" -c 'h.set_strict_mode(0)' \
    -c 'h.pwrite(b"q" * 512, h.get_size())'
stop_server
at=$(((4096 + 3063) * 512))
io -f raw -c "write -q -P 97 $at 700" -c "write -q -z $((at + 2048)) 512" \
    -c "write -q -P 122 $((at + 332 * 512)) 512" model.raw
succeeds "only what was meant has changed" cmp disk.raw model.raw

# ---- in an image, through the compress filter, and beside a snapshot's table ----
img convert -O qcow2 model.raw disk.qcow2
img snapshot -c before disk.qcow2
our_serve -f qcow2 -P 1 --compress disk.qcow2
succeeds "a partition of a compressed image is written" nbdsh -u "$our_uri" -c 'h.pwrite(b"c" * 5000, 1000); h.flush()'
stop_server
qio -f raw -c "write -q -P 99 $((2048 * 512 + 1000)) 5000" model.raw
same model.raw disk.qcow2 "the image around it is the same"
judge disk.qcow2 "the image"
pio disk.qcow2 "write -z 0 512"
fails "a table that is gone" "partition 1 of 'disk.qcow2': there is no partition table" \
    "$BLKSTACK_NBD" -k "$nbd_dir/o" -f qcow2 -P 1 disk.qcow2
our_serve -f qcow2 -l before -P 1 disk.qcow2
is "$(nbdinfo --size "$our_uri")" 1024000 "a snapshot has it still"
stop_server

# ---- what is not there, and what lies ----
refuses 'partition 2 is the extended one, which holds those from 5 on' 2 mbr
refuses 'there is no partition 4' 4
refuses 'there is no partition 8' 8
refuses 'there is no partition 128' 128
refuses 'partition 1 reaches beyond the end of the disk' 1 mbr past-end
refuses 'partition 1 reaches beyond the end of the disk' 1 mbr starts-past-end
refuses 'logical partitions is damaged: it does not end' 8 mbr loop
refuses 'logical partitions is damaged after partition 7' 8 mbr outside
refuses 'is not on the disk' 8 mbr far
refuses 'logical partitions is damaged after partition 5' 6 mbr unsigned
refuses 'there is no partition 3' 3 512
refuses 'partition 1 reaches beyond' 1 512 past-end
refuses 'partition 1 reaches beyond' 1 4096 far
refuses 'partition 1 reaches beyond' 1 512 reversed
for flaw in headers arrays crc count none odd small huge array-far array-past-end elsewhere; do
    refuses 'a GPT of which no copy is whole' 1 512 $flaw
done
cp random.raw disk.raw
refuses 'there is no partition table' 1
for bytes in 0 100 512 1024; do
    cp random.raw disk.raw
    craft disk.raw 512 >/dev/null
    truncate -s "$bytes" disk.raw
    refuses 'partition table' 1
done
for number in 0 129 x -1 ''; do
    fails "no number: '$number'" "^blkstack-nbd: Invalid partition number '$number'" \
        "$BLKSTACK_NBD" -P "$number" disk.raw
done
fails "not together with an offset" '^blkstack-nbd: -P and -o are mutually exclusive' \
    "$BLKSTACK_NBD" -P 1 -o 1M disk.raw
succeeds "nothing of this listens" test ! -e "$nbd_dir/o"
done_testing
