#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: streamOptimized images, and vmdktool: it reads what we write, at random and as a stream; what it writes is read,
# mapped and checked by us as by the peer, is refused by the compress filter, and can be converted.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vmdk-lib.inc"
requires vmdktool qemu-img qemu-io python3

# Raw files of one size with the same bytes; holes cost no time.
same_raw() {    # A B TEXT
    is "$(stat -c %s "$1")" "$(stat -c %s "$2")" "$3: the length"
    succeeds "$3: the bytes" qimg compare -f raw -F raw "$1" "$2"
}

# vmdktool finds MODEL in IMAGE. What it has to say against it, it says on standard error.
vmdktool_reads() {      # IMAGE MODEL TEXT [WAYS]
    local way

    timeout 60 vmdktool -i "$1" >info.out 2>info.err
    is "$? $(cat info.err)" "0 " "$3: -i has nothing against it"
    like "$(cat info.out)" "capacity: $(printf '0x%08x' $(($(stat -c %s "$2") / 512))) sectors" "$3: -i: the size"
    like "$(cat info.out)" 'createType="streamOptimized"' "$3: -i: the descriptor"
    isnt "$(grep -c ': OK' info.out)" 0 "$3: -i: the characters that tell damage by transfers as text"
    for way in ${4:-r s}; do
        rm -f out.raw
        timeout 60 vmdktool "-$way" out.raw "$1" >read.out 2>&1
        is "$? $(cat read.out)" "0 " "$3: -$way ends well"
        same_raw out.raw "$2" "$3: -$way"
    done
}

# What is data, and what reads as zeroes, in pieces as long as can be.
data_and_zeroes() {     # MAP-IN-JSON
    python3 -c '
import json, sys
out = []
for e in json.load(open(sys.argv[1])):
    kind = (e["data"], e["zero"])
    if out and out[-1][2] == kind:
        out[-1][1] += e["length"]
    else:
        out.append([e["start"], e["length"], kind])
print(out)' "$1"
}

# IMAGE of vmdktool holds MODEL, for us and for the peer.
we_read() {     # IMAGE MODEL TEXT
    holds_vmdk "$1" "$2" "$3: both read it"
    judge_vmdk "$1" "$3"
    img map --output=json -f vmdk "$1" >ours.map
    qimg map --output=json -f vmdk "$1" >peers.map
    is "$(data_and_zeroes ours.map)" "$(data_and_zeroes peers.map)" "$3: the map is the peer's"
    like "$(img info -f vmdk "$1")" "\($(stat -c %s "$2") bytes\)" "$3: info: the size"
    like "$(img info -f vmdk "$1")" "create type: streamOptimized" "$3: info: the type"
    like "$(img info "$1")" "file format: vmdk" "$3: the format is detected"
    fails "$3: no compress filter" "written once, and not rewritten" io -r --image-opts \
        "driver=compress,file.driver=vmdk,file.file.driver=file,file.file.filename=$1" -c "read 0 64k"
}

text_file text.raw 500k
truncate -s 0 empty.raw
head -c 20992 text.raw >small.raw
head -c 1234432 text.raw >odd.raw
truncate -s 1234432 odd.raw
random_file noise.raw 3M
truncate -s 90M holes.raw
dd if=text.raw of=holes.raw bs=64k seek=40 conv=notrunc status=none
dd if=noise.raw of=holes.raw bs=64k seek=700 count=20 conv=notrunc status=none
dd if=text.raw of=holes.raw bs=64k seek=1437 count=2 conv=notrunc status=none
truncate -s 3G large.raw
dd if=noise.raw of=large.raw bs=64k seek=8191 count=3 conv=notrunc status=none
dd if=text.raw of=large.raw bs=64k seek=49147 count=5 conv=notrunc status=none
truncate -s 5G larger.raw
dd if=text.raw of=larger.raw bs=64k seek=81000 conv=notrunc status=none

label="ours"
for model in empty small odd noise holes large larger; do
    if [ $model = empty ]; then empty=yes; else empty=; fi
    img convert -c -f raw -O vmdk -o subformat=streamOptimized $model.raw disk.vmdk
    vmdktool_reads disk.vmdk $model.raw "$model"
    img convert -c -f raw -O vmdk -o subformat=streamOptimized,footer=on $model.raw disk.vmdk
    vmdktool_reads disk.vmdk $model.raw "$model, with a footer"
    img convert -f raw -O vmdk -o subformat=streamOptimized $model.raw - >disk.vmdk
    # As a stream vmdktool expects that an empty disk has no directory, and that of its own has one.
    vmdktool_reads disk.vmdk $model.raw "$model, through a pipe" ${empty:+r}
done
for footer in off on; do
    rm -f disk.vmdk
    img create -q -f vmdk -o subformat=streamOptimized,footer=$footer disk.vmdk 90M
    img convert -n -c -W -f raw -O vmdk holes.raw disk.vmdk
    vmdktool_reads disk.vmdk holes.raw "into one that is there, in any order, footer=$footer"
done

label="of vmdktool"
for model in small odd noise holes; do
    for level in 0 1 6 9; do
        vmdktool -z$level -v disk.vmdk $model.raw
        we_read disk.vmdk $model.raw "$model, -z$level"
    done
    vmdktool -v disk.vmdk $model.raw
    vmdktool_reads disk.vmdk $model.raw "$model, its own"
    for to in "-c -O vmdk -o subformat=streamOptimized" "-O vmdk -o subformat=streamOptimized,footer=on" "-O vmdk" "-c -O qcow2"; do
        rm -f copy*
        # shellcheck disable=SC2086  # words
        img convert -f vmdk $to disk.vmdk copy
        succeeds "$model: convert $to" qimg compare -F raw copy $model.raw
    done
    img convert -f vmdk -O vmdk -o subformat=streamOptimized disk.vmdk copy.vmdk
    vmdktool_reads copy.vmdk $model.raw "$model: ours of its own"
done
vmdktool -c 3G -v disk.vmdk odd.raw
cp odd.raw model.raw
truncate -s 3G model.raw
we_read disk.vmdk model.raw "a disk that is longer than the file"
vmdktool -c 1000k -v disk.vmdk odd.raw
cp odd.raw model.raw
truncate -s 1000k model.raw
we_read disk.vmdk model.raw "a disk that is shorter than the file"

# Its header names the directory, so that what is not there yet can be written; with a marker before a new table.
vmdktool -c 3G -v disk.vmdk odd.raw
cp odd.raw model.raw
truncate -s 3G model.raw
commands=("write -P 5 2M 64k" "write -P 6 1G 256k")
vio disk.vmdk "${commands[@]}"
peer_io model.raw raw "${commands[@]}"
we_read disk.vmdk model.raw "written to"
vmdktool_reads disk.vmdk model.raw "written to"
done_testing
