#!/bin/bash
# SPDX-License-Identifier: MIT
# A bitmap that cannot be stored: the command says so, the image has the bitmaps that it had, and what was asked for can be
# asked for again. A bitmap that cannot be read does not keep the guest from writing, and is read again when it is needed.
# Extra data of a bitmap stays.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/bitmap-lib.inc"

qimg create -q -f qcow2 base.qcow2 4M
qimg bitmap --add -g 4k base.qcow2 b0
qimg bitmap --add base.qcow2 b1
peer_io base.qcow2 qcow2 "write 0 100k"

# Runs img bitmap on disk.qcow2 with a fault below.
with_fault() {  # RULE ARGUMENTS... BITMAP
    local rule=$1

    shift
    img bitmap "${@:1:$#-1}" --image-opts \
        "driver=qcow2,file.driver=fault,file.image.driver=file,file.image.filename=disk.qcow2,$rule" "${*: -1}"
}

inject=file.inject-error.0
for rule in "$inject.event=refblock_update,$inject.errno=28" \
    "$inject.event=pwritev,$inject.iotype=write,$inject.errno=28" \
    "$inject.event=pwritev,$inject.iotype=write,$inject.sector=0,$inject.errno=5" \
    "$inject.event=pwritev,$inject.iotype=flush,$inject.errno=5"; do
    for action in "--add new" "--clear b0" "--merge b0 b1" "--remove b1"; do
        label="${rule//file.inject-error.0./} $action"
        read -r -a words <<<"$action"
        cp base.qcow2 disk.qcow2
        if with_fault "$rule" "${words[@]}" >cmd.out 2>&1; then
            not_ok "the fault is met"
        else
            like "$(cat cmd.out)" "Could not store the bitmaps" "the command says so"
            is "$(flags disk.qcow2 b0)/$(flags disk.qcow2 b1)" "auto/auto" "the old bitmaps are there"
            is_dirty disk.qcow2 b0 0+102400 "with their bits"
        fi
        succeeds "again" img bitmap "${words[@]:0:${#words[@]}-1}" disk.qcow2 "${words[-1]}"
        img check -q -r leaks disk.qcow2 2>/dev/null || true
        judge disk.qcow2 "afterwards"
    done
done

label="the bits cannot be read"
cp base.qcow2 disk.qcow2
# The host offset of the bits of the first bitmap in disk.qcow2 that entry N of its table refers to.
bits_offset() { # N
    python3 - "$1" <<'PYTHON'
import struct, sys
data = open('disk.qcow2', 'rb').read()
directory = struct.unpack('>Q', data[data.index(struct.pack('>II', 0x23852875, 24)) + 24:][:8])[0]
entry = struct.unpack('>Q', data[directory:directory + 8])[0] + 8 * int(sys.argv[1])
print(struct.unpack('>Q', data[entry:entry + 8])[0])
PYTHON
}
offset=$(bits_offset 0)
graph="driver=qcow2,file.driver=fault,file.image.driver=file,file.image.filename=disk.qcow2"
graph="$graph,$inject.event=none,$inject.iotype=read,$inject.sector=$((offset / 512))"
io_run "$BLKSTACK_IO" --image-opts "$graph" -- "write -P 1 1M 64k" flush
like "$(cat io.out)" "Could not read the bitmap 'b0'.*read again when it is needed" "a message"
like "$(cat io.out)" "not all dirty bitmaps could be stored.*Could not read the bitmap 'b0'" "another one at close"
is "$(flags disk.qcow2 b0)/$(flags disk.qcow2 b1)" "in-use auto/auto" "it is not trusted; the other one is stored"
is_dirty disk.qcow2 b1 "0+131072 1048576+65536" "and right"
judge disk.qcow2

label="the bits cannot be read once"
rm -f disk.qcow2
qimg create -q -f qcow2 -o cluster_size=4k disk.qcow2 40M
qimg bitmap --add -g 512 disk.qcow2 b0          # 16 MiB to a cluster of bits
peer_io disk.qcow2 qcow2 "write 0 64k" "write 20M 64k"
offset=$(bits_offset 1)
isnt "$offset" 0 "the second cluster of bits is there"
graph="driver=qcow2,file.driver=fault,file.image.driver=file,file.image.filename=disk.qcow2"
graph="$graph,$inject.event=none,$inject.iotype=read,$inject.once=on,$inject.sector=$((offset / 512))"
io_run "$BLKSTACK_IO" --image-opts "$graph" -- "write -P 1 30M 64k" "truncate 48M" "write -P 1 47M 64k"
like "$(cat io.out)" "read again when it is needed" "a message"
is "$(grep "could not be stored" io.out || true)" "" "none at close"
is "$(flags disk.qcow2 b0)" auto "it is stored"
is_dirty disk.qcow2 b0 "0+65536 20971520+65536 31457280+65536 49283072+65536" "with what was written before, then and later"
judge disk.qcow2

label="extra data"
for known in 0 4; do
    cp base.qcow2 disk.qcow2
    python3 - $known <<'PYTHON'
import struct, sys
with open('disk.qcow2', 'r+b') as image:
    data = image.read()
    directory = struct.unpack('>Q', data[data.index(struct.pack('>II', 0x23852875, 24)) + 24:][:8])[0]
    first, second = data[directory:directory + 32], data[directory + 32:directory + 64]
    first = first[:12] + struct.pack('>I', 2 | int(sys.argv[1])) + first[16:20] + struct.pack('>I', 5) + b'EXTRA' + first[24:27]
    entries = first.ljust(32, b'\0') + second
    image.seek(directory)
    image.write(entries)
PYTHON
    if [ $known = 0 ]; then
        fails "not used without the flag that allows it" "Bitmap 'b0' is inconsistent" \
            "$BLKSTACK_IMG" bitmap --clear disk.qcow2 b0
    else
        succeeds "used with the flag that allows it" img bitmap --clear disk.qcow2 b0
    fi
    pio disk.qcow2 "write 2M 64k"
    img bitmap --add disk.qcow2 another
    is "$(grep -c EXTRA disk.qcow2)" 1 "kept (flags $known)" || true
    succeeds "found by check" img check -q disk.qcow2
    succeeds "removed" img bitmap --remove disk.qcow2 b0
    is_dirty disk.qcow2 b1 "0+131072 2097152+65536" "the other one is right"
    judge disk.qcow2
done
done_testing
