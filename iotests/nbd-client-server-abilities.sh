#!/bin/bash
# SPDX-License-Identifier: MIT
# Our NBD client on nbdkit: servers with block sizes, without abilities, with errors, with odd lengths, with many connections.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-io nbdkit

text_file text.raw 16777216
commands=("write -P 1 0 512" "write -P 2 4097 511" "write -P 3 65530 70000" "write -z 1M 64k" "write -z -u 2M 128k"
    "write -f -P 4 5000000 3" "write -P 5 16777215 1" "discard 7M 1M" "write -P 6 7M 1M" flush)

# A disk in the server's memory: written to at odd places, compared, overwritten whole, read again.
works_on() {    # NBDKIT-OPTIONS [PARAMETER...]
    label="${1:-plain} ${*:2}"
    truncate -s 0 model.raw
    truncate -s 16M model.raw
    # shellcheck disable=SC2086
    kit_serve $1 memory 16M "${@:2}"
    for command in "${commands[@]}"; do
        io_run "$BLKSTACK_IO" -d unmap -f raw "$nbd_uri" -- "$command"
        [ "$command" = "discard 7M 1M" ] || model_io "$command"
    done
    succeeds "every byte" img compare -f raw -F raw "$nbd_uri" model.raw
    succeeds "every byte, the server asked by the peer" qimg compare -f raw -F raw "$nbd_uri" model.raw
    is "$(img map -f raw --output=json "$nbd_uri")" "$(qimg map -f raw --output=json "$nbd_uri")" "map"
    succeeds "convert to it" img convert -n -f raw -O raw text.raw "$nbd_uri"
    succeeds "convert from it" img convert -f raw -O raw "$nbd_uri" copy.raw
    succeeds "the same" cmp text.raw copy.raw
    stop_server
}
works_on ""
works_on --filter=blocksize-policy blocksize-minimum=4096 blocksize-preferred=64k blocksize-maximum=1M \
    blocksize-error-policy=error
works_on "--filter=nozero --filter=noextents"
works_on --filter=fua fuamode=discard
works_on "--filter=fua --filter=nozero" fuamode=force zeromode=notrim
works_on --no-sr

label="old handshake"
kit_serve -o memory 1M
io_run "$BLKSTACK_IO" -r -f raw "$nbd_uri" -- "read -P 0 1000 5000"
stop_server

label="flags of commands"
kit_serve --filter=log memory 16M logfile=flags.log
io_run "$BLKSTACK_IO" -d unmap -f raw "$nbd_uri" -- "write -P 1 0 64k" "write -f -P 1 0 64k" "write -z 1M 64k" \
    "write -z -u 2M 64k" "write -z -n 3M 64k" "write -z -f 4M 64k" "discard 5M 64k"
is "$(grep -aoE ' (Write|Zero|Trim) .*' flags.log | sed -E 's/ id=[0-9]+//; s/ count=0x10000//; s/ \.\.\.//; s/^ //')" \
"Write offset=0x0 fua=0
Write offset=0x0 fua=1
Zero offset=0x100000 trim=0 fua=0 fast=0
Zero offset=0x200000 trim=1 fua=0 fast=0
Zero offset=0x300000 trim=0 fua=0 fast=1
Zero offset=0x400000 trim=0 fua=1 fast=0
Trim offset=0x500000 fua=0" "are what was asked for"
stop_server

label="many requests at once"
kit_serve --filter=delay memory 16M delay-read=50ms delay-write=50ms
set --
for i in {0..63}; do
    set -- "$@" "aio_write -P $((i + 1)) $((i * 65536)) 64k"
done
set -- "$@" aio_flush
for i in {0..63}; do
    set -- "$@" "aio_read -P $((i + 1)) $((i * 65536)) 64k"
done
io_run "$BLKSTACK_IO" -f raw "$nbd_uri" -- "$@" aio_flush
succeeds "no pattern is wrong" sh -c '! grep -q failed io.out'
stop_server

label="several connections"
kit_serve --filter=log --filter=delay memory 16M delay-write=50ms logfile=connections.log
for wanted in 1 4; do
    io_run "$BLKSTACK_IO" --image-opts "driver=raw,file.driver=nbd,file.path=$nbd_dir/s,file.connections=$wanted" -- "$@" \
        aio_flush
    is "$(grep -ac ' Connect ' connections.log)" "$wanted" "the server sees $wanted"
    num_ok "$(grep -aoE 'connection=[0-9]+ Write' connections.log | sort -u | wc -l) == $wanted" "all are used"
    : >connections.log
done
stop_server
kit_serve --filter=multi-conn --filter=log memory 16M multi-conn-mode=disable logfile=connections.log
io_run "$BLKSTACK_IO" --image-opts "driver=raw,file.driver=nbd,file.path=$nbd_dir/s,file.connections=4" -- "$@" aio_flush
is "$(grep -ac ' Connect ' connections.log)" 1 "not if the server does not allow it"
stop_server

label="an odd length"
kit_serve memory 1000
like "$(img info -f raw --output=json "$nbd_uri")" '"virtual-size": 1024' "rounded up"
io_run "$BLKSTACK_IO" -f raw "$nbd_uri" -- "write -P 1 0 1000" "write -z 998 26" "read -P 1 0 998" "read -P 0 998 26"
fails "what is not there can only be zero" "No space left" io -f raw -c "write -P 1 996 10" "$nbd_uri"
succeeds "copied" img convert -f raw -O raw "$nbd_uri" copy.raw
is "$(stat -c %s copy.raw)" 1024 "the length of the copy"
stop_server

label="a length that is no multiple of the block size"
kit_serve --filter=blocksize-policy memory 1000 blocksize-minimum=512
fails "is refused" "no multiple of" img info "$nbd_uri"
stop_server

label="read-only"
kit_serve -r memory 1M
fails "opened for writing" "can only be read: open it read-only" io -f raw -c "write 0 4k" "$nbd_uri"
io_run "$BLKSTACK_IO" -r -f raw "$nbd_uri" -- "read -P 0 0 1M"
stop_server

label="errors of the server"
kit_serve --filter=error memory 1M error=ENOSPC error-pwrite-rate=100%
fails "a write" "No space left on device" io -f raw -c "write 0 4k" "$nbd_uri"
io_run "$BLKSTACK_IO" -f raw "$nbd_uri" -- "read -P 0 0 64k"
stop_server
kit_serve --filter=error memory 4M error=EIO error-pread-rate=100% "error-file=$PWD/broken"
io_run "$BLKSTACK_IO" -f raw "$nbd_uri" -- "write -P 1 0 4M"
touch broken
fails "convert from it" "Input/output error" img convert -f raw -O raw "$nbd_uri" copy.raw
rm broken
succeeds "the connection goes on" img convert -f raw -O raw "$nbd_uri" copy.raw
stop_server
kit_serve --filter=error memory 1M error=EIO error-extents-rate=100%
fails "block status" "Input/output error" img map -f raw "$nbd_uri"
stop_server

label="a large and empty disk"
kit_serve --filter=log memory 1T logfile=status.log
is "$(img map -f raw --output=json "$nbd_uri" | grep -ac '"length": 1099511627776')" 1 "map"
num_ok "$(grep -ac Extents status.log) < 3000" "it takes few questions"
io_run "$BLKSTACK_IO" -n -d unmap -f raw "$nbd_uri" -- "write -z -n 0 5G" "discard 1G 1G" "read -P 0 4G 1M"
stop_server
done_testing
