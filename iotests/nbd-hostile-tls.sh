#!/bin/bash
# SPDX-License-Identifier: MIT
# Clients that attack the beginning of TLS: plain text before, behind and instead of it gets nothing, and is forgotten.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
. "$(dirname "$0")/tls-lib.inc"
requires qemu-img certtool python3
any_backend

tls_authority good
tls_certificate good server server localhost
truncate -s 1M disk.raw
our_serve -f raw --object tls-creds-x509,id=tls0,endpoint=server,dir=server,verify-peer=off --tls-creds tls0 disk.raw
timeout 100 "$(dirname "$0")/nbd-hostile-tls.py" "$nbd_dir/o" >attacks.out 2>&1 || echo "bad status $?" >>attacks.out
while read -r outcome text; do
    if [ "$outcome" = good ]; then ok "$text"; else not_ok "$outcome $text"; fi
done <attacks.out
num_ok "$tap_count == 6" "all attacks were made"
status=0
kill "$nbd_pid"
wait "$nbd_pid" || status=$?
is "$status" 0 "the server ends well"
done_testing
