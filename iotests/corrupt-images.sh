#!/bin/bash
# SPDX-License-Identifier: MIT
# The first inconsistency that a write would make worse: the write is refused, one message says what is wrong, the image is
# marked corrupt (version 3), and reads go on. Options say which tables are looked after.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 300

make_base

marked() {      # yes|no TEXT
    is "$("$QEMU_IMG" info disk.qcow2 | sed -n 's/^ *corrupt: //p')" "$([ "$1" = yes ] && echo true || echo false)" "$2: marked"
}

# Commands, with the node's OPTIONS; the output stays in cmd.out.
node_io() {     # OPTIONS COMMAND...
    local opts=driver=qcow2,file.driver=file,file.filename=disk.qcow2$1
    local -a commands=()

    shift
    for command; do commands+=(-c "$command"); done
    bounded "$BLKSTACK_IO" --image-opts "$opts" "${commands[@]}" >cmd.out 2>&1 </dev/null || true
}

# Commands one of which meets the inconsistency.
refuses() {     # GROUP CASE WHAT COMMAND...
    local name=$2 what=$3

    new_case "$1" "$2"
    shift 3
    node_io "" "$@" "write -P 7 32M 64k" "read -P 3 256k 64k" flush
    is "$(grep -c 'Marking image as corrupt' cmd.out || true)" 1 "$name: said once"
    like "$(cat cmd.out)" "Marking image as corrupt: [^;]*$what.*check -r all" "$name: and what it is"
    num_ok "$(grep -c 'Input/output error' cmd.out) >= 2" "$name: this write and later ones are refused"
    num_ok "$(grep -c 'read 65536/65536' cmd.out) == 1" "$name: reads go on"
    marked yes "$name"
    fails "$name: not opened for writing again" "check -r all" "$BLKSTACK_IO" -f qcow2 -c "write 0 64k" disk.qcow2
    succeeds "$name: opened for reading" "$BLKSTACK_IO" -r -f qcow2 -c "read -P 3 256k 64k" disk.qcow2
    isnt "$({ "$QEMU_IO" -f qcow2 -c "write 0 64k" disk.qcow2 2>&1 || true; } | grep -c orrupt)" 0 \
        "$name: the peer refuses it, too"
    succeeds "$name: repaired" "$BLKSTACK_IMG" check -r all disk.qcow2
    marked no "$name: repaired"
    succeeds "$name: writable again" "$BLKSTACK_IO" -f qcow2 -c "write -P 9 0 1M" -c "write -P 8 32M 64k" disk.qcow2
    succeeds "$name: and sound" "$QEMU_IMG" check disk.qcow2
}

refuses entries data-is-l2 "an L2 table" "write -P 9 0 4k"
refuses entries refcount-too-low "an L2 table" "write -P 9 16M 64k"
refuses corrupt data-count-0 "refcount of the cluster" "write -z 0 64k"
refuses corrupt data-is-refcount-block "a refcount block" "write -P 9 0 4k"
refuses corrupt snapshot-l1-count-0 "a snapshot's L1 table" "write -P 9 16M 64k"

# Version 2 has no mark: the node is closed to writes all the same.
qimg create -q -f qcow2 -o compat=0.10 disk.qcow2 64M
qio -f qcow2 -c "write -P 1 0 1M" disk.qcow2 >/dev/null
"$(dirname "$0")/craft.py" disk.qcow2 entries data-is-l2
node_io "" "write -P 9 0 4k" "write -P 7 32M 64k" "read -P 1 256k 64k"
like "$(cat cmd.out)" "Marking image as corrupt" "version 2: said"
is "$(grep -c 'Input/output error' cmd.out) $(grep -c 'read 65536/65536' cmd.out)" "2 1" "version 2: writes are refused, reads go on"

# What an entry says that cannot be is not followed: writes there fail.
for case in "entries data-unaligned" "corrupt payload-is-header"; do
    # shellcheck disable=SC2086
    new_case $case
    node_io "" "write -P 9 0 4k" "write -P 9 0 4k"
    is "$(grep -c 'write failed: Input/output error' cmd.out)" 2 "$case: not written to"
    is "$(grep -c 'orrupt: .*guest offset 0 cannot be' cmd.out)" 1 "$case: said once"
done

# A reader changes nothing.
new_case entries data-unaligned
bounded "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" -c "read 0 64k" -c "read -P 3 256k 64k" disk.qcow2 >cmd.out 2>&1 || true
is "$(grep -c 'Image is corrupt: .*guest offset 0 cannot be' cmd.out)" 1 "a read-only node says it once"
unchanged "a read-only node"

# A request that meets an L2 entry which contradicts the format marks the image where the peer does, and only there.
meets() {       # GROUP CASE GUEST-OFFSET
    local request wanted

    for request in "read $3 4k" "write $3 4k"; do
        new_case "$1" "$2"
        bounded "$QEMU_IO" -f qcow2 -c "$request" disk.qcow2 >cmd.out 2>&1 </dev/null || true
        wanted=$(grep -c 'Marking image as corrupt' cmd.out || true)$("$QEMU_IMG" info disk.qcow2 2>&1 | grep -o 'corrupt: .*')
        new_case "$1" "$2"
        node_io "" "$request" "$request"
        is "$(grep -c 'Marking image as corrupt' cmd.out || true)$("$QEMU_IMG" info disk.qcow2 2>&1 | grep -o 'corrupt: .*')" \
            "$wanted" "$1 $2: $request: said, and marked, as by the peer"
        is "$(grep -c orrupt: cmd.out)$(grep -c 'Input/output error' cmd.out)" 12 "$1 $2: $request: said once, failed twice"
    done
}
meets entries data-unaligned 0
meets entries data-beyond-refcounts 0
meets payload at-0 4M
new_case entries data-unaligned
node_io "" "read 0 64k" "write -P 7 32M 64k" "read -P 3 256k 64k"
is "$(grep -c 'Input/output error' cmd.out) $(grep -c 'read 65536/65536' cmd.out)" "2 1" \
    "after a read of such an entry nothing is written, and other clusters are read"
# Where an L1 entry cannot be the peer marks the image when a request meets it: here it is not opened for writing at all.
for name in l2-unaligned l2-past-end; do
    new_case entries $name
    ends 1 1 "$name: not opened for writing" "$BLKSTACK_IO" -f qcow2 -c "write 0 4k" disk.qcow2
    unchanged "$name"
done
base_options=(-o extended_l2=on)
make_base
for name in bit-for-both data-without-space data-without-space-copied data-unaligned; do
    meets extended-entries $name 0
done
base_options=()
make_data_base
meets data-file-entries unaligned 64k
meets data-file-entries compressed 64k
make_base

# What is looked after.
allowed() {     # OPTIONS GROUP CASE
    new_case "$2" "$3"
    node_io "$1" "write -P 9 16M 64k"
    is "$(grep -c 'Marking image as corrupt' cmd.out || true)" 0 "$1: $3 is not looked after"
}
stopped() {     # OPTIONS GROUP CASE
    new_case "$2" "$3"
    node_io "$1" "write -P 9 16M 64k"
    is "$(grep -c 'Marking image as corrupt' cmd.out || true)" 1 "$1: $3 is looked after"
}
for template in overlap-check overlap-check.template; do
    allowed ,$template=none entries refcount-too-low
    allowed ,$template=constant entries refcount-too-low
    stopped ,$template=cached entries refcount-too-low
    stopped ,$template=all entries refcount-too-low
done
allowed ,overlap-check.active-l2=off entries refcount-too-low
stopped ,overlap-check.template=none,overlap-check.active-l2=on entries refcount-too-low
allowed "" corrupt snapshot-l2-count-0
stopped ,overlap-check=all corrupt snapshot-l2-count-0
stopped ,overlap-check.inactive-l2=on corrupt snapshot-l2-count-0
allowed ,overlap-check.inactive-l1=off corrupt snapshot-l1-count-0
stopped ,overlap-check=constant corrupt snapshot-table-count-0
allowed ,overlap-check.snapshot-table=off corrupt snapshot-table-count-0
cp base.qcow2 disk.qcow2
fails "an unknown template" "overlap-check" "$BLKSTACK_IO" -c "read 0 64k" --image-opts \
    driver=qcow2,overlap-check=some,file.driver=file,file.filename=disk.qcow2
done_testing
