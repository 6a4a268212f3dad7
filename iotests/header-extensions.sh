#!/bin/bash
# SPDX-License-Identifier: MIT
# What we do not know in a header: unknown autoclear bits are cleared by a writer and by nobody else; unknown compatible
# bits, extensions, feature names and fields of a longer header are kept, also when the header is rewritten; the peer takes it.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io python3

# Adds to disk.qcow2: a header of 128 bytes, two unknown extensions, a feature name, unknown bits.
strange() {
    python3 - <<'END'
import struct
f = open('disk.qcow2', 'r+b')
old = f.read(65536)
length = struct.unpack('>I', old[100:104])[0]
extensions, at = b'', length
while True:
    kind, size = struct.unpack('>II', old[at:at + 8])
    if kind == 0:
        break
    data = old[at + 8:at + 8 + size]
    if kind == 0x6803f857:
        data += bytes([1, 40]) + b'a strange feature'.ljust(46, b'\0')
    extensions += struct.pack('>II', kind, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b'\0')
    at += 8 + (size + 7) // 8 * 8
extensions += struct.pack('>II', 0x11223344, 5) + b'hello\0\0\0' + struct.pack('>II', 0x55667788, 0)
new = bytearray(old[:length]).ljust(128, b'\0')
new[100:104] = struct.pack('>I', 128)
new[112:128] = b'fields of later!'
new[80:88] = struct.pack('>Q', struct.unpack('>Q', old[80:88])[0] | 1 << 40)
new[88:96] = struct.pack('>Q', 1 << 30)
name = struct.unpack('>QI', old[8:20])
place = len(new) + len(extensions) + 8
if name[0]:
    new[8:16] = struct.pack('>Q', place)
f.seek(0)
f.write((new + extensions + bytes(8) + old[name[0]:name[0] + name[1]]).ljust(4096, b'\0'))
END
}

# What is strange in disk.qcow2, on one line.
seen() {
    python3 - <<'END'
import struct
d = open('disk.qcow2', 'rb').read(65536)
length, compatible, autoclear = struct.unpack('>I', d[100:104])[0], *struct.unpack('>QQ', d[80:96])
at, found = length, []
while True:
    kind, size = struct.unpack('>II', d[at:at + 8])
    if kind == 0:
        break
    data = d[at + 8:at + 8 + size]
    if kind in (0x11223344, 0x55667788):
        found.append('%x=%s' % (kind, data.decode()))
    if kind == 0x6803f857:
        names = [data[i + 2:i + 48].rstrip(b'\0').decode() for i in range(0, size, 48)]
        found.append('names: %s' % all(n in names for n in ('a strange feature', 'dirty bit', 'lazy refcounts')))
    at += 8 + (size + 7) // 8 * 8
print('autoclear %x' % (autoclear >> 30), 'compatible', compatible >> 40, 'length', length, 'fields', d[112:128].decode(),
      *sorted(found))
END
}

kept='compatible 1 length 128 fields fields of later! 11223344=hello 55667788= names: True'

sound() {       # TEXT
    succeeds "$1: the peer's info" "$QEMU_IMG" info disk.qcow2
    is "$(grep -ci 'warning\|error' cmd.out || true)" 0 "$1: the peer has nothing to say"
    judge disk.qcow2 "$1"
}

qimg create -q -f raw base.raw 64M
qimg create -q -f qcow2 -b base.raw -F raw disk.qcow2
strange
is "$(seen)" "autoclear 1 $kept" "as it was made"
sound "as it was made"
succeeds "a reader" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
succeeds "info" "$BLKSTACK_IMG" info disk.qcow2
succeeds "check" "$BLKSTACK_IMG" check disk.qcow2
is "$(seen)" "autoclear 1 $kept" "who only looks changes nothing"
pio disk.qcow2 "write -P 1 0 1M" "read -P 1 0 1M"
is "$(seen)" "autoclear 0 $kept" "a writer clears the autoclear bit and keeps the rest"
sound "written to"
pio disk.qcow2 "write -P 2 1M 1M"
is "$(seen)" "autoclear 0 $kept" "written to again"
for change in lazy_refcounts=on size=128M refcount_bits=32; do
    succeeds "amend -o $change" "$BLKSTACK_IMG" amend -f qcow2 -o $change disk.qcow2
    is "$(seen)" "autoclear 0 $kept" "amend -o $change: kept"
    sound "amend -o $change"
done
succeeds "resize" "$BLKSTACK_IMG" resize -q disk.qcow2 256M
succeeds "a snapshot" "$BLKSTACK_IMG" snapshot -c one disk.qcow2
is "$(seen)" "autoclear 0 $kept" "resize, snapshot: kept"
sound "resize, snapshot"
# Its refcounts lost: the header is rewritten.
lose_refcounts disk.qcow2
succeeds "check -r all" "$BLKSTACK_IMG" check -r all disk.qcow2
is "$(seen)" "autoclear 0 $kept" "check -r all: kept"
sound "check -r all"
peer_io disk.qcow2 qcow2 "read -P 1 0 1M" "read -P 2 1M 1M"

# The peer opens whatever we make.
label=made
for compat in 0.10 1.1; do
    for options in cluster_size=512 cluster_size=4k cluster_size=64k cluster_size=2M refcount_bits=1 refcount_bits=8 \
        refcount_bits=64 lazy_refcounts=on compression_type=zstd extended_l2=on extended_l2=on,cluster_size=16k \
        preallocation=metadata preallocation=falloc cluster_size=512,preallocation=metadata \
        extended_l2=on,preallocation=metadata lazy_refcounts=on,compression_type=zstd,refcount_bits=2,cluster_size=1k; do
        case $compat,$options in
        0.10,*refcount_bits* | 0.10,*lazy* | 0.10,*zstd* | 0.10,*extended*) continue ;;
        esac
        rm -f disk.qcow2
        img create -q -f qcow2 -o "compat=$compat,$options" disk.qcow2 8M
        sound "$compat $options"
        case $options in
        *refcount_bits=1 | *512*) pio disk.qcow2 "write -P 1 0 1M" "write -z 2M 64k" "discard 0 64k" ;;
        *) zio disk.qcow2 "write -P 1 0 1M" "write -z 2M 64k" "write -P 3 12345 678" ;;
        esac
        sound "$compat $options, written to"
    done
done
done_testing
