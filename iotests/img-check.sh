#!/bin/bash
# SPDX-License-Identifier: MIT
# check: exit codes and counts are the peer's on clean, leaking and corrupt images; -r repairs them; --data finds a
# flipped byte in a compressed payload and names the guest offset.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3

# patch FILE OFFSET-EXPRESSION BYTES-EXPRESSION: f is the image, u64() reads a number from it.
patch() {
    python3 - "$@" <<'END'
import struct, sys
f = open(sys.argv[1], 'r+b')
def u64(offset):
    f.seek(offset)
    return struct.unpack('>Q', f.read(8))[0]
OFFSET = (1 << 56) - 512
l2 = lambda: u64(u64(40)) & OFFSET
refblock = lambda: u64(u64(48))
place, data = eval(sys.argv[2]), eval(sys.argv[3])
f.seek(place)
f.write(data)
END
}

status_of() {
    local status=0

    "$@" >cmd.out 2>&1 || status=$?
    echo "$status"
}

# Both checks end alike, with the same counts.
alike() {       # TEXT WANTED-STATUS
    is "$(status_of "$BLKSTACK_IMG" check disk.qcow2)" "$2" "$1: exit status"
    is "$(status_of "$QEMU_IMG" check disk.qcow2)" "$2" "$1: the peer's exit status"
    is "$(counts "$BLKSTACK_IMG")" "$(counts "$QEMU_IMG")" "$1: counts"
}

counts() {
    { "$1" check --output=json disk.qcow2 2>/dev/null || true; } | python3 -c '
import json, sys
d = json.load(sys.stdin)
print([d.get(k, 0) for k in ("corruptions", "leaks", "check-errors", "allocated-clusters", "compressed-clusters")])'
}

repairs() {     # TEXT -r-ARGUMENT STATUS-BEFORE
    alike "$1" "$3"
    "$BLKSTACK_IMG" check -r "$2" disk.qcow2 >cmd.out 2>&1 || true
    alike "$1, repaired" 0
    is "$(status_of "$BLKSTACK_IO" -f qcow2 -c "read -P 1 0 1M" -c "read -P 2 4M 1M" -c "write -P 3 8M 1M" disk.qcow2)" \
        0 "$1, repaired: data and writes"
    alike "$1, repaired and written" 0
}

new() {         # COMPRESSION
    qimg create -q -f qcow2 -o compression_type="$1" disk.qcow2 64M
    "$QEMU_IO" -f qcow2 -c "write -P 1 0 1M" -c "write -c -P 2 4M 1M" disk.qcow2 >/dev/null
}

new zlib
alike "clean" 0
repairs "clean" all 0
new zlib
patch disk.qcow2 'refblock() + 2 * 100' 'b"\0\1"'
truncate -s $((101 * 65536)) disk.qcow2
repairs "a leak" leaks 3
new zlib
patch disk.qcow2 'refblock() + 2 * ((u64(l2()) & OFFSET) >> 16)' 'b"\0\0"'
repairs "a count that is too low" all 2
new zlib
patch disk.qcow2 'refblock() + 2 * ((u64(l2()) & OFFSET) >> 16)' 'b"\0\3"'
repairs "a count that is too high" all 2
new zlib
patch disk.qcow2 'l2()' 'bytes([u64(l2()) >> 56 & 0x7f])'
repairs "a COPIED flag that is missing" all 2
new zlib
patch disk.qcow2 72 '(2).to_bytes(8, "big")'
isnt "$(status_of "$BLKSTACK_IO" -f qcow2 -c "write 0 4k" disk.qcow2)" 0 "a corrupt image is not written to"
"$BLKSTACK_IMG" check -r all disk.qcow2 >/dev/null
is "$(status_of "$BLKSTACK_IO" -f qcow2 -c "write 0 4k" disk.qcow2)" 0 "... but after a repair"

# Progress on demand.
new zlib
like "$("$BLKSTACK_IMG" check -p disk.qcow2)" "\(0.00/100%\).*\(100.00/100%\)" "-p"
# shellcheck disable=SC2016
like "$(python3 -c '
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
os.execvp(sys.argv[1], sys.argv[1:])' "$BLKSTACK_IMG" check disk.qcow2 2>&1 >/dev/null)" "\([0-9.]+/100%\)" "SIGUSR1"

# A deflate stream has no checksum: there the damage is a block type that does not exist. In a zstd frame any byte will
# do.
for compression in zlib zstd; do
    case $compression in
    zlib) damage=0 ;;
    zstd) damage=1000 ;;
    esac
    qimg create -q -f qcow2 -o compression_type=$compression disk.qcow2 64M
    "$BLKSTACK_IO" --image-opts "$(filter_opts disk.qcow2)" -c "write -s $BLKSTACK_IMG 4M 256k" >/dev/null
    is "$(status_of "$BLKSTACK_IMG" check --data disk.qcow2)" 0 "$compression: sound payloads"
    # The third cluster: guest offset 4 MiB + 128 KiB.
    patch disk.qcow2 "(u64(l2() + 8 * 66) & ((1 << 54) - 1)) + $damage" "b'\\xff' * 64"
    is "$(status_of "$BLKSTACK_IMG" check disk.qcow2)" 0 "$compression: the tables are sound"
    is "$(status_of "$BLKSTACK_IMG" check --data disk.qcow2)" 2 "$compression: --data finds the damage"
    like "$(cat cmd.out)" "0x420000" "$compression: ... and names the guest offset"
done

# Findings come in the order of the disk, though clusters are decoded at once: every fifth has a payload that fails at its
# end, every fifth one that fails at once, and every fifth entry has a flag that it must not have.
# shellcheck disable=SC2016
findings() {    # IMAGE: of its 100 clusters, "N data" or "N entry" in the order in which they are told
    python3 - "$1" "$(grep -E 'does not decode|copied flag must never' cmd.out)" <<'END'
import re, struct, sys
with open(sys.argv[1], 'rb') as f:
    l1 = struct.unpack('>Q', f.read(48)[40:])[0]
    f.seek(l1)
    f.seek(struct.unpack('>Q', f.read(8))[0] & (1 << 56) - 512)
    places = [struct.unpack('>Q', f.read(8))[0] & (1 << 54) - 1 for i in range(100)]
for line in sys.argv[2].splitlines():
    if 'coffset' in line:
        print(places.index(int(re.search('coffset=0x([0-9a-f]+)', line)[1], 16)), 'entry')
    else:
        print(int(re.search('guest offset (?:0x)?([0-9a-f]+)', line)[1], 16) >> 16, 'data')
END
}
text_file text.raw 6553600
qimg convert -f raw -O qcow2 -c -o compression_type=zstd text.raw disk.qcow2
python3 - <<'END'
import struct
with open('disk.qcow2', 'r+b') as f:
    f.seek(40)
    f.seek(struct.unpack('>Q', f.read(8))[0])
    l2 = struct.unpack('>Q', f.read(8))[0] & (1 << 56) - 512
    f.seek(l2)
    entries = struct.unpack('>101Q', f.read(808))
    for i in range(100):
        place, after = (e & (1 << 54) - 1 for e in entries[i:i + 2])
        if i % 5 == 0:      # seen after the whole of it was decoded, or nearly
            f.seek((after if after > place else place + 512) - 40)
            f.write(b'\xff' * 40)
        elif i % 5 == 1:    # seen at once
            f.seek(place)
            f.write(b'\xff' * 4)
        elif i % 5 == 2:
            f.seek(l2 + 8 * i)
            f.write(struct.pack('>Q', entries[i] | 1 << 63))
END
is "$(status_of "$BLKSTACK_IMG" check --data disk.qcow2)" 2 "many findings"
is "$(findings disk.qcow2)" "$(for ((i = 0; i < 100; i++)); do
    case $((i % 5)) in
    0 | 1) echo "$i data" ;;
    2) echo "$i entry" ;;
    esac
done)" "many findings, in the order of the disk"
done_testing
