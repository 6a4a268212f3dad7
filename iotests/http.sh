#!/bin/bash
# SPDX-License-Identifier: MIT
# Images on a web server are read, converted and stood above as with the peer; names on it, and of it, follow the rules.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/http-lib.inc"
requires qemu-img qemu-io
requires_http python3 nginx openssl

mkdir www
text_file text.raw 5M
random_file www/disk.raw 3M
cat text.raw >>www/disk.raw
truncate -s 20M www/disk.raw
printf 'odd' >>www/disk.raw
cp www/disk.raw model.raw
truncate -s 20972032 model.raw
qimg convert -c -f raw -O qcow2 model.raw www/disk.qcow2
qimg create -q -f qcow2 -u -b "$PWD/model.raw" -F raw www/local.qcow2 20972032
qimg create -q -f qcow2 -u -b disk.qcow2 -F qcow2 www/relative.qcow2 20972032
printf 'me:%s\n' "$(openssl passwd -apr1 secret)" >users
start_nginx "
    gzip on; gzip_types *; gzip_min_length 1;
    location /no-ranges/ { alias www/; max_ranges 0; }
    location /moved/ { rewrite ^/moved/(.*)\$ /\$1 redirect; }
    location /to-file/ { return 302 file:///etc/hostname; }
    location /to-ftp/ { return 302 ftp://127.0.0.1/disk.raw; }
    location /loop/ { return 302 /loop/; }
    location /private/ { alias www/; auth_basic us; auth_basic_user_file users; }
    location /cookie/ { if (\$http_cookie != 'a=b; c=d') { return 403; } alias www/; }"

label="info"
peer=no
if peer_reads_web "$web/disk.raw"; then
    peer=yes
    is "$(img info --output=json "$web/disk.qcow2")" "$(qimg info --output=json "$web/disk.qcow2")" "as the peer's"
    is "$(img map -f raw --output=json "$web/disk.raw")" "$(qimg map -f raw --output=json "$web/disk.raw")" "map as the peer's"
else
    diag "the peer cannot read from web servers here: qemu-block-extra is not installed"
fi
like "$(img info "$web/disk.qcow2")" "file format: qcow2.*virtual size: 20 MiB \(20972032 bytes\)" "info"
is "$(img map -f raw --output=json "$web/disk.raw" | tr -d '\n' | grep -o '"data": [a-z]*' | sort -u)" '"data": true' "map: all is data"

label="convert"
succeeds "raw" img convert -f raw -O raw "$web/disk.raw" out.raw
succeeds "the same bytes" cmp out.raw model.raw
succeeds "qcow2, detected" img convert -c -O qcow2 "$web/disk.qcow2" out.qcow2
same out.qcow2 model.raw "qcow2"
judge out.qcow2 "qcow2"
succeeds "by options" img convert --image-opts -O raw "$(web_opts "$web/disk.raw" file.readahead=0)" out.raw
succeeds "the same bytes" cmp out.raw model.raw
succeeds "by json:" img compare -f raw "json:{'driver':'raw','file':{'driver':'http','url':'$web/disk.raw'}}" model.raw

label="reads"
mapfile -t commands < <(python3 -c '
import random, sys
rng = random.Random(sys.argv[1])
for i in range(60):
    offset = rng.randrange(20972032)
    print("-c\nread -v", offset, min(20972032 - offset, rng.choice([1, 512, 5000, 5000])))' "$SEED")
say_seed
for readahead in 0 64k 1M; do
    "$BLKSTACK_IO" -r --image-opts "$(web_opts "$web/disk.raw" "file.readahead=$readahead")" "${commands[@]}" |
        grep -v ' ops; ' >web.reads
    "$QEMU_IO" -r -f raw "${commands[@]}" model.raw | grep -v ' ops; ' >model.reads
    succeeds "random ones, readahead $readahead" cmp web.reads model.reads
done
: >web.log
mapfile -t commands < <(for i in {0..31}; do printf -- '-c\naio_read %d 64k\n' $((i * 65536)); done)
io -r --image-opts "$(web_opts "$web/disk.raw" file.readahead=256k)" "${commands[@]}" >/dev/null
num_ok "$(wc -l <web.log) <= 12" "one request for many reads that follow each other"
is "$(grep -cv '^206 bytes=[0-9]*-[0-9]* "identity" ' web.log || true)" 0 "each asks for a range, and not for gzip"

label="access"
fails "without a password" "refuses access \(HTTP status 401\)" img info -f raw "$web/private/disk.raw"
secret=(--object "secret,id=pass,data=secret" --object "secret,id=jar,data=a=b; c=d")
succeeds "with one" img compare "${secret[@]}" --image-opts \
    "$(web_opts "$web/private/disk.raw" file.username=me,file.password-secret=pass)" driver=raw,file.filename=model.raw
fails "without a cookie" "HTTP status 403" img info -f raw "$web/cookie/disk.raw"
succeeds "with one" img info --image-opts "$(web_opts "$web/cookie/disk.raw" "file.cookie=a=b; c=d")"
succeeds "with one in a secret" img info "${secret[@]}" --image-opts "$(web_opts "$web/cookie/disk.raw" file.cookie-secret=jar)"
fails "with both" "cannot be given at the same time" img info "${secret[@]}" --image-opts \
    "$(web_opts "$web/cookie/disk.raw" file.cookie=a,file.cookie-secret=jar)"

label="redirection"
succeeds "to the same server" img compare -f raw "$web/moved/disk.raw" model.raw
fails "in circles" "[Mm]aximum" img info -f raw "$web/loop/"
fails "to a file of the host" "not supported or disabled" img info -f raw "$web/to-file/"
fails "to another protocol" "not supported or disabled" img info -f raw "$web/to-ftp/"

label="refusals"
fails "no such file" "no such file on the server" img info "$web/none"
fails "ranges" "sends the whole file where a range of it is asked for" img info -f raw "$web/no-ranges/disk.raw"
fails "ranges cannot be forced" "sends the whole file" img info --image-opts \
    "$(web_opts "$web/no-ranges/disk.raw" file.force-range=on)"
fails "no server" "Failed to connect|Couldn't connect" img info --image-opts "$(web_opts http://127.0.0.1:1/ file.retries=0)"
fails "the other driver" "does not start with 'https://'" img info --image-opts "driver=https,url=$web/disk.raw"
fails "readahead" "multiple of 512" img info --image-opts "$(web_opts "$web/disk.raw" file.readahead=100)"
fails "writing" "can only be read" io -f raw -c "write 0 512" "$web/disk.raw"
fails "creating" "does not support image creation" img create -f qcow2 "$web/new.qcow2" 1M
succeeds "auto-read-only" io --image-opts "$(web_opts "$web/disk.raw" "auto-read-only=on,read-only=off")" -c "read 0 512"

label="an image on the server names a local file"
fails "detected" "was detected, not given.*give the format" img convert -O raw "$web/local.qcow2" out.raw
succeeds "info opens nothing else" img info "$web/local.qcow2"
fails "relative, detected" "was detected, not given" img convert -O raw "$web/relative.qcow2" out.raw
succeeds "relative, the format given: beside it on the server" img compare -f qcow2 -F raw "$web/relative.qcow2?a=/b" model.raw
if [ $peer = yes ]; then
    is "$(img info "$web/relative.qcow2")" "$(qimg info "$web/relative.qcow2")" "info as the peer's"
fi

label="a local image names one on the server"
qimg create -q -f qcow2 -u -b "$web/disk.qcow2" -F qcow2 over.qcow2 20972032
fails "detected" "was detected, not given" img convert -O raw over.qcow2 out.raw
succeeds "the format given, on the server" img compare -f qcow2 -F raw over.qcow2 model.raw
pio over.qcow2 "write -P 5 1M 100k" "read -P 5 1M 100k"
peer_io model.raw raw "write -P 5 1M 100k"
succeeds "and written to" img compare -f qcow2 -F raw over.qcow2 model.raw
succeeds "rebased on the server's copy by us" img rebase -f qcow2 -b "" over.qcow2
judge over.qcow2 "rebased"
same over.qcow2 model.raw "rebased"
done_testing
