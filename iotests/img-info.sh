#!/bin/bash
# SPDX-License-Identifier: MIT
# info: text, JSON, snapshots and backing chains are told as by the peer, word for word.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
any_backend
requires qemu-img qemu-io

qimg create -q -f raw r.raw 3M
peer_io r.raw raw "write -P 1 0 64k" "write -P 1 1M 4k"
qimg create -q -f qcow2 base.qcow2 8M
peer_io base.qcow2 qcow2 "write -P 1 0 1M" "write -P 2 3M 64k" "write -z 5M 1M"
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2 10M
peer_io over.qcow2 qcow2 "write -P 3 4M 64k" "write -c -P 4 6M 64k"
qimg create -q -f qcow2 -b r.raw -F raw onraw.qcow2
qimg create -q -f qcow2 -b 'json:{"driver":"raw","file":{"driver":"file","filename":"r.raw"}}' -F raw json.qcow2
qimg create -q -f qcow2 -u -b gone.raw -F raw gone.qcow2 1M
qimg create -q -f qcow2 -o compat=0.10 v2.qcow2 1P
qimg create -q -f qcow2 -o compression_type=zstd,refcount_bits=1,cluster_size=2M,lazy_refcounts=on zstd.qcow2 1536
qimg create -q -f qcow2 snap.qcow2 1G
for name in one "a longer snapshot name that does not fit in its column" "two words"; do
    qimg snapshot -c "$name" snap.qcow2
done
peer_io snap.qcow2 qcow2 "write 0 64k"
qimg snapshot -c last snap.qcow2
truncate -s 1000 odd.raw
: > empty.raw
echo hello > text
mkdir d
mv base.qcow2 d/base.qcow2
qimg rebase -u -f qcow2 -b d/base.qcow2 -F qcow2 over.qcow2
mkdir ours/d peer/d

# Copies are hard links, so that also the size on the disk is one and the same.
for file in *.qcow2 *.raw text d/*.qcow2; do
    ln "$file" "ours/$file"
    ln "$file" "peer/$file"
done

for file in r.raw onraw.qcow2 v2.qcow2 zstd.qcow2 snap.qcow2 odd.raw empty.raw text d/base.qcow2; do
    twin_ok info "$file"
    twin_ok info --output=json "$file"
    twin_ok info --backing-chain "$file"
    twin_ok info --output=json --backing-chain "$file"
done
for option in --output=human --output=json; do
    twin_ok info "$option" over.qcow2
    twin_ok info "$option" gone.qcow2
    twin_ok info "$option" json.qcow2
    twin_ok info -f qcow2 --backing-chain "$option" over.qcow2
    twin_ok info -f qcow2 --backing-chain "$option" json.qcow2
    twin_fails "gone.raw" info --backing-chain "$option" gone.qcow2
    twin_ok info "$option" -f raw snap.qcow2
    twin_ok info "$option" -U snap.qcow2
    twin_ok info "$option" --image-opts driver=qcow2,file.filename=snap.qcow2
    twin_ok info "$option" 'json:{"driver":"qcow2","file":{"driver":"file","filename":"v2.qcow2"}}'
    twin_fails "missing" info "$option" missing
done
twin_fails "not in qcow2 format" info -f qcow2 r.raw
twin_fails "nosuch" info -f nosuch r.raw
twin_fails "human or json" info --output=xml r.raw
twin_fails "one image" info
twin_fails "one image" info a b
twin_fails "nosuch" info --nosuch r.raw

# Names that the image chooses cannot add lines or keys to the answer.
qimg create -q -f qcow2 odd-name.qcow2 1M
qimg snapshot -c $'line\nvm clock: \e[31m"quoted' odd-name.qcow2
ln odd-name.qcow2 ours/
ln odd-name.qcow2 peer/
twin_ok info --output=json odd-name.qcow2
succeeds "the JSON can be read" perl -MJSON::PP -e 'decode_json(do { local $/; <STDIN> })' <ours.out
img info odd-name.qcow2 >text.out
is "$(grep -c -e '^vm clock' -e $'\e' text.out || true)" 0 "no control characters of a snapshot's name in the text"
done_testing
