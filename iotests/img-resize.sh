#!/bin/bash
# SPDX-License-Identifier: MIT
# resize: growth with every preallocation, growth of the L1 table, --shrink; new space reads as zeroes, also over a longer
# backing file. Every outcome is the peer's, and judged by the peer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io

# Both images hold the same bytes as the peer's outcome, and ours is clean.
resized() {     # FILE FORMAT ARGUMENTS...
    local file=$1 format=$2

    shift 2
    twin resize "$@"
    is "$twin_status" 0 "status of: resize $*"
    is "$(cd ours && qimg info -f "$format" "$file" | grep '^virtual size')" \
        "$(cd peer && qimg info -f "$format" "$file" | grep '^virtual size')" "virtual size: resize $*"
    same "$format:ours/$file" "$format:peer/$file" "resize $*"
    if [ "$format" = qcow2 ]; then
        judge "ours/$file" "resize $*"
    fi
}

both_new() {    # FILE ARGUMENTS... of the peer's create; then 0x11 in the first 64 KiB
    local file=$1 directory

    shift
    for directory in ours peer; do
        (cd $directory && qimg create -q -f qcow2 "$@" && peer_io "$file" qcow2 "write -P 0x11 0 64k")
    done
}

label=qcow2
for preallocation in off metadata falloc full; do
    both_new a.qcow2 a.qcow2 1M
    resized a.qcow2 qcow2 --preallocation=$preallocation a.qcow2 +3M
    num_ok "$(file_blocks ours/a.qcow2) <= $(file_blocks peer/a.qcow2) + 16384" "takes no more space than the peer's"
    num_ok "$(file_bytes ours/a.qcow2) <= $(file_bytes peer/a.qcow2)" "and is not longer"
    pio ours/a.qcow2 "read -P 0x11 0 64k" "read -P 0 64k 4032k" "write -P 3 3M 1M" "read -P 3 3M 1M"
    peer_io peer/a.qcow2 qcow2 "write -P 3 3M 1M"
    judge ours/a.qcow2 "written after resize --preallocation=$preallocation"
    resized a.qcow2 qcow2 -f qcow2 a.qcow2 4M
done
both_new a.qcow2 -o compat=0.10 a.qcow2 1M
resized a.qcow2 qcow2 a.qcow2 +1M
resized a.qcow2 qcow2 -q a.qcow2 3M

label="the L1 table grows"
for sizes in "512 1M 4G" "4k 1M 1T" "64k 1M 4T" "2M 1M 1P"; do
    read -r cluster from to <<<"$sizes"
    both_new a.qcow2 -o cluster_size="$cluster" a.qcow2 "$from"
    resized a.qcow2 qcow2 a.qcow2 "$to"
    pio ours/a.qcow2 "write -P 5 4294963200 4k" "read -P 5 4294963200 4k" "read -P 0x11 0 64k" "read -P 0 64k 64k"
    judge ours/a.qcow2 "written at the end after growth to $to"
done

label=shrink
both_new a.qcow2 a.qcow2 4M
for directory in ours peer; do
    peer_io $directory/a.qcow2 qcow2 "write -P 7 1M 1M" "write -c -P 8 2M 64k" "write -P 7 2112k 1984k"
done
twin_fails "shrink" resize a.qcow2 1M
twin_fails "shrink" resize a.qcow2 -- -1M
resized a.qcow2 qcow2 --shrink a.qcow2 2M
resized a.qcow2 qcow2 a.qcow2 4M
pio ours/a.qcow2 "read -P 0 2M 2M" "read -P 7 1M 1M"
resized a.qcow2 qcow2 --shrink a.qcow2 1000k
resized a.qcow2 qcow2 a.qcow2 2M
pio ours/a.qcow2 "read -P 0 1000k 1048k"
twin_fails "positive" resize --shrink a.qcow2 0
twin_fails "Preallocation" resize --shrink --preallocation=full a.qcow2 512k

label="a file becomes shorter"
for cluster in 512 64k; do
    both_new a.qcow2 -o cluster_size=$cluster a.qcow2 64M
    for directory in ours peer; do
        peer_io $directory/a.qcow2 qcow2 "write -P 7 32M 1M" "write -c -P 8 33M 64k" "write -z 34M 1M" "write -P 9 60M 4M"
    done
    for size in 8M 512k 32M; do
        resized a.qcow2 qcow2 --shrink a.qcow2 $size
        num_ok "$(file_bytes ours/a.qcow2) <= $(file_bytes peer/a.qcow2) * 105 / 100" \
            "as short as the peer's: clusters of $cluster, $size"
    done
done

label=snapshot
both_new a.qcow2 -o cluster_size=512 a.qcow2 16M
for directory in ours peer; do
    peer_io $directory/a.qcow2 qcow2 "write -P 7 8M 1M" "write -c -P 8 12M 512"
    qimg snapshot -c s $directory/a.qcow2
done
resized a.qcow2 qcow2 --shrink a.qcow2 1M
resized a.qcow2 qcow2 a.qcow2 32M
for directory in ours peer; do
    qimg convert -f qcow2 -l s -O raw $directory/a.qcow2 $directory.raw
done
same ours.raw peer.raw "the snapshot has its old content"
qimg snapshot -d s ours/a.qcow2
judge ours/a.qcow2 "the snapshot is deleted"
for directory in ours peer; do
    qimg create -q -f qcow2 -o compat=0.10 $directory/v2.qcow2 1M
    qimg snapshot -c s $directory/v2.qcow2
done
twin_fails "snapshots" resize v2.qcow2 2M

label="a longer backing file"
for directory in ours peer; do
    qimg create -q -f raw $directory/base.raw 8M
    peer_io $directory/base.raw raw "write -P 9 0 8M"
done
for preallocation in off metadata; do
    for cluster in 4k 64k; do
        both_new a.qcow2 -b base.raw -F raw -o cluster_size=$cluster a.qcow2 1030k
        twin resize --preallocation=$preallocation a.qcow2 6M
        if [ "$twin_status" -eq 0 ]; then
            pio ours/a.qcow2 "read -P 9 64k 966k" "read -P 0 1030k 5114k"
            peer_io ours/a.qcow2 qcow2 "read -P 9 64k 966k" "read -P 0 1030k 5114k"
            judge ours/a.qcow2 "over a backing file, $preallocation, $cluster"
        fi
    done
done

label=raw
for directory in ours peer; do
    qimg create -q -f raw $directory/r.raw 1M
done
for preallocation in off falloc full; do
    resized r.raw raw -f raw --preallocation=$preallocation r.raw +1M
done
resized r.raw raw -f raw --shrink r.raw 1536k
resized r.raw raw -f raw --shrink r.raw -- -512k
is "$(file_bytes ours/r.raw)" 1048576 "the file was cut"
twin_fails "metadata" resize -f raw --preallocation=metadata r.raw 2M

label=refused
both_new s.qcow2 s.qcow2 1M
for size in "" x 1X +x 16E -2M; do
    twin_fails "." resize s.qcow2 -- "$size"
done
twin_fails "." resize s.qcow2
twin_fails "." resize
twin_fails "." resize --preallocation=bogus s.qcow2 2M
twin_fails "missing" resize missing 2M
twin_fails "nosuch" resize -f nosuch s.qcow2 2M
both_new t.qcow2 -o cluster_size=512 t.qcow2 1M
twin_fails "." resize t.qcow2 1T
judge ours/t.qcow2 "after a refused growth"
done_testing
