#!/bin/bash
# SPDX-License-Identifier: MIT
# Crashes of compress over qcow2, with the installed tools alone: what log-writes recorded below them is replayed up to
# every flush, up to other points, and with some unflushed writes missing. The image has no errors, what was flushed is
# there, and the peer can write to it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/crash-lib.inc"
any_backend
requires qemu-img qemu-io python3

# What a crash leaves after so many entries; with CHANCE, some of what was not flushed is missing, with "last" all but the
# last change.
state() {       # ENTRIES [CHANCE | last]
    local flushed status=0

    cp start.qcow2 state.qcow2
    replay replay log state.qcow2 "$@"
    flushed=$(replay mark log "$1")
    qimg check -q -f qcow2 state.qcow2 >check.out 2>&1 || status=$?
    num_ok "$status == 0 || $status == 3" "entries $*: no errors, at most leaks"
    qimg convert -f qcow2 -O raw state.qcow2 state.raw
    succeeds "entries $*: what was flushed is there" model check "$SEED" "${flushed:-0}" state.raw
}

peer_writes() { # ENTRIES
    local status=0

    peer_io state.qcow2 qcow2 'write -P 7 0 300k' 'discard 512k 64k' 'write -P 8 700k 100k' flush
    qimg check -q -f qcow2 state.qcow2 >check.out 2>&1 || status=$?
    num_ok "$status == 0 || $status == 3" "entries $1: the peer has written to it"
    peer_io state.qcow2 qcow2 'read -P 7 0 300k' 'read -P 8 700k 100k'
}

crashes() {     # COMPRESSION CLUSTER VERSION GENERATIONS
    local entries number borders

    label="$1 $2 $3"
    COMPRESSION=$1 CLUSTER=$2 VERSION=$3 new_image 1M
    cp disk.qcow2 start.qcow2
    : >log
    for number in $(seq "$4"); do
        # Through the filter, every second one beside it.
        if ((number % 2)); then record qcow2 disk.qcow2 "$number" compress; else record qcow2 disk.qcow2 "$number"; fi
    done
    borders=$(replay borders log)
    for number in $borders; do
        if ((number > 1)); then
            # All that the flush was for is uncertain. What is written last refers to what is written before.
            state "$((number - 1))" "$SEED.$number"
            state "$((number - 1))" last
        fi
        state "$number"
    done
    entries=$(replay list log | wc -l)
    for number in $(seq 3 $((entries / 4 + 1)) "$entries"); do
        state "$number"
    done
    peer_writes "$number"
}

say_seed
crashes zstd 16k v3 3
crashes zlib 4k v2 2
done_testing
