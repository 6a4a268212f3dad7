#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-nbd -L prints of any server what the peer's qemu-nbd -L does.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-nbd nbdkit
any_backend

s=$nbd_dir/s

# What both print of the server on $s, with the same exit status.
listed() {      # STATUS DESCRIPTION
    local theirs=0 ours=0

    qemu-nbd -L -k "$s" >peer.out 2>&1 || theirs=$?
    "$BLKSTACK_NBD" -L -k "$s" >ours.out 2>&1 || ours=$?
    sed -i 's/qemu-nbd/blkstack-nbd/' peer.out
    is "$ours $theirs" "$1 $1" "$2: exit status"
    is "$(cat ours.out)" "$(cat peer.out)" "$2: output"
}

qimg create -q -f qcow2 disk.qcow2 10M
qimg bitmap --add disk.qcow2 bits
truncate -s 1M disk.raw
options=(-k "$s" -t -f qcow2 -x foo -D 'the description' -A -B bits disk.qcow2)
serve_on "$s" qemu-nbd "${options[@]}"
listed 0 "the peer's server"
stop_server
serve_on "$s" "$BLKSTACK_NBD" "${options[@]}"
listed 0 "our server"
like "$(cat ours.out)" "export: 'foo'.*description: the description.*min block: 1.*meta contexts: 3" "and it has all"
stop_server
serve_on "$s" "$BLKSTACK_NBD" -k "$s" -t -r -f raw disk.raw
listed 0 "a read-only export"
like "$(cat ours.out)" ' readonly ' "and it says so"
stop_server

mkdir dir
cp disk.raw dir/one
cp disk.raw dir/two
kit_serve file dir=dir
listed 0 "two exports"
stop_server
kit_serve -o memory 1M
listed 0 "the old protocol"
stop_server
kit_serve --mask-handshake=0 memory 1M
listed 1 "no options"
stop_server
kit_serve --no-sr memory 1M
listed 0 "no structured replies"
stop_server
kit_serve --filter=exportname null 0 exportname-list=empty
listed 0 "no exports"
stop_server
# Names are the server's: they do not reach the terminal as they are.
kit_serve --filter=exportname null 0 exportname-list=explicit exportname=$'a\eb'
like "$("$BLKSTACK_NBD" -L -k "$s")" "export: 'a\?b'" "control characters in a name"
stop_server

# ---- what is refused ----
list() { "$BLKSTACK_NBD" -L "$@"; }
fails "no server at a socket" "Failed to connect to '$nbd_dir/none': " list -k "$nbd_dir/none"
fails "no server at a port" "Failed to connect to 'localhost:1': .*Connection refused" list -p 1
for option in '-x a' '-D a' '-o 1' '-f raw' '-A' '-B a' '-l a' '-n' '--cache=none' '--aio=threads' '--discard=on' \
    '--detect-zeroes=on' '--compress' '--fork'; do
    # shellcheck disable=SC2086
    fails "-L $option" 'List mode is incompatible with per-device settings' list $option
done
fails "-L with a file" 'List mode is incompatible with a file name' list disk.raw
fails "-L with --tls-authz" 'TLS authorization is incompatible with export list' list --tls-creds=a --tls-authz=b
fails "-L with credentials that are not there" "no object with the id 'a'" list --tls-creds=a
done_testing
