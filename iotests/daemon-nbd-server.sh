#!/bin/bash
# SPDX-License-Identifier: MIT
# The NBD server of the daemon, started by a command: TLS and who is let in, over TCP; how many may be connected;
# exports with bitmaps of their own chain and of other nodes. What is refused and what clients are shown is as with the
# peer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/tls-lib.inc"
requires qemu-img qemu-io qemu-nbd qemu-storage-daemon certtool
any_backend

tls_authority good
tls_certificate good server server localhost
tls_certificate good laptop client laptop
tls_certificate good desktop client desktop
qimg create -q -f qcow2 base.qcow2 1M
qimg bitmap --add base.qcow2 inherited
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 8M
for bitmap in recording still; do qimg bitmap --add top.qcow2 "$bitmap"; done
qimg bitmap --disable top.qcow2 still
qimg create -q -f qcow2 other.qcow2 8M
qimg bitmap --add other.qcow2 far
qio -f qcow2 -c 'write 1M 64k' other.qcow2 >qio.out
qimg bitmap --disable other.qcow2 far

python_test <<'EOF'
import os
import re
import shutil
import socket
import subprocess

from control import OURS, PEER, Daemon, contains, done_testing, is_equal, ok

HERE = os.getcwd()


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def add(daemon, name, **options):
    daemon.command("blockdev-add", driver="qcow2", node_name=name,
                   file={"driver": "file", "filename": f"{name}.qcow2"}, **options)


def start(program=OURS):
    daemon = Daemon("--object", f"tls-creds-x509,id=tls,endpoint=server,verify-peer=on,dir={HERE}/server",
                    "--object", "authz-simple,id=who,identity=O=Example,,CN=laptop", program=program)
    add(daemon, "base", read_only=True)
    add(daemon, "top", backing="base")
    add(daemon, "other")
    return daemon


# ---- what is refused, and what clients are shown ----
CASES = [
    {"bitmaps": ["recording"]}, {"bitmaps": ["still"]}, {"bitmaps": ["inherited"]},
    {"bitmaps": [{"node": "base", "name": "inherited"}]}, {"bitmaps": [{"node": "other", "name": "far"}]},
    {"bitmaps": ["still", {"node": "other", "name": "far"}], "writable": True, "description": "two"},
    {"bitmaps": ["recording"], "writable": True}, {"bitmaps": [{"node": "no", "name": "far"}]},
    {"bitmaps": [{"node": "base", "name": "no"}]}, {"bitmaps": ["no"]}, {"bitmaps": [{"node": "base"}]},
    {"bitmaps": [3]},
    {"bitmaps": 3}, {"bitmaps": [{"node": "base", "name": "inherited", "x": 1}]}, {"bitmaps": []},
    {"name": "", "allocation-depth": True}, {"allocation-depth": 1}, {"writable": "yes"}, {"node-name": "no"},
    {"node-name": "base"}, {"node-name": "base", "writable": True}, {"name": "e2", "writethrough": True}, {"id": "e1"},
    {"id": "1e"}, {"type": "no"},
    {"name": "n" * 5000}, {"description": "n" * 5000}, {"x": 1},
]
SAME_WORDS = ("Bitmap 'inherited'", "Parameter", "already in use", "already has", "Invalid block export id",
              "Invalid parameter type")


def shown(daemon):
    """What clients may ask for, without sizes of blocks, which are hints."""
    listed = run("qemu-nbd", "--list", "-k", os.path.join(daemon.directory, "n")).stdout
    return [re.sub("flags: .*(readonly)?.*", r"\1", line) for line in listed.splitlines() if "block:" not in line]


def exports_with(program):
    results = []
    with start(program) as daemon:
        results.append(("no server yet", daemon.refused("block-export-add", type="nbd", id="e", node_name="top")))
        unix = {"type": "unix", "data": {"path": os.path.join(daemon.directory, "n")}}
        daemon.command("nbd-server-start", addr=unix)
        results.append(("a second server", daemon.refused("nbd-server-start", addr=unix)))
        for number, case in enumerate(CASES):
            usual = {"type": "nbd", "id": f"e{number}", "name": f"e{number}", "node-name": "top"}
            desc = daemon.refused("block-export-add", {**usual, **case})
            same = any(word in desc for word in SAME_WORDS) and "BlockDirtyBitmapOrStr" not in desc
            results.append((f"{str(case)[:80]}", desc if same else bool(desc)))
        results.append(("clients are shown", shown(daemon)))
        results.append(("of unknown ones", [daemon.refused("block-export-del", id="no"),
                                            daemon.refused("block-export-del", id="e1", mode="no")]))
        results.append(("all of them", sorted(str(sorted(e.items())) for e in daemon.command("query-block-exports"))))
        results.append(("a bitmap in use", [daemon.refused("block-dirty-bitmap-clear", node=node, name=name)
                                            for node, name in (("other", "far"), ("base", "inherited"))]))
        path = os.path.join(daemon.directory, "n")
        results.append(("the bits of another node", run(
            os.environ["QEMU_IMG"], "map", "--output=json", "--image-opts",
            f"driver=nbd,export=e4,server.type=unix,server.path={path},x-dirty-bitmap=qemu:dirty-bitmap:far").stdout))
        daemon.command("nbd-server-stop")
        gone = sorted(m["data"]["id"] for m in daemon.events if m["event"] == "BLOCK_EXPORT_DELETED")
        left = daemon.command("query-block-exports")
        results.append(("all are gone", (gone, left, daemon.refused("nbd-server-stop"))))
        results.append(("and the bitmap is free", daemon.refused("block-dirty-bitmap-clear", node="other", name="far")))
        for what, address in (("no type", {}), ("no data", {"type": "unix"}), ("no path", {"type": "unix", "data": {}}),
                              ("no port", {"type": "inet", "data": {"host": "::1"}}), ("a number", 3),
                              ("a descriptor", {"type": "fd", "data": {"str": "4"}}),
                              ("a wrong type", {"type": "no", "data": {}})):
            desc = daemon.refused("nbd-server-start", addr=address)
            results.append((f"an address: {what}", desc if "Parameter" in desc or "parameter" in desc else bool(desc)))
    return results


for name in ("base", "top", "other"):
    shutil.copy(f"{name}.qcow2", f"{name}.before")
ours = exports_with(OURS)
for name in ("base", "top", "other"):
    shutil.copy(f"{name}.before", f"{name}.qcow2")
for (text, mine), (_, theirs) in zip(ours, exports_with(PEER)):
    is_equal(mine, theirs, text)
contains(str(dict(ours)["the bits of another node"]), '"start": 1048576', "which are not those of the disk")


# ---- TLS, and how many may come in ----
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def listed(port, *certificates):
    """The status of the peer's client, and what it is told."""
    options = ["--object", f"tls-creds-x509,id=c,endpoint=client,dir={HERE}/{certificates[0]}", "--tls-creds", "c",
               "--tls-hostname", "localhost"] if certificates else []
    done = run("qemu-nbd", "--list", "-b", "localhost", "-p", port, *options)
    return done.returncode, "export: 'top'" in done.stdout, done.stderr


with start() as daemon:
    for creds, authz in (("no", None), ("who", None), ("tls", "no")):
        ok(daemon.refused("nbd-server-start", addr={"type": "inet", "data": {"host": "localhost", "port": "0"}},
                          tls_creds=creds, tls_authz=authz), f"refused: tls-creds {creds}, tls-authz {authz}")
    for authz, others in ((None, 0), ("who", 1)):
        port = free_port()
        daemon.command("nbd-server-start", addr={"type": "inet", "data": {"host": "localhost", "port": port}},
                       tls_creds="tls", tls_authz=authz)
        daemon.command("block-export-add", type="nbd", id="e", node_name="top")
        is_equal(listed(port, "laptop")[:2], (0, True), f"tls-authz {authz}: the laptop gets in")
        is_equal(listed(port, "desktop")[0], others, f"tls-authz {authz}: the desktop")
        is_equal(listed(port)[0], 1, f"tls-authz {authz}: nobody without TLS")
        contains(daemon.refused("object-del", id="tls"), "in use", "credentials in use stay")
        daemon.command("nbd-server-stop")
    daemon.command("object-del", id="tls")
    is_equal(daemon.command("query-block-exports"), [], "no exports are left")

    path = os.path.join(daemon.directory, "one")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}}, max_connections=1)
    daemon.command("block-export-add", type="nbd", id="e", node_name="top")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for client in clients:
        client.settimeout(20)
        client.connect(path)
    is_equal(clients[0].recv(8), b"NBDMAGIC", "the first client is greeted")
    clients[1].setblocking(False)
    try:
        greeting = clients[1].recv(8)
    except BlockingIOError:
        greeting = b""
    is_equal(greeting, b"", "one at a time: the second one waits")
    clients[0].close()
    clients[1].settimeout(20)
    is_equal(clients[1].recv(8), b"NBDMAGIC", "until the first has gone")
    clients[1].close()
done_testing()
EOF
