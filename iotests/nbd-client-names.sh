#!/bin/bash
# SPDX-License-Identifier: MIT
# Names of NBD servers: those that are wrong, those in images (followed only if the user named the image's format), odd exports.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-nbd nbdkit

label="names that are wrong"
for name in nbd: nbd:localhost nbd:localhost: nbd:unix: nbd:// nbd:///x nbd+unix:///x nbd+unix://host/x?socket=/s \
    "nbd+unix:///x?socket=" "nbd+unix:///x?sockets=/s" "nbd://localhost/x?socket=/s" "nbd://localhost:99999/x" \
    "nbd://localhost:port/x" "nbd://user@localhost/x" "nbd://localhost/x#y" "nbd://localhost/%zz" "nbd+unix:" \
    "nbd+unix:///?socket=$(printf 'a%.0s' {1..200})"; do
    fails "$name" "Could not open" timeout 20 "$BLKSTACK_IMG" info "$name"
    num_ok "$(wc -l <cmd.out) == 1" "one sentence"
done
for opts in driver=nbd driver=nbd,path=/s,host=h driver=nbd,path=/s,port=1 driver=nbd,server.type=inet,server.path=/s \
    driver=nbd,server.type=fd,server.str=x driver=nbd,server.type=fd,server.str=999 driver=nbd,path=/s,connections=17 \
    driver=nbd,path=/s,tls-hostname=h driver=nbd,filename=nbd://h,export=x driver=nbd,filename=/x \
    "driver=nbd,path=/s,export=$(printf 'a%.0s' {1..5000})"; do
    fails "${opts:0:60}" "." timeout 20 "$BLKSTACK_IMG" info --image-opts "$opts"
done

label="odd export names"
truncate -s 1M store.raw
for export in a:b "with space" "100%" "a?b=c&d" "ü" "a/b"; do
    peer_serve -f raw -x "$export" store.raw
    is "$(img info --output=json "nbd:unix:$nbd_dir/s:exportname=$export" | grep -c '"virtual-size": 1048576')" 1 "'$export'"
    name=$(img info "nbd:unix:$nbd_dir/s:exportname=$export" | sed -n 's/^image: //p')
    succeeds "and by the name that info tells: $name" img info "$name"
    stop_server
done

label="a socket that the program was given"
succeeds "works" python3 - "$BLKSTACK_IO" store.raw "$nbd_dir/s" <<'END'
import socket, subprocess, sys, time
program, store, path = sys.argv[1:]
ours, theirs = socket.socketpair()
server = subprocess.Popen(["nbdkit", "-s", "memory", "1M"], stdin=theirs, stdout=theirs)
theirs.close()
fd = ours.fileno()
ret = subprocess.run([program, "--image-opts", f"driver=raw,file.driver=nbd,file.server.type=fd,file.server.str={fd}",
                      "-c", "write -P 1 0 64k", "-c", "read -P 1 0 64k"], pass_fds=[fd])
ours.close()
server.wait(10)
sys.exit(ret.returncode)
END

# The server writes down who connects; it may write that somebody has left when the client is long gone.
connects() { grep -ac ' Connect ' connections.log || true; }

label="names in images"
kit_serve --filter=log memory 1M logfile=connections.log
io_run "$BLKSTACK_IO" -f raw "$nbd_uri" -- "write -P 7 0 64k"
before=$(connects)
qimg create -q -u -f qcow2 -b "$nbd_uri" -F raw top.qcow2 1M
fails "a detected image's backing name is not followed" "format.* was detected, not given" \
    img convert -O raw top.qcow2 out.raw
fails "nor for a read" "was detected, not given" io -r -c "read 0 64k" top.qcow2
fails "nor for map" "was detected, not given" img map top.qcow2
succeeds "info" img info top.qcow2
succeeds "check" img check top.qcow2
is "$(connects)" "$before" "nobody connected to the server"
io_run "$BLKSTACK_IO" -r -f qcow2 top.qcow2 -- "read -P 7 0 64k" "read -P 0 64k 64k"
succeeds "followed when the user names the format" img convert -f qcow2 -O raw top.qcow2 out.raw
num_ok "$(connects) >= $before + 2" "the server was asked then"
io_run "$BLKSTACK_IO" -f qcow2 top.qcow2 -- "write -P 8 512 512" "read -P 7 0 512" "read -P 8 512 512" "read -P 7 1k 63k"
io_run "$BLKSTACK_IO" -r -f raw "$nbd_uri" -- "read -P 7 0 64k"
ok "an overlay writes nothing to its backing"
stop_server
done_testing
