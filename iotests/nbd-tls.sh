#!/bin/bash
# SPDX-License-Identifier: MIT
# TLS of blkstack-nbd: certificates with and without those of clients, names that are let in, pre-shared keys. What is not
# right is refused with a reason, and gets nothing.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
. "$(dirname "$0")/tls-lib.inc"
requires qemu-img nbdinfo nbdsh nbdcopy certtool psktool
any_backend

tls_authority good
tls_authority other
tls_certificate good server server localhost
tls_certificate good wrongname server elsewhere 'expiration_days = 30'
sed -i '/^dns_name\|^ip_address/d' wrongname/server.template
tls_quiet certtool --generate-certificate --template wrongname/server.template --load-privkey wrongname/server-key.pem \
    --load-ca-certificate good-ca-cert.pem --load-ca-privkey good-ca-key.pem --outfile wrongname/server-cert.pem
tls_certificate good laptop client laptop
tls_certificate good desktop client desktop
tls_certificate good old client old 'activation_date = "2020-01-01 00:00:00 UTC"' 'expiration_date = "2020-02-01 00:00:00 UTC"'
tls_certificate other stranger client laptop
cp good-ca-cert.pem stranger/ca-cert.pem        # it trusts the server, but the server not it
mkdir nobody distrust
cp good-ca-cert.pem nobody/ca-cert.pem
cp other-ca-cert.pem distrust/ca-cert.pem
# The certificate of a server used as a client's.
mkdir posing
cp good-ca-cert.pem posing/ca-cert.pem
cp server/server-cert.pem posing/client-cert.pem
cp server/server-key.pem posing/client-key.pem
for user in alice bob mallory; do tls_psk keys "$user"; done
sed '/mallory/d' keys/keys.psk >keys/server.psk
mkdir serverkeys
cp keys/server.psk serverkeys/keys.psk
tls_psk wrongkey alice

random_file disk.raw 1048576

tls_serve() { serve_tcp -b localhost "$@"; }

x509_uri() { echo "nbds://localhost:$port/?tls-certificates=$PWD/$1"; }
psk_uri() { echo "nbds://$1@localhost:$port/?tls-psk-file=$PWD/$2/keys.psk"; }

lets_in() {     # TEXT URI
    is "$(nbdinfo --size "$2" 2>&1)" 1048576 "let in: $1"
}

# The server says why, and the client learns nothing; others are served as before.
keeps_out() {   # TEXT REGEX URI
    local status=0

    : >server.out
    nbdinfo --size "$3" >cmd.out 2>&1 || status=$?
    num_ok "$status == 1" "kept out: $1"
    for _ in {1..100}; do
        [ ! -s server.out ] || break
        sleep 0.02
    done
    like "$(cat server.out)" "$2" "and the server says why: $1"
}

server=(--object "tls-creds-x509,id=tls,endpoint=server,dir=server" --tls-creds tls)

# ---- certificates on both sides ----
tls_serve "${server[@]}"
lets_in "a client with a certificate" "$(x509_uri laptop)"
succeeds "all bytes through TLS" nbdcopy "$(x509_uri laptop)" copy.raw
succeeds "are the same" cmp disk.raw copy.raw
URI=$(x509_uri laptop)
export URI
succeeds "writes of all sizes through TLS" nbdsh -c '
import os, random
h.set_uri_allow_local_file(True)
h.connect_uri(os.environ["URI"])
data = bytearray(h.pread(h.get_size(), 0))
sizes = [1, 15, 16, 17, 511, 4096, 16383, 16384, 16385, 65536, 1048576]
for size in sizes + [random.randrange(1, 200000) for i in range(40)]:
    offset = random.randrange(0, len(data) - size + 1)
    piece = random.randbytes(size)
    h.pwrite(piece, offset)
    data[offset:offset + size] = piece
    assert h.pread(size, offset) == piece
assert h.pread(len(data), 0) == data
h.flush()
h.shutdown()'
: >server.out
# Several requests under way at once, in both directions.
succeeds "many requests at once through TLS" nbdsh -c '
import os, random
h.set_uri_allow_local_file(True)
h.connect_uri(os.environ["URI"])
pieces = [random.randbytes(30000) for i in range(30)]
buffers = [nbd.Buffer(30000) for i in range(30)]
def wait_for(cookies):
    for cookie in cookies:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
wait_for([h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(piece)), i * 30000) for i, piece in enumerate(pieces)])
wait_for([h.aio_pread(buffer, i * 30000) for i, buffer in enumerate(buffers)])
for piece, buffer in zip(pieces, buffers):
    assert buffer.to_bytearray() == piece
h.shutdown()'
peer=driver=nbd,host=localhost,port=$port,tls-creds=tls
succeeds "the peer's qemu-img reads through TLS" qimg compare --object tls-creds-x509,id=tls,endpoint=client,dir=laptop \
    --image-opts driver=raw,file.filename=disk.raw,force-share=on \
    "driver=raw,file.driver=nbd,file.host=localhost,file.port=$port,file.tls-creds=tls" -U
fails "which needs its own certificate" 'Could not open|Failed' qimg info --object \
    tls-creds-x509,id=tls,endpoint=client,dir=nobody --image-opts "$peer"
succeeds "our qemu-img reads through TLS" img info --object tls-creds-x509,id=tls,endpoint=client,dir=laptop --image-opts "$peer"
like "$("$BLKSTACK_NBD" -L --object tls-creds-x509,id=tls,dir=laptop --tls-creds tls -p "$port")" 'size:  1048576' \
    "our list through TLS"
is "$("$BLKSTACK_NBD" -L --object tls-creds-x509,id=tls,dir=laptop --tls-creds tls -p "$port")" \
    "$(qemu-nbd -L --object tls-creds-x509,id=tls,dir=laptop --tls-creds tls -b localhost -p "$port")" "is the peer's"
keeps_out "a client without a certificate" 'handshake failed: (No certificate|Certificate is required)' "$(x509_uri nobody)"
keeps_out "a client of another authority" 'handshake failed: .*(issuer is unknown|not trusted)' "$(x509_uri stranger)"
keeps_out "a certificate that has expired" 'handshake failed: .*expired' "$(x509_uri old)"
keeps_out "a server's certificate" 'handshake failed: .*purpose' "$(x509_uri posing)"
keeps_out "a client that does not trust the server" 'handshake failed: ' "$(x509_uri distrust)"
# Without TLS: no list, no information, no export by the old option either.
fails "no TLS, no information" 'requires TLS' nbdinfo --size "nbd://localhost:$port"
fails "no TLS, no list" 'server replied with error to list' nbdinfo --list "nbd://localhost:$port"
succeeds "all options but STARTTLS and ABORT are refused without TLS" python3 - "$port" <<'END'
import socket, struct, sys

s = socket.create_connection(("localhost", int(sys.argv[1])))
def get(n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        assert piece, "the server hung up"
        data += piece
    return data
def option(number, data=b""):
    s.sendall(struct.pack(">QII", 0x49484156454F5054, number, len(data)) + data)
    magic, back, reply, length = struct.unpack(">QIII", get(20))
    assert magic == 0x3E889045565A9 and back == number
    get(length)
    return reply
get(18)
s.sendall(struct.pack(">I", 3))
name = struct.pack(">I", 0)
for number, data in [(3, b""), (6, name + struct.pack(">H", 0)), (7, name + struct.pack(">H", 0)), (8, b""),
                     (9, name + struct.pack(">I", 0)), (10, name + struct.pack(">I", 0)), (11, b""), (99, b"")]:
    assert option(number, data) == 0x80000005, number       # NBD_REP_ERR_TLS_REQD
# EXPORT_NAME cannot be refused but by hanging up.
s.sendall(struct.pack(">QII", 0x49484156454F5054, 1, 0))
assert s.recv(1) == b""
END
# What is sent behind STARTTLS in plain is no option.
succeeds "an option that was slipped in before TLS is never obeyed" python3 - "$port" laptop <<'END'
import socket, ssl, struct, sys

def connect():
    s = socket.create_connection(("localhost", int(sys.argv[1])))
    s.recv(18, socket.MSG_WAITALL)
    s.sendall(struct.pack(">I", 3))
    return s
def option(number, data=b""):
    return struct.pack(">QII", 0x49484156454F5054, number, len(data)) + data
s = connect()
s.sendall(option(5) + option(3))
reply = s.recv(20, socket.MSG_WAITALL)
assert struct.unpack(">QIII", reply)[2] == 1
data = b""
try:
    while True:
        piece = s.recv(4096)
        if not piece:
            break
        data += piece
except ConnectionError:
    pass
assert b"\x00\x03\xe8\x89\x04\x55\x65\xa9" not in data, "it was answered in plain"
# And what was agreed on before TLS is forgotten: structured replies are refused, by a server that requires TLS, so that
# they cannot be; afterwards they have to be agreed on again.
s = connect()
s.sendall(option(5))
assert struct.unpack(">QIII", s.recv(20, socket.MSG_WAITALL))[2] == 1
context = ssl.create_default_context(cafile=sys.argv[2] + "/ca-cert.pem")
context.load_cert_chain(sys.argv[2] + "/client-cert.pem", sys.argv[2] + "/client-key.pem")
t = context.wrap_socket(s, server_hostname="localhost")
t.sendall(option(5))
reply = t.recv(20)
assert struct.unpack(">QIII", reply)[2] == 0x80000003, "TLS in TLS"
END
lets_in "a client after all of them" "$(x509_uri laptop)"
stop_server

# ---- silent clients ----
tls_serve "${server[@]}"
exec 5<>"/dev/tcp/localhost/$port"
lets_in "a client while another one is silent" "$(x509_uri laptop)"
stop_server
exec 5>&-
ok "the server stops while a client is silent"

# ---- names ----
tls_serve "${server[@]}" --object authz-simple,id=who,identity=O=Example,,CN=laptop --tls-authz who
lets_in "the one that is named" "$(x509_uri laptop)"
keeps_out "another one by name" "client 'O=Example,CN=desktop' is refused by 'who'" "$(x509_uri desktop)"
stop_server
# The peer knows clients by the same names.
qemu-nbd -t -e 0 -f raw -b 127.0.0.1 -p "$port" "${server[@]}" --object authz-simple,id=who,identity=O=Example,,CN=laptop \
    --tls-authz who disk.raw >server.out 2>&1 &
nbd_pid=$!
nbd_pids+=("$nbd_pid")
for _ in {1..100}; do
    ! nbdinfo --size "$(x509_uri laptop)" >/dev/null 2>&1 || break
    sleep 0.02
done
lets_in "the same one, by the peer" "$(x509_uri laptop)"
stop_server
tls_serve "${server[@]}" --object authz-list,id=who,rules.0.match=*CN=desk*,rules.0.policy=allow,rules.0.format=glob --tls-authz who
lets_in "one that matches a pattern" "$(x509_uri desktop)"
keeps_out "one that does not" "client 'O=Example,CN=laptop' is refused" "$(x509_uri laptop)"
stop_server

# ---- no certificates of clients; the wrong name of the server ----
tls_serve --object tls-creds-x509,id=tls,endpoint=server,dir=server,verify-peer=off --tls-creds tls
lets_in "a client without a certificate, if none is asked for" "$(x509_uri nobody)"
stop_server
tls_serve --object tls-creds-x509,id=tls,endpoint=server,dir=wrongname --tls-creds tls
keeps_out "a client that wants a server of another name" 'handshake failed' "$(x509_uri laptop)"
like "$(cat cmd.out)" 'certificate' "and the client says why"
stop_server

# ---- pre-shared keys ----
tls_serve --object tls-creds-psk,id=tls,endpoint=server,dir=serverkeys --tls-creds tls
lets_in "a user with the key" "$(psk_uri alice keys)"
lets_in "another user with another key" "$(psk_uri bob keys)"
succeeds "all bytes through TLS with a key" nbdcopy "$(psk_uri alice keys)" copy.raw
succeeds "are the same" cmp disk.raw copy.raw
keeps_out "a wrong key" 'handshake failed' "$(psk_uri alice wrongkey)"
keeps_out "a user without a key here" 'handshake failed' "$(psk_uri mallory keys)"
keeps_out "a client with a certificate" 'handshake failed' "$(x509_uri laptop)"
succeeds "the peer's qemu-img with a key" qimg info --object tls-creds-psk,id=tls,endpoint=client,dir=keys,username=bob \
    --image-opts "driver=nbd,host=localhost,port=$port,tls-creds=tls"
stop_server
tls_serve --object tls-creds-psk,id=tls,endpoint=server,dir=serverkeys --tls-creds tls --object authz-simple,id=who,identity=bob \
    --tls-authz who
lets_in "the user that is named" "$(psk_uri bob keys)"
keeps_out "another user" "client 'alice' is refused" "$(psk_uri alice keys)"
stop_server

# ---- contradictions, seen before anything listens ----
nbd() { timeout 10 "$BLKSTACK_NBD" -f raw -k "$nbd_dir/n" "$@" disk.raw; }
fails "credentials that are not there" "no object with the id 'tls'" nbd --tls-creds tls
fails "a client's credentials" "are for a client: give them endpoint=server" nbd \
    --object tls-creds-x509,id=tls,dir=laptop --tls-creds tls
fails "an object that is no credentials" "holds no TLS credentials" nbd --object secret,id=tls,data=x --tls-creds tls
fails "TLS that is required without credentials" "not permitted without --tls-creds" nbd --tls-required
fails "names without credentials" "not permitted without --tls-creds" nbd --tls-authz who
fails "names that are not there" "no object with the id 'who'" nbd "${server[@]}" --tls-authz who
fails "names that are none" "says nothing about who may connect" nbd "${server[@]}" --tls-authz tls
fails "names without certificates" "verify-peer=off asks for no certificate" nbd --object authz-simple,id=who,identity=x \
    --object tls-creds-x509,id=tls,endpoint=server,dir=server,verify-peer=off --tls-creds tls --tls-authz who
fails "a name of the server, at the server" "only for clients" nbd "${server[@]}" --tls-hostname x
isnt "$(ls "$nbd_dir")" n "nothing has listened"
done_testing
