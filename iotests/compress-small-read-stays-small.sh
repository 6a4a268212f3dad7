#!/bin/bash
# SPDX-License-Identifier: MIT
# A 4 KiB read through the filter from a plain cluster reads 4 KiB from the file, not a cluster: shown by the counters
# of a fault node below qcow2.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

opts="driver=compress,write-buffer=0,file.driver=qcow2,file.file.driver=fault,file.file.node-name=counter"
opts+=",file.file.image.driver=file,file.file.image.filename=disk.qcow2"

# Lines "BYTES REQUESTS" of reads, one for each `info counter` among the commands.
counters() {    # COMMAND...
    local -a commands=()

    for command; do
        commands+=(-c "$command")
    done
    io --image-opts "$opts" "${commands[@]}" |
        awk '$1 == "read:" { in_read = 1; next } in_read && $1 == "requests:" { requests = $2 }
            in_read && $1 == "bytes:" { print $2, requests; in_read = 0 }'
}

small_read() {
    new_image 16M
    both_peer "write -P 1 0 $((2 * CLUSTER))"
    # The first read loads the tables.
    counters "read -P 1 0 512" "info counter" "read -P 1 $((CLUSTER / 2)) 4k" "info counter" \
        "read -P 1 $((CLUSTER / 2 + 512)) 512" "info counter" "read -P 1 $((CLUSTER - 512)) 1k" "info counter" >counts
    is "$(wc -l <counts)" 4 "the counters were printed four times"
    awk 'NR > 1 { print $1 - bytes } { bytes = $1 }' counts >steps
    is "$(tr '\n' ' ' <steps)" "4096 512 1024 " "reads of 4 KiB, 512 bytes and 1 KiB read as much from the file"
}

matrix small_read
done_testing
