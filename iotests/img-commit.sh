#!/bin/bash
# SPDX-License-Identifier: MIT
# commit: output and refusals are the peer's, the base gets the content of the top, and a fault leaves the top's as it was.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io

# a <- b <- c of different lengths.
make_chain() {  # DIRECTORY
    rm -f "$1"/*
    qimg create -q -f qcow2 -o "${base_options:-compat=1.1}" "$1/a.qcow2" 8M
    peer_io "$1/a.qcow2" qcow2 "write -P 1 0 4M" "write -P 8 7M 1M"
    (cd "$1" && qimg create -q -f qcow2 -o "${base_options:-compat=1.1}" -b a.qcow2 -F qcow2 b.qcow2 5M)
    peer_io "$1/b.qcow2" qcow2 "write -P 2 1M 1M" "write -z 3M 128k"
    (cd "$1" && qimg create -q -f qcow2 -o "${top_options:-compat=1.1}" -b b.qcow2 -F qcow2 c.qcow2 9900000)
    peer_io "$1/c.qcow2" qcow2 "write -P 3 2M 1M" "write -P 3 9M 64k" "write -z 512k 64k" "write -P 4 4000k 1k" \
        "write -c -P 5 6M 2M"
}

# The same lines, of which those of the progress may be other steps.
steps() { tr '\r' '\n' <"$1" | sed -e '/^ *(/d' -e '/^$/d'; }

# Commits c with both.
committed() {   # BASE ARGUMENTS...
    local base=$1 image

    shift
    make_chain ours
    make_chain peer
    qimg convert -f qcow2 -O raw ours/c.qcow2 model.raw
    twin_run ours "$BLKSTACK_IMG" commit "$@"
    twin_run peer "$QEMU_IMG" commit "$@"
    is "$(cat ours.status ours.err) $(steps ours.out)" "$(cat peer.status peer.err) $(steps peer.out)" "the same: commit $*"
    for image in a b c; do
        same ours/$image.qcow2 peer/$image.qcow2 "commit $*: $image has the content that the peer's has"
        judge ours/$image.qcow2 "commit $*: $image"
    done
    same ours/c.qcow2 model.raw "commit $*: the top is as it was"
    same "ours/$base.qcow2" model.raw "commit $*: so is the base"
    is "$(check_number ours/c.qcow2 allocated-clusters)" "$(check_number peer/c.qcow2 allocated-clusters)" \
        "commit $*: what the top holds"
    num_ok "$(file_bytes ours/c.qcow2) <= $(file_bytes peer/c.qcow2)" "commit $*: the top is no longer than the peer's"
}

committed b c.qcow2
committed b -d c.qcow2
committed b -b b.qcow2 -p c.qcow2
committed a -b a.qcow2 c.qcow2
committed b -q -t none -r 100M -f qcow2 c.qcow2
committed b --image-opts driver=qcow2,file.filename=c.qcow2
for base_options in cluster_size=4k cluster_size=2M extended_l2=on; do
    label="base $base_options"
    committed b c.qcow2
done
base_options=
for top_options in cluster_size=4k cluster_size=2M extended_l2=on compat=0.10,refcount_bits=16; do
    label="top $top_options"
    committed b c.qcow2
done
label=
top_options=

label="a base of version 2, which the peer cannot do"
base_options=compat=0.10
make_chain ours
qimg convert -f qcow2 -O raw ours/c.qcow2 model.raw
(cd ours && img commit -q c.qcow2)
same ours/b.qcow2 model.raw "the content"
judge ours/b.qcow2 "the base"
base_options=

label="a raw base"
for directory in ours peer; do
    truncate -s 4M $directory/raw
    (cd $directory && qimg create -q -f qcow2 -b raw -F raw d.qcow2 6M)
    peer_io $directory/d.qcow2 qcow2 "write -P 5 5M 64k" "write -P 6 0 64k"
done
qimg convert -f qcow2 -O raw ours/d.qcow2 model.raw
twin_ok commit d.qcow2
same raw:ours/raw model.raw "it grows"
fails "compressed" "Compression not supported.*raw" img commit -c ours/d.qcow2
judge ours/d.qcow2 "the top"

label=snapshots
make_chain ours
qimg snapshot -c before ours/c.qcow2
qimg convert -f qcow2 -O raw ours/c.qcow2 model.raw
(cd ours && img commit -q c.qcow2)
same ours/c.qcow2 model.raw "the top is as it was"
qimg snapshot -a before ours/c.qcow2
same ours/c.qcow2 model.raw "and its snapshot"
judge ours/c.qcow2 "with a snapshot"

label=compressed
for base_options in compat=1.1 compression_type=zstd,cluster_size=2M; do
    make_chain ours
    mv ours/b.qcow2 ours/old
    (cd ours && qimg convert -c -f qcow2 -O qcow2 -o $base_options -B a.qcow2 -F qcow2 old b.qcow2)
    plain=$(($(check_number ours/b.qcow2 allocated-clusters) - $(check_number ours/b.qcow2 compressed-clusters)))
    qimg convert -f qcow2 -O raw ours/c.qcow2 model.raw
    succeeds "into a compressed base" img commit -c ours/c.qcow2
    same ours/b.qcow2 model.raw "into a compressed base: its content"
    judge ours/b.qcow2 "into a compressed base"
    is "$(($(check_number ours/b.qcow2 allocated-clusters) - $(check_number ours/b.qcow2 compressed-clusters)))" "$plain" \
        "all that was written is compressed"
done
base_options=

label="a fault"
for event in write flush; do
    make_chain ours
    qimg convert -f qcow2 -O raw ours/c.qcow2 model.raw
    bad=backing.driver=qcow2,backing.file.driver=fault,backing.file.image.driver=file,backing.file.image.filename=b.qcow2
    bad+=,backing.file.inject-error.0.event=none,backing.file.inject-error.0.iotype=$event
    bad+=,backing.file.inject-error.0.errno=28
    fails "$event" "No space left" \
        bash -c "cd ours && '$BLKSTACK_IMG' commit --image-opts driver=qcow2,file.filename=c.qcow2,$bad"
    same ours/c.qcow2 model.raw "$event: the top is as it was"
    succeeds "$event: and again" img commit ours/c.qcow2
    same ours/b.qcow2 model.raw "$event: and again: the content"
done

label=refused
make_chain ours
make_chain peer
twin_fails "one image" commit
twin_fails "one image" commit c.qcow2 b.qcow2
twin_fails "backing file" commit a.qcow2
twin_fails "find 'c.qcow2'" commit -b c.qcow2 c.qcow2
twin_fails "find 'missing'" commit -b missing c.qcow2
twin_fails "rate" commit -r foo c.qcow2
twin_fails "cache" commit -t bogus c.qcow2
twin_fails "missing" commit missing
twin_fails "nosuch" commit -f nosuch c.qcow2
same ours/c.qcow2 peer/c.qcow2 "nothing has changed"
qimg rebase -u -b gone -F qcow2 ours/c.qcow2
qimg rebase -u -b gone -F qcow2 peer/c.qcow2
twin_fails "gone" commit c.qcow2
done_testing
