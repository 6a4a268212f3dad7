#!/bin/bash
# SPDX-License-Identifier: MIT
# Random conversations with our server, most of them nearly right: it stays, serves honest clients, needs no more memory, and the
# image is sound. SEED repeats a run, CASES says how many.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img python3
say_seed
case $BLKSTACK_TEST_LEVEL in
quick) cases=${CASES:-100} ;;
long) cases=${CASES:-5000} ;;
*) cases=${CASES:-300} ;;
esac

new_image 4M
for options in "" "--compress -A"; do
    label=${options:-plain}
    # shellcheck disable=SC2086
    our_serve $options -f qcow2 disk.qcow2
    is "$(timeout 600 "$(dirname "$0")/nbd-fuzz.py" "$nbd_dir/o" "$nbd_pid" "$SEED" "$cases" 2>&1)" \
        "good: $cases conversations" "the server is still there"
    diag "$(grep VmHWM "/proc/$nbd_pid/status")"
    kill "$nbd_pid"
    status=0
    wait "$nbd_pid" || status=$?
    is "$status" 0 "it ends well"
    judge disk.qcow2 "afterwards"
done
done_testing
