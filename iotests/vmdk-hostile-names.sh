#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: descriptors that lie; extents and parents that are host files, pipes, devices, json: names; loops and long
# chains. One message each, no file of the host is opened, memory and time are bounded, nothing is modified.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit

craft() { "$(dirname "$0")/craft_vmdk.py" make "$@"; }

mkdir image
cd image
truncate -s 64k beside.img
truncate -s 1M ../host.img
mkfifo ../pipe
ln -s ../host.img link
qimg create -q -f vmdk base.vmdk 1M
watch_files ../host.img ../pipe

for case in $(craft descriptor); do
    label=$case
    disk=$case.descriptor.vmdk
    cp "$disk" before
    ends 1 1 "it is not opened" "$BLKSTACK_IO" -r -f vmdk -c "read 0 512" "$disk"
    survives "info" "$BLKSTACK_IMG" info -f vmdk "$disk"
    survives "check" "$BLKSTACK_IMG" check -r all -f vmdk "$disk"
    survives "detected" "$BLKSTACK_IMG" map "$disk"
    succeeds "the image is as it was" cmp "$disk" before
done

refused() {         # STATUS TEXT COMMAND...
    opens_nothing "$@"
    like "$(cat cmd.out)" "was detected, not given.*give the format 'vmdk'" "$2: it says what to do"
}

for case in $(craft extent); do
    label="extent $case"
    disk=$case.extent.vmdk
    cp "$disk" before
    opens_nothing 0 "info" "$BLKSTACK_IMG" info "$disk"
    opens_nothing 0 "info -f" "$BLKSTACK_IMG" info -f vmdk --output=json "$disk"
    opens_nothing 0 "check -f" "$BLKSTACK_IMG" check -f vmdk "$disk"
    refused 1 "map" "$BLKSTACK_IMG" map "$disk"
    refused 1 "convert" "$BLKSTACK_IMG" convert -O raw "$disk" out.raw
    refused 1 "write" "$BLKSTACK_IO" -c "write 0 4k" "$disk"
    succeeds "the image is as it was" cmp "$disk" before
done
opens "$BLKSTACK_IO" -r -f vmdk -c "read 0 4k" absolute.extent.vmdk
is "$opened" "../host.img"$'\n'"status 0" "with the format given, the name is followed"
for case in $(craft parent); do
    label="parent $case"
    disk=$case.parent.vmdk
    cp "$disk" before
    opens_nothing 0 "info" "$BLKSTACK_IMG" info "$disk"
    opens_nothing 0 "check -f" "$BLKSTACK_IMG" check -f vmdk "$disk"
    refused 1 "map" "$BLKSTACK_IMG" map "$disk"
    refused 1 "read" "$BLKSTACK_IO" -r -c "read 0 4k" "$disk"
    succeeds "the image is as it was" cmp "$disk" before
done

over() {        # PARENT: a descriptor
    printf '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=12345678\ncreateType="monolithicFlat"\n'
    printf 'parentFileNameHint="%s"\nRW 128 ZERO\n' "$1"
}
label="loop of two"
over loop2.vmdk >loop1.vmdk
over loop1.vmdk >loop2.vmdk
ends 1 1 "it is refused" "$BLKSTACK_IMG" map -f vmdk loop1.vmdk
like "$(cat cmd.out)" "loops" "and it says why"
label="chain of 300"
for n in {1..300}; do
    over "c$((n + 1)).vmdk" >"c$n.vmdk"
done
ends 1 1 "it is refused" "$BLKSTACK_IMG" map -f vmdk c1.vmdk
like "$(cat cmd.out)" "longer than 200" "and it says why"

label="a raw disk"
truncate -s 1M guest.raw
ends 1 4 "a guest cannot make a detected raw disk a VMDK image" "$BLKSTACK_IO" -c "write -s base.vmdk 0 64k" guest.raw
over x >text
ends 1 4 "nor by a descriptor" "$BLKSTACK_IO" -c "write -s text 0 512" guest.raw
done_testing
