#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: backing files: content IDs of parent and child, as the peer makes and checks them; commit, convert with -B,
# rebase.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vmdk-lib.inc"
requires qemu-img qemu-io python3

cid() { img info -f vmdk --output=json "$1" | sed -n 's/^ *"cid": \([0-9]*\),*$/\1/p'; }
parent_cid() { img info -f vmdk --output=json "$1" | sed -n 's/^ *"parent-cid": \([0-9]*\),*$/\1/p'; }
info_of() { (cd "$(dirname "$2")" && "$1" info -f vmdk --output=json "$(basename "$2")"); }

chain() {       # PROGRAM-FOR-THE-CHILD OPTIONS
    rm -f ./*.vmdk
    qimg create -q -f vmdk base.vmdk 4M
    peer_io base.vmdk vmdk "write -P 1 0 1M" "write -P 2 2M 64k"
    "$1" create -q -f vmdk -o "$2" -b base.vmdk -F vmdk child.vmdk
    truncate -s 4M model.raw
    peer_io model.raw raw "write -z 0 4M" "write -P 1 0 1M" "write -P 2 2M 64k"
}

for program in "$QEMU_IMG" "$BLKSTACK_IMG"; do
    for options in subformat=monolithicSparse subformat=twoGbMaxExtentSparse zeroed_grain=on; do
        label="${program##*/} $options"
        chain "$program" "$options"
        is "$(parent_cid child.vmdk)" "$(cid base.vmdk)" "the child knows its parent"
        is "$(info_of "$BLKSTACK_IMG" child.vmdk)" "$(info_of "$QEMU_IMG" child.vmdk)" "info as the peer"
        is "$(img map -f vmdk --output=json child.vmdk)" "$(qimg map -f vmdk --output=json child.vmdk)" "map as the peer"
        before=$(cid child.vmdk)
        vio child.vmdk "read -P 1 0 1M"
        is "$(cid child.vmdk)" "$before" "reading changes no content ID"
        vio child.vmdk "write -P 3 4k 4k" "write -P 4 3M 100k" "write -z 512k 64k" "write -z 2M 1k"
        peer_io model.raw raw "write -P 3 4k 4k" "write -P 4 3M 100k" "write -z 512k 64k" "write -z 2M 1k"
        isnt "$(cid child.vmdk)" "$before" "the first write does"
        holds_vmdk child.vmdk model.raw "parts of grains are copied"
        judge_vmdk child.vmdk "a child"
        is "$(img map -f vmdk --output=json child.vmdk)" "$(qimg map -f vmdk --output=json child.vmdk)" "map as the peer"
    done
done

label="commit"
succeeds "commit" img commit -f vmdk -q child.vmdk
holds_vmdk base.vmdk model.raw "the parent has it all"
holds_vmdk child.vmdk model.raw "the child reads as before"
is "$(parent_cid child.vmdk)" "$(cid base.vmdk)" "it knows its parent's new content ID"
is "$(file_bytes child.vmdk)" 65536 "and is empty"
judge_vmdk child.vmdk "an emptied child"
vio child.vmdk "write -P 8 3M 4k" "read -P 8 3M 4k" "read -P 4 3149824 4k"
img create -q -f vmdk -o subformat=streamOptimized -b base.vmdk -F vmdk child.vmdk
vio child.vmdk "write -P 7 1M 64k" "write -z 2M 64k"
succeeds "commit of what cannot be emptied" img commit -f vmdk -q child.vmdk
peer_io base.vmdk vmdk "read -P 7 1M 64k" "read -P 0 2M 64k"

label="changed parent"
chain "$BLKSTACK_IMG" subformat=monolithicSparse
before=$(cid base.vmdk)
vio base.vmdk "write -P 9 0 64k"
isnt "$(cid base.vmdk)" "$before" "our write to a parent shows"
fails "the peer sees it" "Invalid argument" qio -r -f vmdk child.vmdk -c "read 0 64k"
fails "and so do we" "Invalid argument" io -r -f vmdk child.vmdk -c "read 0 64k"
like "$(cat cmd.out)" "content ID" "with the reason"
vio child.vmdk "write -P 5 64k 64k" "read -P 5 64k 64k"

label="short content ID"         # as the peer writes one that begins with zeroes
for cid in CID=1234567 CID=0; do
    img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M
    sed -i "s/^CID=.*/$cid/" flat.vmdk
    lines=$(grep -v ^CID= flat.vmdk)
    vio flat.vmdk "write -P 1 0 64k" "read -P 1 0 64k"
    isnt "$(grep ^CID= flat.vmdk)" "$cid" "$cid has changed"
    is "$(grep ^CID= flat.vmdk | wc -c)" "$((${#cid} + 1))" "$cid: in its place"
    is "$(grep -v ^CID= flat.vmdk)" "$lines" "$cid: and nothing else"
    peer_io flat.vmdk vmdk "read -P 1 0 64k" "write -P 2 0 64k"
    vio flat.vmdk "read -P 2 0 64k"
done

label="rebase"
succeeds "-u makes the parent the right one again" img rebase -u -f vmdk -b base.vmdk -F vmdk child.vmdk
is "$(parent_cid child.vmdk)" "$(cid base.vmdk)" "its content ID is taken over"
vio child.vmdk "read -P 9 0 64k" "read -P 5 64k 64k"
peer_io child.vmdk vmdk "read -P 9 0 64k" "read -P 5 64k 64k"
qimg convert -f vmdk -O raw child.vmdk model.raw
qimg create -q -f vmdk other.vmdk 4M
succeeds "to another parent" img rebase -f vmdk -b other.vmdk -F vmdk child.vmdk
holds_vmdk child.vmdk model.raw "the content stays"
succeeds "to none" img rebase -u -f vmdk -b "" child.vmdk
is "$(parent_cid child.vmdk)" 4294967295 "no parent"
like "$(qimg info -f vmdk child.vmdk)" "file format: vmdk" "the peer opens it"
truncate -s 4M raw.raw
fails "a parent of another format" "must be a vmdk image" img rebase -u -f vmdk -b raw.raw -F raw child.vmdk
python3 -c '
with open("child.vmdk", "r+b") as f:
    f.seek(36)
    f.write((1).to_bytes(8, "little"))      # one sector for the descriptor'
fails "a name that does not fit" "does not fit" \
    img rebase -u -f vmdk -b "$(printf './%.0s' {1..100})base.vmdk" -F vmdk child.vmdk

label="convert -B"
chain "$BLKSTACK_IMG" subformat=monolithicSparse
vio child.vmdk "write -P 6 1M 64k"
qimg convert -f vmdk -O raw child.vmdk model.raw
succeeds "an overlay of the same parent" img convert -f vmdk -O vmdk -B base.vmdk -F vmdk child.vmdk copy.vmdk
holds_vmdk copy.vmdk model.raw "holds the same"
num_ok "$(file_bytes copy.vmdk) < 400000" "and only what the parent has not"
succeeds "to qcow2 and back" img convert -f vmdk -O qcow2 -c child.vmdk c.qcow2
succeeds "and back" img convert -f qcow2 -O vmdk c.qcow2 back.vmdk
holds_vmdk back.vmdk model.raw "holds the same"

label="loop"
cp child.vmdk loop.vmdk
succeeds "an image over itself cannot be made" bash -c "! '$BLKSTACK_IMG' rebase -u -f vmdk -b loop.vmdk -F vmdk loop.vmdk ||
    ! timeout 20 '$BLKSTACK_IO' -r -f vmdk loop.vmdk -c 'read 0 64k'"
done_testing
