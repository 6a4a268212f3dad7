#!/bin/bash
# SPDX-License-Identifier: MIT
# ENOSPC and EIO at each point of a compressed write: the write or its flush fails with that error and never lies, the
# image stays consistent, and the same process repeats the operation when the fault has gone.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

fault_opts() {  # EVENT ERRNO MORE
    echo "driver=compress,write-buffer=0,file.driver=qcow2,file.file.driver=fault,file.file.inject-error.0.event=$1" \
        "file.file.inject-error.0.errno=$2$3" \
        "file.file.image.driver=file,file.file.image.filename=disk.qcow2" | tr ' ' ,
}

fault_io() {    # EVENT ERRNO MORE COMMAND...: with the output in io.out and the status in $status
    local opts command
    local -a commands=()

    opts=$(fault_opts "$1" "$2" "$3")
    shift 3
    for command; do
        commands+=(-c "$command")
    done
    status=0
    timeout 60 "$BLKSTACK_IO" --image-opts "$opts" "${commands[@]}" >io.out 2>&1 || status=$?
}

# No errors; leaks only if allowed.
consistent() {  # no-leaks|leaks TEXT
    local got=0

    "$QEMU_IMG" check -f qcow2 disk.qcow2 >check.out 2>&1 || got=$?
    if [ "$1" = leaks ] && [ "$got" = 3 ]; then
        got=0
    fi
    is "$got" 0 "$2: the image is consistent"
    got=0
    img check -f qcow2 --data disk.qcow2 >check.out 2>&1 || got=$?
    if [ "$1" = leaks ] && [ "$got" = 3 ]; then
        got=0
    fi
    is "$got" 0 "$2: so says our check"
}

BYTES=1048576

prepare() {     # old content, compressed; with tiny clusters it would be overwritten in place
    new_image 4M
    if [ "$CLUSTER" -gt 512 ]; then
        both "write -P 9 0 4M"
    fi
}

fault_goes() {  # EVENT ERRNO MESSAGE
    label="$1, errno $2, once"
    prepare
    fault_io "$1" "$2" ",file.file.inject-error.0.once=on" "write -s data.bin 0 $BYTES" flush \
        "write -s data.bin 0 $BYTES" flush flush
    is "$status" 1 "the program says that something failed"
    is "$(grep -c "failed: $3" io.out || true)" 1 "one operation failed, with the error"
    cp io.out first.out
    model_io "write -s data.bin 0 $BYTES"
    is "$(tail -n 1 first.out | grep -c failed || true)" 0 "the last flush succeeded"
    agrees "after the repetition"
}

fault_stays() { # EVENT ERRNO MESSAGE
    label="$1, errno $2, always"
    prepare
    fault_io "$1" "$2" "" "write -s data.bin 0 $BYTES" flush "write -P 3 2M 64k" flush
    is "$status" 1 "the program says that something failed"
    num_ok "$(grep -c "failed: $3" io.out || true) >= 1" "with the error"
    consistent leaks "after faults that stay"
    # What is there is old or new, cluster by cluster.
    "$QEMU_IMG" convert -f qcow2 -O raw disk.qcow2 now.raw
    is "$(perl -e 'my ($cluster, @names) = @ARGV;
        my @data = map { local $/; open(my $f, "<:raw", $_) or die; <$f> } @names;
        my ($now, $old, $new) = @data; my $bad = 0;
        for (my $at = 0; $at < length($new); $at += $cluster) {
            my $part = substr($now, $at, $cluster);
            $bad++ if $part ne substr($old, $at, $cluster) && $part ne substr($new, $at, $cluster);
        } print $bad' "$CLUSTER" now.raw model.raw data.bin)" 0 "each cluster is old or new"
    pio disk.qcow2 "read 0 4M"
    zio disk.qcow2 "write -s data.bin 0 $BYTES" "read 0 4M"
    "$QEMU_IMG" convert -f qcow2 -O raw disk.qcow2 now.raw
    succeeds "without the fault the write lands" cmp -n "$BYTES" now.raw data.bin
    consistent leaks "after a good write"
}

events() {
    local event errno message

    for errno in 28 5; do
        message="No space left on device"
        if [ "$errno" = 5 ]; then
            message="Input/output error"
        fi
        for event in "$@"; do
            fault_goes "$event" "$errno" "$message"
            fault_stays "$event" "$errno" "$message"
        done
    done
}

text_file data.bin "$BYTES"
CLUSTER=65536
events l2_update cluster_alloc_bytes write_compressed flush_to_disk
random_file data.bin "$BYTES"
events cluster_alloc            # what does not compress is stored plain
CLUSTER=512
events refblock_alloc
done_testing
