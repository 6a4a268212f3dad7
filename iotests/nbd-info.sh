#!/bin/bash
# SPDX-License-Identifier: MIT
# nbdinfo and the peer's qemu-img see in our exports what they see in the peer's: information, maps, allocation depths,
# bitmaps of the image and of its backing file.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires nbdinfo qemu-nbd qemu-img qemu-io

qimg create -q -f qcow2 base.qcow2 8M
peer_io base.qcow2 qcow2 "write -P 1 0 1M" "write -z 1M 64k" "write -c -P 2 2M 64k"
qimg bitmap --add base.qcow2 old
peer_io base.qcow2 qcow2 "write -P 5 3M 200k"
qimg bitmap --disable base.qcow2 old
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2 12M
qimg bitmap --add disk.qcow2 new
peer_io disk.qcow2 qcow2 "write -P 3 64k 64k" "write -z 512k 128k" "write -P 4 10M 1M" "discard 2M 64k"
qimg bitmap --disable disk.qcow2 new

options=(-f qcow2 --read-only -A -B new -B old -D "a disk" -x name disk.qcow2)
peer_serve "${options[@]}"
peer_uri="nbd+unix:///name?socket=$nbd_dir/s"
our_serve "${options[@]}"
our_uri="nbd+unix:///name?socket=$nbd_dir/o"

# Ours has no reason to ask for whole sectors, and prefers whole clusters. The peer lists bitmaps the other way round.
info() {        # URI
    nbdinfo --json "$1" | sed -E '/"(uri|block_size_(minimum|preferred))"/d; s/,$//' | sort
}
is "$(info "$our_uri")" "$(info "$peer_uri")" "information"
like "$(nbdinfo --json "$our_uri" | tr -d ' \n\t')" '"block_size_minimum":1,"block_size_preferred":65536,' "block sizes"
like "$(nbdinfo --list "$our_uri")" 'description: a disk' "a description in the list"
for context in base:allocation qemu:allocation-depth qemu:dirty-bitmap:new qemu:dirty-bitmap:old; do
    is "$(nbdinfo --map="$context" "$our_uri")" "$(nbdinfo --map="$context" "$peer_uri")" "map of $context"
    is "$(nbdinfo --map="$context" --totals "$our_uri")" "$(nbdinfo --map="$context" --totals "$peer_uri")" \
        "totals of $context"
done
like "$(nbdinfo --map=qemu:dirty-bitmap:old "$our_uri")" '3145728 +262144 +1' "what is dirty in the backing file"
is "$(qimg map --output=json -f raw "$our_uri")" "$(qimg map --output=json -f raw "$peer_uri")" "the peer's map"
for bitmap in new old; do
    dirty="driver=nbd,path=$nbd_dir/SOCKET,export=name,x-dirty-bitmap=qemu:dirty-bitmap:$bitmap"
    is "$(qimg map --output=json --image-opts "${dirty/SOCKET/o}")" \
        "$(qimg map --output=json --image-opts "${dirty/SOCKET/s}")" "the peer's map of the bitmap '$bitmap'"
done
is "$(qimg info --output=json -f raw "$our_uri" | sed '/name"/d')" \
    "$(qimg info --output=json -f raw "$peer_uri" | sed '/name"/d')" "the peer's info"
succeeds "the peer finds the same bytes" qimg compare -f raw -F qcow2 "$our_uri" disk.qcow2

fails "an export that is not there" "no export of that name|not available" \
    qimg info -f raw "nbd+unix:///other?socket=$nbd_dir/o"
done_testing
