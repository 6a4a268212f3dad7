#!/bin/bash
# SPDX-License-Identifier: MIT
# VHDX: created, read, written, converted and checked as by the peer; what either program writes the other reads and rewrites; logs that
# either one leaves the other replays.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/block-formats-lib.inc"
requires qemu-img qemu-io python3
FORMAT=vhdx CREATE=block_size=1M

guids() { python3 "$BLKSTACK_SOURCE/iotests/vhdx_craft.py" guids "$1"; }

label=create
created_alike size=1 size=1000 size=64M size=1073741825 size=100G size=107374182401 size=35184372088833 size=64T size=65T \
    size=1M,log_size=1500k size=1M,log_size=1 size=1M,log_size=0 size=1M,log_size=4G size=1M,log_size=4095M size=1M,block_size=1 \
    size=1M,block_size=1500k size=1M,block_size=3M size=1M,block_size=1G size=1M,subformat=fixed size=9M,block_size=2M,subformat=fixed \
    size=10M,block_state_zero=off size=1M,subformat=differencing
img create -q -f vhdx ours 0
like "$(img info -f vhdx ours)" "virtual size: 0 B" "an empty disk, which the peer would give a BAT of 64 MiB"
for subformat in dynamic fixed; do
    img create -q -f vhdx -o subformat=$subformat ours 64M
    qimg create -q -f vhdx -o subformat=$subformat peers 64M
    sound ours "$subformat"
    if command -v vhdiinfo >/dev/null; then
        is "$(vhdiinfo ours | grep -v Identifier)" "$(vhdiinfo peers | grep -v Identifier)" "libvhdi sees the same: $subformat"
    fi
done

label="our image"
random_rounds "$BLKSTACK_IMG" 3
label="the peer's image"
random_rounds "$QEMU_IMG" 3
label="our fixed image"
CREATE=block_size=1M,subformat=fixed
random_rounds "$BLKSTACK_IMG" 2
CREATE=block_size=1M

label=convert
converted model.raw
converted model.raw subformat=fixed,block_size=2M

label=space
rm -f disk
img create -q -f vhdx -o block_size=1M disk 16M
io_run "$BLKSTACK_IO" -f vhdx disk -- "write -P 1 3M 1k" "write -z 5M 5M" "write -P 2 12M 2M"
is "$(file_bytes disk)" $((7 * 1048576)) "zeroes take no block"
io_run "$BLKSTACK_IO" -f vhdx -d unmap disk -- "write -zu 12M 1M" "discard 13M 1M" "read -P 0 12M 2M" "read -P 1 3M 1k"
num_ok "$(file_blocks disk) < 2097152" "what is discarded gives its space back"
sound disk "discarded"
rm -f disk
img create -q -f vhdx -o subformat=fixed disk 64M
io_run "$BLKSTACK_IO" -f vhdx disk -- "write -P 1 20M 64k"
is "$(img map -f vhdx --output=json disk | grep -c '"zero": true, "data": true')" 2 "map tells holes in blocks that are there"
is "$(img map -f vhdx --output=json disk | sed -n 's/.*"start": \([0-9]*\), "length": \([0-9]*\),.*"zero": false.*/\1 \2/p')" "20971520 65536" \
    "and data"

label="a block that cannot be written"     # its place is the next one's
rm -f disk
img create -q -f vhdx -o block_size=1M disk 16M
graph=driver=vhdx,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk
fault=file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.sector=8192,file.inject-error.0.once=on
io --image-opts "$graph,$fault" -c "write -P 1 3M 64k" -c "write -P 2 5M 64k" -c "write -P 3 3M 64k" >io.out 2>&1 || true
like "$(head -n 1 io.out)" "write failed: Input/output error" "it fails"
io_run "$QEMU_IO" -f vhdx disk -- "read -P 2 5M 64k" "read -P 3 3M 64k"
is "$(file_bytes disk)" $((6 * 1048576)) "no space is lost"
sound disk "afterwards"

label=identifiers
before=$(guids disk)
io_run "$BLKSTACK_IO" -f vhdx disk -- "read 0 1M"
is "$(guids disk)" "$before" "reading changes none"
io_run "$BLKSTACK_IO" -f vhdx disk -- "write -P 7 3M 1k"
after=$(guids disk)
isnt "${after%% *}" "${before%% *}" "FileWriteGuid after a write in place"
isnt "$(cut -d ' ' -f 2 <<<"$after")" "$(cut -d ' ' -f 2 <<<"$before")" "DataWriteGuid"
is "${after##* }" 00000000000000000000000000000000 "the log of a closed image is empty"

label=chunks        # behind the entries of 4 GiB there is one of another kind
rm -f disk
img create -q -f vhdx -o block_size=1M disk 9G
io_run "$BLKSTACK_IO" -f vhdx disk -- "write -P 1 4294966784 1k" "write -P 2 8589934080 1k"
io_run "$QEMU_IO" -f vhdx disk -- "read -P 1 4294966784 1k" "read -P 2 8589934080 1k" "write -P 3 4297064448 1k" "write -P 4 8588886016 1k"
io_run "$BLKSTACK_IO" -f vhdx disk -- "read -P 3 4297064448 1k" "read -P 4 8588886016 1k" "read -P 1 4294966784 1k"
sound disk "chunks"

label="sectors of 4096 bytes"     # chunks are eight times as long; the peer does not open such disks
rm -f disk
img create -q -f vhdx -o block_size=1M disk 9G
python3 -c '
import struct
with open("disk", "r+b") as file:
    file.seek((3 << 20) + 65536 + 32)           # what sectors the disk has, in the metadata
    file.write(struct.pack("<II", 4096, 4096))'
io_run "$BLKSTACK_IO" -f vhdx disk -- "write -P 1 8G 1k" "write -P 2 8589930496 1k"
io_run "$BLKSTACK_IO" -r -f vhdx disk -- "read -P 1 8G 1k" "read -P 2 8589930496 1k" "read -P 0 0 1M"
is "$(python3 -c '
import struct
file = open("disk", "rb")
file.seek(2 << 20)
print(*(i for i, (entry,) in enumerate(struct.iter_unpack("<Q", file.read(9218 * 8))) if entry & 7 == 6))')" "8191 8192" "no entry for a bitmap stands in between"
succeeds "check" img check -f vhdx disk

label="many tables"     # more than one entry of the log holds
rm -f disk
img create -q -f vhdx -o block_size=1M disk 140G
mapfile -t commands < <(for ((i = 0; i < 135; i++)); do echo "write -P $((i + 1)) ${i}G 1k"; echo "write -P $((i + 1)) $((i * 2 + 1))00M 1k"; done)
io_run "$BLKSTACK_IO" -f vhdx disk -- "${commands[@]}" flush
mapfile -t commands < <(printf '%s\n' "${commands[@]/#write/read}")
io_run "$QEMU_IO" -r -f vhdx disk -- "${commands[@]}"
sound disk "many tables"

label="the peer's log"      # is in the image, and nothing of it is in its place
rm -f dirty
qimg create -q -f vhdx -o block_size=1M dirty 16M
qio -c 'write -P 5 3M 64k' --image-opts "${graph/=disk/=dirty},${fault/8192/4096}" >/dev/null 2>&1 || true
isnt "$(guids dirty | cut -d ' ' -f 3)" 00000000000000000000000000000000 "it is there"
for command in "img info" "img check" "io -r -c length"; do
    cp dirty disk
    read -ra words <<<"$command"
    fails "$command: refused, and told what to do" "log that needs to be replayed.*check -r all" "${words[@]}" -f vhdx disk
    succeeds "$command: nothing is changed" cmp dirty disk
done
cp dirty disk
succeeds "repaired" img check -r all -f vhdx disk
like "$(cat cmd.out)" "1 corruptions" "as the peer says it"
io_run "$QEMU_IO" -r -f vhdx disk -- "read -P 5 3M 64k"
isnt "$(guids disk | cut -d ' ' -f 1)" "$(guids dirty | cut -d ' ' -f 1)" "FileWriteGuid is new"
is "$(guids disk | cut -d ' ' -f 2)" "$(guids dirty | cut -d ' ' -f 2)" "DataWriteGuid is not"
cp dirty disk
io_run "$BLKSTACK_IO" -f vhdx disk -- "read -P 5 3M 64k" "write -P 6 5M 64k"
io_run "$QEMU_IO" -r -f vhdx disk -- "read -P 5 3M 64k" "read -P 6 5M 64k"
sound disk "opened for writing"

label=killed        # with a log of ours
rm -f disk go
img create -q -f vhdx -o block_size=1M disk 16M
mkfifo go
"$BLKSTACK_IO" -f vhdx disk >out 2>&1 <go &
pid=$!
exec 9>go
printf '%s\n' "write -P 8 3M 64k" flush "write -P 9 5M 64k" "write -P 9 3M 512" >&9
until [ "$(grep -c wrote out)" -eq 3 ]; do sleep 0.02; done
kill -KILL $pid
wait $pid 2>/dev/null || true
exec 9>&-
isnt "$(guids disk | cut -d ' ' -f 3)" 00000000000000000000000000000000 "it is there"
cp disk ours
for ((tries = 0; tries < 100; tries++)); do     # the kernel ends an io_uring, and its locks, after the process
    qimg check -r all -f vhdx disk >cmd.out 2>&1 && break
    sleep 0.05
done
num_ok "$tries < 100" "the peer replays it"
io_run "$QEMU_IO" -r -f vhdx disk -- "read -P 9 3M 512" "read -P 8 3146240 65024"
io_run "$BLKSTACK_IO" -f vhdx ours -- "read -P 9 3M 512" "read -P 8 3146240 65024"
sound ours "ours"

label="a file that was cut off"
rm -f cut
img create -q -f vhdx -o block_size=1M cut 16M
io_run "$BLKSTACK_IO" -f vhdx cut -- "write 5M 1k"
truncate -s -100k cut
status=0
img check -f vhdx cut >cmd.out 2>&1 || status=$?
is "$status" 2 "check finds it, as the peer's"
like "$(cat cmd.out)" "the file ends within block 5 .* cut off" "and says so"

label=refusals
fails "compressed clusters" "[Cc]ompress" img convert -c -f vhdx -O vhdx disk other
fails "the compress filter" "vhdx" io --image-opts driver=compress,file.driver=vhdx,file.file.driver=file,file.file.filename=disk \
    -c 'write 0 1M'
fails "resizing" "does not support resize" img resize -f vhdx disk 32M
fails "measuring" "does not support size measurement" img measure -O vhdx --size 1M
succeeds "it is found out to be VHDX" img info disk
like "$(cat cmd.out)" "file format: vhdx" "by its identifier"
done_testing
