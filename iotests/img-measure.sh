#!/bin/bash
# SPDX-License-Identifier: MIT
# measure: numbers, output and refusals are the peer's, and a conversion needs no more than was said.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io
any_backend

qimg create -q -f qcow2 base.qcow2 8M
peer_io base.qcow2 qcow2 "write -P 1 0 1M" "write -P 2 3M 64k" "write -z 5M 1M"
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2 10M
peer_io over.qcow2 qcow2 "write -P 3 4M 64k" "write -c -P 4 6M 64k" "write -z 0 64k" "write -P 5 1000k 512"
qimg create -q -f qcow2 -o compat=0.10,cluster_size=4k old.qcow2 3M
peer_io old.qcow2 qcow2 "write -P 3 4k 8k" "write -P 3 1M 4k"
random_file data.raw 1300000
truncate -s 5000704 data.raw
truncate -s 0 empty.raw
twin_copy ./*.qcow2 ./*.raw

label="an empty image"
for size in 0 1 512 1M 10M 1G 16T 2047P; do
    twin_ok measure --size $size
    twin_ok measure -O raw --size $size --output=json
done
for options in "" -ocluster_size=512 -ocluster_size=2M -orefcount_bits=64 -orefcount_bits=1,cluster_size=1k \
    -ocompat=0.10 -opreallocation=metadata -opreallocation=full -osize=5M; do
    for size in 0 1 1M 777M 20G; do
        # shellcheck disable=SC2086
        twin_ok measure -O qcow2 $options --size $size
    done
done
twin_ok measure -O qcow2 --size 1M --output=json

label="of a source"
for file in base over old; do
    for options in "-O raw" "-O qcow2" "-O qcow2 -ocompat=0.10" "-O qcow2 -ocluster_size=512" "-O qcow2 -ocluster_size=2M" \
        "-O qcow2 -obacking_file=base.qcow2,backing_fmt=qcow2" "-O qcow2 -opreallocation=falloc" "-O qcow2 --output=json"; do
        # shellcheck disable=SC2086
        twin_ok measure $options $file.qcow2
    done
done
twin_ok measure -O qcow2 -f raw data.raw
twin_ok measure -O qcow2 -f raw empty.raw
twin_ok measure -O qcow2 -f qcow2 -U over.qcow2
twin_ok measure -O qcow2 --image-opts driver=qcow2,file.filename=over.qcow2

label="a conversion needs no more"
for file in base.qcow2 over.qcow2 old.qcow2 data.raw; do
    for options in "" -ocluster_size=512 -ocluster_size=2M,refcount_bits=64 -opreallocation=full; do
        # shellcheck disable=SC2086
        {
            required=$(img measure -O qcow2 $options -f "$(format_of $file)" $file | sed -n 's/^required size: //p')
            succeeds "convert $options $file" img convert -f "$(format_of $file)" -O qcow2 $options $file out.qcow2
        }
        num_ok "$(file_bytes out.qcow2) <= $required" "$options $file: $(file_bytes out.qcow2) of $required bytes"
    done
done

label=refused
twin_fails "size" measure
twin_fails "together" measure --size 1M base.qcow2
twin_fails "one filename" measure base.qcow2 over.qcow2
twin_fails "filename" measure -f qcow2 --size 1M
twin_fails "filename" measure --image-opts --size 1M
twin_fails "mutually" measure -f qcow2 --image-opts base.qcow2
twin_fails "size" measure --size foo
twin_fails "nosuch" measure -O nosuch --size 1M
twin_fails "nosuch" measure -O qcow2 -o nosuch=1 --size 1M
twin_fails "too large" measure -O qcow2 -o cluster_size=512 --size 1T
twin_fails "power of two" measure -O qcow2 -o cluster_size=3 --size 1M
twin_fails "measurement|measure" measure -O file --size 1M
twin_fails "missing" measure missing
twin_fails "human or json" measure --output=x --size 1M
done_testing
