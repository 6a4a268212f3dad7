#!/bin/bash
# SPDX-License-Identifier: MIT
# dd: operands, sizes and refusals are the peer's, and the target holds the part of the source that was asked for.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io
any_backend

random_file r.raw 1048576
printf abc >odd.raw
qimg convert -f raw -O qcow2 r.raw q.qcow2
qimg resize -q q.qcow2 2M
twin_copy r.raw odd.raw q.qcow2

# Copies with both; ours is what the system's dd copies, filled up to whole sectors.
copied() {      # SOURCE OPTIONS... -- OPERANDS...
    local source=$1 options=()

    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    twin dd "${options[@]}" "$@" "if=$source" of=out.img
    dd "$@" if="$source" of=model.raw status=none
    truncate -s %512 model.raw
    same "${target:-raw}:ours/out.img" model.raw "$source ${options[*]} $*: the bytes that were asked for"
    is "$(file_bytes ours/out.img)" "$(file_bytes peer/out.img)" "$source ${options[*]} $*: a file of the same length"
}

copied r.raw --
copied r.raw -- bs=64k
copied r.raw -f raw -O raw -- bs=64k count=3
copied r.raw -- bs=3 count=100
copied r.raw -- bs=1k count=1k
copied r.raw -- bs=512k skip=1
copied r.raw -- bs=2147483647
copied r.raw -U -- bs=1M count=18014398509481984
copied r.raw -- count=0
copied odd.raw --
target=qcow2
copied r.raw -O qcow2 -- bs=100000 count=3
target=
qimg convert -f qcow2 -O raw q.qcow2 q.raw
twin dd if=q.qcow2 of=out.img
same raw:ours/out.img q.raw "a qcow2 source"
twin dd --image-opts if=driver=qcow2,file.filename=q.qcow2 of=out.img
same raw:ours/out.img q.raw "a source given by options"
twin dd bs=1M bs=2M if=odd.raw if=r.raw of=out.img
same raw:ours/out.img r.raw "the last operand counts"
twin dd if=r.raw of=out.img skip=5 bs=512k
is "$(file_bytes ours/out.img)" 0 "nothing to copy"
like "$twin_errors" "cannot skip" "nothing to copy: the reason"
img dd if=r.raw of=out.img bs=1k skip=2 count=4
dd if=r.raw of=model.raw bs=1k skip=2 count=4 status=none
same out.img model.raw "count blocks, behind those that were skipped"

label=refused
twin_fails "both input and output" dd
twin_fails "both input and output" dd if=r.raw
twin_fails "both input and output" dd of=x
twin_fails "bs" dd if=r.raw of=x bs=0
twin_fails "bs" dd if=r.raw of=x bs=foo
twin_fails "bs" dd if=r.raw of=x bs=2147483648
twin_fails "count" dd if=r.raw of=x count=-1
twin_fails "operand foo" dd if=r.raw of=x foo=3
twin_fails "operand foo" dd if=r.raw of=x foo
twin_fails "option" dd -n if=r.raw of=x
twin_fails "nosuch" dd -f nosuch if=r.raw of=x
twin_fails "format" dd -O nosuch if=r.raw of=x
twin_fails "missing" dd if=missing of=x
cp r.raw before.raw
fails "onto the source itself" "lock" img dd if=r.raw of=r.raw
same r.raw before.raw "the source is as it was"
is "$(find ours -name x)" "" "no target is left"
done_testing
