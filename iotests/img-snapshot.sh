#!/bin/bash
# SPDX-License-Identifier: MIT
# snapshot, and -l of convert and measure: status, output and outcome are the peer's, whoever made the snapshots.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io
export TZ=UTC+5

# Both programs list both images alike; both images are clean and of the same shape.
listed() {      # TEXT
    local file

    for file in ours/a.qcow2 peer/a.qcow2; do
        is "$(img snapshot -l $file)" "$(qimg snapshot -l $file)" "$1: both list $file alike"
        is "$(img info $file | sed -n '/^Snapshot list/,/^Format/p')" \
            "$(qimg info $file | sed -n '/^Snapshot list/,/^Format/p')" "$1: info too"
    done
    is "$(qimg snapshot -l ours/a.qcow2 | sed 's/....-..-.. ..:..:../DATE/')" \
        "$(qimg snapshot -l peer/a.qcow2 | sed 's/....-..-.. ..:..:../DATE/')" "$1: the same snapshots"
    judge ours/a.qcow2 "$1"
    same ours/a.qcow2 peer/a.qcow2 "$1"
}

both_write() {  # COMMAND...
    peer_io ours/a.qcow2 qcow2 "$@"
    peer_io peer/a.qcow2 qcow2 "$@"
}

reads() {       # PATTERN PARAMETER TEXT: what convert -l reads is the pattern
    twin_ok convert -O raw -l "$2" a.qcow2 out.raw
    succeeds "$3: ours holds what the peer's holds" cmp ours/out.raw peer/out.raw
    peer_io ours/out.raw raw "read -P $1 0 64k" "read -P 0 128k 64k"
}

for compat in v2 v3; do
    label=$compat
    qimg create -q -f qcow2 -o compat=$compat a.qcow2 8M
    twin_copy a.qcow2
    twin_ok snapshot -l a.qcow2
    both_write "write -P 1 0 64k"
    twin_ok snapshot -c first a.qcow2
    both_write "write -P 2 0 64k" "write -c -P 2 256k 64k" "write -z 1M 64k"
    twin_ok snapshot -q -c 1 a.qcow2
    both_write "write -P 3 0 64k"
    twin_ok snapshot -c 'a name that is longer than its column' a.qcow2
    twin_ok snapshot -c '' a.qcow2
    twin_ok snapshot -c first a.qcow2
    listed "five snapshots"
    twin_ok snapshot a.qcow2
    reads 1 1 "an id comes before a name"
    reads 1 first "of two names the first"
    reads 2 snapshot.name=1 "by name"
    reads 2 snapshot.id=2,snapshot.name=1 "by id and name"
    twin_ok measure -O raw -l 1 a.qcow2
    twin_ok measure -O qcow2 -l snapshot.id=1 a.qcow2
    twin_ok snapshot -a 1 a.qcow2
    listed "back at id 1"
    pio ours/a.qcow2 "read -P 1 0 64k" "read -P 0 256k 64k"
    twin_ok snapshot -d 1 a.qcow2
    twin_ok snapshot -d first a.qcow2
    listed "deleted by name"
    twin_ok snapshot -a 5 a.qcow2
    listed "at id 5"
    twin_ok snapshot -c more a.qcow2
    listed "a new id"
    twin_fails "not found" snapshot -d 5 a.qcow2
    twin_fails "not found" snapshot -a nosuch a.qcow2
    twin_fails "snapshot not found" convert -O raw -l nosuch a.qcow2 out.raw
done

label="a longer disk"
qimg create -q -f qcow2 -o cluster_size=4k a.qcow2 8M
twin_copy a.qcow2
twin_ok snapshot -c small a.qcow2
twin_ok resize a.qcow2 6G
both_write "write -P 7 5G 64k"
twin_ok snapshot -c large a.qcow2
twin_ok snapshot -a small a.qcow2
is "$(virtual_size ours/a.qcow2)" $((8 << 20)) "the disk has its old size"
listed "after going back"
twin_ok resize a.qcow2 16M
listed "resized between snapshots"
twin_ok snapshot -a large a.qcow2
is "$(virtual_size ours/a.qcow2)" $((6 << 30)) "and the larger one again"
pio ours/a.qcow2 "read -P 7 5G 64k"
judge ours/a.qcow2 "at the large snapshot"

label=refused
twin_fails "Cannot mix" snapshot -l -c x a.qcow2
twin_fails "Cannot mix" snapshot -d x -a x a.qcow2
twin_fails "one image file name" snapshot -l
twin_fails "one image file name" snapshot -l a.qcow2 a.qcow2
twin_fails "argument" snapshot -c
twin_fails "nosuch" snapshot -l nosuch
twin_fails "nosuch" snapshot -c x nosuch
twin_fails "parsing snapshot param" convert -O raw -l snapshot.nosuch=1 a.qcow2 out.raw
twin_fails "concatenating" convert -O raw -l first a.qcow2 a.qcow2 out.raw
twin_fails "snapshot not found" measure -O raw -l nosuch a.qcow2
twin_fails "filename argument" measure -O raw -l x --size 1M
twin_fails "force-share|read-only" snapshot -U -c x a.qcow2
qimg snapshot -c x a.qcow2
twin_copy a.qcow2
twin_ok snapshot -U -l a.qcow2
twin_ok snapshot -l --image-opts driver=qcow2,file.filename=a.qcow2
for directory in ours peer; do
    (cd $directory && qimg create -q -f raw r.raw 1M)
done
twin_ok snapshot -l --image-opts driver=raw,file.filename=r.raw
twin_fails "does not support" snapshot -c x --image-opts driver=raw,file.filename=r.raw
twin_fails "does not support" snapshot -a x --image-opts driver=raw,file.filename=r.raw
twin_fails "." snapshot -d x --image-opts driver=raw,file.filename=r.raw
twin_fails "does not support" convert -f raw -l x -O raw r.raw out.raw

label="reference counts of one bit"
qimg create -q -f qcow2 -o refcount_bits=1 a.qcow2 1M
peer_io a.qcow2 qcow2 "write -P 1 0 64k"
twin_copy a.qcow2
cp a.qcow2 before.qcow2
twin_fails "1-bit reference counts" snapshot -c x a.qcow2
judge ours/a.qcow2 "after a refused snapshot"
same ours/a.qcow2 before.qcow2 "after a refused snapshot"
label="reference counts of two bits"
qimg create -q -f qcow2 -o refcount_bits=2 a.qcow2 1M
peer_io a.qcow2 qcow2 "write -P 1 0 64k" "write -c -P 1 64k 64k"
twin_copy a.qcow2
twin_ok snapshot -c x a.qcow2
twin_ok snapshot -c y a.qcow2
twin_fails "2-bit reference counts" snapshot -c z a.qcow2
twin_fails "2-bit reference counts" snapshot -a x a.qcow2
listed "after refused operations"

# 32 compressed clusters share one, which each snapshot counts 32 times more. (The peer leaks a cluster for each that it refuses.)
label="eight bits, and compressed clusters that share one"
perl -e 'print chr($_) x 16384 for 1 .. 64' >src.raw
img convert -c -f raw -O qcow2 -o cluster_size=16k,refcount_bits=8 src.raw shared.qcow2
for snapshot in 1 2 3 4 5 6; do img snapshot -c $snapshot shared.qcow2; done
for snapshot in 7 8; do
    fails "snapshot $snapshot" "8-bit reference counts can count; amend" "$BLKSTACK_IMG" snapshot -c $snapshot shared.qcow2
done
judge shared.qcow2 "after two refused snapshots"
same shared.qcow2 src.raw "after two refused snapshots"
img amend -f qcow2 -o refcount_bits=16 shared.qcow2
succeeds "with 16 bits there is room" "$BLKSTACK_IMG" snapshot -c 7 shared.qcow2
judge shared.qcow2 "with 16 bits"

label="external data file"
for directory in ours peer; do
    (cd $directory && qimg create -q -f qcow2 -o data_file=d.raw d.qcow2 1M)
done
twin_ok snapshot -l d.qcow2
twin_fails "external data file" snapshot -c x d.qcow2

label="dirty bitmaps"
qimg create -q -f qcow2 a.qcow2 1M
qimg bitmap --add a.qcow2 b0
twin_copy a.qcow2
both_write "write -P 1 0 64k"
twin_ok snapshot -c x a.qcow2
twin_fails "bitmaps" snapshot -a x a.qcow2
is "$(qimg info ours/a.qcow2 | sed -n '/bitmaps/,$p')" "$(qimg info peer/a.qcow2 | sed -n '/bitmaps/,$p')" "the bitmap is there"
twin_ok snapshot -d x a.qcow2
listed "beside a bitmap"
done_testing
