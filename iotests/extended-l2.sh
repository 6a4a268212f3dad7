#!/bin/bash
# SPDX-License-Identifier: MIT
# Extended L2 entries: create, info, map, check and resize are the peer's; a write copies no more than its subclusters;
# subclusters of data, zeroes and nothing beside compressed clusters, over backing files and under internal snapshots.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io

map_json() { qimg map -f qcow2 --output=json "$1"; }

# Both programs' maps of FILE are the same.
maps_agree() {  # FILE TEXT
    is "$(img map -f qcow2 --output=json "$1")" "$(map_json "$1")" "$2: map"
}

label=create
for options in extended_l2=on extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=2M,compression_type=zstd \
    extended_l2=on,preallocation=metadata extended_l2=on,preallocation=full,cluster_size=16k extended_l2=off; do
    twin_ok create -f qcow2 -o "$options" a.qcow2 5M
    twin_made a.qcow2 qcow2
    maps_agree ours/a.qcow2 "$options"
    is "$(img info -f qcow2 --output=json ours/a.qcow2)" "$(qimg info -f qcow2 --output=json ours/a.qcow2)" "$options: info"
done
twin_fails "at least 16384 bytes" create -f qcow2 -o extended_l2=on,cluster_size=8k x 1M
twin_fails "compat=1.1" create -f qcow2 -o extended_l2=on,compat=0.10 x 1M

label="small writes"
new_image 4M -o extended_l2=on
both_plain "write -P 1 0 4k" "write -P 2 66k 1k" "write -P 3 130k 10000" "write -P 4 300k 100k"
agrees "over nothing"
qimg create -q -f qcow2 -o extended_l2=on peer.qcow2 4M
peer_io peer.qcow2 qcow2 "write -P 1 0 4k" "write -P 2 66k 1k" "write -P 3 130k 10000" "write -P 4 300k 100k"
is "$(map_json disk.qcow2 | map_shape)" "$(map_json peer.qcow2 | map_shape)" "what is allocated is what the peer allocates"
maps_agree disk.qcow2 "over nothing"

label="small writes over a backing file"
qimg create -q -f qcow2 base.qcow2 4M
peer_io base.qcow2 qcow2 "write -P 9 0 3M"
new_image 4M -o extended_l2=on -b base.qcow2 -F qcow2
model_from_image
both_plain "write -P 1 100 200" "write -P 2 70k 4k" "write -P 3 128k 1k" "write -z 140k 2k" "write -z 201k 1k"
agrees "part of a subcluster, aligned ones, zeroes"
is "$(map_json disk.qcow2 | grep -c '"depth": 0')" 5 "five ranges are in the image"
is "$(map_json disk.qcow2 | sed -n 's/.*"length": \([0-9]*\), "depth": 0, .*"data": true.*/\1/p' | paste -sd' ')" \
    "2048 4096 2048 2048" "and none has more than the subclusters that were written"
maps_agree disk.qcow2 "over a backing file"

label="beside compressed clusters"
for COMPRESSION in zlib zstd; do
    for CLUSTER in 16384 65536 2097152; do
        label="$COMPRESSION $((CLUSTER / 1024))k"
        new_image 8M -o extended_l2=on
        both "write -P 1 0 3M" "write -P 2 5k 3k" "discard 2M $CLUSTER" "write -z 3M $CLUSTER"
        agrees "through the filter"
        both_plain "write -P 3 1000 3000" "write -P 4 2060k 4k" "write -z 3100k 6k" "write -P 5 4M 5k" "write -z 2061k 1k"
        agrees "plain writes into compressed, discarded, zero and new clusters"
        maps_agree disk.qcow2 "mixed"
        both_peer "write -P 6 2M 3k" "write -z 4M 2k" "write -P 7 4100k 100" "discard 0 $CLUSTER"
        both "write -P 8 2M 3k" "write -P 9 4M 4M"
        both_plain "write -z -u 5M 1M" "discard 6M 2M" "write -P 10 6M 1"
        agrees "the peer, the filter and plain again"
        maps_agree disk.qcow2 "at last"
    done
done
COMPRESSION=zlib CLUSTER=65536 label="internal snapshot"
new_image 4M -o extended_l2=on
both_plain "write -P 1 0 5k" "write -P 2 64k 64k" "write -z 20k 4k"
both "write -P 3 128k 64k"
qimg snapshot -c one disk.qcow2
cp model.raw one.raw
both_plain "write -P 4 2k 2k" "write -z 66k 4k" "write -P 5 129k 1k" "write -P 6 40k 2k" "write -P 7 256k 2k"
agrees "written to after the snapshot"
maps_agree disk.qcow2 "after the snapshot"
like "$(map_json disk.qcow2)" '"start": 67584, "length": 4096, "depth": 0, "present": true, "zero": true, "data": false, "off' \
    "zeroes in a shared cluster are bits in the new table, and the cluster is shared still"
qimg convert -l one -O raw disk.qcow2 out.raw
same raw:out.raw raw:one.raw "the snapshot's bytes"
qimg snapshot -a one disk.qcow2
same disk.qcow2 one.raw "the snapshot comes back"
judge disk.qcow2 "the snapshot came back"

label=resize
for preallocation in off metadata falloc full; do
    for directory in ours peer; do
        (cd $directory && qimg create -q -f qcow2 -o extended_l2=on a.qcow2 1030k &&
            peer_io a.qcow2 qcow2 "write -P 1 0 3k" "write -P 2 1020k 10k")
    done
    twin resize --preallocation=$preallocation a.qcow2 3M
    same qcow2:ours/a.qcow2 qcow2:peer/a.qcow2 "grown with $preallocation"
    judge ours/a.qcow2 "grown with $preallocation"
    is "$(map_json ours/a.qcow2 | map_shape)" "$(map_json peer/a.qcow2 | map_shape)" "grown with $preallocation: map"
    pio ours/a.qcow2 "read -P 0 1030k 2042k" "write -P 3 2M 3k" "read -P 0 2051k 100k"
    twin resize --shrink a.qcow2 1023k
    twin resize a.qcow2 2M
    pio ours/a.qcow2 "read -P 0 1023k 1025k" "read -P 2 1020k 3k"
    judge ours/a.qcow2 "shrunk and grown again"
done
twin_ok create -f qcow2 -o extended_l2=on,cluster_size=16k big.qcow2 1M
twin resize big.qcow2 16T
pio ours/big.qcow2 "write -P 5 15T 4k" "read -P 5 15T 4k" "read -P 0 0 1M"
judge ours/big.qcow2 "a larger L1 table"

label=convert
new_image 4M -o extended_l2=on
both_plain "write -P 1 0 5k" "write -P 2 64k 100k" "write -z 200k 3k"
for options in "" -c; do
    # shellcheck disable=SC2086
    img convert -f qcow2 -O qcow2 $options -o extended_l2=on disk.qcow2 copy.qcow2
    same copy.qcow2 model.raw "convert $options"
    judge copy.qcow2 "convert $options"
    is "$(img compare -f qcow2 -F qcow2 disk.qcow2 copy.qcow2)" "Images are identical." "compare"
done
done_testing
