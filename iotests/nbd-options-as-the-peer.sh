#!/bin/bash
# SPDX-License-Identifier: MIT
# Each option of blkstack-nbd does what it does with the peer's qemu-nbd: what clients see, what becomes of the image, what is
# refused and with which exit status.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io qemu-nbd nbdinfo nbdsh
any_backend

s=$nbd_dir/s

# Starts PROGRAM in the directory NAME, ours or peer, with OPTIONS.
serve_in() {    # NAME OPTIONS...
    local program=$BLKSTACK_NBD

    [ "$1" = ours ] || program=qemu-nbd
    cd "$1"
    shift
    serve_on "$s" "$program" -k "$s" "$@"
    cd ..
}

# What a client sees: all of nbdinfo but sizes of blocks that are only advice, and the map.
seen() {        # EXPORT
    nbdinfo --json "nbd+unix:///$1?socket=$s" | sed -E '/"(uri|block_size_(minimum|preferred))"/d'
    nbdinfo --map "nbd+unix:///$1?socket=$s"
}

# Clients see the same of both servers.
same_seen() {   # EXPORT OPTIONS...
    local export=$1 name

    shift
    for name in ours peer; do
        serve_in "$name" --persistent "$@"
        seen "$export" >"$name.seen" 2>&1 || echo "status $?" >>"$name.seen"
        stop_server
    done
    is "$(cat ours.seen)" "$(cat peer.seen)" "seen alike: $*"
}

# The same nbdsh commands on both; the images are the same afterwards: content, and which clusters are there.
same_done() {   # COMMANDS OPTIONS... FILE
    local script=$1 name

    shift
    for name in ours peer; do
        serve_in "$name" --persistent "$@"
        nbdsh -u "nbd+unix:///?socket=$s" -c "$script" >"$name.done" 2>&1 || echo "status $?" >>"$name.done"
        stop_server
    done
    is "$(cat ours.done)" "$(cat peer.done)" "answered alike: $*"
    twin_made "${*: -1}" "$(format_of "${*: -1}")"
}

# Both refuse it with status 1; ours with a message that matches.
both_refuse() { # REGEX OPTIONS...
    local regex=$1 status=0

    shift
    fails "refused: $*" "^blkstack-nbd: .*$regex" timeout 10 "$BLKSTACK_NBD" "$@"
    timeout 10 qemu-nbd "$@" >cmd.out 2>&1 || status=$?
    is "$status" 1 "refused by the peer: $*"
}

random_file disk.raw 2097152
qimg create -q -f qcow2 base.qcow2 4M
peer_io base.qcow2 qcow2 "write -P 1 0 1M" "write -z 1M 64k"
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
peer_io disk.qcow2 qcow2 "write -P 2 64k 64k" "write -P 3 2M 512k"
qimg bitmap --add disk.qcow2 bits
peer_io disk.qcow2 qcow2 "write -P 4 3M 100k"
twin_copy disk.raw base.qcow2 disk.qcow2

# ---- what is shown ----
same_seen '' -f raw disk.raw
same_seen '' -r -f raw disk.raw
same_seen '' -f qcow2 disk.qcow2
same_seen name -x name -f qcow2 disk.qcow2
same_seen other -x name -f qcow2 disk.qcow2
same_seen '' -D 'what it is' -f raw disk.raw
same_seen '' -A -f qcow2 disk.qcow2
same_seen '' -r -B bits -f qcow2 disk.qcow2
same_seen '' -o 1048576 -f raw disk.raw
same_seen '' --image-opts driver=raw,offset=512k,size=512k,file.driver=file,file.filename=disk.raw
same_seen '' --image-opts driver=qcow2,file.driver=file,file.filename=disk.qcow2
same_seen '' -e 5 -f raw disk.raw
same_seen '' -e 0 -f raw disk.raw
for cache in writeback writethrough unsafe; do same_seen '' "--cache=$cache" -f raw disk.raw; done
for aio in threads io_uring; do
    [ "$aio" = threads ] || "$BLKSTACK_BUILD/iotests/uring-works" || continue
    same_seen '' "--aio=$aio" -f raw disk.raw
done
same_seen '' -s -f qcow2 disk.qcow2
same_seen '' disk.qcow2

# ---- what is done ----
zeroes='h.pwrite(bytearray(131072), 0); h.pwrite(bytearray(65536), 2*1024*1024); h.flush()'
trims='h.trim(131072, 2*1024*1024); h.zero(65536, 3*1024*1024, nbd.CMD_FLAG_NO_HOLE); h.zero(65536, 0); h.flush()'
for options in '' --detect-zeroes=off --detect-zeroes=on '--discard=unmap --detect-zeroes=unmap' '--detect-zeroes=on -o 65536'; do
    twin_copy disk.qcow2
    # shellcheck disable=SC2086
    same_done "$zeroes" $options -f qcow2 disk.qcow2
done
for discard in ignore off unmap on; do
    twin_copy disk.qcow2
    same_done "$trims" "--discard=$discard" -f qcow2 disk.qcow2
done
twin_copy disk.qcow2
same_done 'h.pwrite(b"x" * 70000, 4096 + 1)' --cache=writethrough -f qcow2 disk.qcow2
twin_copy disk.raw
same_done 'h.pwrite(b"x" * 70000, 4096)' -o 1048576 -f raw disk.raw
same "ours/disk.raw" "peer/disk.raw" "an offset moves writes alike"
twin_copy disk.qcow2
same_done 'h.pwrite(b"x" * 70000, 4096)' -s -f qcow2 disk.qcow2
same_done 'h.pwrite(b"x" * 70000, 4096)' -r -f qcow2 disk.qcow2

# ---- its end ----
ends() {        # NAME OPTIONS...: whether it ends when a client has gone
    serve_in "$@" -f raw disk.raw
    nbdinfo --size "nbd+unix:///?socket=$s" >/dev/null
    for _ in {1..100}; do
        kill -0 "$nbd_pid" 2>/dev/null || break
        sleep 0.02
    done
    if kill -0 "$nbd_pid" 2>/dev/null; then
        echo "goes on"
        stop_server
    else
        local status=0

        wait "$nbd_pid" || status=$?
        echo "ends with $status, socket: $(ls "$nbd_dir")"
    fi
}
is "$(ends ours)" "$(ends peer)" "it ends with its last client"
like "$(ends ours)" '^ends with 0, socket: $' "in order"
is "$(ends ours -t)" "$(ends peer -t)" "with -t it goes on"
for signal in TERM INT HUP; do
    for name in ours peer; do
        status=0
        serve_in "$name" -t -f raw disk.raw
        nbdinfo --size "nbd+unix:///?socket=$s" >/dev/null      # the peer forgets a signal that comes while it starts
        kill "-$signal" "$nbd_pid"
        wait "$nbd_pid" || status=$?
        echo "$status, $(ls "$nbd_dir")" >"$name.end"
    done
    is "$(cat ours.end)" "$(cat peer.end)" "SIG$signal ends it in order"
done

# ---- what is refused ----
both_refuse 'Invalid number of arguments'
both_refuse 'Invalid number of arguments' a b
both_refuse "unrecognized option '--nonsense'" --nonsense
both_refuse "Invalid shared device number 'x'" -e x disk.raw
both_refuse "Invalid shared device number '-1'" -e -1 disk.raw
both_refuse "Invalid offset 'x'" -o x disk.raw
both_refuse 'offset' -o 9999999 -f raw disk.raw
both_refuse 'cannot find the address' -p nonsense -f raw disk.raw
both_refuse 'socket path must be absolute' -k s -f raw disk.raw
both_refuse 'cannot listen on the socket' -k /nonexistent/s -f raw disk.raw
both_refuse "Invalid cache mode 'x'" --cache=x disk.raw
both_refuse "Invalid aio mode 'x'" --aio=x disk.raw
both_refuse "Invalid discard mode 'x'" --discard=x disk.raw
both_refuse "Invalid detect-zeroes mode 'x'" --detect-zeroes=x disk.raw
both_refuse 'not allowed without' --detect-zeroes=unmap disk.raw
both_refuse 'can only be specified once' -n --cache=none disk.raw
for option in cache=none aio=threads discard=on; do
    both_refuse 'can only be given once' "--$option" "--$option" disk.raw
done
both_refuse 'mutually exclusive' --image-opts -f raw disk.raw
both_refuse "Unknown driver 'x'" -f x disk.raw
both_refuse 'No such file' -f raw missing.raw
both_refuse "no dirty bitmap 'none'" -B none -f qcow2 disk.qcow2
both_refuse 'Failed to load snapshot' -l none -f qcow2 disk.qcow2
both_refuse 'Failed in parsing snapshot param' -l snapshot.nonsense=1 -f qcow2 disk.qcow2
both_refuse 'name of an NBD export' -x "$(printf 'x%.0s' {1..5000})" -f raw disk.raw
both_refuse 'description of an NBD export' -D "$(printf 'x%.0s' {1..5000})" -f raw disk.raw
both_refuse 'not permitted without --tls-creds' --tls-authz=x disk.raw
both_refuse 'not permitted without --tls-creds' --tls-hostname=x disk.raw
both_refuse "no object with the id 'x'" --tls-creds=x -f raw disk.raw
both_refuse "no type 'x'" --object x,id=x -f raw disk.raw
fails "a pid file that cannot be made" "Could not create '/nonexistent/p'" "$BLKSTACK_NBD" --pid-file=/nonexistent/p -k "$s" \
    -f raw disk.raw
is "$(ls "$nbd_dir")" "" "nothing of this listens"
# What we do not have is refused, also where there are kernel devices.
for option in '-c /dev/nbd0' '-d /dev/nbd0' '--selinux-label=x'; do
    # shellcheck disable=SC2086
    fails "not supported: $option" 'not supported' "$BLKSTACK_NBD" $option disk.raw
done
succeeds "help" "$BLKSTACK_NBD" --help
is "$("$BLKSTACK_NBD" -V | head -n 1 | sed 's/[0-9.]*$//')" "blkstack-nbd version " "version"

# Every long option of the peer's help is known.
unknown=
for option in $(qemu-nbd --help | grep -o -- '--[a-z-]*' | sort -u); do
    if "$BLKSTACK_NBD" "$option" 2>&1 | grep -q 'unrecognized option'; then unknown+=" $option"; fi
done
is "$unknown" "" "all options of the peer are known"

# Nothing listens before the image is open.
serve_on "$s" "$BLKSTACK_NBD" -t -k "$s" -f qcow2 disk.qcow2
fails "an image that is in use" 'lock' "$BLKSTACK_NBD" -k "$nbd_dir/other" -f qcow2 disk.qcow2
succeeds "is not served" test ! -e "$nbd_dir/other"
stop_server
# A running server keeps its socket; a stale one is replaced.
serve_on "$s" "$BLKSTACK_NBD" -t -r -k "$s" -f raw disk.raw
fails "a socket that is served" 'Address already in use' "$BLKSTACK_NBD" -r -k "$s" -f raw disk.raw
is "$(nbdinfo --size "nbd+unix:///?socket=$s")" 2097152 "and it is still served"
end_server KILL
succeeds "a killed server leaves its socket" test -S "$s"
rm -f "$nbd_dir/p"
"$BLKSTACK_NBD" --fork --pid-file="$nbd_dir/p" -t -r -k "$s" -f raw disk.raw
is "$(nbdinfo --size "nbd+unix:///?socket=$s")" 2097152 "which the next one replaces"
nbd_pids+=("$(cat "$nbd_dir/p")")
kill "$(cat "$nbd_dir/p")"
done_testing
