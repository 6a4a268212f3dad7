#!/bin/bash
# SPDX-License-Identifier: MIT
# R05: when the read half of a read-modify-write fails, in the backing file or in the image itself, the write fails and
# nothing changes; whole clusters need no such read and succeed. With a write buffer it is the flush that fails.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

fault_opts() {  # ERRNO
    echo "{\"driver\": \"compress\", \"write-buffer\": $buffer, \"file\": {\"driver\": \"qcow2\"," \
        "\"file\": {\"driver\": \"file\", \"filename\": \"disk.qcow2\"}," \
        "\"backing\": {\"driver\": \"raw\", \"file\": {\"driver\": \"fault\"," \
        "\"inject-error\": [{\"event\": \"none\", \"iotype\": \"read\", \"errno\": $1," \
        "\"once\": false, \"immediately\": true}]," \
        "\"image\": {\"driver\": \"file\", \"filename\": \"base.raw\"}}}}}"
}

image_fault_opts() {    # EVENT: reads of the image fail from then on
    echo "{\"driver\": \"compress\", \"write-buffer\": $buffer, \"file\": {\"driver\": \"qcow2\", \"file\": {\"driver\": \"fault\"," \
        "\"inject-error\": [{\"event\": \"$1\", \"iotype\": \"read\", \"errno\": 5, \"once\": false}]," \
        "\"image\": {\"driver\": \"file\", \"filename\": \"disk.qcow2\"}}}}"
}

read_error() {
    text_file base.raw 16777216
    new_image 16M -b base.raw -F raw
    model_from_image
    both "write -P 1 $((8 * CLUSTER / 2)) $CLUSTER"
    before=$(check_number disk.qcow2 allocated-clusters)
    for write in "write -P 2 4096 4k" "write -P 2 0 512" "write -P 2 $((CLUSTER - 512)) 1k" "write -z 512 512"; do
        fails "$write fails with the backing's error" "Input/output error" io --image-opts "$(fault_opts 5)" -c "$write"
        is "$(check_number disk.qcow2 allocated-clusters)" "$before" "$write allocated nothing"
    done
    fails "the error is the backing's" "No space left" io --image-opts "$(fault_opts 28)" -c "write -P 2 4096 4k"
    agrees "after writes whose read half failed"
    io_run "$BLKSTACK_IO" --image-opts "$(fault_opts 5)" -- "write -P 3 $CLUSTER $CLUSTER" \
        "write -P 4 $((4 * CLUSTER + 512)) 512"
    model_io "write -P 3 $CLUSTER $CLUSTER" "write -P 4 $((4 * CLUSTER + 512)) 512"
    agrees "writes that need nothing from the backing succeed"

    fails "a 4 KiB write fails when the old payload cannot be read" "Input/output error" \
        io --image-opts "$(image_fault_opts read_compressed)" -c "write -P 5 $((CLUSTER + 4096)) 4k"
    agrees "after a failed read of a payload"
    both_peer "write -P 6 0 $CLUSTER"
    fails "a 4 KiB write fails when the old plain data cannot be read" "Input/output error" \
        io --image-opts "$(image_fault_opts read_aio)" -c "write -P 7 4096 4k"
    agrees "after a failed read of plain data"
}

for buffer in 0 1048576; do
    matrix read_error
done
done_testing
