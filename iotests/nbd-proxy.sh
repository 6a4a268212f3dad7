#!/bin/bash
# SPDX-License-Identifier: MIT
# nbdkit's nbd proxy in front of our server: it passes on reads, writes, zeroes, trims, FUA, block status, several connections at
# once; and nbdcopy through it, and without it, with as many connections as it can have.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires nbdkit nbdcopy nbdinfo nbdsh qemu-img qemu-io

text_file source.raw 12M
truncate -s 16M source.raw

proxied() {     # OPTIONS...: of our server
    our_serve "$@" disk.qcow2
    our_pid=$nbd_pid
    kit_serve nbd uri="$our_uri" shared=true
}

stop_both() {
    stop_server
    kill "$our_pid"
    wait "$our_pid" || true
}

new_image 16M
proxied --compress --discard=unmap -f qcow2
is "$(nbdinfo --size "$nbd_uri")" $((16 << 20)) "the size through the proxy"
for can in write flush fua trim zero cache multi-conn; do
    succeeds "the proxy can $can" nbdinfo --can "$can" "$nbd_uri"
done
succeeds "copied in through the proxy, 4 connections, 64 requests" \
    timeout 60 nbdcopy --connections=4 --requests=64 --flush source.raw "$nbd_uri"
is "$(nbdinfo --map "$nbd_uri" | awk '{ print $1, $2, $3 }')" "$(nbdinfo --map "$our_uri" | awk '{ print $1, $2, $3 }')" \
    "the map through the proxy"
succeeds "copied out through the proxy" timeout 60 nbdcopy --connections=4 "$nbd_uri" copy.raw
same source.raw copy.raw "the copy"
cp source.raw model.raw
io_run "$QEMU_IO" -f raw "$nbd_uri" -d unmap -- "write -P 1 1000 5000" "write -f -P 2 64k 64k" "write -z 1M 100k" \
    "write -z -u 2M 1M" "discard 4M 1M" "read -P 1 1000 5000" "flush"
model_io "write -P 1 1000 5000" "write -P 2 64k 64k" "write -z 1M 100k" "write -z 2M 1M" "discard 4M 1M"
stop_both
agrees "changed through the proxy"

new_image 16M
our_serve --compress -f qcow2 disk.qcow2
cp source.raw model.raw
succeeds "copied in, 16 connections" timeout 60 nbdcopy --connections=16 --requests=16 --threads=4 source.raw "$our_uri"
succeeds "copied out, 16 connections" timeout 60 nbdcopy --connections=16 --requests=16 --threads=4 "$our_uri" copy.raw
same source.raw copy.raw "the copy"
stop_server
agrees "copied in over 16 connections"
done_testing
