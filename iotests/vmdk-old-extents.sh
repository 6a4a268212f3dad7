#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: COWD (vmfsSparse) and seSparse extents, and descriptors of extents of all kinds: read as the peer reads them,
# never written; RDONLY, NOACCESS and ZERO extents as their words say.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vmdk-lib.inc"
requires qemu-img qemu-io python3

craft() { "$(dirname "$0")/craft_vmdk.py" "$@"; }

text_file text.raw 100k
truncate -s 40M model.raw
for place in 0 5 70 100 639; do
    dd if=text.raw of=model.raw bs=63k seek=$place conv=notrunc status=none
done
truncate -s 40M model.raw

only_read() {   # IMAGE REASON
    sums=$(sha256sum ./*.vmdk)
    fails "writing is refused, by name" "$2" io -f vmdk "$1" -c "write 0 64k"
    fails "by convert -n too" "$2" img convert -n -O vmdk model.raw "$1"
    is "$(sha256sum ./*.vmdk)" "$sums" "no file has changed"
}

for kind in cowd sesparse; do
    label=$kind
    craft disk.vmdk "$kind" model.raw
    holds_vmdk disk.vmdk model.raw "both programs read it"
    is "$(img info -f vmdk --output=json disk.vmdk)" "$(qimg info -f vmdk --output=json disk.vmdk)" "info as the peer"
    is "$(img map -f vmdk --output=json disk.vmdk)" "$(qimg map -f vmdk --output=json disk.vmdk)" "map as the peer"
    succeeds "check" img check -f vmdk disk.vmdk
    only_read disk.vmdk "$([ $kind = cowd ] && echo "COWD.*can only be read" || echo "seSparse extents can only be read")"
    img convert -f vmdk -O qcow2 -c disk.vmdk disk.qcow2
    same disk.qcow2 model.raw "convert to qcow2"
done

label="journal"
printf '\1' | dd of=disk-sesparse.vmdk bs=1 seek=$((512 + 24)) conv=notrunc status=none
fails "a seSparse extent that was not closed" "journal" io -r -f vmdk disk.vmdk -c "read 0 64k"
fails "as the peer" "." qio -r -f vmdk disk.vmdk -c "read 0 64k"

label="COWD alone"
craft alone.vmdk cowd model.raw embedded
succeeds "it is found by its first bytes" img compare -F raw alone.vmdk model.raw
like "$(img info alone.vmdk)" "file format: vmdk" "by info too"

label="mixed"
qimg create -q -f vmdk -o subformat=twoGbMaxExtentSparse s.vmdk 1M
peer_io s.vmdk vmdk "write -P 5 0 200k"
truncate -s 64k flat.img
peer_io flat.img raw "write -P 6 0 64k"
cp flat.img fixed.img
mixed() {       # EXTENT-LINES...
    {
        printf '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="custom"\n\n'
        printf '%s\n' "$@"
    } >mixed.vmdk
}
mixed 'RW 16 FLAT "flat.img" 3' 'RW 2048 SPARSE "s-s001.vmdk"' 'RW 100 ZERO' 'RDONLY 8 FLAT "fixed.img" 0' \
    'NOACCESS 8 FLAT "nosuch.img"'
like "$(img info -f vmdk mixed.vmdk)" "1.06 MiB \(1116160 bytes\)" "the sum of all extents"
vio_read() { io_run "$BLKSTACK_IO" -r -f vmdk mixed.vmdk -- "$@"; }
vio_read "read -P 6 0 8k" "read -P 5 8k 200k" "read -P 0 208k 824k" "read -P 0 1032k 50k" "read -P 6 1082k 4k"
fails "NOACCESS" "Permission denied" io -r -f vmdk mixed.vmdk -c "read 1086k 4k"
fails "a sparse extent that begins within a grain is not written" "can only be read" io -f vmdk mixed.vmdk -c "write 0 4k"
mixed 'RW 128 FLAT "flat.img"' 'RW 2048 SPARSE "s-s001.vmdk"' 'RDONLY 128 FLAT "fixed.img" 0' 'RW 128 ZERO'
vio mixed.vmdk "write -P 7 32k 100k" "read -P 6 0 32k" "read -P 7 32k 100k" "read -P 5 132k 132k" "write -z 64k 64k" \
    "read -P 7 32k 32k" "read -P 0 64k 64k" "read -P 7 128k 4k" "write -z 1152k 64k"
peer_io flat.img raw "read -P 7 32k 32k" "read -P 6 0 32k"
peer_io s.vmdk vmdk "read -P 0 0 64k" "read -P 7 64k 4k" "read -P 5 68k 132k"
for range in "1088k 4k" "1150k 4k" "1152k 4k" "1020k 100k"; do
    fails "write to what is not RW ($range)" "Permission denied" io -f vmdk mixed.vmdk -c "write -P 9 $range"
    like "$(cat cmd.out)" "cannot be written" "with the reason ($range)"
done
qimg create -q -f vmdk -o subformat=twoGbMaxExtentSparse t.vmdk 1M
mixed 'RW 2048 SPARSE "s-s001.vmdk"' 'RW 2048 SPARSE "t-s001.vmdk"'
vio mixed.vmdk "write -P 3 700k 1M" "read -P 3 700k 1M" "write -z 960k 128k" "read -P 0 960k 128k"
peer_io s.vmdk vmdk "read -P 3 700k 260k" "read -P 0 960k 64k"
peer_io t.vmdk vmdk "read -P 0 0 64k" "read -P 3 64k 636k" "read -P 0 700k 324k"
for image in s t; do
    judge_vmdk $image.vmdk "a write over the border of two extents"
done
mixed 'RW 2048 SPARSE "s-s001.vmdk"' 'RW 128 SPARSE "s-s001.vmdk"'
fails "sectors that differ" "sectors, its header" io -r -f vmdk mixed.vmdk -c "read 0 4k"
done_testing
