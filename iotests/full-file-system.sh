#!/bin/bash
# SPDX-License-Identifier: MIT
# On a file system that is really full every operation fails with one clear sentence and leaves an image without errors; when
# there is room again it can be repeated, on the same open node and on a new one.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io fallocate mount

small_file_system full 8M

random_file data.raw $((6 << 20))
random_file part.raw $((512 << 10)) 2

# Fills the file system but for some KiB.
leave() {       # KIB
    local left

    rm -f full/ballast
    left=$(df --output=avail -k full | tail -n 1)
    fallocate -l $((left - $1))K full/ballast
}

# What lies in the file has no errors, whatever the open node has in memory.
no_errors() {   # FILE TEXT
    local status=0

    cp --sparse=always "$1" copy.qcow2
    case $label in
    *lazy*) pio copy.qcow2 flush ;;     # its counts may lag while it is open: the next to open it repairs them
    esac
    qimg check -q -f qcow2 copy.qcow2 >check.out 2>&1 || status=$?
    if [ $status -eq 0 ] || [ $status -eq 3 ]; then
        ok "$2"
    else
        not_ok "$2" "status $status: $(cat check.out)"
    fi
}

fresh() {       # OPTIONS: full/disk.qcow2 with 1 MiB in it
    rm -f full/*
    qimg create -q -f qcow2 -o "$1" full/disk.qcow2 16M
    zio full/disk.qcow2 "write -s part.raw 0 512k" "write -P 7 512k 512k"
}

# Runs COMMANDS in an open session until there is no space; then ballast goes and they are run again there.
session() {     # GRAPH COMMANDS
    local i

    rm -f session.out
    # shellcheck disable=SC2094     # the program writes while the commands wait for what it says
    {
        echo "$2"
        for ((i = 0; i < 200; i++)); do
            if grep -q "failed" session.out 2>/dev/null; then break; fi
            sleep 0.05
        done
        cp session.out failed.out
        no_errors full/disk.qcow2 "the file has no errors" >&3
        rm -f full/ballast
        echo "$2"
        echo flush
    } 3>tap.out | timeout 60 "$BLKSTACK_IO" --image-opts "$1" >session.out 2>&1 || true
    cat tap.out
    tap_count=$((tap_count + $(wc -l <tap.out)))
}

qcow2=file.driver=qcow2,file.file.driver=file,file.file.filename=full/disk.qcow2
for options in cluster_size=64k cluster_size=4k,compression_type=zstd cluster_size=64k,lazy_refcounts=on; do
    for kind in filter buffer plain; do
        label="$kind, $options"
        fresh "$options"
        steps="write -s data.raw 1M 4M" failing=write wrote=1
        case $kind in
        filter) graph="driver=compress,write-buffer=0,$qcow2" ;;
        buffer)                             # it is the flush that fails
            graph="driver=compress,$qcow2" failing=flush wrote=2
            steps+=$'\n'flush
            ;;
        plain) graph="driver=qcow2,file.driver=file,file.filename=full/disk.qcow2" ;;
        esac
        leave 1500
        session "$graph" "$steps"
        is "$(grep -c "$failing failed: No space left on device" failed.out)" 1 "the $failing says what is wrong"
        is "$(grep -c "wrote 4194304/4194304" session.out)" "$wrote" "in the same session it can be repeated"
        is "$(grep -c failed session.out)" 1 "and fails no more"
        judge full/disk.qcow2 "afterwards"
        leave 0
        fails "and once more without space" "$failing failed: No space left" "$BLKSTACK_IO" -c "write -s data.raw 9M 4M" \
            -c flush --image-opts "$graph"
        no_errors full/disk.qcow2 "still no errors"
        rm -f full/ballast
        succeeds "the first write is there" "$QEMU_IO" -r -f qcow2 -c "read -P 7 512k 512k" full/disk.qcow2
        succeeds "a new open takes up again" "$BLKSTACK_IO" -c "write -s part.raw 9M 512k" --image-opts "$graph"
        judge full/disk.qcow2 "at the end"
    done
done

# The command fails with one line and changes nothing; with room it succeeds.
without_space() {       # KIB REGEX COMMAND...
    local kib=$1 regex=$2

    shift 2
    leave "$kib"
    fails "no space: $1" "$regex" "$BLKSTACK_IMG" "$@"
    "$BLKSTACK_IMG" "$@" >cmd.out 2>cmd.err || true
    is "$(wc -l <cmd.err)" 1 "one line: $(cat cmd.err)"
    if [ -e full/disk.qcow2 ]; then no_errors full/disk.qcow2 "no errors"; fi
    rm -f full/ballast
    succeeds "with space: $1" "$BLKSTACK_IMG" "$@"
    judge full/disk.qcow2 "afterwards"
}

for options in cluster_size=64k cluster_size=4k; do
    label="$options"
    fresh "$options"
    without_space 0 "No space left" snapshot -c one full/disk.qcow2
    fresh "$options"
    without_space 0 "No space left" bitmap --add full/disk.qcow2 one
    fresh "$options"
    without_space 64 "No space left" resize -q --preallocation=full full/disk.qcow2 18M
    for target in qcow2 raw; do
        rm -f full/*
        leave 1000
        fails "convert to $target" "No space left" "$BLKSTACK_IMG" convert -f raw -O "$target" data.raw full/target
        rm -f full/*
        succeeds "convert to $target with space" "$BLKSTACK_IMG" convert -f raw -O "$target" data.raw full/target
        same raw:data.raw "$target:full/target" "the same bytes"
    done
    fresh "$options"
    zio full/disk.qcow2 "write -s data.raw 1M 2M" "discard 0 256k"
    leave 0
    status=0
    "$BLKSTACK_IMG" compact -q full/disk.qcow2 >cmd.out 2>&1 || status=$?
    like "$status $(cat cmd.out)" "^0 $|^1 .*No space left on device" "compaction needs no space, or says so"
    no_errors full/disk.qcow2 "no errors"
    rm -f full/ballast
    succeeds "compaction with space" "$BLKSTACK_IMG" compact -q full/disk.qcow2
    judge full/disk.qcow2 "compacted"
done

label=create
rm -f full/*
leave 0
for options in "-f qcow2" "-f qcow2 -o data_file=full/data,preallocation=full" "-f raw -o preallocation=full" \
    "-f qcow2 -o preallocation=full"; do
    read -r -a words <<<"$options"
    fails "no space: $options" "No space left" "$BLKSTACK_IMG" create -q "${words[@]}" "$PWD/full/new" 4M
    is "$(ls full)" ballast "nothing is left behind"
done
echo precious >there
fails "wrong options" "luster size" "$BLKSTACK_IMG" create -q -f qcow2 -o cluster_size=3 there 1M
is "$(cat there)" precious "what was there is not touched"
done_testing
