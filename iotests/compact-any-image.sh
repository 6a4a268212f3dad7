#!/bin/bash
# SPDX-License-Identifier: MIT
# compact makes an image of any kind as short as a fresh one: for each kind the content of the disk and of each snapshot stays, both
# programs find it sound, and the length is at most 1.02 of the fresh one's: of what convert -c writes, or, with snapshots and
# bitmaps, of the live payloads and tables without holes. Killed, an image with snapshots is sound, and the next run ends.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3
# timeout: 300

MODEL=data.raw          # what the disk held at first, 8 MiB

snapshots() { qimg snapshot -l "$1" | awk 'NR > 2 { print $2 }'; }

# What is in the image now: a file for the disk, and one for each snapshot.
dump() {        # FILE DIRECTORY
    local name

    rm -rf "$2"
    mkdir "$2"
    qimg convert -f qcow2 -O raw "$1" "$2/active.raw"
    for name in $(snapshots "$1"); do
        qimg convert -f qcow2 -l "snapshot.name=$name" -O raw "$1" "$2/$name.raw"
    done
}

# Bytes that the image would have, fresh.
fresh_size() {  # FILE FRESH-OPTIONS
    if [ -n "$(snapshots "$1")" ] || qimg info "$1" | grep -q bitmaps; then
        "$BLKSTACK_SOURCE/iotests/live_size.py" "$1"
    else
        # Nothing is compressed in a data file.
        case $2 in
        data_file=*) img convert -f qcow2 -O qcow2 -o "$2" "$1" fresh.qcow2 ;;
        *) img convert -c -f qcow2 -O qcow2 -o "$2" "$1" fresh.qcow2 ;;
        esac
        stat -c %s fresh.qcow2
    fi
}

compacted() {   # KIND FRESH-OPTIONS [PERCENT]
    local before fresh after percent=${3:-102}

    before=$(stat -c %s disk.qcow2)
    dump disk.qcow2 before
    succeeds "$1: compact" "$BLKSTACK_IMG" compact -q disk.qcow2
    judge disk.qcow2 "$1"
    dump disk.qcow2 after
    succeeds "$1: the same content, of snapshots too" diff -r before after
    fresh=$(fresh_size disk.qcow2 "$2")
    after=$(stat -c %s disk.qcow2)
    diag "$(printf '%-28s %9d -> %9d, fresh %9d, ratio %d.%03d' "$1" "$before" "$after" "$fresh" \
        $((after / fresh)) $((after * 1000 / fresh % 1000)))"
    num_ok "$after * 100 <= ($fresh + 65536) * $percent" "$1: $after bytes of $fresh, where 64 KiB more are none"
}

# A disk with the model's data, made by the peer; options and convert's own options.
image() {       # OPTIONS CONVERT-OPTIONS...
    rm -f disk.qcow2
    qimg convert -f raw -O qcow2 -o "$1" "${@:2}" "$MODEL" disk.qcow2
}

# Every other cluster is discarded, some of them are written again, with other data.
holes() {       # FILE CLUSTER-KIB
    local i
    local -a commands=()

    for ((i = 0; i < 4096 / $2; i += 2)); do
        commands+=(-c "discard -q $((i * $2))k ${2}k")
    done
    for ((i = 0; i < 4096 / $2; i += 6)); do
        commands+=(-c "write -q -P $((i % 255 + 1)) $((i * $2))k ${2}k")
    done
    qio -f qcow2 "${commands[@]}" "$1" >io.out
}

# A history of snapshots with changes in between: some clusters belong to all, some to one; one snapshot goes.
history() {     # FILE
    qimg snapshot -c one "$1"
    qio -f qcow2 -c "write -q -s noise.raw 1M 512k" -c "discard -q 2M 1M" "$1"
    qimg snapshot -c two "$1"
    qio -f qcow2 -c "write -q -P 7 1200k 1M" -c "write -q -s noise.raw 5M 512k" "$1"
    qimg snapshot -d one "$1"
    qimg snapshot -c three "$1"
    qio -f qcow2 -c "write -q -s noise.raw 3M 256k" -c "discard -q 4M 512k" "$1"
}

random_file noise.raw 1048576
text_file text.raw 6291456
cat text.raw noise.raw >"$MODEL"
truncate -s 8M "$MODEL"

# ---- snapshots ----

for options in compat=1.1 compat=0.10 extended_l2=on lazy_refcounts=on cluster_size=4k,refcount_bits=64 \
               cluster_size=512; do
    image "$options"
    history disk.qcow2
    compacted "snapshots, $options" "$options"
done
# Few and large clusters: a part of one that nobody uses is a large part of the file.
for cluster in 1M 2M; do
    for convert in "" -c; do
        image cluster_size=$cluster ${convert:+"$convert"}
        history disk.qcow2
        compacted "snapshots, ${convert:+"$convert, "}cluster_size=$cluster" cluster_size=$cluster 100
        sum=$(sha256sum <disk.qcow2)
        succeeds "once more" "$BLKSTACK_IMG" compact -q disk.qcow2
        is "$(sha256sum <disk.qcow2)" "$sum" "nothing changes then"
    done
done
# Counts up to 3: not every payload finds another one that may be in the same cluster.
image refcount_bits=2
history disk.qcow2
compacted "snapshots, refcount_bits=2" refcount_bits=2 110
for options in compat=1.1 cluster_size=512; do
    image "$options" -c
    history disk.qcow2
    compacted "snapshots, -c, $options" "$options"
done
image compression_type=zstd -c
history disk.qcow2
holes disk.qcow2 64
compacted "snapshots, holes, zstd" compression_type=zstd

image compat=1.1
for i in {1..30}; do
    name=$(printf '%s-%0100d' s "$i")
    qimg snapshot -c "$name" disk.qcow2
    qio -f qcow2 -c "write -q -P $i ${i}00k 4k" disk.qcow2
done
compacted "30 snapshots" compat=1.1

# ---- bitmaps ----

image compat=1.1
for i in 1 2 3; do
    qimg bitmap --add -g 512 disk.qcow2 map$i
    qio -f qcow2 -c "write -q -s noise.raw ${i}M 512k" disk.qcow2
done
qimg bitmap --remove disk.qcow2 map2
bitmaps=$(img info --output=json disk.qcow2 | grep -c '"granularity"')
holes disk.qcow2 64
compacted "bitmaps" compat=1.1
is "$(qimg info --output=json disk.qcow2 | grep -c '"granularity"')" "$bitmaps" "the bitmaps are there"
succeeds "and are what they were" "$BLKSTACK_IMG" bitmap --add --merge map1 disk.qcow2 sum

# ---- others ----

for options in compat=1.1 compat=0.10 refcount_bits=1 cluster_size=4k cluster_size=2M; do
    image "$options"
    holes disk.qcow2 64
    compacted "plain, holes, $options" "$options"
done
image cluster_size=512
holes disk.qcow2 64
compacted "512-byte clusters" cluster_size=512
image cluster_size=512 -c
holes disk.qcow2 64
compacted "512-byte clusters, -c" cluster_size=512

for kind in metadata falloc full; do
    rm -f disk.qcow2
    qimg create -q -f qcow2 -o preallocation=$kind disk.qcow2 16M
    qio -f qcow2 -c "write -q -s noise.raw 1M 1M" disk.qcow2
    compacted "preallocated, $kind" compat=1.1
done
image compat=1.1
qio -f qcow2 -c "write -q -z 1M 2M" disk.qcow2
qimg snapshot -c zeroes disk.qcow2
compacted "preallocated zero clusters" compat=1.1

rm -f disk.qcow2
qimg create -q -f qcow2 -o cluster_size=512,preallocation=metadata disk.qcow2 16M
qimg resize -q --shrink disk.qcow2 1M
qio -f qcow2 -c "write -q -s noise.raw 0 512k" disk.qcow2
compacted "large refcount and L1 tables" cluster_size=512
image compat=1.1
truncate -s +64M disk.qcow2
compacted "over-long" compat=1.1

rm -f disk.qcow2 disk.data
qimg create -q -f qcow2 -o data_file=disk.data,cluster_size=4k disk.qcow2 64M
qio -f qcow2 -c "write -q -P 1 0 32M" -c "write -q -P 1 60M 1M" disk.qcow2
qimg resize -q --shrink disk.qcow2 48M
before=$(sha256sum <disk.data)
compacted "external data file" "data_file=fresh.data,cluster_size=4k"
is "$(sha256sum <disk.data)" "$before" "the data file is what it was"

# ---- killed ----

image compat=1.1
history disk.qcow2
dump disk.qcow2 before
killed=0
for delay in 0.01 0.02 0.03 0.04 0.06 0.08 0.1 0.15; do
    run_killed "$delay" "$BLKSTACK_IMG" compact -q disk.qcow2
    sound_after_kill disk.qcow2 "killed after $delay s"
    dump disk.qcow2 after
    succeeds "killed after $delay s: the same content" diff -r before after
done
num_ok "killed > 0" "$killed runs were killed"
compacted "killed, then ended" compat=1.1
done_testing
