#!/bin/bash
# SPDX-License-Identifier: MIT
# Our NBD client on the peer's server: names, info, map, bitmaps, reads and writes, convert both ways, qcow2 on an export.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-io qemu-nbd

qimg create -q -f qcow2 disk.qcow2 16M
peer_io disk.qcow2 qcow2 "write -P 1 0 64k" "write -P 2 1M 200k" "write -z 3M 1M" "write -P 3 16252928 512k"
qimg bitmap --add disk.qcow2 marks
peer_io disk.qcow2 qcow2 "write -P 4 2M 64k" "write -P 5 8M 192k"
qimg convert -O raw disk.qcow2 disk.raw

label="served read-only"
peer_serve -f qcow2 --read-only -x data -B marks disk.qcow2
uri="nbd+unix:///data?socket=$nbd_dir/s"
for name in "$uri" "nbd:unix:$nbd_dir/s:exportname=data" \
    "json:{'driver':'nbd','server':{'type':'unix','path':'$nbd_dir/s'},'export':'data'}" \
    "json:{'driver':'raw','file':{'driver':'nbd','path':'$nbd_dir/s','export':'data'}}" \
    "json:{'driver':'raw','file':{'driver':'nbd','server.type':'unix','server.path':'$nbd_dir/s','export':'data'}}"; do
    # Of a raw disk our info also tells that it is not dirty.
    is "$(img info --output=json "$name" | grep -v dirty-flag | tr -d ' \n,')" \
        "$(qimg info --output=json "$name" | tr -d ' \n,')" "info of $name"
    is "$(img map --output=json "$name")" "$(qimg map --output=json "$name")" "map of it"
done
is "$(img map "$uri")" "$(qimg map "$uri")" "map, as text"
bitmap="driver=nbd,path=$nbd_dir/s,export=data,x-dirty-bitmap=qemu:dirty-bitmap:marks"
bitmap_map() {      # PROGRAM: the peer says that what is dirty is not present; its place means nothing
    "$1" map --output=json --image-opts "$bitmap" | sed -E 's/"present": (true|false), //; s/, "offset": [0-9]+//'
}
is "$(bitmap_map "$BLKSTACK_IMG")" "$(bitmap_map "$QEMU_IMG")" "map of a bitmap"
like "$(bitmap_map "$BLKSTACK_IMG")" '"start": 2097152, "length": 65536, "depth": 0, "zero": false, "data": false' \
    "what is dirty"
fails "a bitmap that is not there" "does not know the metadata context 'qemu:dirty-bitmap:none'" \
    img map --image-opts "driver=nbd,path=$nbd_dir/s,export=data,x-dirty-bitmap=qemu:dirty-bitmap:none"
succeeds "every byte" img compare -f raw -F raw "$uri" disk.raw
succeeds "every byte, with other images as well" img compare "$uri" disk.qcow2
succeeds "converted to qcow2" img convert -f raw -O qcow2 "$uri" copy.qcow2
same qcow2:copy.qcow2 disk.raw "the copy"
succeeds "dd" img dd -f raw -O raw if="$uri" of=part.raw bs=64k skip=16 count=4
succeeds "its bytes" cmp -n 262144 -i 0:1048576 part.raw disk.raw
img convert -f raw -O raw "json:{'driver':'raw','file':{'driver':'nbd','path':'$nbd_dir/s','export':'data',\
'x-dirty-bitmap':'qemu:dirty-bitmap:marks'}}" marked.raw
succeeds "a bitmap does not hide data from a reader" cmp marked.raw disk.raw
fails "an export that is not there" "no export named 'other'" img info "nbd+unix:///other?socket=$nbd_dir/s"
fails "opened for writing" "can only be read: open it read-only" io -f raw -c "write 0 4k" "$uri"
io_run "$BLKSTACK_IO" --image-opts "driver=nbd,path=$nbd_dir/s,export=data,auto-read-only=on" -- "read -P 1 0 64k"
stop_server

label="served for writing"
cp disk.qcow2 served.qcow2
cp disk.raw model.raw
peer_serve -f qcow2 --discard=unmap served.qcow2
for command in "write -P 11 0 512" "write -P 12 4097 511" "write -P 13 65530 20" "write -f -P 14 5M 64k" "write -z 1M 64k" \
    "write -z -u 2M 128k" "write -P 15 16777215 1" "writev -P 16 6M 4k 512 64k" "aio_write -P 17 7M 1M"; do
    io_run "$BLKSTACK_IO" -f raw "$nbd_uri" -- "$command" "aio_flush" "readv 0 4k 512"
    model_io "${command/writev -P 16 6M 4k 512 64k/write -P 16 6M 70144}"
done
io_run "$BLKSTACK_IO" -d unmap -f raw "$nbd_uri" -- "discard 9M 1M" "read -P 0 9M 1M" "flush"
succeeds "every byte" img compare -f raw -F raw "$nbd_uri" model.raw
fails "a write past the end" "." io -f raw -c "write 16M 4k" "$nbd_uri"
fails "it cannot grow" "Cannot grow NBD nodes" img resize -f raw "$nbd_uri" 32M
fails "nor shrink" "cannot be made shorter" img resize --shrink -f raw "$nbd_uri" 8M
text_file text.raw 16777216
succeeds "converted to the export" img convert -n -f raw -O raw text.raw "$nbd_uri"
succeeds "as the peer sees it" qimg compare -f raw -F raw "$nbd_uri" text.raw
stop_server
judge served.qcow2 "the image of the server"
same qcow2:served.qcow2 text.raw "its bytes"

# A qcow2 image stored on an export.
qcow2_on_export() {
    label="qcow2 on an export"
    truncate -s 0 store.raw model.raw
    truncate -s 24M store.raw
    truncate -s 16M model.raw
    peer_serve -f raw store.raw
    # shellcheck disable=SC2086
    succeeds "created" img create -f qcow2 -o "compression_type=zstd" "$nbd_uri" 16M
    is "$(img info --output=json "$nbd_uri" | grep -c '"format": "qcow2"')" 1 "found again"
    set -- "$1" "write -P 1 0 1M" "write -P 2 70000 3000" "write -z 512k 64k" "write -P 3 15M 1M" "discard 3M 1M" flush
    io_run "$BLKSTACK_IO" -d unmap --image-opts "$1" -- "${@:2}" "read -P 2 70000 3000"
    model_io "${@:2:4}"
    stop_server
    cp store.raw stored.qcow2
    same qcow2:stored.qcow2 model.raw "every byte"
    judge stored.qcow2 "the image"
}
qcow2_on_export "driver=qcow2,file.driver=nbd,file.path=$nbd_dir/s"
qcow2_on_export "driver=compress${write_buffer:-},file.driver=qcow2,file.file.driver=nbd,file.file.server.type=unix,\
file.file.server.path=$nbd_dir/s"
num_ok "$(check_number stored.qcow2 compressed-clusters) > 10" "its clusters are compressed"

label="an export that is too small"
truncate -s 0 store.raw
truncate -s 1M store.raw
peer_serve -f raw store.raw
fails "a raw disk" "Cannot grow NBD nodes" img create -f raw "$nbd_uri" 4M
fails "a write that does not fit" "No space left on device" sh -c "\"\$0\" create -f qcow2 '$nbd_uri' 4M && \
\"\$1\" -f qcow2 -c 'write -P 1 0 2M' '$nbd_uri'" "$BLKSTACK_IMG" "$BLKSTACK_IO"
stop_server
done_testing
