#!/bin/bash
# SPDX-License-Identifier: MIT
# Our NBD client on our own server: reads, writes, zeroes, trims, map, bitmaps, several connections, a server that is killed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-io

our_serve() {   # OPTIONS...
    serve_on "$nbd_dir/s" "$BLKSTACK_NBD" --persistent --shared 8 --socket "$nbd_dir/s" "$@"
    nbd_uri="nbd+unix://?socket=$nbd_dir/s"
}

qimg create -q -f qcow2 disk.qcow2 16M
peer_io disk.qcow2 qcow2 "write -P 1 0 64k" "write -P 2 1M 200k" "write -z 3M 1M"
qimg bitmap --add disk.qcow2 marks
peer_io disk.qcow2 qcow2 "write -P 4 2M 64k"
qimg convert -O raw disk.qcow2 model.raw

label="read-only"
our_serve -f qcow2 --read-only --bitmap marks disk.qcow2
is "$(img map -f raw --output=json "$nbd_uri")" "$(qimg map -f raw --output=json "$nbd_uri")" "map"
succeeds "every byte" img compare -f raw -F raw "$nbd_uri" model.raw
like "$(img map --output=json --image-opts "driver=nbd,path=$nbd_dir/s,x-dirty-bitmap=qemu:dirty-bitmap:marks")" \
    '"start": 2097152, "length": 65536, .* "data": false' "a bitmap"
fails "opened for writing" "can only be read" io -f raw -c "write 0 4k" "$nbd_uri"
stop_server

for opts in "" --compress; do
    label="written to ${opts:-plain}"
    cp disk.qcow2 served.qcow2
    cp model.raw written.raw
    # shellcheck disable=SC2086
    our_serve $opts -f qcow2 --discard unmap served.qcow2
    set -- "write -P 11 0 512" "write -P 12 4097 511" "write -P 13 65530 20" "write -f -P 14 5M 64k" "write -z 1M 64k" \
        "write -z -u 2M 128k" "write -P 15 16777215 1" flush
    io_run "$BLKSTACK_IO" -d unmap -f raw "$nbd_uri" -- "$@" "discard 9M 1M"
    io_run "$QEMU_IO" -f raw written.raw -- "$@"
    succeeds "every byte" img compare -f raw -F raw "$nbd_uri" written.raw
    text_file text.raw 16777216
    succeeds "convert to it on four connections" img convert -n -f raw --target-image-opts text.raw \
        "driver=raw,file.driver=nbd,file.path=$nbd_dir/s,file.connections=4"
    succeeds "every byte, says the peer" qimg compare -f raw -F raw "$nbd_uri" text.raw
    stop_server
    judge served.qcow2 "the image"
done

label="a server that is killed"
truncate -s 0 store.raw
truncate -s 16M store.raw
our_serve -f raw store.raw
random_file random.raw 16777216
"$BLKSTACK_IMG" convert -n -m 4 -r 40000000 -f raw --target-image-opts random.raw \
    "driver=raw,file.driver=nbd,file.path=$nbd_dir/s,file.reconnect-delay=60" >convert.log 2>&1 &
convert=$!
for _ in 1 2 3; do
    sleep 0.1
    end_server KILL
    our_serve -f raw store.raw
done
status=0
wait "$convert" || status=$?
is "$status" 0 "convert to it"
stop_server
succeeds "every byte" cmp store.raw random.raw
done_testing
