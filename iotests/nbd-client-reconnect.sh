#!/bin/bash
# SPDX-License-Identifier: MIT
# NBD servers that go away and come back: what is in flight is sent again or fails, as reconnect-delay says; nothing hangs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img nbdkit

serve() {
    kit_serve --filter=blocksize-policy --filter=delay file store.raw delay-write=20ms "delay-read=${read_delay:-20ms}" \
        blocksize-minimum=1 blocksize-preferred=64k blocksize-maximum=128k
}

# An io program that takes commands by say, and what it said.
io_begin() {    # OPTIONS-OF-THE-NODE
    rm -f commands
    mkfifo commands
    "$BLKSTACK_IO" --image-opts "driver=raw,file.driver=nbd,file.path=$nbd_dir/s$1" >io.log 2>&1 <commands &
    io_pid=$!
    exec 7>commands
}
say() { printf '%s\n' "$@" >&7; }
wait_for() {    # REGEX COUNT: so many lines
    for _ in {1..500}; do
        [ "$(grep -cE "$1" io.log)" -lt "$2" ] || return 0
        kill -0 "$io_pid" 2>/dev/null || break
        sleep 0.02
    done
    not_ok "the program goes on" "waiting for $2 lines with /$1/:"$'\n'"$(cat io.log)"
}
io_end() {      # the program ends by itself, soon; servers may hold its pipe open
    say quit
    exec 7>&-
    io_status=0
    timeout 20 tail --pid="$io_pid" -f /dev/null || { not_ok "the program ends"; kill -KILL "$io_pid"; }
    wait "$io_pid" || io_status=$?
}
fresh() {
    truncate -s 0 store.raw model.raw
    truncate -s 16M store.raw model.raw
}

for signal in KILL TERM; do
    label="reconnect-delay, SIG$signal"
    fresh
    serve
    io_begin ,file.reconnect-delay=60
    say "read 0 64k"
    wait_for "ops;" 1
    for i in {0..31}; do
        say "aio_write -P $((i + 1)) $((i * 65536)) 64k"
        model_io "write -P $((i + 1)) $((i * 65536)) 64k"
    done
    kill "-$signal" "$nbd_pid"      # at SIGTERM nbdkit answers that it shuts down, as long as something comes
    for i in {32..63}; do
        say "aio_write -P $((i + 1)) $((i * 65536)) 64k"
        model_io "write -P $((i + 1)) $((i * 65536)) 64k"
    done
    say "aio_read -P 0 15M 64k"
    wait_for "was lost" 1
    end_server KILL
    serve
    say aio_flush flush "read -P 64 4032k 64k"
    io_end
    is "$io_status" 0 "no request failed"
    like "$(cat io.log)" "connected to 'nbd\+unix:.*' again" "it says that it is connected again"
    succeeds "no pattern is wrong" sh -c '! grep -qi failed io.log'
    stop_server
    succeeds "every byte" cmp store.raw model.raw
done

label="again and again"
fresh
serve
random_file text.raw 16777216
"$BLKSTACK_IMG" convert -n -m 4 -f raw --target-image-opts text.raw \
    "driver=raw,file.driver=nbd,file.path=$nbd_dir/s,file.reconnect-delay=60" >convert.log 2>&1 &
convert=$!
for _ in {1..6}; do
    sleep 0.1
    end_server KILL
    serve
done
status=0
wait "$convert" || status=$?
is "$status" 0 "convert to a server that is killed six times"
like "$(cat convert.log)" "was lost.*again" "it was in the middle of it"
succeeds "every byte" cmp store.raw text.raw

label="too long"
io_begin ,file.reconnect-delay=1
say "read 0 64k"
wait_for "ops;" 1
end_server KILL
say "read 0 64k"
wait_for "read failed: Input/output error" 1
ok "a request fails when the time is over"
say "read 0 64k"
wait_for "read failed: Input/output error" 2
serve
wait_for "connected to .* again" 1
say "read 0 64k"
wait_for "ops;" 2
ok "requests work again when the server is there again"
io_end

label="without reconnect-delay"
end_server KILL
read_delay=100 serve
io_begin ""
say "write -P 1 0 64k" flush "write -P 2 64k 64k" "aio_read 0 64k"
wait_for "ops;" 2
end_server KILL
wait_for "failed: Input/output error" 1
ok "what is in flight fails"
say "read 0 64k"
wait_for "failed: Input/output error" 2
serve
wait_for "connected to .* again" 1
say "read -P 1 0 64k"
wait_for "ops;" 3
ok "reads work when the server is there again"
say flush
wait_for "Input/output error" 3
ok "a flush does not say that what may be lost is stable"
io_end
isnt "$io_status" 0 "nor does the program"

label="nobody waits for a server that is gone"
io_begin ,file.reconnect-delay=100000
say "write -P 1 0 64k"
wait_for "ops;" 1
end_server KILL
wait_for "was lost" 1
say "aio_write -P 2 0 64k" "aio_read 0 64k"
io_end
isnt "$io_status" 0 "the end of a program: what was not stable is an error"

label="another export"
serve
io_begin ,file.reconnect-delay=1
say "read 0 64k"
wait_for "ops;" 1
end_server KILL
truncate -s 8M store.raw
serve
say "read 0 64k"
wait_for "failed: Input/output error" 1
like "$(cat io.log)" "another export now" "is not used"
io_end

label=open-timeout
stop_server
"$BLKSTACK_IMG" info --image-opts "driver=raw,file.driver=nbd,file.path=$nbd_dir/s,file.open-timeout=60" >info.log 2>&1 &
info=$!
sleep 0.3
serve
status=0
wait "$info" || status=$?
is "$status" 0 "waits for a server"
end_server KILL
fails "not for ever" "Failed to connect to 'nbd\+unix.*: connect: " \
    timeout 20 "$BLKSTACK_IMG" info --image-opts "driver=raw,file.driver=nbd,file.path=$nbd_dir/s,file.open-timeout=1"
fails "once, without it" "Failed to connect to 'nbd\+unix.*: connect: " timeout 20 "$BLKSTACK_IMG" info "$nbd_uri"
done_testing
