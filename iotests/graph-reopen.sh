#!/bin/bash
# SPDX-License-Identifier: MIT
# blockdev-reopen as on the peer: options of several nodes, all of them or none; children that follow; filters put in and taken out
# below a node that an NBD client writes to.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-storage-daemon

say_seed
export SEED
python_test <<'EOF'
import os
import subprocess

from control import PEER, Daemon, contains, done_testing, is_equal, ok
from nbd_load import Load

QEMU_IMG = os.environ["QEMU_IMG"]
SIZE = 4 << 20


def img(*command):
    done = subprocess.run([QEMU_IMG, *command], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def file(name, **more):
    return {"driver": "file", "filename": name, **more}


def nodes(daemon):
    return sorted((n["node-name"], n["ro"], n["drv"], n["backing_file_depth"], n["cache"]["no-flush"], n["detect_zeroes"])
                  for n in daemon.command("query-named-block-nodes") if n["node-name"][0] != "#")


ATTEMPTS = (
    [{"driver": "qcow2"}],
    [{"driver": "qcow2", "node-name": "x", "file": "of"}],
    [{"node-name": "o"}],
    [{"driver": "qcow2", "node-name": "o", "file": "of"}],
    [{"driver": "qcow2", "node-name": "o", "file": "of", "backing": None}],
    [{"driver": "qcow2", "node-name": "o", "file": "of", "backing": "n"}],
    [{"driver": "qcow2", "node-name": "o", "file": "of", "backing": None, "read-only": True}],
    [{"driver": "qcow2", "node-name": "o", "file": "of", "backing": None}],
    # The second one is wrong, so the first one does not happen either.
    [{"driver": "qcow2", "node-name": "o", "file": "of", "backing": None, "read-only": True},
     {"driver": "raw", "node-name": "r", "file": file("other")}],
    [{"driver": "qcow2", "node-name": "o", "file": "of", "backing": None, "read-only": True},
     {"driver": "raw", "node-name": "r", "file": file("r.img"), "read-only": True}],
    [{"driver": "qcow2", "node-name": "o", "file": "of", "backing": None},
     {"driver": "raw", "node-name": "r", "file": file("r.img")}],
    [{"driver": "raw", "node-name": "r", "file": file("r.img"), "detect-zeroes": "on", "cache": {"no-flush": True}}],
    [{"driver": "raw", "node-name": "r", "file": file("r.img", **{"node-name": "new"})}],
    [{"driver": "raw", "node-name": "r"}],
    [{"driver": "raw", "node-name": "top", "file": "n"}],
    [{"driver": "raw", "node-name": "top", "file": "c"}],
    [{"driver": "file", "node-name": "of", "filename": "b.qcow2"}],
    [{"driver": "qcow2", "node-name": "o", "file": "of", "foo": 1}],
)


def session(program):
    img("create", "-q", "-f", "qcow2", "b.qcow2", "1M")
    img("create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "o.qcow2")
    img("create", "-q", "-f", "qcow2", "n.qcow2", "1M")
    img("create", "-q", "-f", "raw", "r.img", "1M")
    told = []
    with Daemon(program=program) as d:
        d.command("blockdev-add", file("o.qcow2", **{"node-name": "of"}))
        d.command("blockdev-add", driver="qcow2", node_name="o", file="of")
        d.command("blockdev-add", driver="qcow2", node_name="n", file=file("n.qcow2"))
        d.command("blockdev-add", driver="copy-on-read", node_name="c", file="n")
        d.command("blockdev-add", driver="raw", node_name="top", file="c")
        d.command("blockdev-add", driver="raw", node_name="r", file=file("r.img", **{"node-name": "rf"}))
        for attempt in ATTEMPTS:
            told.append((d.refused("blockdev-reopen", options=attempt), nodes(d)))
    return told


for attempt, their, our in zip(ATTEMPTS, session(PEER), session(os.environ["BLKSTACK_DAEMON"])):
    is_equal(our, their, f"as the peer: {attempt}")

def chain_session(program):
    """A job works with a chain, another with a node below a filter."""
    img("create", "-q", "-f", "qcow2", "base", "8M")
    for name, below in (("middle", "base"), ("over", "middle")):
        img("create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", name)
    subprocess.run([os.environ["QEMU_IO"], "-f", "qcow2", "-c", "write -P 1 0 8M", "base"], check=True, capture_output=True)
    for name in ("other", "target"):
        img("create", "-q", "-f", "qcow2", name, "8M")
    told = []
    with Daemon(program=program) as d:
        for name, below in (("base", None), ("middle", "base"), ("over", "middle"), ("other", None), ("target", None)):
            more = {"backing": below} if below else {}
            d.command("blockdev-add", {"driver": "qcow2", "node-name": name, "read-only": name in ("base", "middle"),
                                       "file": file(name, **{"node-name": name + "-file"}), **more})
        d.command("blockdev-add", driver="copy-on-read", node_name="filter", file="over")
        d.command("block-stream", job_id="j", device="over", speed=1)
        for name, below, read_only in (("over", None, False), ("over", "other", False), ("middle", None, True),
                                       ("middle", "other", True), ("over", "middle", False)):
            told.append(d.refused("blockdev-reopen", options=[{"driver": "qcow2", "node-name": name, "file": name + "-file",
                                                               "backing": below, "read-only": read_only}]))
        d.command("job-cancel", id="j")
        d.event("JOB_STATUS_CHANGE", id="j", status="null")
        if program != PEER:
            d.command("blockdev-backup", job_id="j", device="over", target="target", sync="full", speed=1)
            top = {"driver": "copy-on-read", "node-name": "filter"}
            is_equal(d.refused("blockdev-reopen", options=[{**top, "file": "over"}]), "", "the same options as before")
            above = {n["node-name"]: n["file"] for n in d.command("query-named-block-nodes", flat=True)}["filter"]
            contains(above, "copy-before-write", "the filter of the job stays")
            filters = [n["node-name"] for n in d.command("query-named-block-nodes", flat=True) if n["drv"] == "copy-before-write"]
            contains(d.refused("blockdev-remove-filter", node_name=filters[0]), "goes with the job", "no command removes it")
            contains(d.refused("blockdev-reopen", options=[{**top, "file": "other"}]), "frozen 'file' link from 'filter'",
                     "and is not bypassed")
            d.command("job-cancel", id="j")
            d.event("JOB_STATUS_CHANGE", id="j", status="null")
            is_equal(d.refused("blockdev-reopen", options=[{**top, "file": "other"}]), "", "until the job has ended")
    return told


is_equal(chain_session(os.environ["BLKSTACK_DAEMON"]), chain_session(PEER), "the chain of a job stays, as with the peer")

# Under load: an export of a raw node, below which the compress filter comes and goes.
img("create", "-q", "-f", "qcow2", "disk", str(SIZE))
with Daemon() as daemon:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("blockdev-add", driver="qcow2", node_name="disk", file=file("disk", **{"node-name": "low"}))
    daemon.command("blockdev-add", driver="copy-on-read", node_name="top", file="disk")
    daemon.command("block-export-add", type="nbd", id="e", node_name="top", name="e", writable=True)
    daemon.command("object-add", qom_type="throttle-group", id="t")
    with Load(path, b"e", SIZE, int(os.environ["SEED"])) as load:
        for i in range(100):
            kind = {"driver": "throttle", "throttle-group": "t"} if i % 10 == 3 else {"driver": "compress"}
            daemon.command("blockdev-add", {**kind, "node-name": "z", "file": "disk"})
            daemon.command("blockdev-reopen", options=[{"driver": "copy-on-read", "node-name": "top", "file": "z"}])
            is_equal(daemon.refused("blockdev-del", node_name="z"), "Node z is in use", "the filter is in use") if i == 0 else 0
            load.wait_for(5)
            wrong = {"driver": "qcow2", "node-name": "disk", "file": file("disk"), "read-only": True}
            refused = daemon.refused("blockdev-reopen", options=[{"driver": "copy-on-read", "node-name": "top", "file": "disk"}, wrong])
            contains(refused, "read-only", "nothing happens if one of the nodes has a writer") if i == 0 else 0
            daemon.command("blockdev-reopen", options=[{"driver": "copy-on-read", "node-name": "top", "file": "disk"}])
            daemon.command("blockdev-del", node_name="z")
            load.wait_for(2)
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests without error or difference")
    daemon.command("block-export-del", id="e", mode="hard")
    daemon.event("BLOCK_EXPORT_DELETED")
    daemon.command("blockdev-del", node_name="top")

    # The file follows its image, and both are judged by the peer while ours holds them.
    image = {"driver": "qcow2", "node-name": "disk", "file": file("disk")}
    daemon.command("blockdev-reopen", options=[{**image, "read-only": True}])
    is_equal([n[:2] for n in nodes(daemon)], [("disk", True), ("low", True)], "the file becomes read-only with its image")
    is_equal(img("check", "disk")[0], 0, "the peer may read what we hold read-only, and finds no errors or leaks")
    daemon.command("blockdev-reopen", options=[{**image, "cache": {"no-flush": True}}])
    is_equal([n[1] for n in nodes(daemon)], [False, False], "and writable")
    is_equal([n[4] for n in nodes(daemon)], [True, True], "the file inherits what its image was told")
    contains(img("check", "disk")[1], "lock", "the peer is kept out again")
    for wrong, why in (([image, image], "cannot be reopened twice at once"),
                       ([{**image, "file": "disk"}], "stands above it, or is the same"),
                       ([{**image, "cluster-size": 1}], "unexpected"),
                       ([{**image, "file": {"driver": "file", "filename": "other"}}], "Cannot change the option 'filename'"),
                       ([5], "Invalid parameter type for 'options[0]', expected: object")):
        contains(daemon.refused("blockdev-reopen", options=wrong), why, f"refused: {why}")
    is_equal(daemon.refused("blockdev-reopen", options={}), "Invalid parameter type for 'options', expected: array", "no list")
    is_equal(daemon.refused("blockdev-reopen", options=[]), "", "an empty list changes nothing")

with open("model", "wb") as model:
    model.write(load.model)
ok("identical" in img("compare", "-F", "raw", "disk", "model")[1], "the image holds what the client wrote")
is_equal(img("check", "disk")[0], 0, "it has no errors and no leaks")
done_testing()
EOF
