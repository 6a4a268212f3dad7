#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: what create makes is what the peer makes: every subformat, adapter and version option; what info and map say of
# it and of images with data; what is refused.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vmdk-lib.inc"
any_backend
requires qemu-img qemu-io python3

no_cid() { sed -e 's/^CID=.*/CID=/' -e '/"cid"/d' -e '/^ *cid:/d' -e '/actual-size/d' -e '/^disk size/d'; }

# Runs both programs, each in a directory of its own: the same status, output and first line of errors.
both_run() {    # TEXT ARGUMENTS...
    local text=$1 theirs=0 ours=0

    shift
    (cd peer && timeout 60 "$QEMU_IMG" "$@") >peer.out 2>peer.err || theirs=$?
    (cd ours && timeout 60 "$BLKSTACK_IMG" "$@") >ours.out 2>ours.err || ours=$?
    is "$ours $(no_cid <ours.out)" "$theirs $(no_cid <peer.out)" "$text"
}

# The files of the image but for content IDs; headers of extents of their own do without a descriptor.
same_files() {  # TEXT
    is "$(ls ours)" "$(ls peer)" "$1: the same files"
    succeeds "$1: the same bytes" python3 -c '
import os, re, sys
def canonical(name):
    data = open(name, "rb").read()
    text = re.sub(rb"\nCID=[0-9a-f]+", b"\nCID=", data)
    if data[:4] != b"KDMV":
        return text
    head, text = data[:512], re.sub(rb"\nCID=[0-9a-f]+", b"\nCID=", data[512:21 * 512]).rstrip(b"\0")
    return (head if text else head[:28] + head[44:]) + text + data[21 * 512:]
for name in os.listdir("peer"):
    a, b = (canonical(os.path.join(where, name)) for where in ("peer", "ours"))
    if a != b:
        sys.exit(name)'
}

fresh() {
    rm -rf peer ours
    mkdir peer ours
}

created() {     # OPTIONS SIZE
    fresh
    label=$1,$2
    both_run "create" create -f vmdk -o "$1" disk.vmdk "$2"
    same_files "$1"
    both_run "info" info --output=json disk.vmdk
}

for adapter in ide lsilogic buslogic legacyESX; do
    created "adapter_type=$adapter" 100M
done
for subformat in "${subformats[@]}"; do
    created "subformat=$subformat,adapter_type=lsilogic" 5M
    both_run "info for people" info disk.vmdk
done
for options in compat6 hwversion=7 toolsversion=9 zeroed_grain=on subformat=streamOptimized,zeroed_grain=on; do
    created "$options" 1M
done
created subformat=twoGbMaxExtentSparse 4100M
for size in 512 1000 33M 3G; do
    created subformat=monolithicSparse "$size"
done

label="names"
for name in disk.img disk a.b.vmdk; do
    fresh
    both_run "$name" create -f vmdk -o subformat=twoGbMaxExtentSparse "$name" 1M
    is "$(ls ours)" "$(ls peer)" "$name: the same files"
done

label="refused"
fresh
qimg create -q -f raw ours/base.raw 1M
cp ours/base.raw peer
for options in adapter_type=foo subformat=bogus compat6,hwversion=6 subformat=monolithicFlat,zeroed_grain=on \
    backing_file=base.raw,backing_fmt=raw subformat=monolithicFlat,backing_file=base.raw,backing_fmt=vmdk; do
    theirs=0 ours=0
    (cd peer && "$QEMU_IMG" create -q -f vmdk -o "$options" disk.vmdk 1M) >/dev/null 2>&1 || theirs=$?
    (cd ours && "$BLKSTACK_IMG" create -q -f vmdk -o "$options" disk.vmdk 1M) >/dev/null 2>&1 || ours=$?
    is "$ours $(ls ours)" "$theirs $(ls peer)" "$options"
done
fails "a footer is for streams" "streamOptimized" img create -q -f vmdk -o footer=on ours/disk.vmdk 1M
fails "quotes" "quotes" img create -q -f vmdk -o 'hwversion="' ours/disk.vmdk 1M
fails "a split disk that is too large" "2 GiB" img create -q -f vmdk -o subformat=twoGbMaxExtentFlat ours/disk.vmdk 5T
is "$(ls ours)" base.raw "nothing is left"
mkdir ours/disk-s002.vmdk
fails "an extent that cannot be made" "disk-s002" \
    img create -q -f vmdk -o subformat=twoGbMaxExtentSparse ours/disk.vmdk 5G
is "$(ls ours)" "base.raw"$'\n'"disk-s002.vmdk" "the extents before it are gone again"

text_file src.raw 700k
truncate -s 3M src.raw
random_file noise.raw 100k
dd if=noise.raw of=src.raw bs=64k seek=30 conv=notrunc status=none
for subformat in "${subformats[@]}"; do
    label=$subformat
    fresh
    qimg convert -O vmdk -o "subformat=$subformat" src.raw peer/disk.vmdk
    cp peer/* ours
    both_run "map of the peer's" map --output=json disk.vmdk
    both_run "map for people" map disk.vmdk
    both_run "check" check disk.vmdk
    both_run "check as JSON" check --output=json disk.vmdk
    both_run "check -r leaks" check -r leaks disk.vmdk
    is "$(sed 's/^[a-z-]*: //' ours.err)" "$(sed 's/^[a-z-]*: //' peer.err)" "check -r leaks: the message"
    holds_vmdk ours/disk.vmdk src.raw "both read the peer's"
    fresh
    img convert -O vmdk -o "subformat=$subformat" src.raw ours/disk.vmdk
    cp ours/* peer
    both_run "map of ours" map --output=json disk.vmdk
    holds_vmdk ours/disk.vmdk src.raw "both read ours"
    judge_vmdk ours/disk.vmdk ours
    libyal_reads vmdk ours/disk.vmdk src.raw ours
    if command -v vmdkinfo >/dev/null; then
        rm peer/*
        qimg convert -O vmdk -o "subformat=$subformat" src.raw peer/disk.vmdk
        is "$(vmdkinfo ours/disk.vmdk | grep -v 'Content id')" "$(vmdkinfo peer/disk.vmdk | grep -v 'Content id')" \
            "vmdkinfo says the same of ours as of the peer's"
    fi
done
label=
both_run "measure" measure -O vmdk --size 1M
both_run "resize" resize -q ours/disk.vmdk 10M
done_testing
