#!/bin/bash
# SPDX-License-Identifier: MIT
# A server that is stopped by SIGTERM answers what is in flight, through TLS, too, and stores what it answered; of one that is
# killed all that was flushed is there.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
. "$(dirname "$0")/tls-lib.inc"
requires qemu-img qemu-io nbdsh python3 certtool
say_seed
client=$(dirname "$0")/nbd-kill.py

COMPRESSION=zstd
commands=()
for ((number = 0; number < 64; number++)); do
    commands+=("write -P $((number + 1)) $((number * 64))k 64k")
done

# A server with OPTIONS answers what is in flight.
ends_in_order() {   # PLAIN-OR-TLS OPTIONS...
    local status=0

    our_serve "${@:2}" -f qcow2 disk.qcow2
    is "$(timeout 60 "$client" term "$nbd_dir/o" "$nbd_pid" "$1" 2>&1)" "good: 64 answered" \
        "each request in flight is answered"
    wait "$nbd_pid" || status=$?
    is "$status" 0 "the server ends by itself"
    is "$([ -e "$nbd_dir/o" ] && echo there)" "" "and its socket is gone"
}

tls_authority good
tls_certificate good server server localhost
tls=(--object "tls-creds-x509,id=tls,endpoint=server,dir=server,verify-peer=off" --tls-creds tls)
for options in "" --compress; do
    label="SIGTERM${options:+ $options}"
    new_image 4M
    both "${commands[@]}"
    # shellcheck disable=SC2086     # none or one
    ends_in_order plain $options
    # shellcheck disable=SC2086
    ends_in_order tls $options "${tls[@]}"

    # What was answered and not flushed is stored when a server is stopped.
    # shellcheck disable=SC2086
    our_serve $options -f qcow2 disk.qcow2
    nbdsh -u "$our_uri" -c 'h.pwrite(b"\xee" * 5000, 100000)'
    stop_server
    model_io "write -P 0xee 100000 5000"
    agrees "what was answered is stored"
done

for options in "" --compress; do
    label="SIGKILL${options:+ $options}"
    new_image 4M
    rm -f state
    for round in 1 2 3; do
        # shellcheck disable=SC2086
        our_serve $options -f qcow2 disk.qcow2
        timeout 60 "$client" write "$our_uri" state "$SEED.$round" >writer.out 2>&1 &
        writer=$!
        sleep "0.$((3 + (SEED + round) % 5))"
        end_server KILL
        wait "$writer" || not_ok "the writer ends" "$(cat writer.out)"
        diag "$(cat writer.out)"
        sound_after_kill disk.qcow2 "round $round"
        # shellcheck disable=SC2086
        our_serve $options -f qcow2 disk.qcow2
        is "$(timeout 60 "$client" verify "$our_uri" state 2>&1)" good "round $round: what was flushed is there"
        stop_server
    done
    img check -q -f qcow2 -r leaks disk.qcow2 >check.out 2>&1 || true
    judge disk.qcow2 "in the end"
done
done_testing
