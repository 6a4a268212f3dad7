#!/bin/bash
# SPDX-License-Identifier: MIT
# TLS of our NBD client on nbdkit: certificates and pre-shared keys that fit, and those that must be refused.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
. "$(dirname "$0")/tls-lib.inc"
requires nbdkit certtool psktool python3
any_backend
nbdkit --dump-config | grep -q '^tls=yes' || skip_all "this nbdkit has no TLS"

tls_authority ours
tls_authority theirs
tls_certificate ours server server localhost
tls_certificate ours client client laptop.example.com
tls_certificate theirs stranger client laptop.example.com
mkdir anonymous
cp ours-ca-cert.pem anonymous/ca-cert.pem
tls_psk psk alice
tls_psk psk bob
tls_psk wrong alice

x509() {        # DIR [OPTIONS]: --object
    echo "tls-creds-x509,id=tls0,endpoint=client,dir=$1${2:-}"
}
psk() {         # DIR USER
    echo "tls-creds-psk,id=tls0,endpoint=client,dir=$1,username=$2"
}
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# nbdkit on TCP: it is up when it has written its process number.
tcp_serve() {   # OPTIONS...
    rm -f server.pid
    nbdkit --foreground --exit-with-parent --port "$port" --pidfile server.pid "$@" memory 1M >server.out 2>&1 &
    nbd_pid=$!
    nbd_pids+=("$nbd_pid")
    for _ in {1..200}; do
        [ ! -s server.pid ] || return 0
        sleep 0.02
    done
    not_ok "the server starts" "$(cat server.out)"
}
info() {        # OBJECT NAME
    "$BLKSTACK_IMG" info --object "$1" -f raw "$2"
}

label=certificates
tcp_serve --tls=require --tls-certificates="$PWD/server"
succeeds "a server of our authority" info "$(x509 client)" "nbds://localhost:$port/?tls-creds=tls0"
succeeds "by its address" info "$(x509 anonymous)" "nbds://127.0.0.1:$port/?tls-creds=tls0"
succeeds "by options" img info --object "$(x509 client)" \
    --image-opts "driver=nbd,host=localhost,port=$port,tls-creds=tls0,tls-hostname=localhost"
io_run "$BLKSTACK_IO" --object "$(x509 client)" -f raw "nbds://localhost:$port/?tls-creds=tls0" -- "write -P 1 0 1M" \
    "read -P 1 0 1M"
like "$(info "$(x509 client)" "nbds://localhost:$port?tls-creds=tls0")" "image: nbds://localhost:$port\?tls-creds=tls0" \
    "its name"
fails "one of another authority" "Failed to connect to 'nbds://localhost:.*ertificate" \
    info "$(x509 stranger)" "nbds://localhost:$port/?tls-creds=tls0"
fails "one whose certificate has another name" "Failed to connect to 'nbds://127.0.0.2:.*ertificate" \
    info "$(x509 client)" "nbds://127.0.0.2:$port/?tls-creds=tls0"
succeeds "which verify-peer=off allows" info "$(x509 client ,verify-peer=off)" "nbds://127.0.0.2:$port/?tls-creds=tls0"
fails "without TLS" "Failed to connect" img info "nbd://localhost:$port"
fails "keys instead of certificates" "Failed to connect" info "$(psk psk alice)" "nbds://localhost:$port/?tls-creds=tls0"
stop_server

label="certificates of clients"
tcp_serve --tls=require --tls-certificates="$PWD/server" --tls-verify-peer
succeeds "one of the server's authority" info "$(x509 client)" "nbds://localhost:$port/?tls-creds=tls0"
fails "none" "." timeout 20 "$BLKSTACK_IMG" info --object "$(x509 anonymous)" -f raw "nbds://localhost:$port/?tls-creds=tls0"
stop_server

label="a server without TLS"
kit_serve memory 1M
fails "is refused" "Failed to connect to 'nbds\+unix.*TLS" info "$(psk psk alice)" "nbds+unix://?socket=$nbd_dir/s&tls-creds=tls0"
stop_server

label="pre-shared keys"
kit_serve --tls=require --tls-psk="$PWD/psk/keys.psk" memory 1M
for user in alice bob; do
    succeeds "of $user" info "$(psk psk $user)" "nbds+unix://?socket=$nbd_dir/s&tls-creds=tls0"
done
succeeds "by options" img info --object "$(psk psk alice)" \
    --image-opts "driver=raw,file.driver=nbd,file.path=$nbd_dir/s,file.tls-creds=tls0"
fails "another key" "Failed to connect" info "$(psk wrong alice)" "nbds+unix://?socket=$nbd_dir/s&tls-creds=tls0"
fails "nobody's" "." info "$(psk psk carol)" "nbds+unix://?socket=$nbd_dir/s&tls-creds=tls0"
fails "no TLS" "Failed to connect" img info "$nbd_uri"
stop_server

label="what cannot be"
fails "no such object" "tls1" info "$(psk psk alice)" "nbds://localhost/?tls-creds=tls1"
fails "no credentials" "add \?tls-creds=ID" img info nbds://localhost/x
fails "credentials of a server" "endpoint=client" \
    info "tls-creds-psk,id=tls0,endpoint=server,dir=psk" "nbds://localhost/?tls-creds=tls0"
fails "another name than the host's" "tls-hostname" info "$(x509 client)" "nbds://localhost/?tls-creds=tls0&tls-hostname=other"
fails "certificates on a unix socket, where libnbd verifies nothing" "use pre-shared keys, or verify-peer=off" \
    info "$(x509 client)" "nbds+unix://?socket=$nbd_dir/s&tls-creds=tls0"
done_testing
