#!/bin/bash
# SPDX-License-Identifier: MIT
# L1, refcount and snapshot tables of absurd size or place are refused at open, but not by check: it repairs all but the place
# of the active L1 table. What is lost is said, and nothing that can be read is given up.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
"$QEMU_IMG" convert -l one -O raw base.qcow2 one.raw
refused_at_open tables

check_status() { # PROGRAM [-r all]
    local status=0

    bounded "$1" check -f qcow2 "${@:2}" disk.qcow2 >check.out 2>&1 || status=$?
    echo "$status"
}

snapshot_is() { # FILE TEXT
    "$QEMU_IMG" convert -l one -O raw disk.qcow2 snapshot.raw || true
    same "$1" snapshot.raw "$2"
}

# Finds something, as the peer or more; repairs it; all that could be read reads as before.
repaired() {    # GROUP CASE
    new_case "$1" "$2"
    ends 2 2000 "$1 $2: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    unchanged "$1 $2: check"
    is "$(check_status "$BLKSTACK_IMG" -r all)" 0 "$1 $2: repaired"
    judge disk.qcow2 "$1 $2: repaired"
    same base.qcow2 disk.qcow2 "$1 $2: repaired, every byte as before"
    succeeds "$1 $2: writable again" "$BLKSTACK_IO" -f qcow2 -c "write -P 9 0 1M" -c "write -P 8 32M 64k" disk.qcow2
    judge disk.qcow2 "$1 $2: repaired and written"
}

refused() {     # GROUP CASE
    ends 1 1 "$1 $2: info" "$BLKSTACK_IMG" info disk.qcow2
    ends 1 1 "$1 $2: read" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
    ends 1 1 "$1 $2: write" "$BLKSTACK_IO" -f qcow2 -c "write 0 64k" disk.qcow2
    unchanged "$1 $2"
}

for name in $("$(dirname "$0")/craft.py" list l1-place); do
    new_case l1-place "$name"
    case $name in
    unaligned | far | negative) status=1 ;;
    *) status=2 ;;
    esac
    is "$(check_status "$QEMU_IMG")" $status "l1-place $name: the peer's exit status"
    ends $status 10 "l1-place $name: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    is "$(grep -c 'the active L1 table at .* where the data of the disk lies is not known' cmd.out || true)" 1 \
        "l1-place $name: it says what is lost"
    ends $status 10 "l1-place $name: repair" "$BLKSTACK_IMG" check -r all -f qcow2 disk.qcow2
    is "$(grep -c 'nothing is repaired' cmd.out || true)" 1 "l1-place $name: the repair says it once"
    unchanged "l1-place $name: nothing is given up"
    if [ "${name#on-}" = "$name" ]; then
        refused l1-place "$name"
    fi
done

for name in $("$(dirname "$0")/craft.py" list l1-length); do
    new_case l1-length "$name"
    if [ "$name" != over-l2 ]; then
        refused l1-length "$name"
    fi
    repaired l1-length "$name"
    snapshot_is one.raw "l1-length $name: the snapshot as before"
done
for group in snapshots-number snapshots-place; do
    for name in $("$(dirname "$0")/craft.py" list $group); do
        new_case $group "$name"
        refused $group "$name"
        repaired $group "$name"
        if [ $group = snapshots-number ]; then
            snapshot_is one.raw "$group $name: the snapshot as before"
        fi
    done
done
for name in $("$(dirname "$0")/craft.py" list snapshot-l1); do
    repaired snapshot-l1 "$name"
    snapshot_is one.raw "snapshot-l1 $name: the snapshot as before"
done

# A snapshot whose L1 table is the active one's reads as the disk does, and still does when it has one of its own.
repaired snapshot-twin on-active-l1
snapshot_is base.qcow2 "a snapshot with another one's L1 table"

# A refcount table that cannot be there: only check can do without, and makes a new one.
for name in $("$(dirname "$0")/craft.py" list refcount-table); do
    new_case refcount-table "$name"
    ends 2 2000 "$name: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    survives "$name: read" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
    unchanged "$name"
    survives "$name: write" "$BLKSTACK_IO" -f qcow2 -c "write -P 9 0 64k" disk.qcow2
    unchanged "$name"
    "$BLKSTACK_IMG" check -r all -f qcow2 disk.qcow2 >/dev/null 2>&1 || true
    judge disk.qcow2 "$name: repaired"
    same base.qcow2 disk.qcow2 "$name: repaired, every byte as before"
done
done_testing
