#!/bin/bash
# SPDX-License-Identifier: MIT
# A hundred clients at once, all of whose 4 KiB pieces lie in the same compressed clusters: each finds what it wrote, and what
# others wrote.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img nbdsh python3
say_seed

COMPRESSION=zstd
new_image 8M
our_serve --compress -f qcow2 disk.qcow2
like "$(timeout 100 "$(dirname "$0")/nbd-clients.py" "$our_uri" 100 "$SEED" 2>&1)" '^good: [0-9]+ stripes of 100 clients$' \
    "every byte of 100 clients"
diag "$(grep -E 'VmHWM|Threads' "/proc/$nbd_pid/status")"
stop_server
judge disk.qcow2 "after 100 clients"
done_testing
