#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: headers, tables, markers and payloads that lie; bombs. One message each, memory and time are bounded, nothing is
# modified.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit

craft() { "$(dirname "$0")/craft_vmdk.py" make "$@"; }

text_file text.raw 1M
truncate -s 8M text.raw
qimg convert -f raw -O vmdk text.raw base.vmdk
qimg convert -f raw -O vmdk -o subformat=streamOptimized text.raw stream.vmdk

is_case() {     # GROUP CASE
    label="$1 $2"
    cp "$2.$1.vmdk" disk.vmdk
}

same_image() { succeeds "the image is as it was" cmp disk.vmdk "${label#* }.${label% *}.vmdk"; }

for case in $(craft open base.vmdk); do
    is_case open "$case"
    ends 1 1 "it is not opened" "$BLKSTACK_IO" -r -f vmdk -c "read 0 64k" disk.vmdk
    survives "check" "$BLKSTACK_IMG" check -r all disk.vmdk
    same_image
done
# A directory costs memory and time, and a file may be as long as its holes: one entry more than there may be.
label=
python3 - base.vmdk directory.vmdk <<'EOF'
import struct, sys
head = bytearray(open(sys.argv[1], "rb").read())
struct.pack_into("<QQ", head, 12, (1 << 22) + 1, 1)     # capacity and grain, sectors
struct.pack_into("<I", head, 44, 1)                     # entries of a table
with open(sys.argv[2], "wb") as image:
    image.write(head)
    image.truncate(64 << 20)
EOF
fails "too many grain tables" "has too many grain tables: 4194305" img info -f vmdk directory.vmdk

for case in $(craft grain base.vmdk); do
    is_case grain "$case"
    ends 1 3 "the grain is an error" "$BLKSTACK_IO" -r -f vmdk -c "read 0 64k" disk.vmdk
    ends 2 9 "check finds it" "$BLKSTACK_IMG" check -f vmdk disk.vmdk
    survives "map" "$BLKSTACK_IMG" map disk.vmdk
    same_image
done
for case in $(craft stream stream.vmdk); do
    is_case stream "$case"
    ends 1 3 "the grain is an error" "$BLKSTACK_IO" -r -f vmdk -c "read 0 64k" disk.vmdk
    ends 2 9 "check finds it" "$BLKSTACK_IMG" check -f vmdk --data disk.vmdk
    ends 1 3 "convert" "$BLKSTACK_IMG" convert -f vmdk -O raw disk.vmdk out.raw
    succeeds "other grains are read" bounded "$BLKSTACK_IO" -r -f vmdk -c "read 64k 512k" disk.vmdk
    same_image
done

# What tables a write must not reach: all in front of the grains but the descriptor, which gets a new content ID.
tables() {
    head -c 512 disk.vmdk
    head -c 65536 disk.vmdk | tail -c +10753
}
for case in $(craft write base.vmdk); do
    is_case write "$case"
    before=$(tables | sha256sum)
    ends 1 3 "it is not written" "$BLKSTACK_IO" -f vmdk -c "write -P 7 0 64k" disk.vmdk
    ends 1 3 "nor zeroed" "$BLKSTACK_IO" -f vmdk -c "write -z 0 64k" disk.vmdk
    is "$(tables | sha256sum)" "$before" "the tables are as they were"
    ends 2 99 "check finds it" "$BLKSTACK_IMG" check -f vmdk disk.vmdk
done
craft check base.vmdk >cases
is_case check grains-overlap
ends 2 9 "check finds it" "$BLKSTACK_IMG" check -f vmdk disk.vmdk
like "$(cat cmd.out)" "overlaps another" "and says what"
is_case check redundant-differs
ends 2 9 "check finds it" "$BLKSTACK_IMG" check -f vmdk disk.vmdk
same_image
ends 0 20 "check -r all" "$BLKSTACK_IMG" check -f vmdk -r all disk.vmdk
like "$(cat cmd.out)" "[1-9][0-9]* corruptions.*Double checking" "says what it has repaired"
ends 0 9 "repairs it" "$BLKSTACK_IMG" check -f vmdk disk.vmdk
succeeds "with the content" qimg compare -f vmdk -F raw disk.vmdk text.raw
done_testing
