#!/bin/bash
# SPDX-License-Identifier: MIT
# Images on a block device: raw with its length, zeroes and discards, qcow2 through the compress filter with and without
# the host's cache, and no room at its end. Skipped where a loop device cannot be had.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io losetup

device=
truncate -s 8M backing.raw
device=$(losetup --find --show backing.raw 2>/dev/null) || skip_all "no loop device can be had"
trap 'losetup -d "$device" || true; tap_exit' EXIT
if ! timeout 10 dd if="$device" of=/dev/null bs=4k count=1 2>/dev/null; then
    skip_all "the loop device cannot be read"
fi

device_opts="driver=compress,file.driver=qcow2,file.file.driver=host_device,file.file.filename=$device"

label=raw
like "$(img info -f raw --output=json "$device")" '"virtual-size": 8388608' "its length"
truncate -s 8M model.raw
for command in "write -P 1 0 1M" "write -P 2 4097 511" "write -z 64k 64k" "write -z -u 256k 64k" \
    "write -P 3 8388607 1"; do
    io_run "$BLKSTACK_IO" -f raw "$device" -- "$command"
    model_io "$command"
    io_run "$BLKSTACK_IO" -n -f raw "$device" -- "${command/-P /-P 1}"
    model_io "${command/-P /-P 1}"
done
succeeds "every byte" img compare -f raw -F raw "$device" model.raw
succeeds "every byte, says the peer" qimg compare -f raw -F raw "$device" model.raw
io_run "$BLKSTACK_IO" -d unmap -f raw "$device" -- "discard 512k 128k" "read 0 512k" "flush"
fails "it keeps its length" "cannot be made shorter" img resize --shrink -f raw "$device" 4M
fails "a write past its end is refused" "." io -f raw "$device" -c "write 8M 4k"

for cache in writeback none; do
    label="qcow2, cache $cache"
    text_file text.raw 8388608
    succeeds "convert to it" img convert -n -t "$cache" -f raw -O raw text.raw "$device"
    succeeds "every byte of what was converted" cmp text.raw "$device"
    qimg create -q -f qcow2 -o cluster_size=64k "$device" 16M
    truncate -s 0 model.raw
    truncate -s 16M model.raw
    set -- "write -P 5 0 1M" "write -P 6 70000 3000" "write -z 512k 64k" "write -P 7 15M 1M" "read -P 6 70000 3000"
    io_run "$BLKSTACK_IO" -t "$cache" --image-opts "$device_opts" -- "$@"
    model_io "$@"
    same "qcow2:$device" model.raw "every byte"
    judge "$device" "the image"
done

label="no room"
random_file big.raw 16777216
fails "a write that does not fit fails" "No space left on device" io --image-opts "$device_opts" \
    -c "write -s big.raw 0 16M" -c flush
status=0
qimg check -f qcow2 "$device" >check.out 2>&1 || status=$?
num_ok "$status == 0 || $status == 3" "no errors, at most leaks"
succeeds "leaks are repaired" img check -r leaks -f qcow2 "$device"
judge "$device" "after the repair"
done_testing
