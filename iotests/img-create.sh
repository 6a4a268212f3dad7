#!/bin/bash
# SPDX-License-Identifier: MIT
# create: options, output, refusals and the look-up of backing files are the peer's; so is what the image then is.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
any_backend
requires qemu-img

made() {        # FILE FORMAT ARGUMENTS...
    local file=$1 format=$2

    shift 2
    twin_ok create -f "$format" "$@"
    twin_made "$file" "$format"
    if [ "$format" = qcow2 ]; then
        judge "ours/$file" "$file"
    fi
}

label=raw
made a.raw raw a.raw 1M
made b.raw raw -o preallocation=full b.raw 1M
made b.raw raw -o preallocation=off b.raw 1.5M
made odd.raw raw odd.raw 100
twin_fails metadata create -q -f raw -o preallocation=metadata c.raw 1M
twin_fails "acking file" create -f raw -b a.raw -F raw c.raw

label=qcow2
made a.qcow2 qcow2 a.qcow2 1M
made b.qcow2 qcow2 -o cluster_size=512 b.qcow2 1M
made b.qcow2 qcow2 -o cluster_size=2M,preallocation=metadata b.qcow2 10M
made b.qcow2 qcow2 -o preallocation=full,lazy_refcounts=on b.qcow2 1M
made b.qcow2 qcow2 -o preallocation=falloc,compat=0.10 b.qcow2 1M
made b.qcow2 qcow2 -o compression_type=zstd b.qcow2 1M
made b.qcow2 qcow2 -o cluster_size=128k -o lazy_refcounts=on b.qcow2 513
made b.qcow2 qcow2 -o size=2M b.qcow2
made b.qcow2 qcow2 b.qcow2 0
made b.qcow2 qcow2 "b.qcow2" 1P
made "a,b.qcow2" qcow2 "a,b.qcow2" 1M
for bits in 1 2 4 8 16 32 64; do
    made "r$bits.qcow2" qcow2 -o "refcount_bits=$bits" "r$bits.qcow2" 64M
done
twin_ok create -q -f qcow2 q.qcow2 1M

label=backing
cp --sparse=always ours/a.raw peer/a.raw                 # the peer writes the first sectors of a raw file
made c.qcow2 qcow2 -b a.qcow2 -F qcow2 c.qcow2
made c.qcow2 qcow2 -b a.raw -F raw c.qcow2 5M
made c.qcow2 qcow2 -o backing_file=a.raw,backing_fmt=raw c.qcow2
made c.qcow2 qcow2 -b a.qcow2 -F qcow2 -o cluster_size=512 c.qcow2
for preallocation in metadata falloc full; do
    made e.qcow2 qcow2 -b c.qcow2 -F qcow2 -o "extended_l2=on,preallocation=$preallocation" e.qcow2 3M
done
pio ours/e.qcow2 "write -P 1 70k 3k" "write -z 1M 5k"
peer_io peer/e.qcow2 qcow2 "write -P 1 70k 3k" "write -z 1M 5k"
same ours/e.qcow2 peer/e.qcow2 "preallocated subclusters hide nothing"
twin_ok create -u -f qcow2 -b missing -F raw u.qcow2 1M
is "$twin_output" "Formatting 'u.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=1048576 \
backing_file=missing backing_fmt=raw lazy_refcounts=off refcount_bits=16" "the line that tells what is made"
mkdir ours/d peer/d
# A relative name is looked up from the overlay's directory, not from the current one.
twin_fails "d/a.raw" create -f qcow2 -b a.raw -F raw d/c.qcow2
twin_ok create -f qcow2 -b ../a.raw -F raw d/c.qcow2
(cd ours && qimg check -q d/c.qcow2)
twin_fails "ithout backing format" create -f qcow2 -b a.qcow2 n.qcow2
twin_fails "missing" create -f qcow2 -b missing -F raw n.qcow2
twin_fails "size" create -f qcow2 -u -b missing -F raw n.qcow2
twin_fails "nosuch" create -f qcow2 -b a.qcow2 -F nosuch n.qcow2
twin_fails "acking format" create -f qcow2 -F raw n.qcow2 1M
twin_fails "same filename" create -f qcow2 -b c.qcow2 -F qcow2 c.qcow2
twin_fails "empty" create -f qcow2 -b '' n.qcow2 1M
twin_fails "preallocation" create -q -f qcow2 -b a.qcow2 -F qcow2 -o preallocation=metadata n.qcow2

label=refused
twin_fails "nosuch" create -f nosuch x 1M
twin_fails "nosuch" create -f qcow2 -o nosuch=1 x 1M
for options in cluster_size=1000 cluster_size=256 cluster_size=4M refcount_bits=3 refcount_bits=128 compat=0.11 \
    compat=v2,compression_type=zstd compat=v2,refcount_bits=8 compat=v2,lazy_refcounts=on compression_type=lz4 \
    preallocation=bogus encryption=on lazy_refcounts=maybe; do
    twin_fails "." create -q -f qcow2 -o "$options" x 1M
done
twin_fails "size" create -f qcow2 x
for size in -1 1X 8E 16E '' k 1.5.5; do
    twin_fails "[sS]ize" create -f qcow2 x -- "$size"
done
twin_fails "cluster size" create -q -f qcow2 -o cluster_size=512 x 1T
twin_fails "only once" create -f qcow2 -o size=2M x 1M
twin_fails "name" create
twin_fails "name" create -f qcow2
twin_fails "--nosuch" create --nosuch
twin_fails "No such file" create -f qcow2 nodir/x 1M

# The names and types of the options are the peer's; the descriptions are our own.
label=help
help_names() { sed -n 's/^  \([a-z_.]*=<[^>]*>\).*/\1/p' | grep -v '^encrypt' | sort; }
is "$(img create -f qcow2 -o help x | help_names)" "$(qimg create -f qcow2 -o help x | help_names)" "options of qcow2"
is "$(img create -f raw -o help x | help_names)" "$(qimg create -f raw -o help x | help_names)" "options of raw"

label="options of the file"
made f.raw raw -o nocow=on,extent_size_hint=64k f.raw 1M
made f.qcow2 qcow2 -o extent_size_hint=64k,nocow=on f.qcow2 1M
fails "a hint that is too large" "extent_size_hint" "$BLKSTACK_IMG" create -f raw -o extent_size_hint=4G f2.raw 1M
fails "an unknown one" "unknown option 'nocov'; did you mean 'nocow'" "$BLKSTACK_IMG" create -f raw -o nocov=on f2.raw 1M
attributes() { strace -f -e trace=ioctl "$@" 2>&1 | grep -o "FS_IOC_FSSETXATTR, {fsx_xflags=[A-Z_]*, fsx_extsize=[0-9]*" || true; }
if command -v strace >/dev/null && strace true 2>/dev/null; then
    for options in size=1M size=1M,extent_size_hint=64k; do
        peer=$(attributes "$QEMU_IMG" create -f raw -o "$options" p.raw)
        is "$(attributes "$BLKSTACK_IMG" create -f raw -o "$options" o.raw)" "$peer" "the hint is given: $options"
    done
    is "$(attributes "$BLKSTACK_IMG" create -f raw -o extent_size_hint=0 o.raw 1M)" "" "no hint"
fi
done_testing
