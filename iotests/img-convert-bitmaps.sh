#!/bin/bash
# SPDX-License-Identifier: MIT
# convert --bitmaps: what is copied, what is refused and what is left out, as the peer does it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/bitmap-lib.inc"
. "$(dirname "$0")/peer-lib.inc"

qimg create -q -f qcow2 a.qcow2 8M
qimg bitmap --add a.qcow2 b0
qimg bitmap --add -g 512 a.qcow2 b1
qimg bitmap --add -g 2M a.qcow2 all
peer_io a.qcow2 qcow2 "write 0 100k" "write 3M 1"
qimg bitmap --add --disable --merge b1 -g 4k a.qcow2 off
qimg create -q -f qcow2 large.qcow2 16M
qimg create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2
qimg create -q -f raw r.raw 8M
twin_copy a.qcow2 large.qcow2 over.qcow2 r.raw

copied() {      # FILE
    local name

    is "$(cd ours && qimg info "$1" | grep -v size)" "$(cd peer && qimg info "$1" | grep -v size)" "$1: the same list"
    for name in b0 b1 all off; do
        is "$(dirty "ours/$1" $name)" "$(dirty "peer/$1" $name)" "$1: the same bits in $name"
    done
    judge "ours/$1"
}

for options in "" "-o cluster_size=512" "-c -o compression_type=zstd,cluster_size=2M"; do
    label=$options
    # shellcheck disable=SC2086
    twin_ok convert --bitmaps -O qcow2 $options a.qcow2 copy.qcow2
    copied copy.qcow2
done
label=
twin_ok convert --bitmaps -n -O qcow2 a.qcow2 over.qcow2
copied over.qcow2
twin_fails "Failed to create bitmap .*already exists" convert --bitmaps -n -O qcow2 a.qcow2 over.qcow2
twin_fails "Failed to populate bitmap .*different sizes" convert --bitmaps -n -O qcow2 a.qcow2 large.qcow2
twin_fails "does not support bitmaps" convert --bitmaps -O raw a.qcow2 copy.raw
twin_fails "does not support bitmaps" convert --bitmaps -O qcow2 -o compat=0.10 a.qcow2 copy.qcow2
twin_fails "Source lacks bitmap support" convert --bitmaps -f raw -O qcow2 r.raw copy.qcow2
twin_fails "only possible with single source" convert --bitmaps -O qcow2 a.qcow2 a.qcow2 copy.qcow2
twin_fails "requires --bitmaps" convert --skip-broken-bitmaps -O qcow2 a.qcow2 copy.qcow2
twin_ok convert --bitmaps -O qcow2 large.qcow2 copy.qcow2

label="inconsistent"
for directory in ours peer; do      # the flags of the first entry
    python3 - $directory/a.qcow2 <<'PYTHON'
import struct, sys
with open(sys.argv[1], 'r+b') as image:
    head = image.read(65536)
    offset = struct.unpack('>Q', head[head.index(struct.pack('>II', 0x23852875, 24)) + 24:][:8])[0]
    image.seek(offset + 12)
    image.write(struct.pack('>I', 3))
PYTHON
done
twin_fails "Cannot copy inconsistent bitmap 'b0'" convert --bitmaps -O qcow2 a.qcow2 copy.qcow2
twin convert --bitmaps --skip-broken-bitmaps -O qcow2 a.qcow2 copy.qcow2
like "$twin_errors" "Skipping inconsistent bitmap 'b0'" "a warning"
is "$(dirty ours/copy.qcow2 b1)" "0+102400 3145728+512" "the others are copied"
like "$(img info --output=json ours/copy.qcow2 | tr -d ' \n')" '"name":"b1"' "info lists those"
isnt "$(img info ours/copy.qcow2 | sed -n '/name: b0/p')" "name: b0" "and not the broken one"
twin_ok measure -O qcow2 a.qcow2
done_testing
