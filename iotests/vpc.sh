#!/bin/bash
# SPDX-License-Identifier: MIT
# VHD (vpc): created, read, written and converted as by the peer; what either program writes the other reads and
# rewrites.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/block-formats-lib.inc"
requires qemu-img qemu-io python3
FORMAT=vpc CREATE=subformat=dynamic

label=create
created_alike size=0 size=1 size=1000 size=64M size=519M size=33G size=127G size=136899993600 size=136899993601 size=2040G \
    size=3000G size=70000k,force_size=on size=1001,force_size=on size=1M,subformat=fixed size=1000,subformat=fixed,force_size=on
rm -f ours peers
qimg create -q -f vpc peers 64M
img create -q -f vpc ours 64M
is "$(file_bytes ours)" "$(file_bytes peers)" "the peer's layout"
if command -v vhdiinfo >/dev/null; then
    is "$(vhdiinfo ours | grep -v Identifier)" "$(vhdiinfo peers | grep -v Identifier)" "libvhdi sees the same"
fi

label="our image"
random_rounds "$BLKSTACK_IMG" 3
label="the peer's image"
random_rounds "$QEMU_IMG" 3
label="our fixed image"
CREATE=subformat=fixed
random_rounds "$BLKSTACK_IMG" 2
CREATE=subformat=dynamic

label=convert
converted model.raw
converted model.raw subformat=fixed

label=footers
rm -f disk
img create -q -f vpc disk 16M
io_run "$BLKSTACK_IO" -f vpc disk -- "write -P 1 3M 1k" "write -z 5M 5M" "write -P 2 12M 1M"
is "$(file_bytes disk)" $((2048 + 2 * (2097152 + 512) + 512)) "zeroes take no block"
succeeds "the footer is at the end" cmp <(head -c 512 disk) <(tail -c 512 disk)
is "$(img map -f vpc disk)" "$(qimg map -f vpc disk)" "map is as the peer's"

rm -f fixed
img create -q -f vpc -o subformat=fixed fixed 8M
io_run "$BLKSTACK_IO" -f vpc fixed -- "write -P 1 2M 64k"
is "$(img map -f vpc --output=json fixed)" "$(qimg map -f vpc --output=json fixed)" "map of a fixed disk: holes of the file are zeroes"

label="bits of others"
printf '\0\0\0\0' | dd of=disk bs=1 seek=2048 conv=notrunc status=none      # sectors of the first block that is there
io_run "$BLKSTACK_IO" -f vpc disk -- "write -P 3 3M 1k" "read -P 3 3M 1k"
is "$(od -An -tx1 -j 2048 -N 4 disk | tr -d ' ')" ffffffff "all sectors of a block that is written to are valid"
io_run "$QEMU_IO" -f vpc disk -- "read -P 3 3M 1k" "read -P 2 12M 1M"

label=sizes
for creator in 'win ' 'vpc ' 'vs  ' 'qemu' 'qem2' 'd2v ' 'CTXS' 'vbox'; do
    python3 -c '
import struct, sys
with open("disk", "r+b") as file:
    footer = bytearray(file.read(512))
    footer[28:32] = sys.argv[1].encode()
    footer[48:56] = struct.pack(">Q", 15 << 20)
    footer[64:68] = bytes(4)
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xffffffff)
    file.seek(0)
    file.write(footer)
    file.seek(-512, 2)
    file.write(footer)' "$creator"
    is "$(io -r -f vpc -c length disk)" "$(qio -r -f vpc -c length disk)" "made by '$creator'"
done
for calc in chs current_size; do
    opts=driver=vpc,file.driver=file,file.filename=disk,force_size_calc=$calc
    is "$(io -r --image-opts "$opts" -c length)" "$(qio -r --image-opts "$opts" -c length)" "force_size_calc=$calc"
done

label=refusals
fails "compressed clusters" "[Cc]ompress" img convert -c -f vpc -O vpc disk other
fails "the compress filter" "vpc" io --image-opts driver=compress,file.driver=vpc,file.file.driver=file,file.file.filename=disk \
    -c 'write 0 1M'
fails "resizing" "does not support resize" img resize -f vpc disk 32M
fails "measuring" "does not support size measurement" img measure -O vpc --size 1M
status=0
img check -f vpc disk >cmd.out 2>&1 || status=$?
is "$status" 63 "checking"
succeeds "it is found out to be VHD" img info disk
like "$(cat cmd.out)" "file format: vpc" "by its cookie"
done_testing
