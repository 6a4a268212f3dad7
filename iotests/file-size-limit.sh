#!/bin/bash
# SPDX-License-Identifier: MIT
# A limit on the length of files (ulimit -f) ends no program: a write past it is an error, told as the peer tells it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-io
any_backend

LIMIT=1000          # KiB
python3 -c 'import random; open("source.raw", "wb").write(random.Random(5).randbytes(4 << 20))'

limited=(bash -c "ulimit -f $LIMIT"' && exec "$@"' limited)

# NAME COMMAND...: it fails alike for both, with the same last words; in the command, IMG and IO stand for the programs.
same_failure() {
    local name=$1 side ours peer
    shift
    for side in ours peer; do
        rm -f out.img
        if [ $side = ours ]; then
            local IMG=$BLKSTACK_IMG IO=$BLKSTACK_IO
        else
            local IMG=$QEMU_IMG IO=$QEMU_IO
        fi
        "$IMG" create -q -f qcow2 disk.qcow2 8M
        local words=("${@/#IMG/$IMG}") status=0
        words=("${words[@]/#IO/$IO}")
        "${limited[@]}" "${words[@]}" >$side.out 2>&1 || status=$?
        echo "status $status" >>$side.out
    done
    ours=$(tail -2 ours.out | sed 's/.*: //') peer=$(tail -2 peer.out | sed 's/.*: //')
    is "$ours" "$peer" "$name"
    is "$ours" $'File too large\nstatus 1' "$name: what is said"
}

for engine in threads io_uring; do
    export BLKSTACK_AIO=$engine
    label="$engine"
    same_failure "convert" IMG convert -f raw -O qcow2 source.raw out.img
    same_failure "convert -c" IMG convert -c -f raw -O qcow2 source.raw out.img
    same_failure "convert -c -m 1 without cache" IMG convert -c -t none -f raw -O qcow2 source.raw out.img
    same_failure "convert to raw" IMG convert -f raw -O raw source.raw out.img
    same_failure "dd" IMG dd -f raw -O raw if=source.raw of=out.img
    same_failure "write" IO -f qcow2 -c "write 0 4M" disk.qcow2

    img create -q -f qcow2 served.qcow2 8M
    serve_on "$nbd_dir/o" "${limited[@]}" "$BLKSTACK_NBD" --persistent --shared 0 -k "$nbd_dir/o" -f qcow2 served.qcow2
    disk="nbd+unix://?socket=$nbd_dir/o"
    fails "a client's write past the limit" "No space left on device" io -f raw -c "write -P 1 2M 4M" "$disk"
    succeeds "the server goes on" io -f raw -c "write -P 2 0 64k" -c "read -P 2 0 64k" "$disk"
    stop_server
    succeeds "the image is whole" img check served.qcow2
done
done_testing
