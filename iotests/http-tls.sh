#!/bin/bash
# SPDX-License-Identifier: MIT
# https: a certificate that nobody vouches for is refused, unless sslverify=off; TLS below a redirection too;
# authorities and certificates of one's own by tls-creds.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/http-lib.inc"
. "$(dirname "$0")/tls-lib.inc"
requires_http python3 nginx openssl certtool qemu-img

mkdir www
random_file www/disk.raw 1M
qimg convert -c -f raw -O qcow2 www/disk.raw www/disk.qcow2
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \
    -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null
start_nginx "ssl_certificate cert.pem; ssl_certificate_key key.pem;" ssl
secure=$web

fails "a certificate of its own" "[Cc]ertificate|signer|verif" img info -f raw "$secure/disk.raw"
fails "also to a converter" "[Cc]ertificate|signer|verif" img convert -f raw -O raw "$secure/disk.raw" out.raw
is "$(grep -c disk.raw web.log || true)" 0 "nothing was asked for"
succeeds "sslverify=off" img convert --image-opts -O raw "$(web_opts "$secure/disk.raw" file.sslverify=off)" out.raw
succeeds "the same bytes" cmp out.raw www/disk.raw
fails "TLS to a server without it" "." img info --image-opts "$(web_opts "${secure/https/http}/disk.raw" file.retries=0)"

rm nginx.pid
start_nginx "location / { return 302 $secure\$uri; }"
fails "redirected to it" "[Cc]ertificate|signer|verif" img info -f raw "$web/disk.raw"
rm out.raw
succeeds "redirected, sslverify=off" img convert --image-opts -O raw "$(web_opts "$web/disk.raw" file.sslverify=off)" out.raw
succeeds "redirected, the same bytes" cmp out.raw www/disk.raw

# An authority of our own. The server asks for a certificate of it, and may do without.
tls_authority mine
tls_authority other
tls_certificate mine server server localhost
tls_certificate mine client client laptop
tls_certificate other stranger client stranger
tls_certificate mine posing client elsewhere 'dns_name = elsewhere' tls_www_server 'expiration_days = 30'
mkdir nobody foreign revoked
cp mine-ca-cert.pem nobody/ca-cert.pem
cp other-ca-cert.pem foreign/ca-cert.pem
cp mine-ca-cert.pem revoked/ca-cert.pem
printf 'crl_next_update = 30\ncrl_number = 1\n' >crl.template
tls_quiet certtool --generate-crl --template crl.template --load-certificate server/server-cert.pem \
    --load-ca-certificate mine-ca-cert.pem --load-ca-privkey mine-ca-key.pem --outfile revoked/ca-crl.pem
known="if (\$ssl_client_verify != SUCCESS) { return 403; } alias www/;"
own_server() {  # CERTIFICATE KEY
    rm nginx.pid
    start_nginx "ssl_certificate $1; ssl_certificate_key $2; location /known/ { $known }
        ssl_verify_client optional; ssl_client_certificate mine-ca-cert.pem;" ssl
}
# The options of our programs for a disk, with the credentials in DIRECTORY; $creds: more of them.
tls_opts() {    # DIRECTORY PATH [OPTIONS]
    tls=(--object "tls-creds-x509,id=tls,dir=$1${creds:-}"
        --image-opts "$(web_opts "$web/$2" "file.tls-creds=tls${3:+,$3}")")
}

label="tls-creds"
own_server server/server-cert.pem server/server-key.pem
rm -f out.raw
tls_opts nobody disk.raw
succeeds "its authority" img convert "${tls[@]}" -O raw out.raw
succeeds "the same bytes" cmp out.raw www/disk.raw
succeeds "convert -c of an image" img convert -c "${tls[@]::2}" --image-opts -O qcow2 \
    "driver=qcow2,file.driver=https,file.url=$web/disk.qcow2,file.tls-creds=tls" out.qcow2
same out.qcow2 www/disk.raw "the same disk"
judge out.qcow2 "the copy"
fails "the system's authorities do not know it" "[Cc]ertificate|signer|verif" img info -f raw "$web/disk.raw"
requests=$(wc -l <web.log)
tls_opts foreign disk.raw
fails "another authority" "[Cc]ertificate|signer|verif" img info "${tls[@]}"
tls_opts revoked disk.raw
fails "a certificate that was revoked" "[Cc]ertificate|revoked|verif" img info "${tls[@]}"
is "$(wc -l <web.log)" "$requests" "neither asks for anything"
tls_opts foreign disk.raw file.sslverify=off
succeeds "another authority, sslverify=off" img info "${tls[@]}"
creds=,verify-peer=off tls_opts foreign disk.raw
succeeds "another authority, verify-peer=off" img info "${tls[@]}"

label="who we are"
tls_opts nobody known/disk.raw
fails "no certificate" "HTTP status 403" img info "${tls[@]}"
tls_opts client known/disk.raw
succeeds "a certificate" img info "${tls[@]}"
tls_opts stranger known/disk.raw file.sslverify=off
fails "a certificate of another authority" "HTTP status 40[03]" img info "${tls[@]}"
tls_quiet certtool --to-p8 --password=secret --load-privkey client/client-key.pem --outfile locked.pem
mkdir locked
cp client/ca-cert.pem client/client-cert.pem locked/
mv locked.pem locked/client-key.pem
creds=,passwordid=pass tls_opts locked known/disk.raw
succeeds "an encrypted key" img info --object secret,id=pass,data=secret "${tls[@]}"

label="refused by name"
creds=,endpoint=server tls_opts server disk.raw
fails "a server's credentials" "are for a server" img info "${tls[@]}"
creds=,priority=NORMAL tls_opts nobody disk.raw
fails "a priority" "takes no priority string" img info "${tls[@]}"
tls_psk keys me
fails "keys" "takes no pre-shared keys" img info --object tls-creds-psk,id=tls,dir=keys,username=me "${tls[@]:2}"
fails "no such object" "tls" img info "${tls[@]:2}"

label="the name of the server"
own_server posing/client-cert.pem posing/client-key.pem
tls_opts nobody disk.raw
fails "a certificate for another name" "name|match" img info "${tls[@]}"
label=

# What proves who we are is for the server that was named, not for those that it sends us to.
mv web.log old.log
cat >listen.py <<'END'
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("heads", "a") as f:
            f.write(str(self.headers))
        self.send_error(404)
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
with open("port", "w") as f:
    f.write(str(server.server_address[1]) + "\n")
server.serve_forever()
END
python3 listen.py &
http_pids+=($!)
for _ in {1..200}; do [ -s port ] || sleep 0.02; done
rm nginx.pid
start_nginx "location / { return 302 http://localhost:$(cat port)/x; }"
fails "redirected elsewhere" "no such file" img info --object "secret,id=pass,data=hidden" --image-opts \
    "$(web_opts "$web/disk.raw" "file.username=me,file.password-secret=pass,file.cookie=who=me")"
num_ok "$(grep -c '^Range: ' heads) == 1" "it is asked"
is "$(grep -ciE '^(cookie|authorization):' heads || true)" 0 "without password and cookies"
done_testing
