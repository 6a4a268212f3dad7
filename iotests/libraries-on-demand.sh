#!/bin/bash
# SPDX-License-Identifier: MIT
# libcurl, libnbd and GnuTLS are loaded by who needs them, and by nobody else. Where one is missing, that is when one is told what to
# install; all else goes on.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img
any_backend

"$QEMU_IMG" create -q -f qcow2 disk.qcow2 1M
"$QEMU_IMG" create -q -f raw disk.raw 1M

# Which of the libraries a command loads, or looks for.
loaded() {
    LD_DEBUG=libs LD_DEBUG_OUTPUT="$PWD/loads" "$@" >/dev/null 2>&1 || true
    { grep -ohE 'find library=lib(curl|nbd|gnutls)' loads.* || true; } | sed 's/.*=lib//' | sort -u | xargs
    rm -f loads.*
}

# LIBRARIES COMMAND...: it has found files of these names, which are no libraries.
without() {
    local file
    rm -rf missing
    mkdir missing
    for file in $1; do
        echo "no library" >"missing/$file"
    done
    shift
    LD_LIBRARY_PATH=$PWD/missing "$@"
}

label="who loads what"
is "$(loaded "$BLKSTACK_IMG" --version)" "" "img --version"
is "$(loaded "$BLKSTACK_IMG" info disk.qcow2)" "" "img info"
is "$(loaded "$BLKSTACK_IMG" convert -c -O qcow2 disk.qcow2 copy.qcow2)" "" "img convert"
is "$(loaded "$BLKSTACK_IO" -c "read 0 1M" disk.qcow2)" "" "io"
is "$(loaded "$BLKSTACK_NBD" --help)" "" "nbd"
is "$(loaded "$BLKSTACK_DAEMON" --help)" "" "daemon"
is "$(loaded "$BLKSTACK_CTL" --help)" "" "ctl"
our_serve -f qcow2 disk.qcow2
is "$(loaded "$BLKSTACK_IMG" info "$our_uri")" "gnutls nbd" "a disk on an NBD server"
is "$(grep -cE 'lib(curl|nbd|gnutls)\.' "/proc/$nbd_pid/maps" || true)" 0 "the server"

label="without libnbd"
fails "it is named" "Disks on NBD servers need libnbd: .*libnbd.so.0.*; install the package that has 'libnbd.so.0'" \
    without libnbd.so.0 img info "$our_uri"
fails "again, in one program" "need libnbd" without libnbd.so.0 io -c "open $our_uri" -c "open $our_uri"
fails "the list of a server" "need libnbd" without libnbd.so.0 "$BLKSTACK_NBD" -L -k "$nbd_dir/o"
succeeds "all else goes on" without libnbd.so.0 img info disk.raw
stop_server

label="without GnuTLS"
mkdir keys
echo "user:0123456789abcdef" >keys/keys.psk
creds=tls-creds-psk,id=t,endpoint=server,dir=$PWD/keys
fails "credentials" "TLS and encrypted secrets need GnuTLS: .*libgnutls.so.30.*; install the package that has 'libgnutls.so.30'" \
    without libgnutls.so.30 "$BLKSTACK_NBD" --object "$creds" --tls-creds t -k "$nbd_dir/o" disk.qcow2
key=$(printf '%032d' 0 | base64)
fails "an encrypted secret" "need GnuTLS" without libgnutls.so.30 \
    img info --object "secret,id=k,format=base64,data=$key" \
    --object "secret,id=s,keyid=k,iv=$(printf '%016d' 0 | base64),data=$(printf '%016d' 0 | base64),format=base64" disk.qcow2
succeeds "a plain secret" without libgnutls.so.30 img info --object secret,id=s,data=x disk.qcow2

label="without libcurl"
fails "it is named" "Files on web servers need libcurl: .*libcurl.so.4.*; install the package that has 'libcurl.so.4'" \
    without "libcurl-gnutls.so.4 libcurl.so.4" img info http://localhost:9/disk.raw
succeeds "all else goes on" without "libcurl-gnutls.so.4 libcurl.so.4" img info -f raw disk.raw
done_testing
