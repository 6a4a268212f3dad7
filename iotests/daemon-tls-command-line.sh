#!/bin/bash
# SPDX-License-Identifier: MIT
# The command line of the daemon as it is used in earnest: TLS by certificates and by pre-shared keys on unix sockets and TCP,
# who is let in, how many, exports with bitmaps; what becomes of the pid file when something does not start.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/tls-lib.inc"
requires qemu-img qemu-nbd qemu-storage-daemon certtool psktool
any_backend

tls_authority good
tls_certificate good server server localhost
tls_certificate good laptop client laptop
tls_certificate good desktop client desktop
tls_psk psk alice
mkdir other
sed 's/:.*/:00112233445566778899aabbccddeeff/' psk/keys.psk >other/keys.psk
qimg create -q -f qcow2 disk.qcow2 1M
for bitmap in b0 b1; do
    qimg bitmap --add disk.qcow2 "$bitmap"
    qimg bitmap --disable disk.qcow2 "$bitmap"
done

python_test <<'EOF_PYTHON'
import os
import re
import socket
import subprocess
import time

from control import OURS, PATIENCE, PEER, Daemon, done_testing, is_equal, ok

HERE = os.getcwd()
DISK = ("--blockdev", "qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2")


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


SERVER = {"x509": f"tls-creds-x509,id=tls,endpoint=server,verify-peer=on,dir={HERE}/server",
          "psk": f"tls-creds-psk,id=tls,endpoint=server,dir={HERE}/psk"}
X509 = "tls-creds-x509,id=c,endpoint=client,dir={}/{}"
PSK = "tls-creds-psk,id=c,endpoint=client,username=alice,dir={}/{}"
CLIENTS = {"x509": {"laptop": X509, "desktop": X509}, "psk": {"psk": PSK, "other": PSK}}
LET_IN = {"laptop", "desktop", "psk"}


def listed(where, creds, directory):
    """Whether the peer's client is shown the export."""
    options = ["--object", creds.format(HERE, directory), "--tls-creds", "c"] if creds else []
    if creds == X509:
        options += ["--tls-hostname", "localhost"]
    done = run("qemu-nbd", "--list", *where, *options)
    return done.returncode == 0 and "export: 'disk'" in done.stdout


def tls(program, kind, family, authz):
    port = free_port()
    address = f"addr.type=unix,addr.path={HERE}/n" if family == "unix" else f"addr.type=inet,addr.host=127.0.0.1,addr.port={port}"
    where = ("-k", f"{HERE}/n") if family == "unix" else ("-b", "127.0.0.1", "-p", port)
    objects = ["--object", SERVER[kind], "--object", "authz-simple,id=who,identity=O=Example,,CN=laptop"]
    with Daemon(*objects, "--nbd-server", f"{address},tls-creds=tls" + (",tls-authz=who" if authz else ""), *DISK,
                "--export", "nbd,id=e,node-name=disk,writable=on", program=program):
        result = {name: listed(where, creds, name) for name, creds in CLIENTS[kind].items()}
        result["in plain text"] = listed(where, None, None)
    if os.path.exists(f"{HERE}/n"):
        os.unlink(f"{HERE}/n")
    return result


for kind in ("x509", "psk"):
    for family in ("unix", "inet"):
        for authz in (False, True) if kind == "x509" else (False,):
            got = tls(OURS, kind, family, authz)
            wanted = {name: name in LET_IN and (not authz or name == "laptop") for name in got}
            is_equal(got, wanted, f"TLS by {kind}, {family}{', tls-authz' if authz else ''}: who gets in")
            if family == "unix":
                is_equal(got, tls(PEER, kind, family, authz), f"TLS by {kind}{', tls-authz' if authz else ''}: as with the peer")

# ---- how many may come in ----
with Daemon("--nbd-server", f"addr.type=unix,addr.path={HERE}/n,max-connections=1", *DISK, "--export", "nbd,id=e,node-name=disk"):
    clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for client in clients:
        client.settimeout(PATIENCE)
        client.connect("n")
    is_equal(clients[0].recv(8), b"NBDMAGIC", "max-connections=1: the first one is greeted")
    clients[1].setblocking(False)
    try:
        early = clients[1].recv(8)
    except BlockingIOError:
        early = b""
    clients[0].close()
    clients[1].settimeout(PATIENCE)
    is_equal((early, clients[1].recv(8)), (b"", b"NBDMAGIC"), "the second one when the first has gone")
    clients[1].close()


# ---- bitmaps ----
def shown(program, *exports):
    path = f"{HERE}/b"
    words = [word for export in exports for word in ("--export", export)]
    with Daemon("--nbd-server", f"addr.type=unix,addr.path={path}", *DISK, *words, program=program):
        text = run("qemu-nbd", "--list", "-k", path).stdout
    if os.path.exists(path):
        os.unlink(path)
    return re.findall(r"export: '.*'|qemu:\S+", text)


EXPORTS = (("nbd,id=e,node-name=disk,bitmaps.0=b0",), ("nbd,id=e,node-name=disk,bitmaps.0=b0,bitmaps.1=b1,allocation-depth=on",),
           ("nbd,id=e,node-name=disk,bitmaps.0.node=disk,bitmaps.0.name=b1",),
           ('{"type": "nbd", "id": "e", "node-name": "disk", "bitmaps": ["b1", {"node": "disk", "name": "b0"}]}',),
           ("nbd,id=e,node-name=disk,name=a,bitmaps.0=b0", "nbd,id=f,node-name=disk,name=b"))
for exports in EXPORTS:
    ours = shown(OURS, *exports)
    is_equal(ours, shown(PEER, *exports), f"clients are shown the same: {' '.join(exports)}")
    ok("qemu:dirty-bitmap:b" in str(ours), "a bitmap among it")


# ---- the background, and the pid file ----
def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


FAILURES = {"a node": ("--blockdev", "file,node-name=n,filename=missing"), "an export": ("--export", "nbd,id=e,node-name=n"),
            "a socket": ("--nbd-server", "addr.type=unix,addr.path=/nonexistent/s"), "an object": ("--object", "secret,id=s"),
            "a chardev": ("--chardev", "socket,id=c,path=/nonexistent/s,server=on,wait=off")}
for what, options in FAILURES.items():
    told = [run(program, "--daemonize", "--pidfile", "pid", *options) for program in (OURS, PEER)]
    is_equal(*[(done.returncode, done.stdout, bool(done.stderr)) for done in told], f"the shell hears that {what} failed")
    ok(options[1] in told[0].stderr and not os.path.exists("pid"), f"with its words, and there is no pid file: {what}", told[0].stderr)
for path in ("/nonexistent/pid", HERE):
    told = run(OURS, "--daemonize", "--pidfile", path)
    ok(told.returncode == 1 and "cannot create PID file" in told.stderr, f"a pid file that cannot be written: {path}", told.stderr)


def background(*options):
    done = run(OURS, "--daemonize", "--pidfile", "pid", *options)
    with open("pid", encoding="ascii") as file:
        return done.returncode, int(file.read())


def end(pid, number):
    os.kill(pid, number)
    until = time.monotonic() + PATIENCE
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


status, first = background(*DISK)
is_equal((status, alive(first)), (0, True), "in the background, with its pid in the file")
told = run(OURS, "--daemonize", "--pidfile", "pid")
with open("pid", encoding="ascii") as file:
    is_equal((told.returncode, "another process" in told.stderr, int(file.read())), (1, True, first),
             "a second one is told so, and the file stays")
is_equal((end(first, 9), os.path.exists("pid")), (True, True), "killed, it leaves the file")
status, second = background(*DISK)
is_equal((status, alive(second), second != first), (0, True, True), "which the next one takes over")
is_equal((end(second, 15), os.path.exists("pid")), (True, False), "and removes at its end")
done_testing()
EOF_PYTHON
