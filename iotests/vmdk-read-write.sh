#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: random writes and zero writes, by both programs in turn, on every subformat that can be rewritten; after each
# turn both programs find what a raw file holds that was written in the same way.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vmdk-lib.inc"
requires qemu-img qemu-io python3

# Commands of a turn: offsets cluster around a few places, so that grains are written again, and around AT.
commands() {    # TURN SIZE AT
    python3 -c '
import random, sys
turn, size, at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(turn)
places = [at, 0, size - 200000] + [random.Random(sys.argv[4]).randrange(size) for _ in range(4)]
for _ in range(14):
    length = rng.choice([512, 4096, 5000, 65536, 200000])
    offset = min(max(0, rng.choice(places) + rng.randrange(-150000, 150000)), size - length)
    kind = rng.choice(["write -P %d" % rng.randrange(1, 256)] * 3 + ["write -z", "write -zu"])
    if rng.random() < .5:
        offset -= offset % 65536
    print(kind, offset, length)
    if rng.random() < .2:
        print("flush")' "$SEED.$1" "$2" "$3" "$SEED"
}

turns() {       # OPTIONS SIZE AT
    local size=$2 turn line
    local -a list

    label=$1
    rm -f disk*.vmdk model.raw
    if ((${first:=0})); then img create -q -f vmdk -o "$1" disk.vmdk "$2"; else qimg create -q -f vmdk -o "$1" disk.vmdk "$2"; fi
    first=$((1 - first))
    truncate -s "$size" model.raw
    for turn in 1 2 3 4; do
        list=()
        while read -r line; do
            list+=("$line")
        done < <(commands "$1.$turn" "$size" "$3")
        if ((turn % 2)); then vio disk.vmdk "${list[@]}"; else peer_io disk.vmdk vmdk "${list[@]}"; fi
        peer_io model.raw raw "${list[@]}"
        holds_vmdk disk.vmdk model.raw "turn $turn: every byte as the model"
    done
    judge_vmdk disk.vmdk "after all turns"
}

say_seed
# Zeroes up to an end that is no whole unit of anything.
for options in subformat=monolithicFlat zeroed_grain=on subformat=monolithicSparse subformat=twoGbMaxExtentFlat; do
    label="zeroes up to the end, $options"
    img create -q -f vmdk -o "$options" end.vmdk 1049088
    vio end.vmdk "write -P 1 900k 126464" "write -zu 1000k 25088" "write -z 960k 66048" "write -zu 1M 512" "write -z 900k 127488" \
        "read -P 0 900k 127488" "write -P 2 1M 512" "discard 0 1049088" "read -P 0 0 900k"
    judge_vmdk end.vmdk "a disk of an odd length"
done
turns subformat=monolithicSparse 20971520 10000000
turns subformat=monolithicSparse,zeroed_grain=on 10486272 2000000
turns subformat=monolithicFlat 10486272 2000000
turns subformat=twoGbMaxExtentSparse 4300000256 2147483648
turns subformat=twoGbMaxExtentFlat,adapter_type=lsilogic 4300000256 2147483648
label=

# A sparse directory: tables are made when they are needed.
img create -q -f vmdk disk2.vmdk 200M
python3 - <<'P'
with open("disk2.vmdk", "r+b") as f:
    for directory in (21, 21 + 1 + 4 * 7):
        f.seek(directory * 512 + 8)         # all tables but the first two
        f.write(bytes(20))
P
truncate -s 200M model.raw
truncate -s 0 model.raw
truncate -s 200M model.raw
vio disk2.vmdk "write -P 3 70M 100k" "write -P 4 150M 64k" "write -P 5 100 100"
peer_io model.raw raw "write -P 3 70M 100k" "write -P 4 150M 64k" "write -P 5 100 100"
holds_vmdk disk2.vmdk model.raw "grain tables that were missing"
judge_vmdk disk2.vmdk "grain tables that were missing"
done_testing
