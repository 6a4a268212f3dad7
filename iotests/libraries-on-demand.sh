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
key=$(printf '%032d' 0 | base64) iv=$(printf '%016d' 0 | base64)
encrypted=(--object "secret,id=k,format=base64,data=$key" --object "secret,id=s,keyid=k,iv=$iv,data=$iv,format=base64")
nobody="nbd+unix:///?socket=$nbd_dir/nobody"
for needs in "$nobody" http://localhost:9/; do
    img info -f raw "$needs" 2>&1 || true
done >built
img info "${encrypted[@]}" disk.qcow2 >>built 2>&1 || true
! grep -Eq "not built in|built without" built || skip_all "this build lacks one of the libraries"

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
is "$(loaded "$BLKSTACK_IMG" info --object secret,id=s,data=x disk.qcow2)" "" "a plain secret"
is "$(loaded "$BLKSTACK_IMG" info "${encrypted[@]}" disk.qcow2)" "gnutls" "an encrypted one"
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
is "$(grep -c . cmd.out)" 1 "in one sentence"
fails "it is not tried again and again" "'driver=nbd[^:]*: Disks on NBD servers need libnbd" without libnbd.so.0 \
    timeout 20 "$BLKSTACK_IMG" info --image-opts "driver=nbd,path=$nbd_dir/nobody,open-timeout=60"
fails "as a target" "need libnbd" without libnbd.so.0 img convert -n -f raw -O raw disk.raw "$nobody"
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
is "$(grep -c . cmd.out)" 1 "in one sentence"
for creds in tls-creds-psk,endpoint=client tls-creds-x509,endpoint=server tls-creds-x509,endpoint=client; do
    fails "$creds" "need GnuTLS" without libgnutls.so.30 img info --object "$creds,id=t,dir=$PWD/keys" disk.qcow2
done
fails "an encrypted secret" "need GnuTLS" without libgnutls.so.30 img info "${encrypted[@]}" disk.qcow2
succeeds "a plain secret" without libgnutls.so.30 img info --object secret,id=s,data=x disk.qcow2

label="without libcurl"
fails "it is named" "Files on web servers need libcurl: .*libcurl.so.4.*; install the package that has 'libcurl.so.4'" \
    without "libcurl-gnutls.so.4 libcurl.so.4" img info http://localhost:9/disk.raw
succeeds "all else goes on" without "libcurl-gnutls.so.4 libcurl.so.4" img info -f raw disk.raw

label="without all of them"
all="libnbd.so.0 libgnutls.so.30 libcurl.so.4 libcurl-gnutls.so.4"
text_file model.raw 1M
succeeds "convert" without "$all" img convert -c -f raw -O qcow2 model.raw copy.qcow2
same copy.qcow2 model.raw "the same bytes"
without "$all" our_serve -f qcow2 copy.qcow2
succeeds "a server, for a client that has them" img compare -f raw -F raw "$our_uri" model.raw
stop_server
done_testing
