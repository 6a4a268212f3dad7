#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-nbd takes the sockets that systemd hands over: a client that connected before it was started is served.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires nbdinfo nbdsh python3
any_backend

truncate -s 1M disk.raw

# Listens as systemd would, on the unix sockets $nbd_dir/1, 2, ..., and becomes the command with them from descriptor 3 on.
cat >activate.py <<'END'
import os, socket, sys

count, directory, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
fds = []
for i in range(count):
    s = socket.socket(socket.AF_UNIX)
    s.bind("%s/%d" % (directory, i + 1))
    s.listen(5)
    fds.append(os.dup(s.detach()))
spare = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(spare):
    os.dup2(fd, 3 + i)
    os.set_inheritable(3 + i, True)
    os.close(fd)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ.setdefault("LISTEN_FDS", str(count))
os.execvp(command[0], command)
END
activate() {    # SOCKETS COMMAND...
    local count=$1

    shift
    rm -f "$nbd_dir"/*
    serve_on "$nbd_dir/1" python3 activate.py "$count" "$nbd_dir" "$@"
}

# libnbd plays systemd, too: it starts the server with a socket, and connects.
succeeds "a server that libnbd starts" nbdsh -c '
import os
h.connect_systemd_socket_activation([os.environ["BLKSTACK_NBD"], "-r", "-f", "raw", "disk.raw"])
assert h.get_size() == 1048576 and h.is_read_only()
h.shutdown()'

activate 1 "$BLKSTACK_NBD" -t -f raw disk.raw
is "$(nbdinfo --size "nbd+unix:///?socket=$nbd_dir/1")" 1048576 "one socket"
is "$(tr '\0' '\n' <"/proc/$nbd_pid/environ" | grep -c '^LISTEN_')" 2 "(it was told by the environment)"
stop_server
succeeds "a socket that is somebody else's is left" test -S "$nbd_dir/1"
activate 3 "$BLKSTACK_NBD" -t -e 0 -f raw disk.raw
for i in 1 2 3; do
    is "$(nbdinfo --size "nbd+unix:///?socket=$nbd_dir/$i")" 1048576 "socket $i of three"
done
stop_server

# Without -t it ends with its last client.
activate 1 "$BLKSTACK_NBD" -f raw disk.raw
is "$(nbdinfo --size "nbd+unix:///?socket=$nbd_dir/1")" 1048576 "one client"
status=0
wait "$nbd_pid" || status=$?
is "$status" 0 "and it ends"

# ---- contradictions ----
for option in "-k $nbd_dir/own" '-b localhost' '-p 10810' '-L'; do
    case $option in
    -k*) regex="Unix socket can't be set when using socket activation" ;;
    -b*) regex="The interface can't be set when using socket activation" ;;
    -p*) regex="TCP port number can't be set when using socket activation" ;;
    *) regex="List mode is incompatible with socket activation" ;;
    esac
    rm -f "$nbd_dir"/*
    # shellcheck disable=SC2086
    fails "refused: $option" "$regex" timeout 20 python3 activate.py 1 "$nbd_dir" "$BLKSTACK_NBD" $option -f raw disk.raw
done
succeeds "nothing of its own has listened" test ! -e "$nbd_dir/own"
# shellcheck disable=SC2016
fails "no socket is handed over" 'Socket activation failed: .*descriptor 3' \
    timeout 20 bash -c 'exec 3>&-; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$BLKSTACK_NBD" -f raw disk.raw'
# shellcheck disable=SC2016
fails "a file is handed over" 'Socket activation failed: .*descriptor 3 is no socket that listens' \
    timeout 20 bash -c 'exec 3<disk.raw; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$BLKSTACK_NBD" -f raw disk.raw'

# What is meant for another process is not taken.
for environment in LISTEN_PID=1 LISTEN_PID=x LISTEN_FDS=0 LISTEN_FDS=-1 LISTEN_FDS=99999999999; do
    rm -f "$nbd_dir"/*
    serve_on "$nbd_dir/own" env "$environment" python3 activate.py 1 "$nbd_dir" "$BLKSTACK_NBD" -k "$nbd_dir/own" -f raw disk.raw
    is "$(nbdinfo --size "nbd+unix:///?socket=$nbd_dir/own")" 1048576 "no socket for this process: $environment"
    wait "$nbd_pid"
done
done_testing
