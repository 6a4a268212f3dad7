#!/bin/bash
# SPDX-License-Identifier: MIT
# Every command, flag and range of libnbd gets the answer that the peer's server gives, or the error that the protocol asks
# for; with simple and structured replies, of a writable and of a read-only export.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires nbdsh qemu-nbd

random_file data 1048576

# What the server says to the commands of nbd-commands.py, and what the disk holds and takes then.
answers() {     # STRUCTURED
    STRUCTURED=$1 URI=$nbd_uri timeout 30 nbdsh -c - <"$BLKSTACK_SOURCE/iotests/nbd-commands.py" 2>&1 || echo "status $?"
    stop_server
    md5sum <disk.raw
    sync disk.raw
    file_blocks disk.raw
}

# The peer says EINVAL wherever a request is refused for what it is.
errors_alike() {
    sed -E 's/: (ENOSPC|EPERM)$/: EINVAL/' "$1"
}

for structured in yes no; do
    for mode in writable read-only; do
        label="structured $structured, $mode"
        options=(-f raw --discard=unmap)
        [ "$mode" = writable ] || options+=(--read-only)
        for server in our peer; do
            rm -f disk.raw
            truncate -s 8M disk.raw
            dd if=data of=disk.raw conv=notrunc status=none
            "${server}_serve" "${options[@]}" disk.raw
            answers "$structured" >"$server.out"
        done
        num_ok "$(wc -l <our.out) > 60" "all commands are answered"
        is "$(errors_alike our.out)" "$(errors_alike peer.out)" "the answers are the peer's"
        if [ "$mode" = writable ]; then
            is "$(grep -c ': ENOSPC$' our.out)" 8 "writes and zeroes past the end: no space"
        else
            is "$(grep -cE '^(unaligned )?(write|zero|trim).*: EPERM$' our.out)" 24 "no change is permitted"
        fi
    done
done
done_testing
