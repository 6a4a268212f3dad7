#!/bin/bash
# SPDX-License-Identifier: MIT
# What was printed and could not be stored (a full disk) is a failure, told on standard error; the peer loses it silently. Nobody
# complains of a reader that has had enough, or of an output that was closed from the start.
. "$(dirname "$0")/lib.sh"
requires qemu-img
any_backend

sentence="What was printed is not complete: standard output could not be written"
"$QEMU_IMG" create -q -f qcow2 disk.qcow2 1M

# STATUS COMMAND...
lost() {
    local wanted=$1 status=0
    shift
    "$@" >/dev/full 2>complaints || status=$?
    is "$status" "$wanted" "exit status: ${*##*/}"
    is "$(grep -c "$sentence" complaints)" 1 "it is said, once: ${*##*/}"
}

# COMMAND...
not_needed() {
    local status=0
    "$@" >&- 2>complaints || status=$?
    is "$status $(cat complaints)" "0 " "closed: ${*##*/}"
    { "$@" 2>complaints || status=$?; echo "$status" >status; } | true
    is "$(cat status complaints)" 0 "the reader has gone: ${*##*/}"
}

label="img"
for command in "info" "info --output=json" "map" "check" "measure -O qcow2" "bench -c 10" "snapshot -c s"; do
    # shellcheck disable=SC2086
    [ "$command" = "snapshot -c s" ] || lost 1 "$BLKSTACK_IMG" $command disk.qcow2
    # shellcheck disable=SC2086
    not_needed "$BLKSTACK_IMG" $command disk.qcow2
done
lost 1 "$BLKSTACK_IMG" --help
lost 1 "$BLKSTACK_IMG" map --output=json disk.qcow2
lost 1 "$BLKSTACK_IMG" --version
lost 1 "$BLKSTACK_IMG" create -f qcow2 new.qcow2 1M
lost 2 "$BLKSTACK_IMG" compare disk.qcow2 disk.qcow2
status=0
"$BLKSTACK_IMG" snapshot -c t disk.qcow2 >/dev/full || status=$?
is "$status" 0 "who prints nothing loses nothing"

label="the others"
lost 1 "$BLKSTACK_IO" -f qcow2 -c "read 0 1M" disk.qcow2
lost 1 "$BLKSTACK_IO" -f qcow2 -c length disk.qcow2
lost 1 "$BLKSTACK_IO" --help
lost 1 "$BLKSTACK_NBD" --help
lost 1 "$BLKSTACK_DAEMON" --help
lost 1 "$BLKSTACK_CTL" --help
not_needed "$BLKSTACK_IO" -f qcow2 -c "read 0 1M" disk.qcow2
done_testing
