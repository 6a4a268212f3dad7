#!/bin/bash
# SPDX-License-Identifier: MIT
# Payloads that ask for memory: a zstd frame with a window of 2 GiB, and thousands of clusters of 2 MiB from one small
# file. Reading, checking and converting them stays within 512 MiB of address space.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3 prlimit
# timeout: 300
if nm "$BLKSTACK_IMG" | grep -qE '__asan_init|__tsan_init'; then
    skip_all "a sanitizer needs more address space than the bound"
fi

small() {       # STATUS TEXT COMMAND...
    local want=$1 text=$2 status=0

    shift 2
    timeout 60 prlimit --as=536870912 "$@" >cmd.out 2>&1 || status=$?
    is "$status" "$want" "$text"
    num_ok "$(wc -l <cmd.out) <= 36" "$text: few words"
}

payload() {     # prints the host offset of the payload of guest offset 0
    python3 -c 'import struct
data = open("disk.qcow2", "rb").read()
l1 = struct.unpack_from(">Q", data, 40)[0]
l2 = struct.unpack_from(">Q", data, l1)[0] & 0xfffffffffffe00
bits = 62 - (struct.unpack_from(">I", data, 20)[0] - 8)
print(struct.unpack_from(">Q", data, l2)[0] & ((1 << bits) - 1))'
}

# Frame header: no checksum, no content size, window byte; then one block of one repeated byte.
frame() {       # WINDOW-BYTE BYTES
    python3 -c 'import struct, sys
window, left = int(sys.argv[1]), int(sys.argv[2])
out = b"\x28\xb5\x2f\xfd" + bytes([0, window])
while left > 0:
    n = min(left, 131072)
    left -= n
    out += struct.pack("<I", (left == 0) | 1 << 1 | n << 3)[:3] + b"\x07"
sys.stdout.buffer.write(out)' "$@"
}

COMPRESSION=zstd CLUSTER=2097152
new_image 64M
peer_io disk.qcow2 qcow2 "write -c -P 7 0 2M"
# Windows are 2^(10 + byte / 8): 2 MiB, which a cluster may need, and 2 GiB and more.
for window in 88 168 248; do
    frame "$window" 2097152 >payload.zst
    dd if=payload.zst of=disk.qcow2 bs=1 seek="$(payload)" conv=notrunc status=none
    sum=$(sha256sum <disk.qcow2)
    # Decoding into a cluster at once needs no window, so that only what the library forbids fails.
    status=$((window > 168))
    small "$status" "window byte $window: read" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 7 0 64k" disk.qcow2
    is "$(grep -c 'Pattern verification' cmd.out || true)" 0 "window byte $window: no wrong data"
    small $((status * 2)) "window byte $window: check" "$BLKSTACK_IMG" check -f qcow2 --data disk.qcow2
    small "$status" "window byte $window: convert" "$BLKSTACK_IMG" convert -f qcow2 -O raw disk.qcow2 out.raw
    is "$(sha256sum <disk.qcow2)" "$sum" "window byte $window: the image is as it was"
done

# A frame that holds 64 MiB is one that decodes to more than its cluster.
frame 88 67108864 >payload.zst
new_image 64M
peer_io disk.qcow2 qcow2 "write -c -P 7 0 2M" "write -c -P 7 2M 2M" "write -c -P 7 4M 2M"
dd if=payload.zst of=disk.qcow2 bs=1 seek="$(payload)" conv=notrunc status=none
small 1 "a payload of 64 MiB: read" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
small 2 "a payload of 64 MiB: check" "$BLKSTACK_IMG" check -f qcow2 --data disk.qcow2

# 4096 clusters, 8 GiB, that share one payload of a few bytes.
bomb() {
    local i status=0
    local -a requests=()

    label="bomb $COMPRESSION"
    for i in {1..16}; do
        requests+=(-c "aio_read -q -P 7 $((i * 4))M 4M")
    done
    requests+=(-c aio_flush)
    new_image 8G
    peer_io disk.qcow2 qcow2 "write -c -P 7 0 2M"
    python3 -c 'import struct
with open("disk.qcow2", "r+b") as image:
    image.seek(40)
    image.seek(struct.unpack(">Q", image.read(8))[0])
    l2 = struct.unpack(">Q", image.read(8))[0] & 0xfffffffffffe00
    image.seek(l2)
    image.seek(l2)
    entry = image.read(8)
    image.seek(l2)
    image.write(entry * 4096)'
    sum=$(sha256sum <disk.qcow2)
    small 0 "read" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 7 0 256M" disk.qcow2
    is "$(grep -c 'Pattern verification' cmd.out || true)" 0 "the data is there"
    small 0 "map" "$BLKSTACK_IMG" map -f qcow2 --output=json disk.qcow2
    small 0 "info" "$BLKSTACK_IMG" info disk.qcow2
    timeout 60 prlimit --as=536870912 "$BLKSTACK_IMG" check -f qcow2 disk.qcow2 >cmd.out 2>&1 || status=$?
    is "$status" 2 "check finds the counter too low"
    small 0 "many requests at once" "$BLKSTACK_IO" -r -f qcow2 "${requests[@]}" disk.qcow2
    is "$(sha256sum <disk.qcow2)" "$sum" "the image is as it was"
}
COMPRESSION=zstd bomb
COMPRESSION=zlib bomb
done_testing
