#!/bin/bash
# SPDX-License-Identifier: MIT
# dmg images of all kinds of chunks that can be read are read as by the peer and by dmg2img; the others are refused by
# name.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/old-formats-lib.inc"
any_backend
requires qemu-img qemu-io python3
export SEED
craft="$BLKSTACK_SOURCE/iotests/dmg_craft.py"

text_file source.raw 2M
random_file random.raw 500k
truncate -s 6M source.raw
cat random.raw >>source.raw
truncate -s 9M source.raw
truncate -s 512 tail.raw
cat source.raw tail.raw >model.raw

# Debian's peer lacks the module for bzip2, so those are judged by what went in, and by dmg2img.
judged() {      # TYPES
    succeeds "chunks $1: convert" img convert -f dmg -O raw "$1.dmg" ours.raw
    succeeds "chunks $1: what went in" cmp ours.raw model.raw
    if command -v dmg2img >/dev/null; then
        rm -f other.raw
        succeeds "chunks $1: dmg2img reads them" dmg2img -s "$1.dmg" other.raw
        truncate -s "$(file_bytes model.raw)" other.raw
        succeeds "chunks $1: as dmg2img" cmp other.raw model.raw
    fi
}

for types in z zr0i; do
    python3 "$craft" model.raw "$types.dmg" "$types"
    as_the_peer dmg "$types.dmg" "chunks $types"
    judged "$types"
done
python3 "$craft" model.raw b.dmg b
if img convert -f dmg -O raw b.dmg ours.raw 2>cmd.out; then
    python3 "$craft" model.raw zrb0i.dmg zrb0i
    judged b
    judged zrb0i
else
    like "$(cat cmd.out)" "bzip2 \(which was not built in\)" "without bzip2 it says so"
fi

img map -f dmg --output=json zr0i.dmg >map.json
num_ok "$(grep -c '"zero": true' map.json) > 0" "map shows zero chunks"
read -r start length place < <(sed -n 's/.*"start": \([0-9]*\), "length": \([0-9]*\).*"offset": \([0-9]*\).*/\1 \2 \3/p' map.json)
succeeds "raw chunks lie where map says" cmp -n "$length" -i "$start:$place" model.raw zr0i.dmg

# How long a file is, and where data begin, is not what matters.
for case in odd-end data-fork; do
    python3 "$craft" model.raw "$case.dmg" zr0 "$case"
    as_the_peer dmg "$case.dmg" "$case"
    succeeds "$case: what went in" cmp ours.raw model.raw
done

for type in a:ADC f:LZFSE m:LZMA; do
    python3 "$craft" model.raw other.dmg "z${type%%:*}"
    succeeds "${type#*:}: info" img info other.dmg
    fails "${type#*:}: convert" "compressed by ${type#*:}, which is not supported" img convert -f dmg -O raw other.dmg out.raw
done

qimg create -q -f qcow2 -b zr0i.dmg -F dmg top.qcow2
pio top.qcow2 "write -P 13 3M 100k" "read -P 0 4M 1M"
qimg convert -f qcow2 -O raw top.qcow2 top.raw
same top.qcow2 top.raw "the base of a qcow2 image"
only_read dmg z.dmg
done_testing
