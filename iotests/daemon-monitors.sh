#!/bin/bash
# SPDX-License-Identifier: MIT
# Where clients of monitors come from: several monitors at once, on unix and TCP sockets, on sockets that the daemon
# inherits, and one to which the daemon connects. All hear of events; a monitor that is waited for holds up what stands
# behind it on the command line.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon
any_backend

python_test <<'EOF'
import json
import os
import signal
import socket
import subprocess
import time

from control import OURS, PATIENCE, PEER, Control, Daemon, done_testing, is_equal, ok


class Connected(Control):
    """A client whose socket is connected already."""

    def __init__(self, connected):
        self.connected = connected
        super().__init__("")

    def connect_to(self, address):
        self.socket.close()
        self.socket = self.connected
        self.socket.settimeout(PATIENCE)


def listening():
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    server.settimeout(PATIENCE)
    return server, server.getsockname()[1]


def free_port():
    server, port = listening()
    server.close()
    return port


def wait_until(happens):
    end = time.monotonic() + PATIENCE
    while not happens() and time.monotonic() < end:
        time.sleep(0.01)
    return happens()


# ---- several at once ----
server, port = listening()
own_port = free_port()
inherited, inherited_port = listening()
ours, theirs = socket.socketpair()
for descriptor in (inherited, theirs):
    descriptor.set_inheritable(True)
chardevs = {"tcp": f"host=127.0.0.1,port={own_port},server=on,wait=off", "out": f"host=127.0.0.1,port={port}",
            "in": f"fd={inherited.fileno()},server=on,wait=off", "pair": f"fd={theirs.fileno()}"}
options = [word for name, where in chardevs.items()
           for word in ("--chardev", f"socket,id={name},{where}", "--monitor", name)]


class Inheriting(Daemon):
    """One that gets our descriptors."""
    popen = subprocess.Popen

    def __init__(self, *arguments, **keywords):
        subprocess.Popen = lambda *a, **k: self.popen(*a, close_fds=False, **k)
        try:
            super().__init__(*arguments, **keywords)
        finally:
            subprocess.Popen = self.popen


with Inheriting(*options) as daemon:
    pair = f"fd:{theirs.fileno()}"
    inherited.close()
    theirs.close()
    clients = {"unix": daemon, "unix again": daemon.connect(), "tcp": Control(("127.0.0.1", own_port)),
               "connected to": Connected(server.accept()[0]), "inherited": Control(("127.0.0.1", inherited_port)),
               "inherited and connected": Connected(ours)}
    daemon.command("blockdev-add", driver="null-co", node_name="n", size=1 << 20)
    daemon.command("block-set-write-threshold", node_name="n", write_threshold=4096)
    path = os.path.join(daemon.directory, "n")
    clients["tcp"].command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    clients["connected to"].command("block-export-add", type="nbd", id="e", node_name="n")
    clients["inherited"].command("block-export-del", id="e")
    for name, client in clients.items():
        is_equal(client.event("BLOCK_EXPORT_DELETED"), {"id": "e"}, f"{name}: hears of what another one did")
        is_equal([e["filename"] for e in client.command("query-chardev") if e["label"] == "pair"], [pair],
                 f"{name}: asks")
    clients["tcp"].close()
    clients["connected to"].socket.shutdown(socket.SHUT_RDWR)
    clients["tcp"] = Control(("127.0.0.1", own_port))
    is_equal(clients["tcp"].command("query-block-exports"), [], "a client comes again")
    clients["unix again"].command("quit")
    for name in ("unix", "tcp", "inherited", "inherited and connected"):
        try:
            while True:
                clients[name].receive()
        except Exception as error:      # pylint: disable=broad-except
            is_equal(type(error).__name__, "Gone", f"{name}: sees the end that another one asked for")

# ---- one that is waited for ----
for program in (OURS, PEER):
    who = "peer" if program == PEER else "ours"
    for stop in ("client", "signal"):
        port = free_port()
        process = subprocess.Popen([program, "--chardev", f"socket,id=c,host=127.0.0.1,port={port},server=on",
                                    "--monitor", "c", "--pidfile", f"pid-{who}"], stderr=subprocess.PIPE)
        said = process.stderr.readline().decode()
        ok("waiting for" in said and f"connection on: disconnected:tcp:127.0.0.1:{port},server=on" in said,
           f"{who}: says that it waits", said)
        ok(not os.path.exists(f"pid-{who}"), f"{who}: what is behind it has to wait")
        if stop == "client":
            client = Control(("127.0.0.1", port))
            ok(wait_until(lambda: os.path.exists(f"pid-{who}")), f"{who}: when a client has come it goes on")
            client.command("quit")
            is_equal(process.wait(PATIENCE), 0, f"{who}: and ends as usual")
        elif program == OURS:           # the peer waits on
            process.send_signal(signal.SIGTERM)
            is_equal(process.wait(PATIENCE), 0, "a signal ends the waiting")
        else:
            process.kill()
            process.wait()
        process.stderr.close()

# ---- what is not right ----
stream = subprocess.PIPE
for arguments in ("socket,id=c,path=no", "socket,id=c,host=127.0.0.1,port=1", "socket,id=c,path=no,wait=on",
                  "socket,id=c,path=no,server=off,wait=off", "socket,id=c,path=s,host=x,port=1,server=on",
                  "socket,id=c,path=/nonexistent/x,server=on", "socket,id=c,fd=0", "socket,id=c,fd=0,server=on",
                  "socket,id=c,fd=x", "socket,id=c,fd=5,host=x", "socket,id=c,host=x", "socket,id=c,port=7", "socket,id=c"):
    told = [subprocess.run([program, "--chardev", arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=PATIENCE, check=False) for program in (OURS, PEER)]
    is_equal(*[(done.returncode, done.stdout, len(done.stderr.splitlines())) for done in told], f"refused: {arguments}")
done_testing()
EOF
