#!/bin/bash
# SPDX-License-Identifier: MIT
# discard-no-unref=on: what is discarded keeps its place in the file, whose space is punched out; pass-discard-... say what is.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

node() {        # NODE-OPTIONS COMMAND...
    local options=$1

    shift
    io_run "$BLKSTACK_IO" --image-opts "driver=qcow2,discard=unmap,file.filename=disk.qcow2$options" -- "$@"
}
places() { qimg map -f qcow2 --output=json disk.qcow2 | sed -n 's/.*"start": \([0-9]*\).*"offset": \([0-9]*\).*/\1 \2/p'; }
allocated() { check_number disk.qcow2 allocated-clusters; }

new_image 4M
peer_io disk.qcow2 qcow2 "write -P 1 0 4M"
before=$(qimg map -f qcow2 --output=json --max-length=64k disk.qcow2 | sed 's/.*"offset"/"offset"/')
length=$(file_bytes disk.qcow2) space=$(file_blocks disk.qcow2)

node ,discard-no-unref=on "discard 0 1M" "write -z -u 2M 1M"
node "" "read -P 0 0 1M" "read -P 1 1M 1M" "read -P 0 2M 1M"
is "$(qimg map -f qcow2 --output=json --max-length=64k disk.qcow2 | sed 's/.*"offset"/"offset"/')" "$before" "the place is kept"
is "$(allocated)" 64 "all clusters are still taken"
is "$(file_bytes disk.qcow2)" "$length" "the file is as long"
num_ok "$(file_blocks disk.qcow2) <= $space - 1900 * 1024" "its space is punched out"
judge disk.qcow2 "discarded"
node ,discard-no-unref=on "write -P 2 0 1M" "write -P 3 2M 64k" "discard 0 64k" "write -P 4 0 4k" "read -P 0 4k 60k"
is "$(file_bytes disk.qcow2)" "$length" "written to where it was"
is "$(qimg map -f qcow2 --output=json --max-length=64k disk.qcow2 | sed 's/.*"offset"/"offset"/')" "$before" "the same place"
judge disk.qcow2 "written again"

label="without it"
node "" "discard 0 4M"
is "$(allocated)" 0 "nothing is taken"
is "$(places)" "" "no place is kept"
num_ok "$(file_bytes disk.qcow2) < 1024 * 1024" "the file is shorter"
judge disk.qcow2 "discarded"

label="compressed clusters, a snapshot"
new_image 1M
peer_io disk.qcow2 qcow2 "write -P 1 0 512k" "write -c -P 2 512k 64k"
qimg snapshot -c s disk.qcow2
peer_io disk.qcow2 qcow2 "write -P 3 0 64k"
node ,discard-no-unref=on "discard 0 1M" "read -P 0 0 1M"
judge disk.qcow2 "discarded"
is "$(places | wc -l)" 1 "only what no snapshot shares keeps its place"
qimg convert -f qcow2 -l s -O raw disk.qcow2 s.raw
qimg create -q -f raw model.raw 1M
peer_io model.raw raw "write -P 1 0 512k" "write -P 2 512k 64k"
same s.raw model.raw "the snapshot has its content"

label="pass-discard"
for option in request other; do
    new_image 4M
    peer_io disk.qcow2 qcow2 "write -P 1 0 4M"
    space=$(file_blocks disk.qcow2)
    node ,pass-discard-$option=off "discard 0 2M" "write -P 2 0 4k"
    if [ $option = request ]; then
        num_ok "$(file_blocks disk.qcow2) >= $space - 65536" "request=off: the file keeps its space"
    else
        num_ok "$(file_blocks disk.qcow2) <= $space - 1900 * 1024" "other=off: discarded space is punched out"
    fi
    judge disk.qcow2 "pass-discard-$option=off"
    peer_io disk.qcow2 qcow2 "write -P 1 0 4M"
    space=$(file_blocks disk.qcow2)
    (succeeds "resize" img resize --shrink --image-opts "driver=qcow2,pass-discard-$option=off,file.filename=disk.qcow2" 1M) >/dev/null
    if [ $option = request ]; then
        num_ok "$(file_blocks disk.qcow2) >= $space - 131072" "request=off: what is cut off keeps its space"
    fi
    judge disk.qcow2 "shrunk with pass-discard-$option=off"
done

label=refused
VERSION=v2 new_image 1M
fails "version 2" "compat 1.1" io --image-opts driver=qcow2,discard-no-unref=on,file.filename=disk.qcow2 -c "read 0 4k"
done_testing
