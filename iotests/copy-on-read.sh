#!/bin/bash
# SPDX-License-Identifier: MIT
# What a read through copy-on-read finds in the backing chain is stored in the overlay: plain, and above the compress
# filter compressed. The peer finds the same bytes, no errors, and exactly the clusters that were read.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

plain_opts="driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=disk.qcow2"
filter_copy_opts="driver=copy-on-read,$(filter_opts disk.qcow2 | sed 's/[a-z.-]*=/file.&/g')"

# "1" for each cluster, up to the one that OFFSET begins, that the overlay itself holds, "0" for the others.
own_clusters() { # CLUSTERS
    local at

    for ((at = 0; at < $1; at++)); do
        "$QEMU_IMG" map -f qcow2 --output=json --start-offset=$((at * CLUSTER)) --max-length="$CLUSTER" disk.qcow2 |
            grep -q '"depth": 0, "present": true' && printf 1 || printf 0
    done
}

chain() {       # 6 clusters of text in base, cluster 2 in mid, cluster 4 in the overlay
    text_file base.raw $((6 * CLUSTER))
    truncate -s $((16 * CLUSTER)) base.raw
    rm -f mid.qcow2
    "$QEMU_IMG" create -q -f qcow2 -o "cluster_size=$CLUSTER" -b base.raw -F raw mid.qcow2
    peer_io mid.qcow2 qcow2 "write -P 2 $((2 * CLUSTER)) $CLUSTER" "write -z $((8 * CLUSTER)) $CLUSTER"
    new_image $((16 * CLUSTER)) -b mid.qcow2 -F qcow2
    peer_io disk.qcow2 qcow2 "write -P 4 $((4 * CLUSTER)) $CLUSTER"
    model_from_image
}

copies() {      # OPTIONS TEXT
    chain
    io_run "$BLKSTACK_IO" --image-opts "$1" -- "read $((CLUSTER + 4096)) 512" "read -P 2 $((3 * CLUSTER - 512)) 512" \
        "read $((5 * CLUSTER - 512)) 1k" "read -P 0 $((8 * CLUSTER)) 4k"
    is "$(own_clusters 10)" 0110110010 "$2: the clusters that were read, and only they"
    agrees "$2"
    io_run "$BLKSTACK_IO" --image-opts "$1" -- "read 0 $((16 * CLUSTER))" "write -P 7 $((CLUSTER / 2)) $CLUSTER" \
        "read -P 7 $((CLUSTER / 2)) $CLUSTER"
    model_io "write -P 7 $((CLUSTER / 2)) $CLUSTER"
    agrees "$2, everything read, one write"
    # Without its chain the overlay still has all that the chain had.
    qimg rebase -u -f qcow2 -b "" disk.qcow2
    same disk.qcow2 model.raw "$2: nothing is missing without the chain"
}

copy_on_read() {
    copies "$plain_opts" plain
    is "$(check_number disk.qcow2 compressed-clusters)" 0 "plain copies are not compressed"
    copies "$filter_copy_opts" "through compress"
    is "$(check_number disk.qcow2 compressed-clusters)" 5 "copies are compressed, zeroes and plain ones stay"

    chain
    io_run "$BLKSTACK_IO" -C -f qcow2 disk.qcow2 -- "read 0 4k"
    is "$(own_clusters 3)" 100 "-C stores what is read"
    agrees "-C"
    chain
    cp disk.qcow2 before.qcow2
    pio disk.qcow2 "read 0 $((16 * CLUSTER))"
    succeeds "without the filter nothing is stored" cmp disk.qcow2 before.qcow2
    fails "a read-only image is refused" "read-only" io -r --image-opts "$plain_opts" -c "read 0 4k"
    mid=file.backing.driver=qcow2,file.backing.node-name=mid,file.backing.file.filename=mid.qcow2
    io_run "$BLKSTACK_IO" --image-opts "$plain_opts,$mid,bottom=mid" -- "read 0 $((4 * CLUSTER))"
    is "$(own_clusters 4)" 0010 "bottom: what lies below it is not stored"
    agrees "bottom"
}

for COMPRESSION in zlib zstd; do
    label=$COMPRESSION
    copy_on_read
done
label="2 MiB clusters" CLUSTER=2097152
copies "$filter_copy_opts" "through compress"
done_testing
