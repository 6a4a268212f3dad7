#!/bin/bash
# SPDX-License-Identifier: MIT
# fio writes 4 KiB pieces at random places, 16 at a time, through --compress, and verifies them: while it writes, and again in
# another run after the server has been started anew.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires fio qemu-img
[[ $(fio --enghelp) == *nbd* ]] || skip_all "this fio has no nbd engine"
say_seed

fio_run() {     # DESCRIPTION OPTIONS...
    local description=$1

    shift
    succeeds "$description" timeout 60 fio --name=nbd --ioengine=nbd --uri="$our_uri" --rw=randwrite --bs=4k --iodepth=16 \
        --size=24M --verify=crc32c --verify_fatal=1 --randseed="$SEED" --buffer_compress_percentage=60 --output=fio.out "$@"
    grep -E 'WRITE:|READ:|verify:' fio.out | sed 's/^ */# /' || true
}

for COMPRESSION in zlib zstd; do
    label=$COMPRESSION
    new_image 24M
    our_serve --compress -f qcow2 disk.qcow2
    fio_run "written, and verified after every 64 pieces" --verify_backlog=64 --do_verify=1
    stop_server
    judge disk.qcow2 "afterwards"
    our_serve --compress -f qcow2 disk.qcow2
    fio_run "verified by a server that was started anew" --verify_only
    fio_run "overwritten, with a flush after every 32 pieces" --fsync=32 --io_size=4M --do_verify=1 --norandommap
    stop_server
    judge disk.qcow2 "overwritten"
    num_ok "$(check_number disk.qcow2 compressed-clusters) > 300" "its clusters are compressed"
done
done_testing
