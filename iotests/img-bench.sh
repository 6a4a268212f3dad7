#!/bin/bash
# SPDX-License-Identifier: MIT
# bench: output and refusals are the peer's, requests go where they should, and flushes come when they should.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io

truncate -s 4M w.raw
qimg create -q -f qcow2 w.qcow2 4M
twin_copy w.raw w.qcow2

# Output and status are the same but for the time.
benched() {     # ARGUMENTS...
    twin_run ours "$BLKSTACK_IMG" bench "$@"
    twin_run peer "$QEMU_IMG" bench "$@"
    sed -i 's/[0-9.]* seconds/N seconds/' ours.out peer.out
    is "$(cat ours.status ours.out)" "$(cat peer.status peer.out)" "the same: bench $*"
}

for options in "" "-d 4" "-d 1" "-o 1M" "-s 1M -c 3" "-s 0 -c 3" "-s 3" "-S 64k" "-S 0" -q -U "-t none -n" "-t none -i native" \
    "-i io_uring" "-i threads -t writethrough" "-w" "-w --pattern=0x41" "-w -d 2 --flush-interval=5" \
    "-w -d 2 --flush-interval=5 --no-drain" "-w -d 2 --flush-interval=2 -t unsafe"; do
    # shellcheck disable=SC2086
    {
        benched -c 10 $options -f raw w.raw
        benched -c 10 $options -f qcow2 w.qcow2
    }
done
benched -c 0 -f raw w.raw
benched -c 3000 --image-opts driver=raw,file.filename=w.raw
benched -o 20M -c 1 -f raw w.raw
benched -s 5M -c 1 -f raw w.raw
judge ours/w.qcow2 "after the writes"

label="what it writes"
truncate -s 64k small.raw
img bench -w -c 3 -s 4k -S 16k -o 4k -d 1 --pattern=7 -f raw small.raw >bench.out
succeeds "where it should" io -f raw -c "read -P 0 0 4k" -c "read -P 7 4k 4k" -c "read -P 0 8k 12k" -c "read -P 7 20k 4k" \
    -c "read -P 7 36k 4k" -c "read -P 0 40k 24k" small.raw
is "$(sed -n '/verification failed/p' cmd.out)" "" "and nowhere else"

label="flushes"
bad=driver=raw,file.driver=fault,file.image.driver=file,file.image.filename=w.raw
bad+=,file.inject-error.0.event=none,file.inject-error.0.iotype=flush,file.inject-error.0.errno=5
fails "a flush that fails is told" "Failed request: Input/output error" \
    img bench -w -c 20 -d 4 --flush-interval=5 --image-opts $bad
fails "also one that does not drain" "Failed request: Input/output error" \
    img bench -w -c 20 -d 4 --no-drain --flush-interval=5 --image-opts $bad

label=refused
twin_fails "one image" bench
twin_fails "one image" bench w.raw w.qcow2
twin_fails "depth" bench --flush-interval=5 -w w.raw
twin_fails "write tests" bench --flush-interval=100 w.raw
twin_fails "count" bench -c foo w.raw
twin_fails "count" bench -c 3000000000 w.raw
twin_fails "depth" bench -d foo w.raw
twin_fails "offset" bench -o foo w.raw
twin_fails "offset" bench -o -1 w.raw
twin_fails "buffer size" bench -s 3G w.raw
twin_fails "step_size" bench -S -1 w.raw
twin_fails "pattern" bench --pattern=256 -w w.raw
twin_fails "flush interval" bench --flush-interval=x -w w.raw
twin_fails "aio" bench -i bogus w.raw
twin_fails "direct" bench -i native w.raw
twin_fails "cache" bench -t bogus w.raw
twin_fails "force-share" bench -U -w -f raw w.raw
twin_fails "mutually" bench -f raw --image-opts w.raw
twin_fails "missing" bench missing
fails "a depth of 0" "depth" img bench -d 0 w.raw
truncate -s 0 empty.raw
fails "an empty image" "Input/output error" img bench -f raw empty.raw
done_testing
