#!/bin/bash
# SPDX-License-Identifier: MIT
# Snapshots made, applied and deleted in an image whose snapshot table is unusual, or lies. Nothing crashes; the image has no more
# errors afterwards than before, and the disk reads as it should; where the format allows the table the outcome is the peer's.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
qimg snapshot -c two base.qcow2
qio -f qcow2 -c "write -P 4 64k 64k" base.qcow2 >/dev/null

errors_in() {   # FILE: errors that our check finds, and leaks; "none" if it cannot be checked
    local text

    text=$(bounded "$BLKSTACK_IMG" check -f qcow2 --output=json "$1" 2>/dev/null || true)
    [ -n "$text" ] || echo none
    sed -n 's/^ *"corruptions": \([0-9]*\),*$/\1/p' <<<"$text"
}

# The status; the outcome is in FILE.
run_on() {      # PROGRAM FILE OPERATION...
    local status=0

    bounded "$1" snapshot "${@:3}" "$2" >"$2.out" 2>&1 </dev/null || status=$?
    echo "$status"
}

listed() {      # FILE: ids and names
    { "$QEMU_IMG" info -f qcow2 --output=json "$1" 2>&1 || true; } | grep -E '"(name|id)":|rror' | sed "s/$1/FILE/"
}

for group in snapshot-odd snapshot-lies; do
    for name in $("$(dirname "$0")/craft.py" list $group); do
        new_case $group "$name"
        before=$(errors_in disk.qcow2)
        num_ok "$([ $group = snapshot-odd ] && echo "${before:-0} == 0" || echo 1)" "$name: sound, if the format allows it"
        for operation in "-c three" "-a one" "-d one" "-d two"; do
            label="$name: snapshot $operation"
            cp disk.qcow2 ours.qcow2
            # shellcheck disable=SC2086
            status=$(run_on "$BLKSTACK_IMG" ours.qcow2 $operation)
            num_ok "status < 2" "ends by itself"
            after=$(errors_in ours.qcow2)
            num_ok "${after:-0} <= ${before:-0}" "no more errors than before"
            if [ "$operation" != "-a one" ] || [ "$status" -ne 0 ]; then
                succeeds "the disk reads as before" "$BLKSTACK_IMG" compare -f qcow2 -F qcow2 disk.qcow2 ours.qcow2
            fi
            if [ $group = snapshot-odd ]; then
                cp disk.qcow2 peer.qcow2
                # shellcheck disable=SC2086
                is "$status" "$(run_on "$QEMU_IMG" peer.qcow2 $operation)" "the peer's exit status"
                is "$(listed ours.qcow2)" "$(listed peer.qcow2)" "the peer's list"
                same peer.qcow2 ours.qcow2 "the peer's disk"
                judge ours.qcow2 "sound for both"
            fi
        done
    done
done
label=
done_testing
