#!/bin/bash
# SPDX-License-Identifier: MIT
# Snapshots inside an image that an NBD client writes to through a compress filter: results, refusals and roll-back as the
# peer's; the snapshot holds what was written before it, the disk what was written since.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-storage-daemon

say_seed
export SEED
python_test <<'EOF'
import os
import subprocess

from control import OURS, PEER, Daemon, contains, done_testing, is_equal, ok
from nbd_load import Load

SIZE = 1 << 20
QEMU_IMG = os.environ["QEMU_IMG"]
CREATE, DELETE = "blockdev-snapshot-internal-sync", "blockdev-snapshot-delete-internal-sync"


def img(*command):
    done = subprocess.run([QEMU_IMG, *command], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def add(daemon, name, driver="qcow2", **more):
    file = {"driver": "file", "filename": name, "node-name": name + "-file"}
    daemon.command("blockdev-add", {"driver": driver, "node-name": name, "file": file, **more})


def snapshots(daemon, name):
    nodes = {node["node-name"]: node for node in daemon.command("query-named-block-nodes", flat=True)}
    return [(s["id"], s["name"]) for s in nodes[name]["image"].get("snapshots", [])]


def create(name, device="a"):
    return {"type": CREATE, "data": {"device": device, "name": name}}


def session(program):
    """The same commands to either daemon. Returns: what was answered."""
    for name in ("a", "b", "c"):
        img("create", "-q", "-f", "qcow2", name, "1M")
    with open("r", "wb") as raw:
        raw.truncate(SIZE)
    told = []
    with Daemon(program=program) as d:
        add(d, "a")
        add(d, "b", **{"read-only": True})
        add(d, "c")
        add(d, "r", "raw")
        d.command("blockdev-add", driver="copy-on-read", node_name="top", file="c")
        for device, name in (("a", "s1"), ("a", "s1"), ("a", ""), ("a-file", "s"), ("b", "s"), ("c", "s"), ("r", "s"),
                             ("nobody", "s"), ("top", "s"), ("a", "1"), ("a", None)):
            told.append(d.refused(CREATE, device=device, name=name))
        told.append((snapshots(d, "a"), snapshots(d, "c")))
        for actions in ([create("t1"), create("t1")], [create("t1"), create("s1")], [create("t1"), create("t", "b")],
                        [create("t1"), create("t2", "top"), {"type": "abort", "data": {}}],
                        [{"type": DELETE, "data": {"device": "a", "name": "s1"}}]):
            told.append((d.refused("transaction", actions=actions), snapshots(d, "a"), snapshots(d, "c")))
        told.append((d.refused("transaction", actions=[create("t1"), create("t2", "top")]), snapshots(d, "a"), snapshots(d, "c")))
        for device, key in (("a", {"name": "x"}), ("a", {"id": "x"}), ("a", {}), ("a", {"name": ""}), ("a", {"id": ""}),
                            ("a", {"id": "1", "name": "t1"}), ("b", {"name": "s"}), ("r", {"name": "s"}), ("c", {"name": "s"}),
                            ("nobody", {"name": "s"})):
            told.append(d.refused(DELETE, device=device, **key))
        # A name is no id.
        for key in ({"name": "1"}, {"id": "1"}, {"id": "3", "name": "t1"}):
            gone = d.command(DELETE, device="a", **key)
            told.append((gone["id"], gone["name"], sorted(set(gone) - {"icount"}), snapshots(d, "a")))
        told.append(d.command("query-block"))
    for name in ("a", "c"):
        told.append(img("check", name)[0])
    return told


for number, (their, our) in enumerate(zip(session(PEER), session(OURS))):
    is_equal(our, their, f"answer {number} is the peer's")

img("create", "-q", "-f", "qcow2", "disk", str(SIZE))
with Daemon() as daemon:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    add(daemon, "disk")
    daemon.command("block-export-add", type="nbd", id="e", node_name="disk", name="e", writable=True)
    daemon.command("blockdev-insert-filter", node="disk", filter={"driver": "compress", "node-name": "z"})
    is_equal(daemon.refused(CREATE, device="disk", name="s"), "Need a root block node", "a node below a filter")
    with Load(path, b"e", SIZE, int(os.environ["SEED"])) as load:
        load.wait_for(60)
    before = bytes(load.model)
    daemon.command(CREATE, device="z", name="before")
    load = Load(path, b"e", SIZE, int(os.environ["SEED"]) + 1)
    load.model[:] = before
    with load:
        for number in range(10):
            load.wait_for(10)
            daemon.command(CREATE, device="z", name="during")
            load.wait_for(10)
            refused = daemon.refused("transaction", actions=[create("undone", "z"), {"type": "abort", "data": {}}])
            contains(refused, "aborted", "a transaction that fails") if number == 0 else 0
            is_equal(daemon.command(DELETE, device="z", name="during")["name"], "during", "deleted") if number else \
                daemon.command(DELETE, device="z", name="during")
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests without error or difference")
    is_equal([name for node in ("z", "disk") for _, name in snapshots(daemon, node)], ["before"] * 2, "one snapshot is left")
for name, content in (("before", before), ("after", load.model)):
    with open(name, "wb") as model:
        model.write(content)
img("convert", "-l", "before", "-O", "raw", "disk", "snapshot")
contains(img("compare", "-f", "raw", "-F", "raw", "snapshot", "before")[1], "identical", "the snapshot holds what was written before it")
contains(img("compare", "-F", "raw", "disk", "after")[1], "identical", "the disk holds what was written since")
code, text = img("check", "disk")
ok(code == 0, "no errors and no leaks", text)
done_testing()
EOF
