#!/bin/bash
# SPDX-License-Identifier: MIT
# A guest that may write all of its raw disk puts a qcow2 header at its start: never through a disk that was only
# detected as raw, so that the next detection sees what the first saw. With raw given, the disk is the guest's.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img python3

refused() {     # TEXT COMMAND...
    local text=$1

    shift
    fails "$text: refused" "disk\.raw.*would turn the disk into a qcow2 image was refused, since its format 'raw' was only \
detected; give the format 'raw'" timeout 20 "$@"
    is "$(grep -c 'was refused' cmd.out)" 1 "$text: the reason is given once"
    sed '/^WARNING: No format was given/,+1d' cmd.out >rest.out       # two lines, where it was only detected
    is "$(wc -l <rest.out)" 2 "$text: beside it only the write's error"
    like "$(tail -n 1 cmd.out)" 'write failed: Operation not permitted' "$text: which is the peer's"
    is "$(sha256sum <disk.raw)" "$sum" "$text: the disk is as it was"
}

echo secret >host.img
qimg create -q -f qcow2 -u -b host.img -F raw evil.qcow2 1M
printf 'QFI\xfb' >magic
head -c 512 evil.qcow2 >sector
truncate -s 4M disk.raw
sum=$(sha256sum <disk.raw)

refused "the first sector" "$BLKSTACK_IO" -c "write -s sector 0 512" disk.raw
refused "the first 64 KiB" "$BLKSTACK_IO" -c "write -s evil.qcow2 0 64k" disk.raw
refused "the magic alone" "$BLKSTACK_IO" -c "write -s magic 0 4" disk.raw
refused "with driver options but no format" "$BLKSTACK_IO" -c "write -s sector 0 512" --image-opts \
    file.driver=file,file.filename=disk.raw
refused "below a filter" "$BLKSTACK_IO" -c "write -s sector 0 512" --image-opts \
    driver=copy-on-read,file.file.driver=file,file.file.filename=disk.raw

io -c "write -P 5 0 64k" -c "write -P 6 64k 64k" -c "write -z 1k 1k" disk.raw >cmd.out
like "$(cat cmd.out)" 'wrote 65536' "other data may be written there"
io -r -f raw -c "read -P 5 0 1k" -c "read -P 0 1k 1k" -c "read -P 5 2k 62k" disk.raw >cmd.out
is "$(grep -c 'Pattern verification failed' cmd.out || true)" 0 "and is there"
sum=$(sha256sum <disk.raw)
refused "over data" "$BLKSTACK_IO" -c "write -s sector 0 512" disk.raw
like "$(img info disk.raw)" 'file format: raw' "still raw"
io -c "write -s sector 4k 512" disk.raw >cmd.out
is "$(dd if=disk.raw bs=512 skip=8 count=1 status=none | sha256sum)" "$(sha256sum <sector)" \
    "a header elsewhere is data like any other"

io -f raw -c "write -s sector 0 512" disk.raw >cmd.out
is "$(head -c 512 disk.raw | sha256sum)" "$(sha256sum <sector)" "with raw given, the guest may write it"
is "$(img info -f raw disk.raw | sed -n 's/^file format: //p')" raw "and with raw given it stays raw"
done_testing
