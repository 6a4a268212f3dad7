#!/bin/bash
# SPDX-License-Identifier: MIT
# convert to a pipe: the image holds the source's bytes and is clean; a stream that ends early, for any reason, is no image.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

text_file t.raw 2000000 1
random_file r.raw 300000
cat t.raw r.raw >mixed.raw
truncate -s 12M mixed.raw
dd if=r.raw of=mixed.raw bs=1M seek=9 conv=notrunc status=none
qimg create -q -f qcow2 base.qcow2 8M
peer_io base.qcow2 qcow2 "write -P 1 0 1M" "write -z 5M 1M"
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2 10M
peer_io over.qcow2 qcow2 "write -P 3 4M 64k" "write -c -P 4 6M 64k" "write -z 0 64k" "write -z 512k 64k"
truncate -s 0 empty.raw

piped() {       # SOURCE OPTIONS...: into out.qcow2, through a pipe
    local source=$1

    shift
    rm -f out.qcow2
    img convert -f "$(format_of "$source")" -O qcow2 "$@" "$source" - | cat >out.qcow2
    same "$source" out.qcow2 "$source $*: the same bytes"
    judge out.qcow2 "$source $*"
}

for options in "" -c "-c -o compression_type=zstd" "-c -o cluster_size=2M" "-c -o cluster_size=4k,refcount_bits=64" \
    "-o cluster_size=512,refcount_bits=64" "-c -o cluster_size=1k,refcount_bits=1" "-c -o compat=0.10" "-S 0" \
    "-c -o cluster_size=512" "-c -o extended_l2=on" "-o lazy_refcounts=on"; do
    # shellcheck disable=SC2086
    piped mixed.raw $options
done
piped over.qcow2
piped over.qcow2 -c
piped empty.raw -c
piped over.qcow2 -B base.qcow2 -F qcow2
piped over.qcow2 -c -o compat=0.10 -B base.qcow2 -F qcow2
img convert -f qcow2 -O raw over.qcow2 - | cat >out.raw
same over.qcow2 out.raw "a raw image"
img convert -c -f raw -O qcow2 mixed.raw file.qcow2
img convert -c -f raw -O qcow2 mixed.raw - | cat >out.qcow2
# The file ends within a cluster, and where depends on what was compressed first; the pipe fills its last clusters.
num_ok "$(file_bytes out.qcow2) <= $(file_bytes file.qcow2) + 3 * 65536" \
    "as small as a file: $(file_bytes out.qcow2) and $(file_bytes file.qcow2) bytes"
img convert -f raw -O qcow2 mixed.raw - >direct.qcow2
judge direct.qcow2 "into a file"

# The peer takes what is missing from a file for zeroes when it opens an image, but not when it checks one.
unsound() {     # FILE DESCRIPTION
    if qimg check -f qcow2 "$1" >check.out 2>&1; then not_ok "$2: the peer's check"; else ok "$2: the peer's check"; fi
}

head -c 1870336 t.raw >odd.raw
img convert -f raw -O qcow2 odd.raw - >odd.qcow2
qimg resize -q odd.qcow2 2M
truncate -s 2M odd.raw
same odd.raw odd.qcow2 "an odd length: what is behind the end is zeroes"
head -c 4M /dev/zero >zero.raw
img convert -f raw -O qcow2 zero.raw - >zero.qcow2
num_ok "$(file_bytes zero.qcow2) < 1048576" "zeroes that must be read to be known take no space"

label="used again"
pio out.qcow2 "write -P 7 1M 200k" "write -c -P 8 4M 64k" "discard 9M 128k"
judge out.qcow2 "written to"

label="cut off"
for bytes in 0 512 65536 200000 $(($(file_bytes out.qcow2) / 2)); do
    img convert -f raw -O qcow2 mixed.raw - 2>cut.err | head -c "$bytes" >cut.qcow2 || true
    fails "$bytes bytes: by us" "" img info -f qcow2 cut.qcow2
    unsound cut.qcow2 "$bytes bytes"
done
fails "nobody reads" "standard output" bash -c "set -o pipefail; '$BLKSTACK_IMG' convert -f raw -O qcow2 mixed.raw - | true"

label="a source that cannot be read"
bad="json:{'driver':'raw','file':{'driver':'blkdebug','image':{'driver':'file','filename':'mixed.raw'},"
bad+="'inject-error':[{'event':'none','iotype':'read','sector':9,'errno':5}]}}"
fails "the first pass" "Input/output error" bash -c "'$BLKSTACK_IMG' convert -O qcow2 \"$bad\" - >cut.qcow2"
is "$(file_bytes cut.qcow2)" 0 "nothing is written"

label="a source that changes"
mkfifo fifo
img convert -U -f raw -O qcow2 mixed.raw - >fifo 2>changed.err &
writer=$!
exec 5<fifo
head -c 65536 <&5 >changed.qcow2
dd if=r.raw of=mixed.raw bs=1M seek=5 conv=notrunc status=none
dd if=r.raw of=mixed.raw bs=1M seek=7 conv=notrunc status=none
cat <&5 >>changed.qcow2
exec 5<&-
status=0
wait "$writer" || status=$?
is "$status" 1 "is an error"
like "$(cat changed.err)" "source has changed" "with its reason"
fails "no image for us" "" img info -f qcow2 changed.qcow2
unsound changed.qcow2 "what was written"

label=refused
fails "an existing target" "cannot be used" img convert -n -O qcow2 mixed.raw -
fails "bitmaps" "cannot be used" img convert --bitmaps -O qcow2 over.qcow2 -
fails "progress" "cannot be used" img convert -p -O qcow2 mixed.raw -
fails "preallocation" "preallocation" img convert -O qcow2 -o preallocation=full mixed.raw -
fails "a wrong option" "nosuch" img convert -O qcow2 -o nosuch=1 mixed.raw -
is "$(find . -name -)" "" "no file of the name '-'"
done_testing
