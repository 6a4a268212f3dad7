#!/bin/bash
# SPDX-License-Identifier: MIT
# The command line of blkstack-daemon: refusals as the peer's, word by word; help; standard input; the pid file and the background.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon
any_backend

refused_alike() { # ARGUMENTS...: both end with status 1 and the same message
    local ours theirs status=0 peer_status=0

    ours=$(timeout 20 "$BLKSTACK_DAEMON" "$@" 2>&1 </dev/null) || status=$?
    theirs=$(timeout 20 "$QEMU_STORAGE_DAEMON" "$@" 2>&1 </dev/null) || peer_status=$?
    is "$status: ${ours#*: }" "$peer_status: ${theirs#*: }" "refused alike: $*"
}

refused_alike foo
refused_alike --bogus
refused_alike --monitor nope
refused_alike --monitor chardev=c,bogus=1
refused_alike --chardev stdio
refused_alike --chardev nope,id=c
refused_alike --chardev socket,id=c,host=127.0.0.1,server=on,wait=off
refused_alike --blockdev null-co
refused_alike --blockdev null-co,node-name=n,foo=1
refused_alike --blockdev null-co,node-name=n,read-only=maybe
refused_alike --blockdev '{"driver": "null-co", "node-name": "n", "read-only": "on"}'
refused_alike --export nbd,id=e,node-name=n
refused_alike --export type=nope,id=e,node-name=n
refused_alike --export id=e
refused_alike --nbd-server addr.type=unix
refused_alike --nbd-server foo=1
refused_alike --nbd-server addr.type=unix,addr.path=n --nbd-server addr.type=unix,addr.path=n2
refused_alike --object secret
refused_alike --object nope,id=x
refused_alike --object secret,id=s,data=x,bogus=1
refused_alike --pidfile /nonexistent/x

daemon() { timeout 20 "$BLKSTACK_DAEMON" "$@"; }
like "$(daemon --blockdev help)" 'qcow2' "--blockdev help lists drivers"
like "$(daemon --blockdev driver=qcow2,help)" 'l2-cache-size' "--blockdev driver=qcow2,help"
like "$(daemon --export help)" 'nbd' "--export help"
like "$(daemon --export nbd,help)" 'allocation-depth' "--export nbd,help"
like "$(daemon --chardev help)" 'stdio' "--chardev help"
like "$(daemon --object secret,help)" 'keyid' "--object secret,help"
like "$(daemon --nbd-server help)" 'tls-creds' "--nbd-server help"
like "$(daemon --monitor help)" 'pretty' "--monitor help"

session() {     # PROGRAM: the same by standard input, in lines
    "$1" --blockdev null-co,node-name=n --chardev stdio,id=c --monitor c,pretty=on <<'EOF'
{"execute": "qmp_capabilities"}
{"execute": "blockdev-del", "arguments": {"node-name": "n"}}
{"execute": "blockdev-del", "arguments": {"node-name": "n"}}
{"execute": "quit"}
EOF
}
is "$(session "$BLKSTACK_DAEMON" | sed '1,/^}/d' | tr -d '\r')" \
    "$(session "$QEMU_STORAGE_DAEMON" | sed '1,/^}/d' | tr -d '\r')" "standard input, pretty: the same as the peer"

daemon --daemonize --pidfile pid --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n,size=1M \
    --export nbd,id=e,node-name=n
pid=$(cat pid)
trap 'kill -KILL "$pid" 2>/dev/null || true; tap_exit' EXIT
succeeds "--daemonize returns when clients can connect" qemu-nbd --list -k "$PWD/s"
fails "a pid file belongs to one process" 'another process' daemon --pidfile pid
kill -TERM "$pid"
for _ in {1..200}; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.02
done
is "$(find . -name pid -o -name s)" "" "SIGTERM ends it, and nothing is left"

"$BLKSTACK_DAEMON" --pidfile closed --blockdev null-co,node-name=n <&- >&- 2>&- &
pid=$!
for _ in {1..500}; do
    [ ! -s closed ] || break
    sleep 0.02
done
is "$(readlink "/proc/$pid/fd/0" "/proc/$pid/fd/1" "/proc/$pid/fd/2" | sort -u)" /dev/null "what was closed becomes no other file"
kill -TERM "$pid"
wait "$pid" || true
done_testing
