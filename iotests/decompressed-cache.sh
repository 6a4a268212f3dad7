#!/bin/bash
# SPDX-License-Identifier: MIT
# Small reads of a compressed cluster read its payload once, also when they come at the same time; what is written between
# them is seen. Shown by the counters of a fault node below qcow2, without the filter and with it.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

qcow2_over() {  # PREFIX [OPTIONS]: options of a qcow2 node above the counter
    printf '%sdriver=qcow2%s' "$1" "${2:+,$1$2}"
    printf ",$1file.%s" driver=fault node-name=counter image.driver=file image.filename=disk.qcow2
}

# Requests that read the file, between one `info counter` and the next, in one line.
requests() {    # IMAGE-OPTS COMMAND...
    local opts=$1 command
    local -a commands=()

    shift
    for command; do
        commands+=(-c "$command")
    done
    io --image-opts "$opts" "${commands[@]}" >requests.out
    awk '$1 == "read:" { in_read = 1; next } in_read && $1 == "requests:" {
        if (n++) printf "%d ", $2 - last; last = $2; in_read = 0 }' requests.out
    grep -c 'Pattern verification failed' requests.out || true
}

cached() {
    local -a parts=() at_once=()
    local part opts prefix

    # The parts in no order: nothing is read ahead.
    for part in 0 9 2 11 4 13 6 15 8 1 10 3 12 5 14 7; do
        parts+=("read -P 1 $((part * 4096)) 4k")
        at_once+=("aio_read -P 2 $((CLUSTER + part * 4096)) 4k")
    done
    for prefix in "" file.; do
        new_image 16M
        both "write -P 1 0 $CLUSTER" "write -P 2 $CLUSTER $CLUSTER"
        opts=${prefix:+driver=compress,}
        label="${prefix:+filter, }$COMPRESSION $CLUSTER"
        # A write loads the tables.
        is "$(requests "$opts$(qcow2_over "$prefix")" "read -P 0 8M 4k" "info counter" "${parts[@]}" "info counter" \
            "${at_once[@]}" aio_flush "info counter")" "1 1 0" "16 reads of 4 KiB read the payload once, one by one and at once"
        is "$(requests "$opts$(qcow2_over "$prefix" decompressed-cache=0)" "read -P 0 8M 4k" "info counter" "${parts[@]}" \
            "info counter")" "16 0" "16 times without the cache"
        is "$(requests "$opts$(qcow2_over "$prefix")" "read -P 1 0 4k" "write -P 7 4k 4k" "read -P 7 4k 4k" "read -P 1 8k 4k" \
            "read -P 2 $CLUSTER 4k" "write -P 8 $CLUSTER $CLUSTER" "read -P 8 $CLUSTER 4k" "write -P 1 4k 4k" \
            "write -P 2 $CLUSTER $CLUSTER")" 0 "what was written in between is seen"
        agrees "afterwards"
    done
}

matrix cached

# Payloads take each other's places; what was written last is read.
new_image 16M
commands=()
for i in $(seq 1 60); do
    at=$((i % 3 * CLUSTER))
    commands+=("write -P $i $at $CLUSTER" flush "read -P $i $((at + i * 512)) 4k" "read -P $i $at 512")
done
both "${commands[@]}"
agrees "payloads at places of others"
done_testing
