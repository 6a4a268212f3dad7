#!/bin/bash
# SPDX-License-Identifier: MIT
# Lengths that change under what is in use: raw nodes follow their file as with the peer; a disk grows and shrinks below a compress
# filter and an export that a client writes to; while a job needs the length, it stays.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io qemu-storage-daemon

say_seed
export SEED
python_test <<'EOF'
import json
import os
import subprocess

from control import OURS, PEER, Daemon, contains, done_testing, is_equal, ok
from nbd_load import Load

QEMU_IMG, QEMU_IO = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
MIB = 1 << 20


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def make_file(name, length):
    with open(name, "wb") as made:
        made.truncate(length)


def lengths(daemon):
    nodes = daemon.command("query-named-block-nodes", flat=True)
    return {n["node-name"]: n["image"]["virtual-size"] for n in nodes if n["node-name"][0] != "#"}


def client_sees(path, name):
    text = run(QEMU_IMG, "info", "--output=json", f"nbd+unix:///{name}?socket={path}")[1]
    return json.loads(text)["virtual-size"]


def session(program):
    """The same commands to either daemon. Returns: what was answered."""
    for name in ("f", "w", "l"):
        make_file(name, MIB)
    told = []
    with Daemon(program=program) as d:
        d.command("blockdev-add", driver="file", filename="f", node_name="file")
        d.command("blockdev-add", driver="raw", file="file", node_name="raw")
        d.command("blockdev-add", driver="copy-on-read", file="raw", node_name="filter")
        for name, limits in (("w", {"offset": 65536}), ("l", {"offset": 65536, "size": 524288})):
            d.command("blockdev-add", driver="raw", node_name=name, **limits,
                      file={"driver": "file", "filename": name, "node-name": name + "-file"})
        told.append(lengths(d))
        for node, size in (("file", 2 * MIB), ("raw", 3 * MIB), ("filter", 4 * MIB), ("file", MIB), ("w", 3 * MIB),
                           ("w", 65536), ("filter", 0), ("nobody", 1), ("file", -1)):
            told.append((d.refused("block_resize", node_name=node, size=size), lengths(d)))
        told.append((d.refused("block_resize", node_name="l", size=MIB) != "", lengths(d)))
        told.append(d.refused("block_resize", size=1))
    return told


for number, (their, our) in enumerate(zip(session(PEER), session(OURS))):
    is_equal(our, their, f"answer {number} is the peer's")

# Somebody else makes the file longer: that is seen when it is reopened, by all above it.
make_file("grows", MIB)
with Daemon() as daemon:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("blockdev-add", driver="file", filename="grows", node_name="file", locking="off")
    daemon.command("blockdev-add", driver="raw", file="file", node_name="raw")
    daemon.command("blockdev-add", driver="throttle", throttle_group="t", file="raw", node_name="top") \
        if daemon.refused("object-add", qom_type="throttle-group", id="t") == "" else None
    daemon.command("block-dirty-bitmap-add", node="top", name="b")
    daemon.command("block-export-add", type="nbd", id="e", node_name="top", name="e", writable=True)
    os.truncate("grows", 2 * MIB)
    is_equal(lengths(daemon), dict.fromkeys(("file", "raw", "top"), MIB), "not yet")
    daemon.command("blockdev-reopen", options=[{"driver": "file", "filename": "grows", "node-name": "file", "locking": "off"}])
    is_equal(lengths(daemon), dict.fromkeys(("file", "raw", "top"), 2 * MIB), "all follow the file")
    is_equal(client_sees(path, "e"), 2 * MIB, "and new clients")
    code, text = run(QEMU_IO, "-f", "raw", "-c", "write -P 9 1900k 4k", "-c", "read -P 9 1900k 4k", f"nbd+unix:///e?socket={path}")
    ok(code == 0 and "failed" not in text, "what is new can be written", text)
    nodes = {n["node-name"]: n for n in daemon.command("query-named-block-nodes", flat=True)}
    ok(nodes["top"]["dirty-bitmaps"][0]["count"] > 0, "and the bitmap knows of it", nodes["top"])

# Under load.
run(QEMU_IMG, "create", "-q", "-f", "qcow2", "disk", "1M")
with Daemon() as daemon:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("blockdev-add", driver="qcow2", node_name="disk", file={"driver": "file", "filename": "disk"})
    daemon.command("blockdev-add", driver="compress", node_name="z", file="disk")
    daemon.command("block-export-add", type="nbd", id="e", node_name="z", name="e", writable=True)
    with Load(path, b"e", MIB, int(os.environ["SEED"])) as load:
        for size in (2 * MIB, MIB, 5 * MIB + 512, 3 * MIB, 2 * MIB + 65536):
            load.wait_for(20)
            daemon.command("block_resize", node_name="z", size=size)
            is_equal((lengths(daemon), client_sees(path, "e")), (dict(z=size, disk=size), size), f"{size} bytes, for new clients too")
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests without error or difference")
    load.model += bytes(MIB + 65536)
    code, text = run(QEMU_IO, "-f", "raw", "-c", "write -P 8 2000k 112k", f"nbd+unix:///e?socket={path}")
    ok(code == 0 and "failed" not in text, "the new end can be written", text)
    load.model[2000 << 10:] = b"\x08" * (112 << 10)

    # A job needs the length of both.
    run(QEMU_IMG, "create", "-q", "-f", "qcow2", "target", str(2 * MIB + 65536))
    daemon.command("blockdev-add", driver="qcow2", node_name="target", file={"driver": "file", "filename": "target"})
    daemon.command("blockdev-backup", job_id="j", device="z", target="target", sync="full", speed=1)
    for node in ("z", "disk", "target"):
        contains(daemon.refused("block_resize", node_name=node, size=4 * MIB), "resize", f"not while a job needs it: {node}")
    is_equal(set(lengths(daemon).values()) - {lengths(daemon).get("disk-file")}, {2 * MIB + 65536}, "the lengths are what they were")
    daemon.command("job-cancel", id="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    daemon.command("block_resize", node_name="z", size=2 * MIB + 65536 + 512)
    load.model += bytes(512)
with open("model", "wb") as model:
    model.write(load.model)
contains(run(QEMU_IMG, "compare", "-F", "raw", "disk", "model")[1], "identical", "the image holds what was written, and zeroes")
code, text = run(QEMU_IMG, "check", "disk")
ok(code == 0, "no errors and no leaks", text)
done_testing()
EOF
