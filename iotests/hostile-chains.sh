#!/bin/bash
# SPDX-License-Identifier: MIT
# Backing chains that loop, also through links and other spellings; chains of 10,000 images; names that are empty or
# not ended: one message, in bounded time and memory.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img python3 prlimit
# timeout: 300

# COUNT images PREFIX0.qcow2.. each backed by the next; the last one by LAST.
chain() {       # PREFIX COUNT LAST
    python3 - "$@" <<'PY'
import struct, sys
prefix, count, last = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for i in range(count):
    name = (last if i + 1 == count else f'{prefix}{i + 1}.qcow2').encode()
    head = bytearray(open('base.qcow2', 'rb').read(65536))
    # A table of one cluster suffices, so that 10,000 images need little space: the rest of each is a hole.
    head[8:20] = struct.pack('>QI', 512, len(name))
    head[112:128] = struct.pack('>II', 0xe2792aca, 5) + b'qcow2\0\0\0'
    head[128:136] = bytes(8)
    head[512:512 + len(name)] = name
    with open(f'{prefix}{i}.qcow2', 'wb') as out:
        out.write(head[:1536])
        out.seek(65536)
        out.write(struct.pack('>Q', 131072))
        out.seek(131072)
        out.write(struct.pack('>4H', 1, 1, 1, 1))
        out.truncate(262144)
PY
}

loops() {       # TEXT FILE
    local sum

    sum=$(sha256sum <"$2")
    for format in "" "-f qcow2"; do
        # shellcheck disable=SC2086 # words
        {
            ends 1 1 "$1: map $format" "$BLKSTACK_IMG" map $format "$2"
            like "$(cat cmd.out)" 'loops' "$1: map $format: why"
            ends 1 1 "$1: info --backing-chain $format" "$BLKSTACK_IMG" info --backing-chain $format "$2"
            ends 1 1 "$1: read $format" "$BLKSTACK_IO" -r $format -c "read 0 64k" "$2"
            ends 1 1 "$1: write $format" "$BLKSTACK_IO" $format -c "write 0 64k" "$2"
            ends 0 40 "$1: info $format" "$BLKSTACK_IMG" info $format "$2"
            ends 0 9 "$1: check $format" "$BLKSTACK_IMG" check $format "$2"
        }
    done
    is "$(sha256sum <"$2")" "$sum" "$1: the image is as it was"
}

qimg create -q -f qcow2 base.qcow2 1M

chain self 1 self0.qcow2
loops "itself" self0.qcow2
chain dotted 1 ./dotted0.qcow2
loops "itself, spelt otherwise" dotted0.qcow2
chain two 2 two0.qcow2
loops "two images" two0.qcow2
chain ten 10 ten7.qcow2
loops "a loop far below" ten0.qcow2
chain hard 3 hard-link.qcow2
ln hard0.qcow2 hard-link.qcow2
loops "a hard link" hard0.qcow2
chain soft 3 soft-link.qcow2
ln -s soft1.qcow2 soft-link.qcow2
ends 1 1 "a symbolic link" "$BLKSTACK_IMG" map -f qcow2 soft0.qcow2
like "$(cat cmd.out)" loops "a symbolic link: why"
ends 1 1 "a symbolic link, detected" "$BLKSTACK_IMG" map soft0.qcow2
ln -s round2.qcow2 round1.qcow2
ln -s round1.qcow2 round2.qcow2
chain links 1 round1.qcow2
ends 1 1 "links that loop" "$BLKSTACK_IMG" map -f qcow2 links0.qcow2

chain deep 10000 base.qcow2
ends 1 1 "10,000 images: map" "$BLKSTACK_IMG" map -f qcow2 deep0.qcow2
like "$(cat cmd.out)" 'chain is longer than [0-9]+ images' "10,000 images: map: why"
ends 1 1 "10,000 images: info --backing-chain" "$BLKSTACK_IMG" info --backing-chain -f qcow2 deep0.qcow2
ends 1 1 "10,000 images: read" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" deep0.qcow2
ends 1 2 "10,000 images: a new one on top" "$BLKSTACK_IMG" create -f qcow2 -b deep0.qcow2 -F qcow2 top.qcow2
ends 0 40 "10,000 images: info" "$BLKSTACK_IMG" info -f qcow2 deep0.qcow2
ends 0 3 "the last 100: read" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 0 0 64k" deep9900.qcow2
rm -f deep*.qcow2

qimg create -q -f qcow2 new.qcow2 1M
ends 1 1 "an overlay of itself is not made" "$BLKSTACK_IMG" create -f qcow2 -b new.qcow2 -F qcow2 new.qcow2
is "$(virtual_size new.qcow2)" 1048576 "and the image is as it was"
ends 1 1 "an empty backing name" "$BLKSTACK_IO" -c "read 0 64k" --image-opts \
    driver=qcow2,file.filename=new.qcow2,backing.driver=qcow2,backing.file.filename=
done_testing
