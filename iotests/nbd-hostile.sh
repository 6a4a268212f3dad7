#!/bin/bash
# SPDX-License-Identifier: MIT
# Clients that say what no client should: the server answers with an error or drops that client alone, its memory stays bounded,
# and a good client beside them notices nothing. What it has at the end is sound, also when it is stopped during handshakes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img nbdsh python3
if [ "${BLKSTACK_SANITIZE:-0}" = 1 ]; then
    skip_all "a sanitizer needs memory of its own"
fi

export MALLOC_PERTURB_=0        # memory counts that is used, not what a test runner fills
COMPRESSION=zstd
new_image 16M
our_serve --compress -f qcow2 disk.qcow2
timeout 100 "$(dirname "$0")/nbd-hostile.py" "$nbd_dir/o" "$nbd_pid" >attacks.out 2>&1 || echo "bad status $?" >>attacks.out
while read -r outcome text; do
    case $outcome in
    good) ok "${text//_/ }" ;;
    bad) not_ok "${text//_/ }" ;;
    *) diag "$outcome $text" ;;
    esac
done <attacks.out

# H23: stopped while clients are in their handshakes.
cat >idle.py <<'PY'
import sys
import time
sys.path.insert(0, sys.argv[1])
from nbd_raw import Raw, option
idle = [Raw(sys.argv[2]) for _ in range(20)]
for number, raw in enumerate(idle):
    raw.send((b"\0\0\0\3" + option(3))[:number])
print("idle", flush=True)
time.sleep(60)
PY
python3 idle.py "$(dirname "$0")" "$nbd_dir/o" >idle.out &
nbd_pids+=($!)
until grep -qs idle idle.out; do sleep 0.05; done
kill "$nbd_pid"
status=0
timeout 20 tail --pid="$nbd_pid" -f /dev/null
wait "$nbd_pid" || status=$?
is "$status" 0 "stopped during handshakes, the server ends by itself"
judge disk.qcow2 "after all attacks"
done_testing
