#!/bin/bash
# SPDX-License-Identifier: MIT
# bitmap: actions, their order, what is refused and what stays of a command that fails, as the peer does it; info lists bitmaps
# word for word.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/bitmap-lib.inc"
. "$(dirname "$0")/peer-lib.inc"

fresh() {
    rm -f a.qcow2 b.qcow2
    qimg create -q -f qcow2 a.qcow2 4M
    qimg bitmap --add a.qcow2 b0
    qimg bitmap --add -g 512 a.qcow2 b1
    peer_io a.qcow2 qcow2 "write 0 100k" "write 3M 1"
    cp a.qcow2 b.qcow2
    qimg bitmap --add --disable b.qcow2 other
    peer_io b.qcow2 qcow2 "write 1M 64k"
    twin_copy a.qcow2 b.qcow2
}

both_have() {   # RANGES BITMAP
    is_dirty ours/a.qcow2 "$2" "$1" "ours: $2"
    is_dirty peer/a.qcow2 "$2" "$1" "peer: $2"
    same_list
}

# The peer tells the same list of bitmaps of both.
same_list() {
    is "$(cd ours && qimg info a.qcow2 | grep -v size)" "$(cd peer && qimg info a.qcow2 | grep -v size)" "the same list"
}

long=$(printf 'x%.0s' $(seq 1023))
fresh
label=add
twin_ok bitmap --add a.qcow2 new
twin_ok bitmap --add -g 1M -f qcow2 a.qcow2 "a name, with signs"
twin_ok bitmap --add -g 0 a.qcow2 zero
twin_ok bitmap --add -g 2G a.qcow2 largest
twin_ok bitmap --add -g 64k -g 4k a.qcow2 twice
twin_ok bitmap --add --disable a.qcow2 off
twin_ok bitmap --add a.qcow2 "$long"
twin_ok bitmap --add --image-opts driver=qcow2,file.driver=file,file.filename=a.qcow2 opts
twin_fails "Operation add on bitmap b0 failed: Bitmap already exists: b0" bitmap --add a.qcow2 b0
twin_fails "Granularity must be power of 2" bitmap --add -g 1000 a.qcow2 g
twin_fails "Granularity must be power of 2" bitmap --add -g 256 a.qcow2 g
twin_fails "Granularity must be power of 2" bitmap --add -g 4G a.qcow2 g
twin_fails "Invalid granularity specified" bitmap --add -g much a.qcow2 g
twin_fails "Bitmap name cannot be empty" bitmap --add a.qcow2 ""
twin_fails "name too long" bitmap --add a.qcow2 "x$long"
for output in human json; do
    img info --output=$output ours/a.qcow2 | grep -v size >ours.info
    qimg info --output=$output ours/a.qcow2 | grep -v size >peer.info
    is "$(cat ours.info)" "$(cat peer.info)" "info --output=$output"
done
both_have "0+102400 3145728+512" b1

label="other actions"
twin_ok bitmap --remove a.qcow2 "$long"
twin_ok bitmap --merge b0 a.qcow2 b1
both_have "0+131072 3145728+65536" b1
twin_ok bitmap --clear --merge b0 --disable a.qcow2 new
twin_ok bitmap --merge b1 a.qcow2 b1
twin_ok bitmap --disable --disable a.qcow2 b0
both_have "0+131072 3145728+65536" new
twin_ok bitmap --clear --enable a.qcow2 b0
both_have "" b0
twin_ok bitmap --remove --add -g 8k a.qcow2 b0
twin_ok bitmap --add --remove a.qcow2 never
twin_ok bitmap --merge b0 --merge other -b b.qcow2 -F qcow2 a.qcow2 zero
twin_ok bitmap --merge b0 -b b.qcow2 a.qcow2 b1
both_have "0+131072 1048576+65536 3145728+65536" b1
both_have "0+131072 1048576+65536 3145728+65536" zero
for action in remove clear enable disable "merge b0"; do
    # shellcheck disable=SC2086
    twin_fails "Operation ${action% *} on bitmap nope failed: Dirty bitmap 'nope' not found" bitmap --$action a.qcow2 nope
done
twin_fails "Operation merge on bitmap b0 failed: Dirty bitmap 'nope' not found" bitmap --merge nope a.qcow2 b0
twin_fails "Operation merge on bitmap b0 failed: Dirty bitmap 'off' not found" \
    bitmap --merge off -b b.qcow2 a.qcow2 b0
twin_fails "not found" bitmap --add --merge nope a.qcow2 half
both_have "" half

label="all gone"
for name in b0 b1 new "a name, with signs" zero largest twice off opts half; do
    twin_ok bitmap --remove a.qcow2 "$name"
done
same_list
judge ours/a.qcow2

label=arguments
twin_fails "Need at least one of" bitmap
twin_fails "Need at least one of" bitmap a.qcow2 b0
twin_fails "Expecting filename and bitmap name" bitmap --add a.qcow2
twin_fails "Expecting filename and bitmap name" bitmap --add a.qcow2 b0 more
twin_fails "granularity only supported with --add" bitmap -g 64k --clear b.qcow2 b0
twin_fails "only supported with --merge" bitmap -b a.qcow2 --clear b.qcow2 b0
twin_fails "only supported with -b" bitmap -F qcow2 --merge b0 b.qcow2 b0
twin_fails "Could not open 'nope'" bitmap -b nope --merge b0 b.qcow2 b0
twin_fails "Could not open 'nope'" bitmap --add nope b0
twin_fails "[Ll]ock" bitmap -b b.qcow2 --merge b0 b.qcow2 b0
twin_fails "mutually exclusive" bitmap --add --image-opts -f qcow2 b.qcow2 b0
twin_fails "nrecognized option" bitmap --bad b.qcow2 b0

label="images that keep none"
qimg create -q -f raw r.raw 4M
qimg create -q -f qcow2 -o compat=0.10 v2.qcow2 4M
qimg create -q -f qcow2 -o cluster_size=2M large.qcow2 1P
qimg create -q -f qcow2 five.qcow2 5M
qimg bitmap --add five.qcow2 b0
twin_copy r.raw v2.qcow2 large.qcow2 five.qcow2
twin_fails "Can't store persistent bitmaps" bitmap --add -f raw r.raw b0
twin_fails "Cannot store dirty bitmaps in qcow2 v2 files" bitmap --add v2.qcow2 b0
twin_fails "Use larger granularity" bitmap --add large.qcow2 b0
twin_ok bitmap --add -g 2G large.qcow2 b0
twin_fails "Bitmaps are of different sizes \(destination size is 5242880, source size is 4194304\)" \
    bitmap --merge b0 -b b.qcow2 five.qcow2 b0
qimg create -q -f qcow2 empty.qcow2 0
fails "an empty disk: refused (the peer loses it)" "The disk is empty" "$BLKSTACK_IMG" bitmap --add empty.qcow2 b0
done_testing
