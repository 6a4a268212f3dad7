#!/bin/bash
# SPDX-License-Identifier: MIT
# VDI: created, read, written, converted and checked as by the peer; what either program writes the other reads and
# rewrites.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/block-formats-lib.inc"
requires qemu-img qemu-io python3
FORMAT=vdi CREATE=static=off

label=create
created_alike size=0 size=1 size=1000 size=64M size=1000G size=5M,static=on size=512T block_size=64k,size=1M
img create -q -f vdi -o static=on ours 5M
sound ours "static"
io_run "$BLKSTACK_IO" -f vdi ours -- "write -P 1 3M 64k"
is "$(img map -f vdi --output=json ours)" "$(qimg map -f vdi --output=json ours)" "all blocks of a static image have a place, most in holes"
num_ok "$(img map -f vdi --output=json ours | grep -c '"zero": true, "data": true') == 2" "map tells them"

label="our image"
random_rounds "$BLKSTACK_IMG" 4
label="the peer's image"
random_rounds "$QEMU_IMG" 3

label=convert
converted model.raw
converted model.raw static=on

label=space
rm -f disk
img create -q -f vdi disk 16M
io_run "$BLKSTACK_IO" -f vdi disk -- "write -P 1 3M 1k" "write -z 5M 5M" "write -P 2 12M 2M"
is "$(file_bytes disk)" $((1024 + 3 * 1048576)) "zeroes take no block"
is "$(img map -f vdi disk)" "$(qimg map -f vdi disk)" "map is as the peer's"
io_run "$BLKSTACK_IO" -f vdi -d unmap disk -- "write -zu 12M 1M" "discard 13M 1M" "read -P 0 12M 2M" "read -P 1 3M 1k"
num_ok "$(file_blocks disk) < 1048576" "what is discarded gives its space back"
sound disk "discarded"

label=refusals
fails "compressed clusters" "[Cc]ompress" img convert -c -f vdi -O vdi disk other
fails "the compress filter" "vdi" io --image-opts driver=compress,file.driver=vdi,file.file.driver=file,file.file.filename=disk \
    -c 'write 0 1M'
fails "resizing" "does not support resize" img resize -f vdi disk 32M
fails "measuring" "does not support size measurement" img measure -O vdi --size 1M
status=0
img check -r all -f vdi disk >cmd.out 2>&1 || status=$?
is "$status" 63 "repairing"
succeeds "it is found out to be VDI" img info disk
like "$(cat cmd.out)" "file format: vdi" "by its signature"
done_testing
