#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-nbd --fork returns when clients can connect, or with the error; --pid-file names the process while it runs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img nbdinfo nbdsh

s=$nbd_dir/s p=$nbd_dir/pid
truncate -s 1M disk.raw other.raw
nbd() { timeout 20 "$BLKSTACK_NBD" -k "$s" "$@"; }

# Waits for the end of the process $pid, which is no child.
gone() {
    for _ in {1..500}; do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.02
    done
    return 1
}

# The output of a daemon that keeps standard output or error open would be waited for without end.
is "$(nbd --fork -t --pid-file="$p" -f raw disk.raw 2>&1; echo "status $?")" "status 0" "it says nothing and returns 0"
pid=$(cat "$p")
nbd_pids+=("$pid")
is "$(nbdinfo --size "nbd+unix:///?socket=$s")" 1048576 "a client can connect at once"
is "$(readlink "/proc/$pid/fd/0") $(readlink "/proc/$pid/fd/1") $(readlink "/proc/$pid/fd/2")" \
    "/dev/null /dev/null /dev/null" "it has let go of the terminal"
is "$(ps -o sid= -p "$pid" | tr -d ' ')" "$pid" "it is in a session of its own"
isnt "$(ps -o ppid= -p "$pid" | tr -d ' ')" $$ "it is no child of the one who started it"
fails "a second one with the same pid file" 'Cannot lock pid file' timeout 20 "$BLKSTACK_NBD" --fork --pid-file="$p" -k "$nbd_dir/other" \
    -f raw other.raw
is "$(cat "$p")" "$pid" "which stays that of the first"
succeeds "which goes on" nbdinfo --size "nbd+unix:///?socket=$s"
succeeds "and whose socket the other did not keep" test ! -e "$nbd_dir/other"
nbdsh -u "nbd+unix:///?socket=$s" -c 'h.pwrite(b"x" * 4096, 0)'
kill "$pid"
succeeds "SIGTERM ends it" gone
is "$(ls "$nbd_dir")" "" "its socket and its pid file are gone"
is "$(head -c 4096 disk.raw | tr -d x | wc -c)" 0 "what was written is there"

# Without -t it ends with its last client.
nbd --fork --pid-file="$p" -f raw disk.raw
pid=$(cat "$p")
nbd_pids+=("$pid")
nbdinfo --size "nbd+unix:///?socket=$s" >size.out
succeeds "it ends with its last client" gone
is "$(ls "$nbd_dir")" "" "and leaves nothing"

# A stale pid file, longer than the new one, is replaced.
printf '999999999999999999\n' >"$p"
nbd --fork -t --pid-file="$p" -f raw disk.raw
pid=$(cat "$p")
nbd_pids+=("$pid")
succeeds "a stale pid file is replaced" kill -0 "$pid"
kill "$pid"
gone

# ---- errors come from the command that the user started ----
fails "an image that is not there" "missing.raw': No such file" nbd --fork -f raw missing.raw
fails "an option that is wrong" "unknown option 'nonsense'" nbd --fork --image-opts driver=raw,nonsense=1,file.filename=disk.raw
fails "an object that is wrong" 'Unable to read' nbd --fork --object secret,id=s,file=missing -f raw disk.raw
fails "a socket that cannot be made" 'cannot listen' timeout 20 "$BLKSTACK_NBD" --fork -k "$nbd_dir/no/s" -f raw disk.raw
fails "a pid file that cannot be made" "Could not create" nbd --fork --pid-file="$nbd_dir/no/p" -f raw disk.raw
fails "a filter that does not fit" 'cannot rewrite compressed clusters' nbd --fork --compress -f raw disk.raw
is "$(ls "$nbd_dir")" "" "nothing is left of them"
# A warning is no error.
is "$(nbd --fork --pid-file="$p" -t disk.raw >warning.out 2>&1; echo $?)" 0 "a warning does not change the status"
like "$(cat warning.out)" 'WARNING' "but is seen"
pid=$(cat "$p")
nbd_pids+=("$pid")
kill "$pid"
gone
# A free port is printed before the terminal is let go.
port=$(timeout 20 "$BLKSTACK_NBD" --fork --pid-file="$p" -t -b localhost -p 0 -f raw disk.raw)
pid=$(cat "$p")
nbd_pids+=("$pid")
is "$(nbdinfo --size "nbd://localhost:${port#port }")" 1048576 "a free port is printed"
kill "$pid"
gone
done_testing
