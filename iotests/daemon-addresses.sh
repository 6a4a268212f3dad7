#!/bin/bash
# SPDX-License-Identifier: MIT
# Where clients come from: ranges and numbers of the NBD server's address, vsock; monitors behind TLS and on named pipes, logs of what
# they say. All but vsock and TLS is compared with the peer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/tls-lib.inc"
any_backend
requires qemu-img qemu-io qemu-storage-daemon certtool

tls_authority good
tls_authority bad
tls_certificate good server server localhost
tls_certificate good laptop client laptop
tls_certificate good desktop client desktop
tls_certificate bad stranger client stranger

python_test <<'EOF'
import json
import os
import socket
import ssl
import subprocess

from control import OURS, PATIENCE, PEER, Control, Daemon, contains, done_testing, is_equal, ok

QEMU_IO = os.environ["QEMU_IO"]
CAPABILITIES = b'{"execute": "qmp_capabilities"}\n'


def taken_port():
    """With two free ones behind it."""
    for _ in range(50):
        server = socket.create_server(("127.0.0.1", 0))
        port = server.getsockname()[1]
        try:
            for behind in 1, 2:
                socket.create_server(("127.0.0.1", port + behind)).close()
            return server, port
        except (OSError, OverflowError):
            server.close()
    raise RuntimeError("no ports")


def reads(uri):
    done = subprocess.run([QEMU_IO, "-r", "-f", "raw", "-c", "read 0 64k", uri], capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode == 0 and "failed" not in done.stdout + done.stderr


def refused(*arguments, program=OURS):
    done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.stderr if done.returncode == 1 else f"status {done.returncode}"


# ---- the address of the NBD server ----
NODE = ["--blockdev", "null-co,node-name=n,size=1048576"]
for program in (PEER, OURS):
    whose = "peer" if program == PEER else "ours"
    server, port = taken_port()
    where = f"addr.type=inet,addr.host=127.0.0.1,addr.port={port},addr.to={port + 2},addr.numeric=on,addr.ipv4=on"
    with Daemon(*NODE, "--nbd-server", where, "--export", "nbd,id=e,node-name=n,name=e", program=program):
        ok(reads(f"nbd://127.0.0.1:{port + 1}/e"), f"{whose}: addr.to: the first port that is free")
    with Daemon(*NODE, program=program) as daemon:
        address = {"type": "inet", "data": {"host": "127.0.0.1", "port": str(port), "to": port + 2, "numeric": True}}
        daemon.command("nbd-server-start", addr=address)
        daemon.command("block-export-add", type="nbd", id="e", node_name="n", name="e")
        ok(reads(f"nbd://127.0.0.1:{port + 1}/e"), f"{whose}: the same of nbd-server-start")
        daemon.command("nbd-server-stop")
        address["data"]["host"] = "localhost"
        ok(daemon.refused("nbd-server-start", addr=address) != "", f"{whose}: numeric: a name is none")
        address["data"]["host"] = "127.0.0.1"
        address["data"]["port"] = "nbd"
        ok(daemon.refused("nbd-server-start", addr=address) != "", f"{whose}: nor the name of a service")
    ok(refused("--nbd-server", f"addr.type=inet,addr.host=127.0.0.1,addr.port={port},addr.to={port}", program=program).count("in use") == 1,
       f"{whose}: a range that is taken")
    server.close()
contains(refused("--nbd-server", "addr.type=inet,addr.host=localhost,addr.port=0,addr.numeric=on"), "numeric=on needs", "in a sentence")
contains(refused("--nbd-server", "addr.type=inet,addr.host=127.0.0.1,addr.port=9,addr.to=7"), "range", "a range of nothing")


# ---- named pipes ----
def on_pipes(program, one):
    """What a monitor says there; @one: through a single pipe it hears itself, so only that it is made is looked at."""
    for name in "p.in", "p.out", "q":
        if os.path.exists(name):
            os.unlink(name)
        os.mkfifo(name)
    with Daemon("--chardev", f"pipe,id=p,path={'q' if one else 'p'}", *([] if one else ["--monitor", "p"]), program=program) as daemon:
        told = [e["filename"] for e in daemon.command("query-chardev") if e["label"] == "p"]
        for _ in range(0 if one else 2):            # who comes later goes on
            with open("p.in", "wb", buffering=0) as commands, open("p.out", "rb", buffering=0) as replies:
                lines = iter(replies.readline, b"")
                if len(told) == 1:
                    told.append("QMP" in json.loads(next(lines)))
                    commands.write(CAPABILITIES)
                    told.append(json.loads(next(lines)))
                commands.write(b'{"execute": "query-version", "id": 7}\n')
                told.append(sorted(json.loads(next(lines))))
    return told


for single in False, True:
    is_equal(on_pipes(OURS, single), on_pipes(PEER, single), f"{'a pipe' if single else 'two pipes'}: as with the peer")
contains(refused("--chardev", "pipe,id=p"), "chardev: pipe: no device path given", "a pipe without a name")
contains(refused("--chardev", "pipe,id=p,path=nowhere"), "No such file", "pipes that are not there")


# ---- logs ----
def logged(program, *options):
    with Daemon("--chardev", "socket,id=l,path=l.sock,server=on,wait=off,logfile=said" + "".join("," + o for o in options),
                "--monitor", "l", program=program):
        client = Control(os.path.abspath("l.sock"))
        client.command("query-named-block-nodes")
        client.close()
    with open("said", encoding="ascii") as said:
        lines = [json.loads(line) for line in said.read().splitlines()]
    return [sorted(line) for line in lines]


for options in (), ("logappend=on",), ("logappend=off",):
    results = []
    for program in (OURS, PEER):
        with open("said", "w", encoding="ascii") as said:
            said.write('{"before": 0}\n')
        results.append(logged(program, *options))
    is_equal(results[0], results[1], f"a log, {options}: as with the peer")
    is_equal((results[0].count(["return"]), ["before"] in results[0]), (2, options == ("logappend=on",)), "what was said, and what was there")
contains(refused("--chardev", "null,id=l,logfile=/nowhere/x"), "Unable to open logfile /nowhere/x", "a log that cannot be made")


# ---- TLS ----
def tls(name=None):
    context = ssl.create_default_context(cafile="server/ca-cert.pem")
    if name:
        context.load_cert_chain(f"{name}/client-cert.pem", f"{name}/client-key.pem")
    return context


def greeting(port, name, plain=False):
    """Does the client get one?"""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as raw:
            if plain:
                raw.sendall(CAPABILITIES)
                return b"QMP" in raw.recv(1000)
            with tls(name).wrap_socket(raw, server_hostname="localhost") as client:
                lines = client.makefile("rb")
                found = b"QMP" in lines.readline()
                client.sendall(CAPABILITIES + b'{"execute": "query-version", "id": 7}\n')
                return found and lines.readline() != b"" and json.loads(lines.readline())["id"] == 7
    except OSError:
        return False


OBJECTS = ["--object", "tls-creds-x509,id=tls,endpoint=server,verify-peer=on,dir=" + os.path.abspath("server"),
           "--object", "authz-simple,id=who,identity=O=Example,,CN=laptop", "--object", "authz-simple,id=who2,identity=CN=laptop,,O=Example"]
server, port = taken_port()
where = f"socket,host=127.0.0.1,server=on,wait=off,tls-creds=tls,port={port + 1},id=t"
silent = []
with Daemon(*OBJECTS, "--chardev", where, "--monitor", "t") as daemon:
    got = [greeting(port + 1, name) for name in ("laptop", "desktop", "stranger", None)]
    is_equal(got, [True, True, False, False], "TLS: those whose certificate the authority signed")
    ok(not greeting(port + 1, None, True), "nobody gets in without TLS")
    silent += [socket.create_connection(("127.0.0.1", port + 1), PATIENCE) for _ in range(10)]
    ok(greeting(port + 1, "laptop"), "others are served while some do not speak")
    is_equal(daemon.command("query-named-block-nodes"), [], "also on another chardev")
# They are connected still: the daemon has ended all the same.
with Daemon(*OBJECTS, "--chardev", where + ",tls-authz=who", "--chardev", where.replace("id=t", "id=u").replace(str(port + 1), str(port + 2))
            + ",tls-authz=who2", "--monitor", "t", "--monitor", "u"):
    got = [[greeting(at, name) for name in ("laptop", "desktop")] for at in (port + 1, port + 2)]
    is_equal(sorted(got), [[False, False], [True, False]], "tls-authz: who is let in")
for client in silent:
    client.close()
server.close()
contains(refused(*OBJECTS, "--chardev", "socket,id=t,path=s,server=on,wait=off,tls-creds=none"), "none", "credentials that are not there")
contains(refused(*OBJECTS, "--chardev", "socket,id=t,path=s,server=on,wait=off,tls-authz=who"), "'tls-authz' option requires", "a list of names only")
contains(refused(*OBJECTS, "--chardev", "socket,id=t,path=s,tls-creds=tls"), "needs server=on", "a client speaks no TLS")
ok(not os.path.exists("s"), "and nothing listened")


# ---- vsock ----
def loopback():
    try:
        with socket.socket(socket.AF_VSOCK) as server, socket.socket(socket.AF_VSOCK) as client:
            server.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            server.listen()
            client.settimeout(1)
            client.connect((1, server.getsockname()[1]))
            return True
    except OSError:
        return False


def vsock_port():
    """A free one; None: the kernel has no vsock."""
    try:
        with socket.socket(socket.AF_VSOCK) as server:
            server.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            return server.getsockname()[1]
    except OSError:
        return None


ANY = socket.VMADDR_CID_ANY
for cid, number in ("x", "1"), ("1", "4294967296"), ("-1", "1"):
    contains(refused("--nbd-server", f"addr.type=vsock,addr.cid={cid},addr.port={number}"), "two numbers", f"no address: {cid}:{number}")
contains(refused("--chardev", "socket,id=v,cid=x,port=1,server=on,wait=off"), "two numbers", "no address of a monitor")
contains(refused("--chardev", "socket,id=v,cid=1,path=s,port=1,server=on"), "None or one of", "two kinds of addresses")
number = vsock_port()
if number is None:
    ok(True, "vsock # SKIP the kernel has none")
else:
    with Daemon(*NODE, "--nbd-server", f"addr.type=vsock,addr.cid={ANY},addr.port={number}", "--export", "nbd,id=e,node-name=n,name=e",
                "--chardev", f"socket,id=v,cid={ANY},port={number + 1},server=on,wait=off", "--monitor", "v") as daemon:
        names = [e["filename"] for e in daemon.command("query-chardev")]
        ok(f"disconnected:vsock:{ANY}:{number + 1},server=on" in names, "a monitor and the NBD server listen", names)
        contains(refused("--nbd-server", f"addr.type=vsock,addr.cid={ANY},addr.port={number}"), "cannot listen on the vsock", "taken")
        if not loopback():
            ok(True, "clients of vsock # SKIP the kernel has no loopback for them")
        else:
            with socket.socket(socket.AF_VSOCK) as client:
                client.connect((1, number))
                ok(client.recv(8) == b"NBDMAGIC", "an NBD client")
            with socket.socket(socket.AF_VSOCK) as client:
                client.connect((1, number + 1))
                ok(b"QMP" in client.makefile("rb").readline(), "a client of the monitor")
done_testing()
EOF
