#!/bin/bash
# SPDX-License-Identifier: MIT
# map: text and JSON are the peer's, for chains, shorter backing files, compressed clusters, holes, also of the file below, and
# parts of an image.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
any_backend
requires qemu-img qemu-io

qimg create -q -f qcow2 base.qcow2 6M
peer_io base.qcow2 qcow2 "write -P 1 0 1M" "write -P 2 3M 64k" "write -z 5M 512k" "discard 128k 64k"
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k middle.qcow2 8M
peer_io middle.qcow2 qcow2 "write -P 3 1M 12k" "write -P 3 2M 4k" "write -z 3080k 4k" "discard 0 64k"
qimg create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2 10M
peer_io top.qcow2 qcow2 "write -P 4 4M 64k" "write -z 512k 64k" "write -P 5 9M 100k"
qimg create -q -f qcow2 -b top.qcow2 -F qcow2 packed.qcow2
peer_io packed.qcow2 qcow2 "write -c -P 4 6M 64k" "write -P 7 6208k 64k"
qimg create -q -f raw r.raw 4M
peer_io r.raw raw "write -P 4 1M 64k" "write -P 4 2M 1M"
qimg create -q -f qcow2 -b r.raw -F raw onraw.qcow2 5M
peer_io onraw.qcow2 qcow2 "write -P 4 1M 64k"
qimg create -q -f qcow2 empty.qcow2 1M
qimg create -q -f qcow2 nothing.qcow2 0
truncate -s 1000 odd.raw
# Tables that say data where the file has a hole, or has ended; one where all is there.
qimg create -q -f qcow2 -o preallocation=metadata spare.qcow2 16M
peer_io spare.qcow2 qcow2 "write -P 1 128k 8k" "write -z 256k 64k" "write -P 2 8M 128k"
cp --sparse=always spare.qcow2 short.qcow2
truncate -s 2M short.qcow2
qimg create -q -f qcow2 -b spare.qcow2 -F qcow2 onspare.qcow2
peer_io onspare.qcow2 qcow2 "write -P 3 512k 64k" "write -P 4 8M 4k"
qimg create -q -f qcow2 partial.qcow2 16M
peer_io partial.qcow2 qcow2 "write -P 1 0 4M" "write -P 1 5M 4k"
sync -- *.raw *.qcow2
for file in *.qcow2 *.raw; do
    ln "$file" "ours/$file"
    ln "$file" "peer/$file"
done

for file in base middle top empty nothing onraw spare short onspare partial; do
    twin_ok map -f qcow2 "$file.qcow2"
    twin_ok map -f qcow2 --output=json "$file.qcow2"
done
for file in r.raw odd.raw; do
    twin_ok map -f raw "$file"
    twin_ok map -f raw --output=json "$file"
done
twin_ok map -f qcow2 --output=json packed.qcow2
twin_fails "compressed clusters" map -f qcow2 packed.qcow2
for part in "0 1" "1M 3M" "512k 128k" "520k 3k" "5M 9E" "10M 1M" "9M 1M" "9.5M 1" "3M 0"; do
    twin map -f qcow2 --output=json --start-offset="${part% *}" --max-length="${part#* }" top.qcow2
    twin map -f qcow2 -s "${part% *}" -l "${part#* }" top.qcow2
done
twin_ok map -U top.qcow2
twin_ok map --image-opts driver=qcow2,file.filename=top.qcow2
twin_fails "start offset" map -s -1 top.qcow2
twin_fails "max length" map -l x top.qcow2
twin_fails "one image" map
twin_fails "missing" map missing
twin_fails "human or json" map --output=xml top.qcow2
done_testing
