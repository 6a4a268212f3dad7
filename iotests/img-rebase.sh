#!/bin/bash
# SPDX-License-Identifier: MIT
# rebase: output and refusals are the peer's, and the content stays the same on any other backing file, also after a fault.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io

# a <- b <- c of different lengths; n is another image; s is a short one.
make_chain() {  # DIRECTORY [OPTIONS OF C]
    local options=${2:-compat=1.1}

    rm -f "$1"/*
    qimg create -q -f qcow2 "$1/a.qcow2" 8M
    peer_io "$1/a.qcow2" qcow2 "write -P 1 0 4M" "write -P 8 7M 1M"
    (cd "$1" && qimg create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 5M)
    peer_io "$1/b.qcow2" qcow2 "write -P 2 1M 1M" "write -z 3M 128k"
    (cd "$1" && qimg create -q -f qcow2 -o "$options" -b b.qcow2 -F qcow2 c.qcow2 10M)
    peer_io "$1/c.qcow2" qcow2 "write -P 3 2M 1M" "write -P 3 9M 64k" "write -z 512k 64k" "write -P 4 4000k 1k"
    qimg create -q -f qcow2 "$1/n.qcow2" 10M
    peer_io "$1/n.qcow2" qcow2 "write -P 1 0 1M" "write -P 9 1M 9M"
    qimg create -q -f qcow2 "$1/s.qcow2" 1M
    peer_io "$1/s.qcow2" qcow2 "write -P 6 0 1M"
    (cd "$1" && qimg create -q -f qcow2 -b a.qcow2 -F qcow2 d.qcow2 8M && qimg create -q -f raw r.raw 6M)
    peer_io "$1/d.qcow2" qcow2 "write -P 7 1M 64k" "write -P 5 6M 64k"
}

backing_of() { qimg info -f qcow2 "$1" | sed -n -e 's/ (actual path.*//' -e '/^backing file/p'; }

# Rebases with both: ours has the old content, and names the backing that the peer's names.
rebased() {     # ARGUMENTS...
    make_chain ours "${chain_options:-}"
    make_chain peer "${chain_options:-}"
    qimg convert -f qcow2 -O raw ours/c.qcow2 model.raw
    twin_ok rebase "$@" c.qcow2
    same ours/c.qcow2 model.raw "rebase $*: the same content"
    judge ours/c.qcow2 "rebase $*"
    is "$(backing_of ours/c.qcow2)" "$(backing_of peer/c.qcow2)" "rebase $*: what it names"
    num_ok "$(check_number ours/c.qcow2 allocated-clusters) <= $(check_number peer/c.qcow2 allocated-clusters)" \
        "rebase $*: no more is copied"
}

rebased -b a.qcow2 -F qcow2
rebased -b n.qcow2 -F qcow2
rebased -b s.qcow2 -F qcow2 -q
rebased -b d.qcow2 -F qcow2 -t none -T writethrough
rebased -b b.qcow2 -F qcow2 -f qcow2
rebased -b r.raw -F raw
rebased -b ""
rebased -b "" -F raw -U
for chain_options in compat=0.10 cluster_size=4k cluster_size=2M extended_l2=on; do
    label=$chain_options
    rebased -b n.qcow2 -F qcow2
    rebased -b ""
done
label=
chain_options=

label=compressed
for options in "-b n.qcow2 -F qcow2" "-b a.qcow2 -F qcow2" "-b "; do
    make_chain ours
    qimg convert -f qcow2 -O raw ours/c.qcow2 model.raw
    # shellcheck disable=SC2086
    (cd ours && if [ "$options" = "-b " ]; then img rebase -c -b "" c.qcow2; else img rebase -c $options c.qcow2; fi)
    same ours/c.qcow2 model.raw "rebase -c $options: the same content"
    judge ours/c.qcow2 "rebase -c $options"
    num_ok "$(check_number ours/c.qcow2 compressed-clusters) > 0 && $(check_number ours/c.qcow2 allocated-clusters) -
        $(check_number ours/c.qcow2 compressed-clusters) <= 18" "rebase -c $options: all that was copied is compressed"
done
cp ours/r.raw before.raw
fails "a format without backing files" "[Cc]ompression" img rebase -c -f raw -b a.qcow2 -F qcow2 ours/r.raw
same ours/r.raw before.raw "it is as it was"

label=unsafe
make_chain ours
make_chain peer
for arguments in "-b gone -F raw" "-b a.qcow2 -F qcow2 -p" "-b gone -F qcow2"; do
    # shellcheck disable=SC2086
    twin rebase -u $arguments c.qcow2
    is "$(backing_of ours/c.qcow2)" "$(backing_of peer/c.qcow2)" "$arguments: what it names"
done
twin_ok rebase -u -b a.qcow2 -F qcow2 c.qcow2
same ours/c.qcow2 peer/c.qcow2 "nothing was copied"
twin_ok rebase -u -b "" c.qcow2
same ours/c.qcow2 peer/c.qcow2 "without a backing file"
judge ours/c.qcow2 "unsafe"

label="a fault"
for event in write flush; do
    make_chain ours
    qimg convert -f qcow2 -O raw ours/c.qcow2 model.raw
    bad=driver=qcow2,file.driver=fault,file.image.driver=file,file.image.filename=c.qcow2
    bad+=,file.inject-error.0.event=none,file.inject-error.0.iotype=$event,file.inject-error.0.errno=28
    fails "$event" "No space left" bash -c "cd ours && '$BLKSTACK_IMG' rebase -b n.qcow2 -F qcow2 --image-opts '$bad'"
    same ours/c.qcow2 model.raw "$event: the content is there"
    is "$(backing_of ours/c.qcow2 | head -n 1)" "backing file: b.qcow2" "$event: the old name"
    (cd ours && img check -q -r leaks c.qcow2 >check.out 2>&1 && img rebase -b n.qcow2 -F qcow2 c.qcow2)
    same ours/c.qcow2 model.raw "$event: and again"
    judge ours/c.qcow2 "$event: and again"
done

# Holes of an image without a backing file are zeroes, and stay that above one.
for compat in 0.10 1.1; do
    label="from no backing, compat=$compat"
    random_file base.raw 1048576
    qimg create -q -f qcow2 -o "compat=$compat" lone.qcow2 1M
    peer_io lone.qcow2 qcow2 "write -P 5 64k 64k"
    qimg convert -f qcow2 -O raw lone.qcow2 lone.raw
    succeeds "rebase" img rebase -b base.raw -F raw lone.qcow2
    same lone.qcow2 lone.raw "nothing shows through"
    judge lone.qcow2 "after it"
done

label=refused
make_chain ours
make_chain peer
twin_fails "one image" rebase
twin_fails "one image" rebase -b a.qcow2 -F qcow2 c.qcow2 d.qcow2
twin_fails "-b" rebase c.qcow2
twin_fails "-b" rebase -F qcow2 c.qcow2
twin_fails "missing" rebase -b missing -F qcow2 c.qcow2
twin_fails "missing" rebase -b a.qcow2 -F qcow2 missing
twin_fails "nosuch" rebase -b a.qcow2 -F nosuch c.qcow2
twin_fails "nosuch" rebase -u -b a.qcow2 -F nosuch c.qcow2
twin_fails "nosuch" rebase -f nosuch -b "" c.qcow2
twin_fails "backing format" rebase -b a.qcow2 c.qcow2
twin_fails "backing format" rebase -u -b a.qcow2 c.qcow2
twin_fails "lock" rebase -b c.qcow2 -F qcow2 c.qcow2
twin_fails "lock" rebase -b c.qcow2 -F qcow2 b.qcow2
twin_fails "cache" rebase -t bogus -b "" c.qcow2
twin_fails "cache" rebase -T bogus -b "" c.qcow2
twin_fails "backing" rebase -u -b a.qcow2 -F qcow2 -f raw r.raw
twin_fails "name" rebase -u -b "$(printf 'x%.0s' {1..1100})" -F qcow2 c.qcow2
same ours/c.qcow2 peer/c.qcow2 "nothing has changed"
qimg rebase -u -b gone -F qcow2 ours/c.qcow2
qimg rebase -u -b gone -F qcow2 peer/c.qcow2
twin_fails "gone" rebase -b a.qcow2 -F qcow2 c.qcow2
done_testing
