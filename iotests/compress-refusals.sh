#!/bin/bash
# SPDX-License-Identifier: MIT
# The compress filter refuses, at open and with the reason, every node that cannot take compressed rewrites: raw, null,
# read-only nodes for writing, and qcow2 with an external data file. Nothing is changed.
. "$(dirname "$0")/lib.sh"
requires qemu-img

truncate -s 1M disk.raw
"$QEMU_IMG" create -q -f qcow2 disk.qcow2 1M
"$QEMU_IMG" create -q -f qcow2 -o data_file=data.raw external.qcow2 1M
sums=$(sha256sum ./*.raw ./*.qcow2)

refused() {     # TEXT REGEX OPTIONS
    fails "$1 is refused" "$2" io --image-opts "$3" -c "write -P 1 0 64k"
    is "$(wc -l <cmd.out)" 1 "$1: one message"
}

refused raw \
    "raw.*compress|compress.*raw" driver=compress,file.driver=raw,file.file.driver=file,file.file.filename=disk.raw
refused "a protocol node" "compress" driver=compress,file.driver=file,file.filename=disk.raw
refused null "compress" driver=compress,file.driver=null-co,file.size=1M
refused "qcow2 with a data file" "compress|data.file" \
    driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename=external.qcow2
refused "a read-only qcow2 for writing" "read-only" \
    driver=compress,file.driver=qcow2,file.read-only=on,file.file.driver=file,file.file.filename=disk.qcow2
above_filter=driver=compress,file.driver=copy-on-read,file.file.file.driver=file
refused "a filter above raw" "compress" "$above_filter,file.file.driver=raw,file.file.file.filename=disk.raw"
refused "no child" "file" driver=compress
refused "an unknown key" "did you mean|unknown|file" "$(filter_opts disk.qcow2),levle=1"
is "$(sha256sum ./*.raw ./*.qcow2)" "$sums" "no file has changed"

succeeds "reading through the filter from a read-only node works" \
    io -r --image-opts "$(filter_opts disk.qcow2)" -c "read -P 0 0 64k"
fails "and writing to it does not" "." io -r --image-opts "$(filter_opts disk.qcow2)" -c "write -P 1 0 64k"
succeeds "a filter above qcow2 passes the capability up" \
    io --image-opts \
    "$above_filter,file.file.driver=qcow2,file.file.file.filename=disk.qcow2" \
    -c "write -P 1 0 64k" -c "write -P 2 0 64k" -c "read -P 2 0 64k"
is "$(check_number disk.qcow2 compressed-clusters)" 1 "and the write through both is compressed"
judge disk.qcow2 "through two filters"
done_testing
