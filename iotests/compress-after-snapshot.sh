#!/bin/bash
# SPDX-License-Identifier: MIT
# After the peer made internal snapshots, rewrites through the filter leave the snapshots' content alone; the peer can
# go back to them and delete them.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

snapshot_is() { # NAME RAW-FILE DESCRIPTION
    "$QEMU_IMG" convert -f qcow2 -l "$1" -O raw disk.qcow2 snapshot.raw
    succeeds "$3" cmp "$2" snapshot.raw
}

after_snapshot() {
    random_file random "$CLUSTER"
    new_image 16M
    both_peer "write -P 1 0 $((2 * CLUSTER))" "write -s random $((5 * CLUSTER)) $CLUSTER"
    both "write -P 2 $((2 * CLUSTER)) $((3 * CLUSTER))"
    "$QEMU_IMG" snapshot -c first disk.qcow2
    cp model.raw first.raw
    both "write -P 3 0 $CLUSTER" "write -P 4 $((CLUSTER + 4096)) 4k" "write -P 5 $((2 * CLUSTER)) $CLUSTER" \
        "write -P 6 $((3 * CLUSTER + 512)) 512" "write -z $((4 * CLUSTER)) $CLUSTER" "write -P 7 $((5 * CLUSTER)) 4k"
    snapshot_is first first.raw "the snapshot's content is unchanged"
    agrees "rewritten after a snapshot"
    "$QEMU_IMG" snapshot -c second disk.qcow2
    cp model.raw second.raw
    both_plain "write -P 8 0 4k" "write -P 9 $((2 * CLUSTER)) 4k"
    both "write -P 10 0 $((7 * CLUSTER))" "write -P 11 512 512"
    snapshot_is first first.raw "the first snapshot's content is unchanged"
    snapshot_is second second.raw "the second snapshot's content is unchanged"
    agrees "rewritten after two snapshots"
    "$QEMU_IMG" snapshot -d first disk.qcow2
    both "write -P 12 0 $((7 * CLUSTER))"
    agrees "rewritten after the peer deleted a snapshot"
    "$QEMU_IMG" snapshot -a second disk.qcow2
    cp second.raw model.raw
    agrees "back at the second snapshot"
    both "write -P 13 4096 $((6 * CLUSTER))"
    snapshot_is second second.raw "the second snapshot's content is still unchanged"
    agrees "rewritten after going back"
}

matrix after_snapshot
done_testing
