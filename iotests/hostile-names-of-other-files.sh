#!/bin/bash
# SPDX-License-Identifier: MIT
# Images that name host files, pipes, devices and json: trees: info and check open none of them, and whatever would have
# to open them refuses unless the format is given.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

refuses() {         # STATUS TEXT COMMAND...
    local want=$1 text=$2

    shift 2
    opens_nothing "$want" "$text" "$@"
    is "$(wc -l <cmd.out)" 1 "$text: one message"
    like "$(cat cmd.out)" "was detected, not given.*give the format 'qcow2'" "$text: it says what to do"
}

mkdir image
cd image
make_base
truncate -s 64M ../host.img
mkfifo ../pipe
ln -s ../host.img link
watch_files ../host.img ../pipe
opens cat ../host.img
is "$opened" "../host.img"$'\n'"status 0" "an opened file would be seen"

for name in $("$(dirname "$0")/craft.py" list backing-name); do
    new_case backing-name "$name"
    opens_nothing 0 "$name: info" "$BLKSTACK_IMG" info disk.qcow2
    like "$(cat cmd.out)" 'backing file: ' "$name: info tells the name"
    opens_nothing 0 "$name: info -f" "$BLKSTACK_IMG" info -f qcow2 --output=json disk.qcow2
    opens_nothing 0 "$name: check" "$BLKSTACK_IMG" check --data disk.qcow2
    opens_nothing 0 "$name: check -f" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    refuses 1 "$name: info --backing-chain" "$BLKSTACK_IMG" info --backing-chain disk.qcow2
    refuses 1 "$name: map" "$BLKSTACK_IMG" map disk.qcow2
    refuses 2 "$name: compare" "$BLKSTACK_IMG" compare disk.qcow2 base.qcow2
    refuses 1 "$name: convert" "$BLKSTACK_IMG" convert -O raw disk.qcow2 out.raw
    refuses 1 "$name: read" "$BLKSTACK_IO" -r -c "read 0 64k" disk.qcow2
    refuses 1 "$name: write" "$BLKSTACK_IO" -c "write 0 64k" disk.qcow2
    unchanged "$name"
done

new_case backing-name host-file
opens "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
is "$opened" "../host.img"$'\n'"status 0" "with the format given, the name is followed"

make_data_base
for name in $("$(dirname "$0")/craft.py" list data-file-name); do
    new_case data-file-name "$name"
    opens_nothing 0 "data file $name: info" "$BLKSTACK_IMG" info disk.qcow2
    like "$(cat cmd.out)" 'data file: ' "data file $name: info tells the name"
    opens_nothing 0 "data file $name: info -f" "$BLKSTACK_IMG" info -f qcow2 --output=json disk.qcow2
    opens_nothing 0 "data file $name: check" "$BLKSTACK_IMG" check --data disk.qcow2
    opens_nothing 0 "data file $name: repair" "$BLKSTACK_IMG" check -r all disk.qcow2
    opens_nothing 0 "data file $name: check -f" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    refuses 1 "data file $name: map" "$BLKSTACK_IMG" map disk.qcow2
    refuses 2 "data file $name: compare" "$BLKSTACK_IMG" compare disk.qcow2 base.qcow2
    refuses 1 "data file $name: convert" "$BLKSTACK_IMG" convert -O raw disk.qcow2 out.raw
    refuses 1 "data file $name: resize" "$BLKSTACK_IMG" resize disk.qcow2 128M
    refuses 1 "data file $name: read" "$BLKSTACK_IO" -r -c "read 0 64k" disk.qcow2
    refuses 1 "data file $name: write" "$BLKSTACK_IO" -c "write 0 64k" disk.qcow2
    unchanged "data file $name"
done
new_case data-file-name host-file
opens "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
is "$opened" "../host.img"$'\n'"status 0" "with the format given, the name of the data file is followed"
done_testing
