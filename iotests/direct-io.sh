#!/bin/bash
# SPDX-License-Identifier: MIT
# Without the host's cache (-n, -t none, -t directsync, convert -t none -T none): odd offsets and sizes through qcow2,
# the compress filter and raw, in files of odd length, with buffers that O_DIRECT cannot take. Every byte is as with the
# cache.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io perl

has_direct_io || skip_all "this file system has no O_DIRECT"

# How the file is open in a running io: "yes" if with O_DIRECT.
is_direct() {   # OPTIONS...
    local pid tries flags=

    mkfifo commands
    "$BLKSTACK_IO" "$@" -f raw probe.raw >probe.out 2>&1 <commands &
    pid=$!
    exec 8>commands
    echo length >&8
    for ((tries = 0; tries < 200; tries++)); do
        if grep -q '1 MiB' probe.out; then
            break
        fi
        sleep 0.05
    done
    flags=$(perl -e 'for my $fd (glob("/proc/$ARGV[0]/fd/*")) {
        next if (readlink($fd) // "") !~ m{/probe.raw$};
        open(my $info, "<", $fd =~ s{/fd/}{/fdinfo/}r) or next;
        while (<$info>) { print $1 if /^flags:\s*(\d+)/ } }' "$pid")
    exec 8>&-
    wait "$pid"
    rm commands
    (($(perl -e 'use Fcntl; print +(oct($ARGV[0]) & O_DIRECT) ? 1 : 0' "${flags:-0}"))) && echo yes || echo no
}

is "$(is_direct)" no "by default the host caches"
is "$(is_direct -n)" yes "-n opens with O_DIRECT"
is "$(is_direct -t none)" yes "-t none opens with O_DIRECT"

direct() {      # MODE COMMAND...: on disk.qcow2 through the filter, and on the model
    local mode=$1

    shift
    # shellcheck disable=SC2086  # a mode may be two words
    io_run "$BLKSTACK_IO" $mode --image-opts "$(filter_opts disk.qcow2)" -- "$@"
    model_io "$@"
}

direct_plain() { # MODE COMMAND...
    local mode=$1

    shift
    # shellcheck disable=SC2086
    io_run "$BLKSTACK_IO" $mode -f qcow2 disk.qcow2 -- "$@"
    model_io "$@"
}

odd_requests() {
    local mode

    for mode in -n "-t none" "-t directsync" "-n -m"; do
        label="$COMPRESSION $((CLUSTER / 1024))k $mode"
        new_image $((8 * CLUSTER + 1536))
        direct "$mode" "write -P 1 0 $CLUSTER" "write -P 2 1 1" "write -P 3 511 2" "write -P 4 4095 4098" \
            "write -P 5 $((CLUSTER - 1)) $((CLUSTER + 2))" "write -P 6 $((8 * CLUSTER + 1)) 1535" \
            "read -P 2 1 1" "read -P 3 511 2" "read -P 1 513 3582" "write -z 8193 4097"
        direct_plain "$mode" "write -P 7 $((3 * CLUSTER + 513)) 1023" "write -P 8 $((8 * CLUSTER + 1535)) 1" \
            "read -P 7 $((3 * CLUSTER + 513)) 1023" "read -P 8 $((8 * CLUSTER + 1535)) 1" "read -P 4 4095 4098"
        agrees "odd requests"
        label="$label, raw"
        cp model.raw direct.raw
        # shellcheck disable=SC2086
        io_run "$BLKSTACK_IO" $mode -f raw direct.raw -- "read -P 2 1 1" "write -P 9 3 5" \
            "write -P 10 $((2 * CLUSTER - 3)) 7" "write -P 11 $((8 * CLUSTER + 1535)) 1" \
            "read -P 9 3 5" "read -P 11 $((8 * CLUSTER + 1535)) 1"
        model_io "write -P 9 3 5" "write -P 10 $((2 * CLUSTER - 3)) 7" "write -P 11 $((8 * CLUSTER + 1535)) 1"
        succeeds "odd requests" cmp direct.raw model.raw
    done
}

CLUSTER=65536
COMPRESSION=zlib odd_requests
COMPRESSION=zstd CLUSTER=16384 odd_requests

label=convert
text_file text.raw 3000000
random_file random.raw 300001
cat text.raw random.raw >model.raw
truncate -s 3300352 model.raw
for options in "" -c; do
    # shellcheck disable=SC2086
    succeeds "to qcow2 $options" img convert -t none -T none $options -f raw -O qcow2 model.raw disk.qcow2
    agrees "convert $options"
    succeeds "back to raw" img convert -t none -T none -f qcow2 -O raw disk.qcow2 back.raw
    succeeds "the same bytes" cmp back.raw model.raw
done
succeeds "compare" img compare -T none -f qcow2 -F raw disk.qcow2 model.raw
succeeds "check" img check -T none -f qcow2 disk.qcow2

# A file that ends within a sector, read to its end.
label="an odd file"
head -c 3000001 text.raw >odd.raw 2>/dev/null
printf x >>odd.raw
is "$(img convert -T none -f raw -O raw odd.raw out.raw 2>&1)" "" "is read to its end"
succeeds "with every byte" cmp -n 3000001 odd.raw out.raw
done_testing
