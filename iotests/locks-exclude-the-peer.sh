#!/bin/bash
# SPDX-License-Identifier: MIT
# An image that one program holds is refused to another as far as one of them writes: the peer's and ours, in both
# directions, ours twice, with the peer's messages. Readers share; -U neither takes nor minds locks.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

"$QEMU_IMG" create -q -f qcow2 disk.qcow2 1M
mkfifo commands

holder=
stop_holder() {
    if [ -n "$holder" ]; then
        exec 8>&-
        kill "$holder" 2>/dev/null || true
        wait "$holder" || true
        holder=
    fi
    tap_exit
}
trap stop_holder EXIT

hold() {        # PROGRAM OPTIONS...: runs it with the image open until let_go
    local tries

    # The old output is gone before the fifo opens, which the parent waits for.
    timeout 60 "$@" -f qcow2 disk.qcow2 >holder.out 2>&1 <commands &
    holder=$!
    exec 8>commands
    echo length >&8
    for ((tries = 0; tries < 200; tries++)); do
        if grep -q '1 MiB' holder.out; then
            return
        fi
        sleep 0.05
    done
    not_ok "$* holds the image" "$(cat holder.out)"
}

let_go() {
    local status=0

    exec 8>&-
    wait "$holder" || status=$?
    holder=
    is "$status" 0 "and ends well"
}

refused() {     # TEXT LOCK PROGRAM OPTIONS...
    fails "$1 is refused" "Failed to get $2 lock.*Is another process using the image \[disk.qcow2\]" \
        timeout 20 "${@:3}" -f qcow2 -c "read 0 4k" disk.qcow2
}

allowed() {     # TEXT PROGRAM OPTIONS...
    succeeds "$1 is let in" timeout 20 "${@:2}" -f qcow2 -c "read 0 4k" disk.qcow2
}

pair() {        # NAME FIRST NAME SECOND
    local first=$2 second=$4

    label="$1 holds it"
    hold "$first"
    refused "$3 writing" '"write"' "$second"
    refused "$3 reading" 'shared "write"' "$second" -r
    allowed "$3 reading with -U" "$second" -r -U
    let_go

    label="$1 reads it"
    hold "$first" -r
    refused "$3 writing" '"write"' "$second"
    allowed "$3 reading" "$second" -r
    allowed "$3 reading with -U" "$second" -r -U
    let_go

    label="$1 reads it with -U"
    hold "$first" -r -U
    allowed "$3 writing" "$second"
    allowed "$3 reading" "$second" -r
    let_go

    label="$1 has let go"
    allowed "$3 writing" "$second"
}

pair "the peer" "$QEMU_IO" ours "$BLKSTACK_IO"
pair "ours" "$BLKSTACK_IO" "the peer" "$QEMU_IO"
pair "ours" "$BLKSTACK_IO" "another of ours" "$BLKSTACK_IO"

label="a writer holds it"
hold "$QEMU_IO"
fails "ours info is refused" 'shared "write" lock' img info disk.qcow2
succeeds "ours info -U is let in" img info -U disk.qcow2
fails "ours check is refused" 'lock' img check disk.qcow2
fails "ours create over it is refused" 'lock' img create -f qcow2 disk.qcow2 2M
fails "ours convert to it is refused" 'lock' img convert -n -f raw -O qcow2 /dev/null disk.qcow2
let_go
judge disk.qcow2 "after all this"
is "$(virtual_size disk.qcow2)" 1048576 "the image is as it was"
done_testing
