#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: streamOptimized images: what we write into files and pipes, in order, with markers, footers and the end of the
# stream as their readers expect them; what VMDKstream, the peer and libvmdk write or read; a grain is written once.
# vmdktool, another judge, is asked by vmdk-vmdktool.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vmdk-lib.inc"
requires qemu-img qemu-io python3

# Walks the markers of IMAGE: a reader that goes from begin to end. Prints guest sectors of grains, and the kinds of
# markers.
walk() {        # IMAGE
    python3 -c '
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
head = struct.unpack("<4sIIQQQQIQQQ", data[:72])
assert head[0] == b"KDMV" and head[1] == 3 and head[2] & 0x30001 == 0x30001, head
at, out = head[10] * 512, []
while at < len(data):
    sector, size, kind = struct.unpack("<QII", data[at:at + 16])
    if size:
        grain = zlib.decompress(data[at + 12:at + 12 + size])
        assert len(grain) == 65536, len(grain)
        out.append(str(sector // 128))
        at += (12 + size + 511) // 512 * 512
    else:
        out.append({0: "EOS", 1: "GT", 2: "GD", 3: "footer"}[kind])
        at += (1 + sector) * 512
        if kind == 3:
            assert data[at - 512:at - 508] == b"KDMV"
        if kind == 0:
            assert at == len(data), "bytes behind the end"
print(*out)' "$1"
}

system_python() { /usr/bin/python3 "$@"; }      # Debian's, for which its modules are

text_file text.raw 600k
random_file noise.raw 200k
truncate -s 40M src.raw
dd if=text.raw of=src.raw bs=64k seek=3 conv=notrunc status=none
dd if=noise.raw of=src.raw bs=64k seek=40 conv=notrunc status=none
dd if=text.raw of=src.raw bs=64k seek=508 conv=notrunc status=none
dd if=/dev/zero of=src.raw bs=64k seek=100 count=4 conv=notrunc status=none     # zeroes that must be read to be known
grains="3 4 5 6 7 8 9 10 11 12 40 41 42 43 508 509 510 511"
more="512 513 514 515 516 517"

judged() {      # IMAGE TEXT
    holds_vmdk "$1" src.raw "$2: both read it"
    judge_vmdk "$1" "$2"
    libyal_reads vmdk "$1" src.raw "$2"
}

for way in "convert -c" convert "convert -S 64k" "convert -m 1" "convert -c --level 9 --threads 3"; do
    # shellcheck disable=SC2086  # words
    img $way -O vmdk -o subformat=streamOptimized src.raw disk.vmdk
    judged disk.vmdk "$way"
    is "$(walk disk.vmdk)" "$grains $more" "$way: grains in the order of the disk, each once"
done
img convert -O vmdk -o subformat=streamOptimized,footer=on src.raw disk.vmdk
judged disk.vmdk "with a footer"
is "$(walk disk.vmdk)" "$grains $more footer EOS" "a footer ends the stream"
vio disk.vmdk "write -P 7 20M 64k"
peer_io src.raw raw "write -P 7 20M 64k"
judged disk.vmdk "written to later"
is "$(walk disk.vmdk)" "$grains $more 320 footer EOS" "the footer has moved"
img convert -O vmdk -o subformat=streamOptimized src.raw - >disk.vmdk
judged disk.vmdk "through a pipe"
more="508 509 510 511 GT $more GT GD footer EOS"
is "$(walk disk.vmdk)" "${grains% 508*} 320 $more" "through a pipe: tables behind their grains, directory, footer"
head -c 1234567 src.raw >odd.raw
img convert -f raw -O vmdk -o subformat=streamOptimized odd.raw - >odd.vmdk
truncate -s %512 odd.raw
holds_vmdk odd.vmdk odd.raw "an odd length"
fails "nothing but streams goes to a pipe" "streamOptimized" bash -c "'$BLKSTACK_IMG' convert -O vmdk src.raw - | cat; exit \${PIPESTATUS[0]}"
qimg create -q -f raw empty.raw 0
img convert -f raw -O vmdk -o subformat=streamOptimized empty.raw - >empty.vmdk
like "$(img info -f vmdk empty.vmdk)" "virtual size: 0 B" "an empty disk"

label="of the peer"
qimg convert -O vmdk -o subformat=streamOptimized src.raw disk.vmdk
judged disk.vmdk "an image of the peer"
succeeds "ours from the peer's" img convert -f vmdk -O vmdk -o subformat=streamOptimized disk.vmdk copy.vmdk
holds_vmdk copy.vmdk src.raw "and it holds the same"

label="of VMDKstream"
if system_python -c 'import VMDKstream' 2>/dev/null; then
    for model in src.raw odd.raw; do
        system_python -c 'import sys, VMDKstream; VMDKstream.convert_to_stream(sys.argv[1], sys.argv[2])' $model disk.vmdk
        holds_vmdk disk.vmdk $model "$model"
        judge_vmdk disk.vmdk "$model"
        fails "$model: with the tables at its end it is read-only" "can only be read" io -f vmdk disk.vmdk -c "write 0 64k"
    done
else
    diag "python3-vmdkstream is not installed"
fi

label="random holes"
say_seed
for round in 1 2; do
    grains=$(python3 -c '
import random, sys
rng, grains = random.Random(sys.argv[1]), []
size = rng.randrange(3 << 20, 40 << 20) // 512 * 512
with open("holes.raw", "wb") as f:
    f.truncate(size)
    for _ in range(rng.randrange(3, 25)):
        at, length = rng.randrange(size), rng.randrange(1, 300000)
        f.seek(at)
        f.write(rng.choice([rng.randbytes(length), b"text " * (length // 5), bytes(length)])[:size - at])
data = open("holes.raw", "rb").read()
print(*(n for n in range((size + 65535) // 65536) if any(data[n * 65536:(n + 1) * 65536])))' "$SEED.$round")
    for way in "convert -c" "convert -c -W"; do
        # shellcheck disable=SC2086  # words
        img $way -f raw -O vmdk -o subformat=streamOptimized holes.raw disk.vmdk
        holds_vmdk disk.vmdk holes.raw "$way: both read it"
        judge_vmdk disk.vmdk "$way"
        is "$(walk disk.vmdk | tr ' ' '\n' | if [[ $way == *W ]]; then sort -n; else cat; fi | xargs)" "$grains" "$way: its grains"
    done
    img convert -f raw -O vmdk -o subformat=streamOptimized holes.raw - >disk.vmdk
    holds_vmdk disk.vmdk holes.raw "a pipe: both read it"
    img convert -f vmdk -O vmdk -o subformat=twoGbMaxExtentSparse disk.vmdk back.vmdk
    holds_vmdk back.vmdk holes.raw "and back"
done

label="once"
img create -q -f vmdk -o subformat=streamOptimized disk.vmdk 1M
vio disk.vmdk "write -P 1 512k 64k" "write -P 2 0 128k" "write -c -P 3 256k 64k" "write -z 704k 128k"
for command in "write -P 9 512k 64k" "write -P 9 0 1M" "write -c -P 9 64k 64k" "write -z 0 64k"; do
    fails "$command" "write failed: Input/output error" io -f vmdk disk.vmdk -c "$command"
    like "$(cat cmd.out)" "can be written once" "$command: the reason"
done
for command in "write -P 9 832k 4k" "write -z 256k 4k"; do
    fails "$command: part of a grain" "Invalid argument" io -f vmdk disk.vmdk -c "$command"
done
truncate -s 0 src.raw
truncate -s 1M src.raw
peer_io src.raw raw "write -P 1 512k 64k" "write -P 2 0 128k" "write -P 3 256k 64k" "write -P 9 128k 128k" "write -P 9 320k 192k"
peer_io src.raw raw "write -P 9 576k 448k"
vio disk.vmdk "write -P 9 128k 128k" "write -P 9 320k 192k" "write -P 9 576k 448k"
judged disk.vmdk "what was written first stays"
done_testing
