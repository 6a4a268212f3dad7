#!/bin/bash
# SPDX-License-Identifier: MIT
# Chains of images in several formats: overlays that we and the peer make over a base in each format that can be read;
# written, mapped, converted, rebased and committed. What cannot be written to refuses a commit by its name.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/http-lib.inc"
any_backend
requires qemu-img qemu-io python3

# NAME FORMAT OPTIONS WHY-NOT-COMMITTED
bases='
raw             raw         -                                       -
qcow2           qcow2       -                                       -
packed          qcow2       compression_type=zstd                   -
qcow            qcow        -                                       qcow.*can.only.be.read
sparse          vmdk        -                                       -
zeroed          vmdk        zeroed_grain=on                         -
flat            vmdk        subformat=monolithicFlat                -
split           vmdk        subformat=twoGbMaxExtentSparse          -
split-flat      vmdk        subformat=twoGbMaxExtentFlat            -
stream          vmdk        subformat=streamOptimized               streamOptimized.*can.be.written.once
cowd            vmdk        craft                                   COWD.*can.only.be.read
sesparse        vmdk        craft                                   seSparse.*can.only.be.read
vdi             vdi         -                                       -
vdi-static      vdi         static=on                               -
vpc             vpc         force_size=on                           -
vpc-fixed       vpc         subformat=fixed,force_size=on           -
vhdx            vhdx        block_size=1M                           -
vhdx-fixed      vhdx        block_size=1M,subformat=fixed           -
parallels       parallels   cluster_size=64k                        parallels.*can.only.be.read
dmg             dmg         craft                                   dmg.*can.only.be.read
web             raw         http                                    [Rr]ead.only
web-packed      qcow2       http                                    [Rr]ead.only
'
writes=("write -P 7 100k 100k" "write -P 8 1300k 10k" "write -z 2M 256k" "write -P 9 2560k 64k")

# ---- models: what the base holds, and what the overlay holds after the writes ----

text_file text.raw 300k
random_file noise.raw 200k
truncate -s 3M model.raw
dd if=text.raw of=model.raw bs=64k seek=2 conv=notrunc status=none
dd if=noise.raw of=model.raw bs=64k seek=20 conv=notrunc status=none
dd if=text.raw of=model.raw bs=64k seek=43 conv=notrunc status=none
cp model.raw written.raw
peer_io written.raw raw "${writes[@]}"
truncate -s 3M empty.raw
img create -q -f vmdk empty.vmdk 3M

make_base() {   # FORMAT OPTIONS: in this directory
    case $2 in
    craft)
        case $1 in
        dmg) SEED=1 python3 "$BLKSTACK_SOURCE/iotests/dmg_craft.py" ../model.raw base.dmg zr0i ;;
        *) python3 "$BLKSTACK_SOURCE/iotests/craft_vmdk.py" base.vmdk "$name" ../model.raw ;;
        esac ;;
    compression_type=*) qimg convert -c -f raw -O "$1" -o "$2" ../model.raw "base.$1" ;;
    -) qimg convert -f raw -O "$1" ../model.raw "base.$1" ;;
    *) qimg convert -f raw -O "$1" -o "$2" ../model.raw "base.$1" ;;
    esac
}

holds() {       # PROGRAM FORMAT IMAGE MODEL TEXT
    succeeds "$5" timeout 60 "$1" compare -f "$2" -F raw "$3" "$4"
}

# The peer gives vhdx and dmg no places and no zeroes, so those maps are compared with the content.
map_is_right() {    # FORMAT-OF-BASE FORMAT OVERLAY MODEL
    img map -f "$2" --output=json "$3" >ours.map
    case $1 in
    vhdx | dmg)
        succeeds "map is true" python3 -c '
import json, sys
data, at = open(sys.argv[1], "rb").read(), 0
for part in json.load(open("ours.map")):
    begin, end = part["start"], part["start"] + part["length"]
    assert begin == at and end > begin, part
    assert part["present"] and (not part["zero"] or not any(data[begin:end])), part
    at = end
assert at == len(data)' "$4" ;;
    *)
        is "$(cat ours.map)" "$(qimg map -f "$2" --output=json "$3")" "map is as the peer's" ;;
    esac
}

# An overlay that we made is written by the peer, and the other way round; both hold the same.
over() {        # OVERLAY-FORMAT OUR-OPTIONS PEERS-OPTIONS
    local overlay=$1 other=../empty.raw other_format=raw

    rm -f "o.$overlay" "p.$overlay" copy.qcow2
    succeeds "we make one" img create -q -f "$overlay" ${2:+-o "$2"} -b "$base" -F "$format" "o.$overlay"
    succeeds "the peer makes one" qimg create -q -f "$overlay" ${3:+-o "$3"} -b "$base" -F "$format" "p.$overlay"
    peer_io "o.$overlay" "$overlay" "${writes[@]}"
    io_run "$BLKSTACK_IO" -f "$overlay" "p.$overlay" -- "${writes[@]}"
    holds "$BLKSTACK_IMG" "$overlay" "o.$overlay" ../written.raw "ours, written by the peer"
    holds "$QEMU_IMG" "$overlay" "p.$overlay" ../written.raw "the peer's, written by us"
    map_is_right "$format" "$overlay" "p.$overlay" ../written.raw
    succeeds "convert -c" img convert -c -f "$overlay" -O qcow2 "p.$overlay" copy.qcow2
    holds "$QEMU_IMG" qcow2 copy.qcow2 ../written.raw "convert -c of the chain"
    if [ "$overlay" = vmdk ]; then
        other=../empty.vmdk other_format=vmdk
    fi
    [ "$overlay,$format" != qcow2,vmdk ] || return 0        # there is more to come
    succeeds "rebase to another" img rebase -f "$overlay" -b "$other" -F "$other_format" "p.$overlay"
    succeeds "rebase to the base" img rebase -f "$overlay" -b "$base" -F "$format" "p.$overlay"
    holds "$QEMU_IMG" "$overlay" "p.$overlay" ../written.raw "rebased there and back"
}

committed() {   # OVERLAY-FORMAT
    if [ "$refusal" = - ]; then
        succeeds "commit" img commit -q -f "$1" "o.$1"
        holds "$QEMU_IMG" "$format" "$base" ../written.raw "the base has it all"
    else
        fails "commit is refused" "${refusal//can.be/can be}" img commit -f "$1" "o.$1"
    fi
    holds "$BLKSTACK_IMG" "$1" "o.$1" ../written.raw "the overlay holds the same afterwards"
}

# The peer's qcow images have no format of their base in them; it is found out, also if it looks like a raw disk.
over_by_qcow() {
    qimg create -q -f qcow -b "$base" -F "$format" o.qcow
    peer_io o.qcow qcow "${writes[@]}"
    holds "$BLKSTACK_IMG" qcow o.qcow ../written.raw "qcow over it"
}

have_web=no peers=yes
if ! "$BLKSTACK_IMG" info -f raw http://127.0.0.1:1/ 2>&1 | grep -q "was not built in" && command -v nginx >/dev/null; then
    mkdir www
    cp model.raw www/base.raw
    qimg convert -c -f raw -O qcow2 model.raw www/base.qcow2
    start_nginx ""
    have_web=yes
    peer_reads_web "$web/base.raw" || peers=no
fi

n=0 peer_img=$QEMU_IMG peer_io=$QEMU_IO
while read -r name format options refusal <&3; do
    [ -n "$name" ] || continue
    mkdir "$name"
    cd "$name"
    label="$name, qcow2" QEMU_IMG=$peer_img QEMU_IO=$peer_io
    if [ "$options" = http ]; then
        [ $have_web = yes ] || { diag "no web server"; cd ..; continue; }
        if [ $peers = no ]; then
            diag "the peer cannot read from web servers here: our programs do its part"
            QEMU_IMG=$BLKSTACK_IMG QEMU_IO=$BLKSTACK_IO
        fi
        base=$web/base.$format
    else
        base=base.$format
        make_base "$format" "$options"
        if [ "$format" != vmdk ] || [ "$name" = sparse ]; then
            over_by_qcow
        fi
    fi
    over qcow2
    if [ "$format" = vmdk ]; then
        label="$name, vmdk"
        over vmdk zeroed_grain=on subformat=twoGbMaxExtentSparse
        committed vmdk
    else
        committed qcow2
    fi
    cd ..
    n=$((n + 1))
done 3<<<"$bases"
QEMU_IMG=$peer_img QEMU_IO=$peer_io label=
num_ok "$n >= 20" "$n bases"

label="what has no backing file"
for format in vhdx vpc vdi raw; do
    fails "create" "Backing file not supported for file format '$format'" img create -f "$format" -b model.raw -F raw "no.$format"
    fails "convert -B" "Backing file not supported for file format '$format'" \
        img convert -f raw -O "$format" -B model.raw -F raw written.raw "no.$format"
done
for format in qcow2 vdi; do
    fails "vmdk over $format" "must be a vmdk image" img create -f vmdk -b "$format/base.$format" -F "$format" no.vmdk
done
is "$(find . -name 'no.*')" "" "nothing was made"

# Two long ones, each link by another program.
label="a long chain"
mkdir long
cd long
base=model.raw
cp ../model.raw .
qimg create -q -f qcow -b model.raw -F raw 1.qcow
peer_io 1.qcow qcow "${writes[0]}"
img create -q -f qcow2 -b 1.qcow -F qcow 2.qcow2
io_run "$BLKSTACK_IO" -f qcow2 2.qcow2 -- "${writes[1]}"
qimg create -q -f qcow2 -b 2.qcow2 -F qcow2 3.qcow2
io_run "$BLKSTACK_IO" -f qcow2 3.qcow2 -- "write -c ${writes[3]#write}" "${writes[2]}"
qimg convert -f raw -O vmdk model.raw 1.vmdk
img create -q -f vmdk -o subformat=streamOptimized -b 1.vmdk -F vmdk 2.vmdk
io_run "$BLKSTACK_IO" -f vmdk 2.vmdk -- "write -P 7 128k 64k"
qimg create -q -f vmdk -o subformat=twoGbMaxExtentSparse -b 2.vmdk -F vmdk 3.vmdk
io_run "$BLKSTACK_IO" -f vmdk 3.vmdk -- "${writes[@]}"
img create -q -f qcow2 -b 3.vmdk -F vmdk 4.qcow2
io_run "$BLKSTACK_IO" -f qcow2 4.qcow2 -- "write -P 7 150k 10k"
for top in 3.qcow2 4.qcow2; do
    holds "$QEMU_IMG" qcow2 "$top" ../written.raw "$top: the peer finds the same"
    holds "$BLKSTACK_IMG" qcow2 "$top" ../written.raw "$top: and so do we"
    is "$(img map --output=json "$top")" "$(qimg map --output=json "$top")" "$top: map is as the peer's"
    is "$(img info --backing-chain --output=json "$top" | grep '"filename"\|"format":')" \
        "$(qimg info --backing-chain --output=json "$top" | grep '"filename"\|"format":')" "$top: the names of the chain"
    for target in vmdk:subformat=streamOptimized vdi:static=off vpc:force_size=on vhdx:block_size=1M; do
        rm -f "copy.${target%:*}"
        succeeds "$top: convert to ${target%:*}" img convert -f qcow2 -O "${target%:*}" -o "${target#*:}" "$top" "copy.${target%:*}"
        holds "$QEMU_IMG" "${target%:*}" "copy.${target%:*}" ../written.raw "$top: ${target%:*} holds the same"
    done
done
succeeds "commit through the chain" img commit -q -f qcow2 -b 3.vmdk 4.qcow2
cd ..
done_testing
