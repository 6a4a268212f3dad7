#!/bin/bash
# SPDX-License-Identifier: MIT
# What a rewrite has dropped is brought back by a commit of its own, without a flush. While that commit is suspended,
# before it writes a mapping, other writes and reads are served.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

opts="driver=compress,write-buffer=0,file.driver=qcow2,file.file.driver=fault"
opts+=",file.file.image.driver=file,file.file.image.filename=disk.qcow2"

beside() {
    new_image 16M
    both "write -s text.raw 0 8M"
    if ! timeout 60 "$BLKSTACK_IO" --image-opts "$opts" >io.out 2>&1 <<END; then
write -P 9 0 2M
break l2_update A
aio_write -P 9 2M 6M
wait_break A
write -P 7 10M $CLUSTER
write -P 8 12M 4k
read -P 7 10M $CLUSTER
resume A
aio_flush
END
        not_ok "the program ends: $(tail -n 3 io.out | tr '\n' ' ')"
    fi
    is "$(grep -o "[a-z]* [0-9/]* bytes at offset [0-9]*" io.out | tr '\n' ';')" "$(echo "wrote 2097152/2097152 bytes at offset 0
wrote $CLUSTER/$CLUSTER bytes at offset 10485760
wrote 4096/4096 bytes at offset 12582912
read $CLUSTER/$CLUSTER bytes at offset 10485760
wrote 6291456/6291456 bytes at offset 2097152" | tr '\n' ';')" "others are served while the rewrite waits for the commit"
    is "$(grep -c "Pattern verification failed" io.out || true)" 0 "they read what they wrote"
    model_io "write -P 9 0 8M" "write -P 7 10M $CLUSTER" "write -P 8 12M 4k"
    agrees "all is there"
}

text_file text.raw 8M
matrix beside
done_testing
