#!/bin/bash
# SPDX-License-Identifier: MIT
# Images that the peer made, plain and compressed, of every cluster size, version, refcount width and codec, and in
# backing chains, are read by ours, rewritten through the compress filter, and judged by the peer.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

filtered() {    # FILE COMMAND...
    local file=$1

    shift
    io_run "$BLKSTACK_IO" --image-opts "$(filter_opts "$file")" -- "$@"
}

# disk.qcow2 and the raw model get the same bytes; then the peer compares.
round_trip() {  # TEXT CREATE-OPTIONS
    label=$1
    qimg create -q -f qcow2 -o "$2" disk.qcow2 9M
    truncate -s 9M model.raw
    for target in "disk.qcow2 qcow2" "model.raw raw"; do
        read -r file format <<<"$target"
        # A compressed write of the peer must be whole clusters: 2 MiB suits all sizes.
        "$QEMU_IO" -f "$format" -c "write -P 1 0 3M" -c "write -z 1M 64k" "$file" >/dev/null
    done
    # Nor can it compress over what is allocated.
    compress=(-c)
    if [[ $2 = *preallocation* ]]; then
        compress=()
    fi
    "$QEMU_IO" -f qcow2 -c "write ${compress[*]} -P 2 4M 2M" disk.qcow2 >/dev/null
    "$QEMU_IO" -f raw -c "write -P 2 4M 2M" model.raw >/dev/null
    is "$(img compare -f qcow2 -F raw disk.qcow2 model.raw)" "Images are identical." "$label: read"
    commands=("write -P 3 100k 50k" "write -P 4 4100k 4k" "write -P 5 5M 1M" "write -P 6 8M 1M" "write -z 2M 70000")
    filtered disk.qcow2 "${commands[@]}"
    for command in "${commands[@]}"; do
        "$QEMU_IO" -f raw -c "$command" model.raw >/dev/null
    done
    judge disk.qcow2 "$label: rewritten"
    is "$(qimg compare -f qcow2 -F raw disk.qcow2 model.raw)" "Images are identical." "$label: the peer reads it"
    rm disk.qcow2 model.raw
}

for cluster in 512 1k 4k 64k 256k 2M; do
    round_trip "clusters of $cluster" "cluster_size=$cluster"
done
for width in 1 2 4 8 16 32 64; do
    round_trip "counts of $width bits" "refcount_bits=$width"
done
round_trip "version 2" "compat=0.10"
round_trip "zstd" "compression_type=zstd"
round_trip "preallocated" "preallocation=metadata"

# base.raw <- middle <- top: relative names in another directory, a backing format, a json: name.
mkdir -p chain/below
truncate -s 4M chain/below/base.raw model.raw
for command in "write -P 1 0 4M" "write -P 2 1M 1M"; do
    "$QEMU_IO" -f raw -c "$command" model.raw >/dev/null
done
"$QEMU_IO" -f raw -c "write -P 1 0 4M" chain/below/base.raw >/dev/null
(cd chain && qimg create -q -f qcow2 -b below/base.raw -F raw middle.qcow2 4M)
"$QEMU_IO" -f qcow2 -c "write -P 2 1M 1M" chain/middle.qcow2 >/dev/null
qimg create -q -u -f qcow2 -F qcow2 \
    -b "json:{'driver':'qcow2','file':{'driver':'file','filename':'$PWD/chain/middle.qcow2'}}" chain/top.qcow2 4M
is "$(img compare -f qcow2 -F raw chain/top.qcow2 model.raw)" "Images are identical." "a chain: read"
filtered chain/top.qcow2 "write -P 7 1020k 8k"
"$QEMU_IO" -f raw -c "write -P 7 1020k 8k" model.raw >/dev/null
judge chain/top.qcow2 "a chain: rewritten"
is "$(qimg compare -f qcow2 -F raw chain/top.qcow2 model.raw)" "Images are identical." "a chain: the peer reads it"
done_testing
