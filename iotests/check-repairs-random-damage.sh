#!/bin/bash
# SPDX-License-Identifier: MIT
# Tables broken at random: a repair ends by itself, with an image that is sound for both programs or an honest exit status, and
# every guest cluster that could be read before reads the same afterwards. Where counts of few bits cannot say how many share
# something, there are copies. SEED repeats a run, CASES says how many.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io python3
# timeout: 300

case ${BLKSTACK_TEST_LEVEL:-normal} in
quick) cases=${CASES:-20} ;;
long) cases=${CASES:-500} ;;
*) cases=${CASES:-50} ;;
esac
say_seed

make() {        # NAME OPTIONS [-c OR NOTHING]: compressed data
    qimg create -q -f qcow2 -o "$2" "$1" 4M
    "$QEMU_IO" -f qcow2 -c "write -P 1 0 256k" -c "write ${3--c} -P 2 512k 64k" -c "write -P 3 1M 300k" -c "write -z 2M 64k" \
        -c "write -P 5 3500k 100k" "$1" >/dev/null
}

with_snapshot() { # NAME
    "$QEMU_IMG" snapshot -c one "$1"
    "$QEMU_IO" -f qcow2 -c "write -P 4 64k 64k" -c "write -P 6 3M 64k" "$1" >/dev/null
    "$QEMU_IMG" snapshot -c two "$1"
    "$QEMU_IO" -f qcow2 -c "write -P 7 96k 64k" "$1" >/dev/null
}

make base1.qcow2 cluster_size=4k
make base2.qcow2 cluster_size=4k,refcount_bits=8
with_snapshot base2.qcow2
make base3.qcow2 cluster_size=512,compat=0.10
with_snapshot base3.qcow2
make base4.qcow2 cluster_size=1k,refcount_bits=1
make base5.qcow2 cluster_size=64k,refcount_bits=64
with_snapshot base5.qcow2
make base6.qcow2 cluster_size=1k,refcount_bits=2 ""
with_snapshot base6.qcow2
make base7.qcow2 cluster_size=2k,refcount_bits=4 ""
with_snapshot base7.qcow2

for number in 1 2 3 4 5 6 7; do
    "$(dirname "$0")/broken.py" base$number.qcow2 "$cases" $((SEED + number * 1000)) >cases.out
    is "$(grep -c '^wrong' cases.out || true)" 0 "image $number: nothing went wrong"
    diag "$(cat cases.out)"
    num_ok "$(sed -n 's/^repaired \([0-9]*\) .*/\1/p' cases.out) * 10 >= cases * 8" "image $number: most are repaired"
    is "$(grep -c '^left' cases.out || true)" 0 "image $number: all are, but where the active L1 table is lost"
done

# Seeds that found something: IMAGE SEED.
while read -r number seed; do
    "$(dirname "$0")/broken.py" "base$number.qcow2" 1 "$seed" >cases.out
    is "$(grep -c '^wrong' cases.out || true)" 0 "image $number, seed $seed: nothing went wrong"
    diag "$(cat cases.out)"
done <<'END'
3 4262777598
6 26794
END
done_testing
