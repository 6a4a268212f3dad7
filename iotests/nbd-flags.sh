#!/bin/bash
# SPDX-License-Identifier: MIT
# What a client asks for by flags (FUA, NO_HOLE, FAST_ZERO) and commands is what our server asks of its image: here of an export
# of nbdkit, whose log tells.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires nbdkit nbdsh
any_backend

K=65536
# What nbdkit was asked for, a line each, while our server with OPTIONS did what SCRIPT says.
asked_for() {   # SCRIPT OPTIONS...
    local script=$1

    shift
    : >kit.log
    our_serve -f raw "$@" "nbd+unix://?socket=$nbd_dir/s"
    nbdsh -u "$our_uri" -c "K = $K" -c "$script" || not_ok "the client" "$script"
    stop_server
    sed -nE 's/.* (Write|Zero|Trim|Flush) id=[0-9]+(.*) \.\.\.$/\1\2/p' kit.log | sed -E 's/ count=0x[0-9a-f]+//'
}

kit_serve --filter=log memory 4M logfile=kit.log
rm -f "$nbd_dir/o"

is "$(asked_for 'h.pwrite(b"x" * K, 0); h.pwrite(b"x" * K, K, nbd.CMD_FLAG_FUA)' | grep Write)" \
    "Write offset=0x0 fua=0
Write offset=0x10000 fua=1" "writes with FUA, and only those"
is "$(asked_for 'h.pwrite(b"x" * K, 0)' --cache=writethrough | grep Write)" "Write offset=0x0 fua=1" "all, if the server says so"
is "$(asked_for 'h.zero(K, 0); h.zero(K, K, nbd.CMD_FLAG_NO_HOLE); h.zero(K, 2 * K, nbd.CMD_FLAG_FUA)' | grep Zero)" \
    "Zero offset=0x0 trim=1 fua=0 fast=0
Zero offset=0x10000 trim=0 fua=0 fast=0
Zero offset=0x20000 trim=1 fua=1 fast=0" "zeroes"
is "$(asked_for 'h.zero(K, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)' | grep Zero)" \
    "Zero offset=0x0 trim=0 fua=0 fast=1" "fast zeroes"
is "$(asked_for 'h.trim(K, 0, nbd.CMD_FLAG_FUA); h.trim(K, K)' --discard=unmap | grep -E 'Trim|Flush' | head -n 3)" \
    "Trim offset=0x0 fua=0
Flush
Trim offset=0x10000 fua=0" "a trim with FUA is flushed, one without is not"
is "$(asked_for 'h.trim(K, 0)' | grep Trim)" "" "no trims unless the server says so"
is "$(asked_for 'h.pwrite(b"x" * K, 0); h.flush(); h.pwrite(b"x" * K, K); h.flush()' | grep -oE '^(Write|Flush)' | head -n 4 |
    tr '\n' ' ')" "Write Flush Write Flush " "flushes"
done_testing
