#!/bin/bash
# SPDX-License-Identifier: MIT
# --object: what is right is taken by all tools, as the peer's are; what is wrong is refused with one sentence.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/tls-lib.inc"
requires qemu-img certtool psktool openssl
any_backend

truncate -s 1M disk.raw
info() { img info --object "$@" -f raw disk.raw; }
peer() { qimg info --object "$@" -f raw disk.raw; }

# Both take it or both refuse it; ours with the sentence that REGEX matches.
taken() {       # OBJECT...
    succeeds "taken: $*" info "$@"
    succeeds "taken by the peer: $*" peer "$@"
}
refused() {     # REGEX OBJECT
    fails "refused: $2" "^blkstack-img: [^"$'\n'"]*$1[^"$'\n'"]*$" info "$2"
    succeeds "refused by the peer too: $2" fails_silently peer "$2"
}
fails_silently() { ! "$@" >/dev/null 2>&1; }

# ---- syntax, types and ids ----
taken 'secret,id=s,data=x'
taken '{"qom-type": "secret", "id": "s", "data": "x"}'
taken 'qom-type=secret,id=s.1-a_b,data='
refused "no type 'nonsense'" nonsense,id=s
refused 'type of an object is missing' id=s
refused 'type of an object is missing' ''
refused "option 'id' is required" secret,data=x
refused 'id of an object must be' secret,id=9,data=x
refused 'id of an object must be' 'secret,id=a/b,data=x'
refused "unknown option 'date'; did you mean 'data'" secret,id=s,date=x
refused 'expected' '{"qom-type": "secret"'
refused 'no type' "$(printf 'x%.0s' {1..100000})"
fails "an id that is taken" 'already' info secret,id=s,data=x --object secret,id=s,data=y
types=$(img info --object help)
like "$types" 'authz-list .*authz-simple .*secret .*throttle-group .*tls-creds-psk .*tls-creds-x509 ' "help lists the types"
like "$(img info --object tls-creds-x509,help)" 'verify-peer=<bool .*default: on' "help lists the options of a type"
for command in amend bench bitmap check commit compact compare convert create dd info map measure rebase resize snapshot; do
    succeeds "blkstack-img $command takes objects" img "$command" --object help disk.raw 1M
done
status=0
img compare --object nonsense,id=x disk.raw disk.raw 2>/dev/null || status=$?
is "$status" 2 "compare with a bad object does not say that images differ"
succeeds "blkstack-io takes objects" io --object secret,id=s,data=x -f raw -c 'read 0 4k' disk.raw
fails "blkstack-io refuses bad ones" "no type 'nonsense'" io --object nonsense,id=s -f raw -c 'read 0 4k' disk.raw

# ---- secrets ----
printf 'letmein' >password
taken secret,id=s,file=password
taken secret,id=s,data=bGV0bWVpbg==,format=base64
refused "'file' and 'data' are mutually exclusive" secret,id=s,data=x,file=password
refused "Either 'file' or 'data' must be provided" secret,id=s
refused 'Unable to read missing: No such file' secret,id=s,file=missing
refused 'Unable to read \.: Is a directory' secret,id=s,file=.
refused 'invalid characters' 'secret,id=s,data=!!!!,format=base64'
fails "base64 that is cut off" 'invalid characters' info 'secret,id=s,data=bGV0bWVpb==,format=base64'
refused "'format' must be one of raw, base64" secret,id=s,data=x,format=hex
fails "an endless file" 'File too large' info secret,id=s,file=/dev/zero

# Encrypted by another secret. A key that encrypts the private key of the server proves that it was decrypted rightly.
hex_key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
hex_iv=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
encrypted=$(printf letmein | openssl enc -aes-256-cbc -K "$hex_key" -iv "$hex_iv" -a)
base64_of() { perl -e 'print pack("H*", shift)' "$1" | base64 -w0; }
key=$(base64_of "$hex_key") iv=$(base64_of "$hex_iv")
master=secret,id=m,format=base64,data=$key
taken "$master" --object "secret,id=s,keyid=m,iv=$iv,format=base64,data=$encrypted"
fails "a key that is not there" "no object with the id 'm'" info "secret,id=s,keyid=m,iv=$iv,format=base64,data=$encrypted"
fails "a key without a vector" "'keyid' and 'iv' must be given together" info "$master" \
    --object "secret,id=s,keyid=m,format=base64,data=$encrypted"
fails "a key of a wrong length" 'needs a key of 32 bytes' info secret,id=m,data=short \
    --object "secret,id=s,keyid=m,iv=$iv,format=base64,data=$encrypted"
fails "a vector of a wrong length" "an 'iv' of 16, not of 32 and 3" info "$master" \
    --object "secret,id=s,keyid=m,iv=YWJj,format=base64,data=$encrypted"
# Always the same bytes, since one wrong key in 256 leaves what looks like padding.
fails "a wrong key" 'not encrypted with the key' info secret,id=m,data=12345678123456781234567812345678 \
    --object "secret,id=s,keyid=m,iv=AAAAAAAAAAAAAAAAAAAAAA==,format=base64,data=AAECAwQFBgcICQoLDA0ODw=="
fails "data of a wrong length" 'multiple of 16 bytes' info "$master" --object "secret,id=s,keyid=m,iv=$iv,data=abc"
fails "a key that is no secret" 'is no secret' info authz-simple,id=m,identity=x \
    --object "secret,id=s,keyid=m,iv=$iv,format=base64,data=$encrypted"

# ---- who may connect ----
taken authz-simple,id=a,identity=CN=x
refused "'identity' is required" authz-simple,id=a
taken authz-list,id=a
taken 'authz-list,id=a,policy=allow,rules.0.match=C*,rules.0.policy=deny,rules.0.format=glob'
refused "rules.0: option 'policy' is required" authz-list,id=a,rules.0.match=x
refused "'policy' must be one of deny, allow" authz-list,id=a,rules.0.match=x,rules.0.policy=perhaps
refused "rules" 'authz-list,id=a,rules.1.match=x,rules.1.policy=allow'
refused "must be a list" authz-list,id=a,rules=x
refused "rules.0 must be an object" '{"qom-type": "authz-list", "id": "a", "rules": [1]}'

# ---- TLS credentials ----
x509=tls-creds-x509,id=t psk=tls-creds-psk,id=t
tls_authority good
tls_authority other
tls_certificate good server server localhost
tls_certificate good client client one
tls_certificate good expired server localhost 'activation_date = "2020-01-01 00:00:00 UTC"' \
    'expiration_date = "2020-02-01 00:00:00 UTC"'
tls_certificate good future server localhost 'activation_date = "2090-01-01 00:00:00 UTC"' \
    'expiration_date = "2090-02-01 00:00:00 UTC"'
taken "$x509,endpoint=server,dir=server"
taken "$x509,endpoint=client,dir=client"
taken "$x509,endpoint=client,dir=server"
taken "$x509,endpoint=server,dir=server,priority=NORMAL:-VERS-ALL:+VERS-TLS1.3"
refused "'dir' is required" "$x509"
refused 'Unable to access credentials missing/ca-cert.pem: No such file' "$x509,endpoint=server,dir=missing"
refused 'Unable to access credentials client/server-cert.pem: No such file' "$x509,endpoint=server,dir=client"
refused 'expired/server-cert.pem has expired' "$x509,endpoint=server,dir=expired"
refused 'future/server-cert.pem is not yet valid' "$x509,endpoint=server,dir=future"
taken "$x509,endpoint=server,dir=expired,sanity-check=off"
refused "'endpoint' must be one of client, server" "$x509,endpoint=both,dir=server"
fails "a priority that is none" "'priority' is wrong" info "$x509,endpoint=server,dir=server,priority=NONSENSE"
refused "no object with the id 'p'" "$x509,endpoint=server,dir=server,passwordid=p"

cp -r server broken
echo rubbish >broken/ca-cert.pem
refused 'Cannot load the CA certificate broken/ca-cert.pem' "$x509,endpoint=server,dir=broken"
cp server/ca-cert.pem broken/
cp client/client-key.pem broken/server-key.pem
refused 'Cannot load the certificate .*do not match' "$x509,endpoint=server,dir=broken"
# GnuTLS leaks the first certificate of a file that is cut off, also in a program that does no more than load it.
head -c 200 server/server-cert.pem >broken/server-cert.pem
ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" refused 'Cannot load the certificate' "$x509,endpoint=server,dir=broken"

cp -r server locked
openssl ec -aes256 -passout pass:letmein -in server/server-key.pem -out locked/server-key.pem 2>/dev/null
taken secret,id=p,data=letmein --object "$x509,endpoint=server,dir=locked,passwordid=p"
taken "$master" --object "secret,id=p,keyid=m,iv=$iv,format=base64,data=$encrypted" \
    --object "$x509,endpoint=server,dir=locked,passwordid=p"
refused "is encrypted: give the id of its password with 'passwordid'" "$x509,endpoint=server,dir=locked"
fails "a wrong password" 'Cannot load the certificate' info secret,id=p,data=wrong \
    --object "$x509,endpoint=server,dir=locked,passwordid=p"

tls_psk psk alice
taken "$psk,endpoint=server,dir=psk"
taken "$psk,endpoint=client,dir=psk,username=alice"
refused 'psk/keys.psk has no key of the user' "$psk,endpoint=client,dir=psk,username=bob"
refused "'username' is of no use" "$psk,endpoint=server,dir=psk,username=alice"
refused 'Unable to access credentials missing/keys.psk' "$psk,endpoint=server,dir=missing"
mkdir empty rubbish
: >empty/keys.psk
echo 'alice=secret' >rubbish/keys.psk
fails "a key file without keys" 'empty/keys.psk holds no key' info "$psk,endpoint=server,dir=empty"
fails "a key file of rubbish" 'line 1 is not USERNAME:KEY' info "$psk,endpoint=server,dir=rubbish"
done_testing
