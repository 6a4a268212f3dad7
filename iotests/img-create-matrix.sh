#!/bin/bash
# SPDX-License-Identifier: MIT
# create: for combinations of options the peer finds the same in our image as in its own (info, map, check); ours is not
# longer and takes no more space, and all that was to be preallocated is there.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
any_backend
requires qemu-img

# What the peer says of the image of this directory, without what depends on the file system. To walk through a disk of
# petabytes would take it long.
told() {        # SIZE
    qimg info -f qcow2 --output=json a.qcow2 | grep -v '"actual-size"'
    if (($1 < 1 << 32)); then
        qimg check -q -f qcow2 a.qcow2 && echo "no errors, no leaks"
        qimg map -f qcow2 --output=json a.qcow2 | sed 's/"zero": [a-z]*, "data": true/"data": true/' | map_shape
    fi
}

# Of image and data file: bytes of length and of disk.
lengths() {     # DIRECTORY
    local total=0 blocks=0 file

    for file in "$1"/a.qcow2 "$1"/d.raw; do
        if [ -e "$file" ]; then
            total=$((total + $(file_bytes "$file")))
            blocks=$((blocks + $(file_blocks "$file")))
        fi
    done
    echo "$total $blocks"
}

# Ours takes no more than the peer's, and no less than was to be preallocated. Where nothing is written the peer's may
# end within a cluster; 64 KiB are the file system's.
size_remarks() { # OPTIONS SIZE
    local mine mine_blocks theirs theirs_blocks cluster=64k

    read -r mine mine_blocks < <(lengths ours)
    read -r theirs theirs_blocks < <(lengths peer)
    if [[ $1 =~ cluster_size=([0-9kM]+) ]]; then
        cluster=${BASH_REMATCH[1]}
    fi
    if ((mine >= theirs + $(numfmt --from=iec "${cluster^^}"))); then
        echo "length $mine, the peer's $theirs"
    fi
    # The peer does not always allocate data files.
    if ((mine_blocks > theirs_blocks + 65536 && mine_blocks > $2 + 65536)); then
        echo "$mine_blocks bytes of disk, the peer's $theirs_blocks"
    fi
    if [[ $1 =~ preallocation=f ]] && ((mine_blocks < $2)); then
        echo "$mine_blocks bytes of disk for $2"
    fi
}

alike() {       # OPTIONS SIZE [ARGUMENTS...]: one check
    local options=$1 size=$2 text="$*" mine=0 theirs=0

    shift 2
    rm -f {ours,peer}/{a.qcow2,d.raw}
    (cd ours && img create -q -f qcow2 -o "$options" "$@" a.qcow2 ${size:+"$size"}) >ours.err 2>&1 || mine=$?
    (cd peer && qimg create -q -f qcow2 -o "$options" "$@" a.qcow2 ${size:+"$size"}) >peer.err 2>&1 || theirs=$?
    if ((mine || theirs)); then
        is "$mine" "$theirs" "$text: refused: $(head -n 1 ours.err)"
        return
    fi
    is "$(cd ours && told "${size:-0}")$(size_remarks "$options" "${size:-0}")" "$(cd peer && told "${size:-0}")" "$text"
}

qimg create -q -f raw ours/base.raw 700k
qimg create -q -f raw peer/base.raw 700k
for preallocation in off metadata falloc full; do
    for cluster in 512 4k 64k 2M; do
        for size in 0 1000001; do
            alike "preallocation=$preallocation,cluster_size=$cluster" $size
        done
    done
    for cluster in 16k 2M; do
        alike "preallocation=$preallocation,cluster_size=$cluster,extended_l2=on" 1000001
    done
    for data in data_file=d.raw data_file=d.raw,data_file_raw=on; do
        for extended in off on; do
            alike "preallocation=$preallocation,$data,extended_l2=$extended" 1000001
        done
    done
    alike "preallocation=$preallocation,compat=0.10" 1000001
    # Without subclusters what is allocated would hide the backing file.
    alike "preallocation=$preallocation" "" -b base.raw -F raw
    alike "preallocation=$preallocation,extended_l2=on" 4194304 -b base.raw -F raw
    alike "preallocation=$preallocation,extended_l2=on" 100000 -b base.raw -F raw
done
for bits in 1 2 4 8 16 32 64; do
    alike "refcount_bits=$bits,cluster_size=512,preallocation=metadata" 2000000
    alike "refcount_bits=$bits,lazy_refcounts=on,compression_type=zstd" 0
done
# The largest that the L1 table allows, and one byte more.
for cluster in 512 4k 64k 2M; do
    bytes=$(numfmt --from=iec "${cluster^^}")
    limit=$((bytes * bytes * (1 << 19)))
    alike "cluster_size=$cluster" $limit
    alike "cluster_size=$cluster" $((limit + 1))
    if ((bytes > 8192)); then
        alike "cluster_size=$cluster,extended_l2=on" $((limit / 2))
        alike "cluster_size=$cluster,extended_l2=on" $((limit / 2 + 1))
    fi
done
done_testing
