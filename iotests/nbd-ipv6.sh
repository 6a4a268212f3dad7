#!/bin/bash
# SPDX-License-Identifier: MIT
# IPv6: the server listens on ::1, or on all addresses of both kinds; real clients, the peer's and our own come by
# nbd://[::1]:PORT and by host and port; the peer's server on ::1 serves ours.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-nbd nbdinfo nbdcopy python3
any_backend

bind_to='import socket, sys; s = socket.socket(socket.AF_INET6); s.bind(("::1", 0)); print(s.getsockname()[1])'
python3 -c "$bind_to" >/dev/null 2>&1 || skip_all "this machine has no IPv6 on its loopback device"

random_file disk.raw 1048576
cp disk.raw model.raw

label="on ::1"
serve_tcp -b ::1
uri="nbd://[::1]:$port"
is "$(nbdinfo --size "$uri")" 1048576 "nbdinfo"
like "$("$BLKSTACK_NBD" -L -b ::1 -p "$port")" 'size: *1048576' "our list"
like "$(qemu-nbd -L -b ::1 -p "$port")" 'size: *1048576' "the peer's list"
succeeds "nbdcopy" timeout 20 nbdcopy "$uri" copy.raw
succeeds "copies all" cmp disk.raw copy.raw
same "raw:$uri" model.raw "both programs, by the name"
same "raw:nbd:[::1]:$port" model.raw "by the older name"
opts="driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=::1,file.server.port=$port"
succeeds "our client, by options" img compare --image-opts "$opts" "driver=raw,file.driver=file,file.filename=model.raw"
succeeds "our client writes" io -f raw -c "write -P 7 64k 64k" "$uri"
io -f raw -c "write -P 7 64k 64k" model.raw >/dev/null
fails "nobody is on 127.0.0.1" 'Connection refused' timeout 20 "$BLKSTACK_IMG" info "nbd://127.0.0.1:$port"
stop_server
succeeds "what was written is there" cmp disk.raw model.raw

label="on all addresses"
serve_tcp
for host in '[::1]' 127.0.0.1 localhost; do
    is "$(nbdinfo --size "nbd://$host:$port")" 1048576 "$host"
done
stop_server

label="the peer's server on ::1"
port=$(python3 -c "$bind_to")
qemu-nbd -t -b ::1 -p "$port" -f raw disk.raw >server.out 2>&1 &
nbd_pid=$!
nbd_pids+=("$nbd_pid")
for _ in {1..200}; do
    ! nbdinfo --size "nbd://[::1]:$port" >/dev/null 2>&1 || break
    sleep 0.02
done
same "raw:nbd://[::1]:$port" model.raw "both programs read it"
stop_server
done_testing
