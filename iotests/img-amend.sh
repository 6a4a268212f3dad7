#!/bin/bash
# SPDX-License-Identifier: MIT
# amend: version, refcount width, lazy refcounts and size change as the peer changes them, with data, zero clusters, compressed
# clusters, snapshots and a backing file in the image; what cannot be is refused before anything changes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
any_backend
requires qemu-img qemu-io

# What the image is, without what depends on where things lie.
info_of() { qimg info -f qcow2 -U "$1" | grep -v -e '^disk size' -e '^image:' | sed 's/ (actual path.*//'; }

# The same image for both: plain, compressed and zero clusters, some of them with host space, and a hole.
both_new() {    # FILE ARGUMENTS... of the peer's create
    local file=$1

    shift
    qimg create -q -f qcow2 "$@" "$file" 4M
    peer_io "$file" qcow2 "write -P 1 0 1M" "write -c -P 2 1M 64k" "write -c -P 3 1088k 64k" "write -z 64k 64k" \
        "write -z -u 256k 128k" "write -z 2M 512k" "write -P 4 3M 1k"
    twin_copy "$file"
    rm "$file"
}

amended() {     # FILE OPTIONS
    local file=$1 options=$2

    twin_ok amend -f qcow2 -o "$options" "$file"
    is "$(info_of "ours/$file")" "$(info_of "peer/$file")" "information after -o $options"
    same "ours/$file" "peer/$file" "bytes after -o $options"
    judge "ours/$file" "after -o $options"
}

# Neither program changes the image.
refused() {     # REGEX OPTIONS [FILE]
    local file=${3:-a.qcow2} before

    before=$(md5sum <"ours/$file")
    twin_fails "$1" amend -f qcow2 -o "$2" "$file"
    is "$(md5sum <"ours/$file")" "$before" "nothing has changed: $2"
}

label="versions"
both_new a.qcow2
for options in compat=0.10 compat=1.1,lazy_refcounts=on compat=v2,size=5M compat=v3,refcount_bits=64,size=6M,lazy_refcounts=on \
    lazy_refcounts=off compat=0.10,refcount_bits=16,size=7M; do
    amended a.qcow2 "$options"
done
pio ours/a.qcow2 "write -P 9 64k 64k" "write -P 9 6M 64k" "read -P 9 64k 64k" "read -P 0 256k 128k"
judge ours/a.qcow2 "written to after all"

for widths in "512 8 64" "64k 4 32"; do
    read -r cluster widths <<<"$widths"
    label="widths, clusters of $cluster"
    both_new a.qcow2 -o "cluster_size=$cluster"
    for bits in $widths; do
        amended a.qcow2 "refcount_bits=$bits"
    done
    zio ours/a.qcow2 "write -P 5 0 3M" "read -P 5 0 3M"
    judge ours/a.qcow2 "written to after all"
done
label="widths, clusters of 2M"            # the peer does not end here
qimg create -q -f qcow2 -o cluster_size=2M big.qcow2 64M
peer_io big.qcow2 qcow2 "write -P 3 5M 3M"
for bits in 1 32; do
    succeeds "refcount_bits=$bits" img amend -o refcount_bits=$bits big.qcow2
    judge big.qcow2 "refcount_bits=$bits"
done
pio big.qcow2 "read -P 3 5M 3M"

label="widths"
qimg create -q -f qcow2 -o cluster_size=16k w.qcow2 64M      # with 64k the peer needs 14 s for one of them
twin_copy w.qcow2
for bits in 1 64 16; do
    amended w.qcow2 refcount_bits=$bits
done
twin amend -p -f qcow2 -o refcount_bits=16 w.qcow2
like "$(img amend -p -f qcow2 -o refcount_bits=8 ours/w.qcow2 | tr '\r' '\n')" '100\.00/100%' "progress"
is "$(img amend -q -p -f qcow2 -o refcount_bits=16 ours/w.qcow2)" "" "none with -q"

label="a backing file"
qimg create -q -f raw base.raw 4M
peer_io base.raw raw "write -P 0xbb 0 4M"
cp base.raw ours/
cp base.raw peer/
both_new a.qcow2 -b base.raw -F raw
amended a.qcow2 compat=0.10
amended a.qcow2 compat=1.1,refcount_bits=8

snapshots_kept() {      # OPTIONS: ours, on s.qcow2
    local snapshot

    succeeds "-o $1" img amend -f qcow2 -o "$1" s.qcow2
    judge s.qcow2 "-o $1"
    for snapshot in one two; do
        qimg convert -f qcow2 -l $snapshot -O raw s.qcow2 now.raw
        same $snapshot.raw now.raw "snapshot $snapshot after -o $1"
    done
    qimg convert -f qcow2 -O raw s.qcow2 now.raw
    same model.raw now.raw "the disk after -o $1"
}

# The peer is no model here: its downgrade writes zeroes into clusters that a snapshot shares.
for backing in "" "-b base.raw -F raw"; do
    label="snapshots${backing:+, a backing file}"
    rm -f s.qcow2
    # shellcheck disable=SC2086
    qimg create -q -f qcow2 $backing s.qcow2 4M
    peer_io s.qcow2 qcow2 "write -P 1 0 1M" "write -c -P 2 1M 64k" "write -z 2M 512k" "write -P 4 3M 1k"
    qimg snapshot -c one s.qcow2
    peer_io s.qcow2 qcow2 "write -P 7 64k 64k" "write -z 3M 64k" "write -P 8 2M 64k"
    qimg snapshot -c two s.qcow2
    peer_io s.qcow2 qcow2 "write -z 2M 64k" "write -z 0 64k"
    for snapshot in one two; do
        qimg convert -f qcow2 -l $snapshot -O raw s.qcow2 $snapshot.raw
    done
    qimg convert -f qcow2 -O raw s.qcow2 model.raw
    cp s.qcow2 ours/a.qcow2
    cp s.qcow2 peer/a.qcow2
    refused "refcount of" refcount_bits=1
    for options in refcount_bits=2 compat=0.10,refcount_bits=16 compat=1.1,size=4M; do
        snapshots_kept $options
    done
    pio s.qcow2 "write -P 7 0 4M"
    judge s.qcow2 "all written again"
    qimg snapshot -d two s.qcow2
    judge s.qcow2 "the peer deletes a snapshot"
    qimg snapshot -a one s.qcow2
    qimg convert -f qcow2 -O raw s.qcow2 now.raw
    same one.raw now.raw "the peer applies a snapshot"
    succeeds "another size" img amend -o size=5M s.qcow2
    fails "version 2 cannot say that" "snapshots" img amend -o compat=0.10 s.qcow2
done

label="refused"
both_new a.qcow2
refused "multiple of 512" size=1000
refused "power of two" refcount_bits=3
refused "power of two" refcount_bits=128
refused "power of two" refcount_bits=0
refused "compat=1.1" compat=0.10,refcount_bits=8
refused "compat" compat=1.2
refused "data-file" data_file=x
refused "data-file-raw" data_file_raw=on
refused "nosuch" nosuch=1
for option in cluster_size=64k preallocation=full compression_type=zlib extended_l2=off encryption=off; do
    refused "only supported for image creation" $option
done
amended a.qcow2 compat=0.10
refused "compat=1.1" refcount_bits=8
refused "compat=1.1" lazy_refcounts=on
qimg create -q -f qcow2 -o refcount_bits=8 a.qcow2 1M
twin_copy a.qcow2
refused "refcount_bits=16" compat=0.10
qimg create -q -f qcow2 -o compression_type=zstd ours/a.qcow2 1M
fails "compressed by zstd" "zstd" img amend -o compat=0.10 ours/a.qcow2
judge ours/a.qcow2 "after all refusals"

label="data file"
for directory in ours peer; do
    (cd $directory && qimg create -q -f qcow2 -o data_file=d.raw,data_file_raw=on a.qcow2 1M &&
        peer_io a.qcow2 qcow2 "write -P 1 0 128k" && cp d.raw e.raw)
done
data_file() { (cd "$1" && qimg info -U a.qcow2) | grep '^ *data file'; }
for options in data_file=e.raw data_file_raw=off refcount_bits=8; do
    twin_ok amend -f qcow2 -o $options a.qcow2
    is "$(data_file ours)" "$(data_file peer)" "what the image says of its data file after $options"
done
pio ours/a.qcow2 "read -P 1 0 128k" "write -P 2 0 64k"
is "$(od -An -tx1 -N1 ours/e.raw)" " 02" "the other data file is used"
refused "data-file-raw" data_file_raw=on
refused "data file" compat=0.10,refcount_bits=16
succeeds "the peer finds no errors" env -C ours "$QEMU_IMG" check -f qcow2 a.qcow2
succeeds "nor do we" img check -f qcow2 ours/a.qcow2

label="arguments"
twin_fails "options" amend a.qcow2
twin_fails "options" amend
twin_fails "-o" amend -o
twin_fails "image file" amend -o compat=0.10
twin_fails "image file" amend -o compat=0.10 a.qcow2 b.qcow2
twin_fails "option list" amend -o '' a.qcow2
twin_fails "bogus" amend -t bogus -o compat=1.1 a.qcow2
twin_fails "missing" amend -o compat=1.1 missing.qcow2
twin_fails "raw" amend -f raw -o size=2M a.qcow2
twin_fails "image file" amend -o help
twin_ok amend --force -o compat=1.1 a.qcow2
twin_ok amend -t none -o compat=1.1 a.qcow2
twin_ok amend --image-opts -o compat=1.1 driver=qcow2,file.filename=a.qcow2
help_names() { sed -n 's/^  \([a-z_.]*=<[^>]*>\).*/\1/p' | grep -v '^encrypt'; }
is "$(img amend -f qcow2 -o help | help_names)" "$(qimg amend -f qcow2 -o help | help_names)" "options that can be amended"
is "$(img amend -o '?' ours/w.qcow2 | help_names)" "$(qimg amend -o '?' ours/w.qcow2 | help_names)" "the same of an image"

label="the name of the backing file"
qimg create -q -f qcow2 b.qcow2 1M
long=$(printf '%0900d' 7)
fails "no format" "without backing format" img amend -o backing_file=base.raw b.qcow2
fails "no file" "without backing file" img amend -o backing_fmt=raw b.qcow2
succeeds "a backing file" img amend -o backing_file=base.raw,backing_fmt=raw b.qcow2
like "$(qimg info b.qcow2)" "backing file: base.raw" "is named"
pio b.qcow2 "read -P 0xbb 0 1M" "write -P 1 0 4k"
succeeds "another format" img amend --image-opts -o backing_fmt=qcow2 driver=qcow2,file.filename=b.qcow2
like "$(qimg info -U --image-opts driver=qcow2,backing=null,file.filename=b.qcow2 2>&1 || qimg info b.qcow2)" \
    "backing file format: qcow2" "is named"
succeeds "a long name" img amend --image-opts -o "backing_file=$long,backing_fmt=raw" \
    '{"driver": "qcow2", "backing": null, "file": {"driver": "file", "filename": "b.qcow2"}}'
like "$(qimg info b.qcow2)" "backing file: $long" "is named"
succeeds "none" img amend -o backing_file= \
    --image-opts '{"driver": "qcow2", "backing": null, "file": {"driver": "file", "filename": "b.qcow2"}}'
is "$(qimg info b.qcow2 | grep -c backing || true)" 0 "no backing file"
judge b.qcow2 "after all names"
done_testing
