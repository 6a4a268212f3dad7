#!/bin/bash
# SPDX-License-Identifier: MIT
# Version 1 of qcow, as the peer writes it: plain, compressed, with backing files, in odd sizes; read as by the peer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/old-formats-lib.inc"
any_backend
requires qemu-img qemu-io python3

text_file text.raw 1M
random_file random.raw 400k
cat text.raw random.raw >source.raw
truncate -s 3M source.raw
cat text.raw >>source.raw
truncate -s 4300800 source.raw

qimg convert -f raw -O qcow source.raw plain.qcow
as_the_peer qcow plain.qcow "plain"
same_map qcow plain.qcow "plain"
libyal_reads qcow plain.qcow ours.raw "plain"

qimg convert -c -f raw -O qcow source.raw packed.qcow || true     # 7.2 makes the image, and ends with 1 all the same
succeeds "the peer compresses" qimg compare -f raw -F qcow source.raw packed.qcow
as_the_peer qcow packed.qcow "compressed"
libyal_reads qcow packed.qcow ours.raw "compressed"
same_map qcow packed.qcow "compressed"
peer_io packed.qcow qcow "write -P 7 4k 4k" "write -P 8 40000 5000"
as_the_peer qcow packed.qcow "compressed and plain"
same_map qcow packed.qcow "compressed and plain"

qimg create -q -f qcow -b packed.qcow -F qcow over.qcow
peer_io over.qcow qcow "write -P 9 100k 3k" "write -P 10 2M 1k" "write -P 11 4300288 512"
as_the_peer qcow over.qcow "overlay with clusters of 512 bytes"
same_map qcow over.qcow "overlay"

qimg create -q -f qcow2 -b over.qcow -F qcow top.qcow2
peer_io top.qcow2 qcow2 "write -P 12 1M 64k"
as_the_peer qcow2 top.qcow2 "the base of a qcow2 image"
pio top.qcow2 "write -P 13 3M 100k" "read -P 9 100k 3k" "read -P 12 1M 64k"
qimg convert -f qcow2 -O raw top.qcow2 top.raw
same top.qcow2 top.raw "written by us above it"

qimg create -q -f qcow empty.qcow 2G      # the peer's map of a larger one takes seconds
same_map qcow empty.qcow "empty"
qimg create -q -f qcow empty.qcow 100G
img map -f qcow empty.qcow >map.out
is "$(wc -l <map.out)" 1 "a large empty one: no line but the heading"

# What QEMU calls AES: refused where data is needed, told where it is not.
printf 'secret' >key
qimg create -q -f qcow --object secret,id=s,file=key -o encrypt.format=aes,encrypt.key-secret=s locked.qcow 1M
fails "encrypted: reading" "encrypted \(AES\)" io -r -f qcow -c "read 0 512" locked.qcow
succeeds "encrypted: info" img info locked.qcow
like "$(cat cmd.out)" "encrypted: yes" "encrypted: says so"
only_read qcow plain.qcow
qimg create -q -f qcow checked.qcow 1M
for repair in "" "-r leaks" "-r all"; do
    for program in "$QEMU_IMG" "$BLKSTACK_IMG"; do
        # shellcheck disable=SC2086  # words
        is "$({ "$program" check $repair -f qcow checked.qcow 2>&1 || echo $?; } | sed -e 's/^[a-z]*-img: //' -e '/^#/d' | xargs)" \
            "This image format does not support checks 63" "check $repair, as the peer: ${program##*/}"
    done
done
done_testing
