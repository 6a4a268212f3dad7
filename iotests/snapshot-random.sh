#!/bin/bash
# SPDX-License-Identifier: MIT
# Snapshots made, applied and deleted by turns by both programs, between plain and compressed writes and zeroes by both, and
# resizes: the disk and each snapshot hold what they must, and the image is clean. (We resize: what the peer cuts off inside a
# cluster comes back when it grows.)
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
# timeout: 300

say_seed
RANDOM=$((SEED % 32768))
picked=0
pick() { picked=$((RANDOM % $1)); }     # not in a subshell, where RANDOM is another

# One of the two programs; ours where counts are so narrow that snapshots can fill them: the peer then leaks clusters.
narrow=         # their bits
either() {      # ARGUMENTS of blkstack-img
    pick 2
    if [ -n "$narrow" ] || [ "$picked" -eq 0 ]; then "$BLKSTACK_IMG" "$@"; else "$QEMU_IMG" "$@"; fi
}

random_writes() {
    local offset bytes sectors command who n

    sectors=$(($(virtual_size disk.qcow2) / 512))
    pick 3
    for ((n = picked; n >= 0; n--)); do
        offset=$((RANDOM * 32768 + RANDOM))
        offset=$((offset % sectors * 512))
        pick 400
        bytes=$(((1 + picked) * 512))
        bytes=$((bytes < sectors * 512 - offset ? bytes : sectors * 512 - offset))
        pick 4
        who=$picked
        pick 250
        command="write -P $((1 + picked)) $offset $bytes"
        pick 8
        case $picked in
        0) command="write -z $offset $bytes" ;;
        1) command="write -z -u $offset $bytes" ;;
        esac
        case $who in
        0) both_plain "$command" ;;
        1) both_peer "$command" ;;
        *) both "$command" ;;
        esac
    done
}

step() {
    local name

    pick $((${#names[@]} + 1))
    name=${names[$picked]:-}
    pick 6
    case $picked in
    0 | 1)
        name=s$((++made))
        if either snapshot -c $name disk.qcow2 >snapshot.out 2>&1; then
            cp model.raw "$name.raw"
            names+=("$name")
        else
            like "$(cat snapshot.out)" " ${narrow:-no}-bit reference counts can count" "a snapshot is refused only for want of counts"
        fi
        ;;
    2)
        if [ -n "$name" ] && either snapshot -a "$name" disk.qcow2 >snapshot.out 2>&1; then
            cp "$name.raw" model.raw
        elif [ -n "$name" ]; then
            like "$(cat snapshot.out)" " ${narrow:-no}-bit reference counts can count" "nor is it applied"
        fi
        ;;
    3)
        if [ -n "$name" ]; then
            succeeds "$name is deleted" either snapshot -d "$name" disk.qcow2
            mapfile -t names < <(printf '%s\n' "${names[@]}" | grep -vx "$name" || true)
        fi
        ;;
    4)
        if [ "$VERSION" = v3 ]; then
            pick 3000
            name=$(((1024 + picked) * 1024))
            img resize -q --shrink -f qcow2 disk.qcow2 $name
            truncate -s $name model.raw
        fi
        ;;
    esac
    random_writes
}

# The peer reads no more of a snapshot than the disk is long, and less if it was shorter then.
judge_all() {
    local name bytes

    agrees "$1"
    for name in "${names[@]}"; do
        img convert -f qcow2 -l "snapshot.name=$name" -O raw disk.qcow2 out.raw
        succeeds "$1: $name holds what it must" cmp "$name.raw" out.raw
        qimg convert -f qcow2 -l "snapshot.name=$name" -O raw disk.qcow2 out.raw
        bytes=$(file_bytes out.raw)
        bytes=$((bytes < $(file_bytes "$name.raw") ? bytes : $(file_bytes "$name.raw")))
        succeeds "$1: $name, read by the peer" cmp -n $bytes "$name.raw" out.raw
    done
}

sequence() {    # CREATE-OPTIONS...
    local i

    label="$VERSION $COMPRESSION $CLUSTER $*"
    new_image 3M "$@"
    names=() made=0
    for ((i = 1; i <= 24; i++)); do
        step
        if [ $((i % 8)) -eq 0 ]; then judge_all "after $i steps"; fi
    done
    while [ "${#names[@]}" -gt 0 ]; do
        either snapshot -d "${names[0]}" disk.qcow2
        names=("${names[@]:1}")
    done
    judge_all "all deleted"
}

VERSION=v2 CLUSTER=65536 sequence
VERSION=v3 CLUSTER=65536 COMPRESSION=zstd sequence
CLUSTER=512 sequence -o refcount_bits=64
CLUSTER=65536 sequence -o extended_l2=on
CLUSTER=16384 COMPRESSION=zstd sequence -o preallocation=metadata
narrow=2
CLUSTER=4096 sequence -o refcount_bits=2
narrow=8        # 32 compressed clusters share one, which is then as often counted for each snapshot: seven may be too many
CLUSTER=16384 COMPRESSION=zstd sequence -o preallocation=metadata,refcount_bits=8
done_testing
