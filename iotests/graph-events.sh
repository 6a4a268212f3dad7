#!/bin/bash
# SPDX-License-Identifier: MIT
# What guests do to images that lie about their tables, and to files without space, is told by events: damage once for each
# node, as on the peer, failed requests each with its reason. Other clients of the daemon notice nothing.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io qemu-storage-daemon

say_seed
export SEED
python_test <<'EOF'
import os
import struct
import subprocess

from control import OURS, PEER, Daemon, done_testing, is_equal, ok
from nbd_load import Load

QEMU_IMG, QEMU_IO = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
COPIED, ADDRESS = 1 << 63, 0x00fffffffffffe00


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def requests(path, export, *commands):
    """Which requests of a client succeed."""
    told = []
    for command in commands:
        code, text = run(QEMU_IO, "-f", "raw", "-c", command, f"nbd+unix:///{export}?socket={path}")
        told.append(code == 0 and "failed" not in text)
    return told


def lie(name, entry):
    """An image whose second cluster is said to be at @entry."""
    run(QEMU_IMG, "create", "-q", "-f", "qcow2", name, "1M")
    run(QEMU_IO, "-f", "qcow2", "-c", "write -P 1 0 128k", name)
    with open(name, "r+b") as image:
        image.seek(40)
        table = struct.unpack(">Q", image.read(8))[0]
        image.seek(table)
        table = struct.unpack(">Q", image.read(8))[0] & ADDRESS
        image.seek(table + 8)
        image.write(struct.pack(">Q", entry))


def add(daemon, name, file=None):
    daemon.command("blockdev-add", driver="qcow2", node_name=name, file=file or {"driver": "file", "filename": name})
    daemon.command("block-export-add", type="nbd", id=name, node_name=name, name=name, writable=True)


def start(daemon):
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    return path


def corrupted(daemon):
    """The events about damage that have come."""
    daemon.command("query-version")
    return [e["data"] for e in daemon.events if e["event"] == "BLOCK_IMAGE_CORRUPTED"]


def session(program):
    """A guest writes where the refcounts are, since the image says so."""
    lie("bad", COPIED | 0x10000)
    with Daemon(program=program) as d:
        path = start(d)
        add(d, "bad")
        told = [requests(path, "bad", "read -P 1 0 64k", "write -P 2 64k 64k", "write -P 2 64k 64k", "write -P 3 0 64k")]
        events = corrupted(d)
        told.append([(sorted(e), e.get("offset"), e.get("size"), e["device"], e["node-name"], e["fatal"]) for e in events])
        if program == OURS:         # the peer has nothing left of the node
            nodes = {n["node-name"]: n for n in d.command("query-named-block-nodes", flat=True)}
            is_equal(nodes["bad"]["image"]["format-specific"]["data"]["corrupt"], True, "the node says so")
            is_equal(requests(path, "bad", "read -P 1 0 64k"), [True], "and what is good can be read")
    with open("bad", "rb") as image:
        told.append(image.read(80)[79] & 2)         # the mark in the header
    return told


for text, their, our in zip(("requests", "events", "the image says so"), session(PEER), session(OURS)):
    is_equal(our, their, f"{text}, as the peer's")

run(QEMU_IMG, "create", "-q", "-f", "qcow2", "good", "1M")
lie("bad", COPIED | 0x10000)
lie("odd", COPIED | 0x50200)
run(QEMU_IMG, "create", "-q", "-f", "qcow2", "full", "1M")
with Daemon() as daemon:
    path = start(daemon)
    for name in ("good", "bad", "odd"):
        add(daemon, name)
    daemon.command("blockdev-insert-filter", node="bad", filter={"driver": "compress", "node-name": "z", "write-buffer": 0})
    add(daemon, "full", {"driver": "blkdebug", "image": {"driver": "file", "filename": "full"},
                         "inject-error": [{"event": "write_aio", "errno": 28, "once": True}]})
    with Load(path, b"good", 1 << 20, int(os.environ["SEED"])) as load:
        load.wait_for(20)
        is_equal(requests(path, "odd", "read 64k 4k", "read 64k 4k", "read -P 1 0 64k"), [False, False, True],
                 "an entry that no cluster can have")
        is_equal([(e["node-name"], e["fatal"]) for e in corrupted(daemon)], [("odd", True)], "is told once")
        is_equal(requests(path, "bad", "write -P 2 64k 64k", "write -P 2 512k 64k"), [False, False],
                 "nothing is written any more, also through a filter")
        is_equal(requests(path, "full", "write -P 1 0 64k", "write -P 1 0 64k", "read -P 1 0 64k"), [False, True, True],
                 "a file without space, once")
        load.wait_for(20)
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests to another node")
    is_equal([e["node-name"] for e in corrupted(daemon)], ["odd", "bad"], "each node is told once")
    errors = [e["data"] for e in daemon.events if e["event"] == "BLOCK_IO_ERROR"]
    read = {"device": "", "node-name": "odd", "operation": "read", "action": "report", "nospace": False,
            "reason": "Input/output error"}
    write = {**read, "operation": "write"}
    is_equal(errors, [read, read, {**write, "node-name": "z"}, {**write, "node-name": "z"},
                      {**write, "node-name": "full", "nospace": True, "reason": "No space left on device"}], "each request that failed is told, with its reason")
ok(run(QEMU_IMG, "check", "good")[0] == 0, "the good image is good")
done_testing()
EOF
