#!/bin/bash
# SPDX-License-Identifier: MIT
# Jobs that have done their work and fail in their last step, at job-finalize, leave the graph, the images' headers and all data as
# they were, and can be done again. Of a group of backups one that fails, or is cancelled, when others are ready undoes all.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io

python_test <<'EOF'
import os

import nbd_raw
from chain_jobs import QEMU_IMG, content, export, file_node, judge, make_chain, make_image, pending, run
from control import Daemon, contains, done_testing, is_equal, ok

SIZE = 2 << 20
PIECE = bytes([0x5a]) * 65536


def node(name, backing=None):
    return {"driver": "qcow2", "node-name": name, "file": {**file_node(name + ".qcow2"), "node-name": name + "-file"},
            "backing": backing}


def nodes_of(daemon, driver):
    return [item["node-name"] for item in daemon.command("query-named-block-nodes") if item["drv"] == driver]


def graph(daemon, unlike=()):
    """Without the fault filter. @unlike: nodes that may be writable or not."""
    nodes = [(item["node-name"], item["drv"], item["node-name"] not in unlike and item["ro"])
             for item in daemon.command("query-named-block-nodes")]
    return sorted(item for item in nodes if item[1] != "fault")


def fail_in(daemon, name, iotype="write", times=8):
    """@times: 0: as long as the filter is there."""
    daemon.command("blockdev-insert-filter", node=name, filter={
        "driver": "fault", "node-name": "bad",
        "inject-error": [{"event": "none", "iotype": iotype, "errno": 5, "once": times > 0}] * max(times, 1)})


def remove(daemon, name):
    """A filter, when all that is held above it could be written."""
    for _ in range(50):
        why = daemon.refused("blockdev-remove-filter", node_name=name)
        if not why:
            break
        contains(why, "holds data that could not be written", f"{name} stays while data are held")
    is_equal(why, "", f"{name} is removed")


def write(path, offset):
    with nbd_raw.Raw(path).negotiate(b"e") as client:
        client.send(nbd_raw.request(nbd_raw.WRITE, offset, len(PIECE), PIECE))
        is_equal(client.simple_reply()[0], 0, "a guest's write succeeds")


def work(daemon, command, complete, **arguments):
    """Until the job has done its work."""
    daemon.command(command, job_id="j", auto_finalize=False, auto_dismiss=False, **arguments)
    if complete:
        daemon.event("BLOCK_JOB_READY", device="j")
        daemon.command("job-complete", id="j")
    pending(daemon, "j")


def conclude(daemon):
    """Why the job has failed; None if it has not."""
    daemon.command("job-finalize", id="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
    job, = daemon.command("query-jobs")
    daemon.command("job-dismiss", id="j")
    return job.get("error")


def headers():
    """What the images name as their backing files, also while they are open."""
    told = [run(QEMU_IMG, "info", "-U", f"{name}.qcow2") for name in ("inc1", "inc2", "top")]
    return [text.partition("backing file:")[2].split("\n")[0] for text in told]


def at_finalize(what, top, bad, why, command, complete=False, compress=False, **arguments):
    """@bad: the image whose file takes no writes when the job is finalized; @why: what the error says."""
    what = f"{what}{', compress' if compress else ''}"
    make_chain(SIZE, 1)
    make_image("top.qcow2", SIZE, "inc2.qcow2", [], 1)
    make_image("target.qcow2", SIZE, None, [], 1)
    wanted = bytearray(content("top.qcow2"))
    named = headers()
    chain = None
    for name in ("base", "inc1", "inc2", "top"):
        chain = {**node(name, chain), "read-only": name != top}
        if name == top:
            break
    with Daemon() as daemon:
        daemon.command("blockdev-add", chain)
        if "target" in arguments:
            daemon.command("blockdev-add", node("target"))
        lasts = command == "block-commit" and complete and not compress
        # Below a filter that holds data an image stays writable; its file does below one that was put in meanwhile.
        unlike = ("base-file",) if lasts else ("base", "base-file") if complete else ()
        path, before = export(daemon, top), graph(daemon, unlike)
        work(daemon, command, complete, compress=compress, **arguments)
        fail_in(daemon, bad + "-file", times=0 if lasts else 8)
        if complete:
            write(path, 65536)              # the copy of it fails, for the last one to do
            wanted[65536:131072] = PIECE
        contains(conclude(daemon) or "", why, f"{what}: it fails")
        is_equal(daemon.command("query-block-exports")[0]["node-name"], top, f"{what}: guests are where they were")
        for left in nodes_of(daemon, "compress"):               # the same of a compress filter
            remove(daemon, left)
        is_equal(graph(daemon, unlike), before, f"{what}: the graph is as it was")
        remove(daemon, "bad")
        is_equal(headers(), named, f"{what}: so are the headers")
        write(path, 131072)
        wanted[131072:196608] = PIECE
        work(daemon, command, complete, compress=compress, **arguments)
        is_equal(conclude(daemon), None, f"{what}: done again it succeeds")
    if lasts:                   # what could not be written was dropped, as in a crash
        run(QEMU_IMG, "check", "-q", "-r", "leaks", "base.qcow2")
    for name in {"block-commit": ("base",) if complete else (top, ), "blockdev-mirror": ("target", top)}.get(command, (top,)):
        judge(f"{name}.qcow2", wanted, f"{what}, done again")


for packed in False, True:
    at_finalize("stream", "inc2", "inc2", "Could not change the backing file of 'inc2'", "block-stream", compress=packed,
                device="inc2", base_node="base")
    at_finalize("commit", "top", "top", "Could not change the backing file of 'top'", "block-commit", compress=packed,
                device="top", top_node="inc2", base_node="inc1")
    at_finalize("active commit", "inc2", "base", "Input/output error", "block-commit", True, packed, device="inc2")
    at_finalize("mirror", "inc2", "target", "Input/output error", "blockdev-mirror", True, packed, device="inc2", target="target",
                sync="full")


# ---- backups, whose last step is to make their target stable ----
def backups(daemon, *jobs, **properties):
    """Jobs of one transaction: of the sources "a" and "b" into "ta" and "tb", by the bitmap "m"."""
    daemon.command("transaction", properties=properties, actions=[
        {"type": "blockdev-backup", "data": {"job-id": job, "device": job, "target": "t" + job, "sync": "incremental", "bitmap": "m",
                                             "auto-finalize": False, "auto-dismiss": False}} for job in jobs])


def ends(daemon):
    for job in daemon.command("query-jobs"):
        if job["status"] != "concluded":
            daemon.event("JOB_STATUS_CHANGE", id=job["id"], status="concluded")
    jobs = {job["id"]: job.get("error") for job in daemon.command("query-jobs")}
    for job in jobs:
        daemon.command("job-dismiss", id=job)
    return jobs


def dirty(daemon):
    items = [item for item in daemon.command("query-named-block-nodes") if item["node-name"] in ("a", "b")]
    return [[bitmap["count"] for bitmap in item.get("dirty-bitmaps", []) if bitmap.get("name") == "m"] for item in items]


for name in "a", "b":
    make_image(f"{name}.qcow2", SIZE, None, [(0, SIZE // 2)], 1)
    run(QEMU_IMG, "bitmap", "--add", f"{name}.qcow2", "m")
    run(os.environ["QEMU_IO"], "-f", "qcow2", "-c", "write -q -P 7 0 1M", f"{name}.qcow2")
    make_image(f"t{name}.qcow2", SIZE, None, [], 1)
with Daemon() as daemon:
    for name in "a", "b", "ta", "tb":
        daemon.command("blockdev-add", node(name))
    before, marked = graph(daemon), dirty(daemon)
    is_equal(marked, [[1 << 20], [1 << 20]], "what there is to copy")

    fail_in(daemon, "tb-file", "flush", 2)
    backups(daemon, "b")
    is_equal(ends(daemon), {"b": "error while flushing the target: Input/output error"}, "one backup fails at its end")
    is_equal((graph(daemon), dirty(daemon)), (before, marked), "one backup: graph and bitmap are as they were")

    daemon.events.clear()
    backups(daemon, "a", "b", **{"completion-mode": "grouped"})
    is_equal(ends(daemon), {"a": "Operation canceled", "b": "error while flushing the target: Input/output error"},
             "a group: one fails, both do")
    ok(not [event for event in daemon.events if event.get("data", {}).get("status") == "pending"], "a group: none was pending")
    is_equal((graph(daemon), dirty(daemon)), (before, marked), "a group: graph and bitmaps are as they were")

    remove(daemon, "bad")
    backups(daemon, "a", "b", **{"completion-mode": "grouped"})
    pending(daemon, "a")
    pending(daemon, "b")
    daemon.command("job-cancel", id="b")
    is_equal(ends(daemon), {"a": "Operation canceled", "b": "Operation canceled"}, "a group: cancelled when all are pending")
    is_equal((graph(daemon), dirty(daemon)), (before, marked), "cancelled: graph and bitmaps are as they were")

    backups(daemon, "a", "b", **{"completion-mode": "grouped"})
    pending(daemon, "a")
    pending(daemon, "b")
    is_equal(dirty(daemon), marked, "pending: nothing has taken effect")
    daemon.command("job-finalize", id="a")
    is_equal(ends(daemon), {"a": None, "b": None}, "a group: both succeed")
    is_equal((graph(daemon), dirty(daemon)), (before, [[0], [0]]), "a group: the bitmaps are clean")
for name in "a", "b":
    judge(f"t{name}.qcow2", content(f"{name}.qcow2"), "a group of backups")
done_testing()
EOF
