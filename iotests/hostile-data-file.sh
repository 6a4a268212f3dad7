#!/bin/bash
# SPDX-License-Identifier: MIT
# External data files: entries that lie about where in it their data is, names that cannot be, a data file that is missing,
# cut off, or the image itself, and the feature bit where there should be none.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_data_base
refused_at_open data-file-header
found_by_check data-file-entries
for name in elsewhere far unaligned compressed; do
    new_case data-file-entries "$name"
    ends 1 2 "$name: its cluster is not read" "$BLKSTACK_IO" -r -f qcow2 -c "read 64k 4k" disk.qcow2
    ends 0 2 "$name: its neighbour is" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 3 0 64k" disk.qcow2
    ends 1 2 "$name: nor written" "$BLKSTACK_IO" -f qcow2 -c "write 64k 4k" disk.qcow2
done
cmp -s data.raw <(head -c 1M /dev/zero | tr '\0' '\3'; head -c 63M /dev/zero) && same=yes || same=no
is "$same" yes "the data file is as it was"
new_case data-file-entries not-copied
succeeds "a lost flag is repaired" "$BLKSTACK_IMG" check -q -r all -f qcow2 disk.qcow2
judge disk.qcow2 "repaired"
found_by_check data-file-bit

label=open
opens() {       # CASE REGEX: info and check do; whatever needs the data says why it does not
    new_case data-file-open "$1"
    ends 0 30 "$1: info" "$BLKSTACK_IMG" info -f qcow2 disk.qcow2
    ends 0 30 "$1: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    ends 1 1 "$1: read" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
    like "$(cat cmd.out)" "$2" "$1: the reason"
    ends 1 1 "$1: write" "$BLKSTACK_IO" -f qcow2 -c "write 0 64k" disk.qcow2
    ends 1 1 "$1: map" "$BLKSTACK_IMG" map -f qcow2 disk.qcow2
    unchanged "$1"
}
opens missing "Could not open data file 'missing.raw'.*No such file"
opens itself "is the image itself"
opens unnamed "does not name its data file: give the option 'data-file'"
image_opts=driver=qcow2,file.filename=disk.qcow2,data-file.filename
succeeds "the option names it" "$BLKSTACK_IO" -r --image-opts "$image_opts=data.raw" -c "read -P 3 0 1M"
ends 1 2 "the option names the image" "$BLKSTACK_IO" --image-opts "$image_opts=disk.qcow2" -c "write 0 64k"

label="cut off"
cp base.qcow2 disk.qcow2
truncate -s 100k data.raw
succeeds "what is behind its end reads as zeroes" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 3 0 100k" -c "read -P 0 100k 1M" disk.qcow2
succeeds "and can be written" "$BLKSTACK_IO" -f qcow2 -c "write -P 4 512k 64k" -c "read -P 4 512k 64k" -c "read -P 0 448k 64k" \
    disk.qcow2
done_testing
