#!/bin/bash
# SPDX-License-Identifier: MIT
# Parallels images, of the peer and with the older magic and odd clusters; read as by the peer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/old-formats-lib.inc"
any_backend
requires qemu-img qemu-io python3

text_file source.raw 3M
truncate -s 20M source.raw
random_file tail.raw 1500k
cat tail.raw >>source.raw

qimg convert -f raw -O parallels source.raw new.hds
as_the_peer parallels new.hds "of the peer"
same_map parallels new.hds "of the peer"

qimg create -q -f parallels -o cluster_size=64k small.hds 9M
peer_io small.hds parallels "write -P 1 100k 200k" "write -P 2 5M 1M" "write -P 3 0 1k"
as_the_peer parallels small.hds "clusters of 64 KiB"
same_map parallels small.hds "clusters of 64 KiB"

# The magic of old versions: entries count sectors, clusters have 63 of them.
python3 - <<'END'
import struct
cluster, count = 63 * 512, 40
head = struct.pack('<16sIIIIIQIIIQ', b'WithoutFreeSpace', 2, 16, 100, 63, count, 63 * count - 7, 0, 8, 0, 0)
table, data = [0] * count, b''
for n, at in enumerate((3, 4, 5, 20, 39, 0)):
    table[at] = 8 + 63 * n
    data += bytes([n + 1]) * cluster
image = head + struct.pack('<%dI' % count, *table)
open('old.hds', 'wb').write(image.ljust(8 * 512, b'\0') + data)
END
as_the_peer parallels old.hds "old magic, clusters of 63 sectors"
same_map parallels old.hds "old magic, clusters of 63 sectors"

# An extension and flags that we do not know are no part of the disk.
cp small.hds ext.hds
python3 -c 'f = open("ext.hds", "r+b"); f.seek(52); f.write(b"\1\0\0\0" + b"\x10" + bytes(7))'
succeeds "an extension is not looked at" img convert -f parallels -O raw ext.hds ext.raw
qimg convert -f parallels -O raw small.hds small.raw
succeeds "and changes nothing" cmp ext.raw small.raw

label=check
check_says() {  # PROGRAM IMAGE
    "$1" check -f parallels "$2" 2>&1 || echo "status $?"
    "$1" check -f parallels --output=json "$2" 2>&1 || true
}
checked() {     # TEXT IMAGE
    is "$(check_says "$BLKSTACK_IMG" "$2")" "$(check_says "$QEMU_IMG" "$2")" "$1: as the peer"
}
changed() {     # SHELL-COMMAND: of a copy of small.hds
    cp small.hds bad.hds
    python3 -c "import os, struct
f = open('bad.hds', 'r+b')
def put(at, value): f.seek(at); f.write(struct.pack('<I', value))
$1"
}
qimg create -q -f parallels empty.hds 9M
for image in new.hds small.hds old.hds empty.hds; do
    checked "sound: $image" "$image"
done
changed "put(44, 0x746f6e59)"
checked "in use" bad.hds
changed "put(64, 100000)"
checked "outside" bad.hds
changed "f.truncate(f.seek(0, 2) + 200000)"
checked "leaked" bad.hds
changed "f.seek(64); entry = f.read(4); f.seek(68); f.write(entry)"
like "$(check_says "$BLKSTACK_IMG" bad.hds)" "overlaps another.*status 2" "two clusters in one place"
changed "f.write(b'WithoutFreeSpace'); put(64, 1)"
like "$(check_says "$BLKSTACK_IMG" bad.hds)" "ERROR cluster 0 is over the table" "over the table"
for repair in leaks all; do
    is "$(img check -r $repair -f parallels small.hds; echo $?)" "$(qimg check -r $repair -f parallels small.hds; echo $?)" "check -r $repair, as the peer"
    like "$(img check -r $repair -f parallels bad.hds 2>&1 || echo "status $?")" "Nothing was repaired: .*can only be read.*status 2" \
        "check -r $repair of a damaged one"
done
label=

qimg create -q -f qcow2 -b small.hds -F parallels top.qcow2
pio top.qcow2 "write -P 13 3M 100k" "read -P 2 5M 1M"
qimg convert -f qcow2 -O raw top.qcow2 top.raw
same top.qcow2 top.raw "the base of a qcow2 image"
only_read parallels new.hds
done_testing
