#!/bin/bash
# SPDX-License-Identifier: MIT
# The image that guests write to is committed into one below it, which takes its place: as the peer does it; under load, also of
# a compress node, with compress, above shorter images; cancelled when it is ready.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon qemu-img qemu-io
any_backend

say_seed

SEED=$SEED python_test <<'EOF'
import os
import shutil
import subprocess

from chain_jobs import conclude_commit, content, export, file_node, judge, make_chain, ready_commit, same_size
from control import OURS, PEER, CommandError, Daemon, done_testing, is_equal, ok
from nbd_load import Load

SIZE = 4 << 20
SEED = int(os.environ["SEED"])


def add(daemon, device="inc2", base=None, folder="."):
    """base <- inc1 <- inc2; with device "z" a compress node above that."""
    def image(name, backing=None):
        node = {"driver": "qcow2", "node-name": name, "file": file_node(f"{folder}/{name}.qcow2")}
        return {**node, "backing": backing} if backing else node
    inc2 = image("inc2", image("inc1", base or image("base")))
    daemon.command("blockdev-add", inc2 if device == "inc2" else {"driver": "compress", "node-name": "z", "file": inc2})


# ---- as the peer ----
def story(program, end, lengths):
    folder = "ours" if program == OURS else "peer"
    shutil.copytree("new", folder)
    daemon = Daemon(program=program)
    add(daemon, folder=folder)
    told = []
    for command, keywords in (
            ("block-commit", {"device": "inc2", "job-id": "1j"}),
            ("block-commit", {"device": "inc2", "job-id": "j", "base-node": "nope"}),
            ("block-commit", {"device": "inc2", "job-id": "j", "base-node": "base"})):
        try:
            told.append(daemon.command(command, keywords))
        except CommandError as error:
            told.append((error.error_class, error.desc.split("'")[0]))
    daemon.event("BLOCK_JOB_READY")
    told += [{key: value for key, value in job.items() if key not in ("len", "offset", "busy")}
             for job in daemon.command("query-block-jobs")]
    daemon.command(end[0], end[1])
    done = daemon.event("BLOCK_JOB_CANCELLED" if end[1].get("force") else "BLOCK_JOB_COMPLETED", device="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    told += [done["type"], done["len"] == done["offset"], done.get("error")]
    told += [e["data"]["status"] for e in daemon.events if e["event"] == "JOB_STATUS_CHANGE"
             and e["data"]["status"] not in ("paused", "standby")]
    if end[0] == "job-complete":        # else the peer leaves it writable
        told += [node["ro"] for node in daemon.command("query-named-block-nodes") if node["node-name"] == "base"]
    is_equal(daemon.end(), 0, f"{folder}: the daemon ends with status 0")
    told.append(subprocess.run([os.environ["QEMU_IMG"], "check", f"{folder}/base.qcow2"], capture_output=True, check=False).returncode)
    return told, content(f"{folder}/base.qcow2"), content(f"{folder}/inc2.qcow2")


for end in (("job-complete", {"id": "j"}), ("block-job-cancel", {"device": "j"}), ("block-job-cancel", {"device": "j", "force": True})):
    for lengths in ((1, 1, 1), (0.5, 1, 1), (1, 0.75, 1)) if end[0] == "job-complete" else ((1, 1, 1),):
        shutil.rmtree("new", ignore_errors=True)
        make_chain(SIZE, SEED, False, lengths)
        before = content("inc2.qcow2")
        os.mkdir("new")
        for name in ("base", "inc1", "inc2"):
            shutil.move(f"{name}.qcow2", "new")
        ours, peer = story(OURS, end, lengths), story(PEER, end, lengths)
        is_equal(ours[0], peer[0], f"{end} {lengths}: the same story")
        ok(ours[1] == peer[1] and ours[1] == before, f"{end} {lengths}: the base holds what the chain did")
        ok(ours[2] == before, f"{end} {lengths}: the chain reads as it did")
        for folder in ("ours", "peer"):
            shutil.rmtree(folder)


# ---- under load ----
def committed(what, device="inc2", base=None, base_node="base", lengths=(1, 1, 1), size=SIZE, **options):
    make_chain(size, SEED, True, lengths)
    before = content("inc2.qcow2")
    with Daemon() as daemon:
        add(daemon, device, base)
        load = Load(export(daemon, device), b"e", size, SEED)
        load.model[:] = before
        with load:
            load.wait_for(30)
            load.over = base is not None            # what it writes all the time takes space of its own
            ready_commit(daemon, device=device, base_node=base_node, **options)
            load.wait_for(0 if base else 30)
            daemon.command("job-complete", id="j")
            conclude_commit(daemon, what)
            is_equal(daemon.command("query-block-exports")[0]["node-name"], base_node, f"{what}: the client uses the base")
            daemon.command("blockdev-del", node_name=device)
            load.wait_for(0 if base else 30)
        is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{what}: {load.ended} requests are right")
        others = [node["drv"] for node in daemon.command("query-named-block-nodes") if node["drv"] in ("job-top", "hide")]
        is_equal(others, [], f"{what}: the filters of the job are gone")
    name = "base.qcow2" if base_node != "inc1" else "inc1.qcow2"
    judge(name, load.model, what)
    if base:
        same_size(name, what)


committed("plainly")
committed("into the middle", base_node="inc1")
committed("of a compress node, with compress", device="z", compress=True)
committed("a shorter base, a shorter middle", lengths=(1, 0.75, 1))
committed("into a compress node", base_node="y", size=16 << 20, device="z", base={
    "driver": "compress", "node-name": "y", "file": {"driver": "qcow2", "node-name": "base", "file": file_node("base.qcow2")}})

# ---- cancelled when it is ready, it leaves the chain with its users; the base is read-only again ----
make_chain(SIZE, SEED)
before = content("inc2.qcow2")
with Daemon() as daemon:
    daemon.command("blockdev-add", driver="qcow2", node_name="inc2", file=file_node("inc2.qcow2"))
    load = Load(export(daemon, "inc2"), b"e", SIZE, SEED)
    load.model[:] = before
    with load:
        ready_commit(daemon, device="inc2")
        load.wait_for(20)
        daemon.command("block-job-cancel", device="j")
        conclude_commit(daemon, "cancelled")
        load.wait_for(20)
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"cancelled: {load.ended} requests are right")
    writable = [node["file"] for node in daemon.command("query-named-block-nodes") if node["drv"] == "qcow2" and not node["ro"]]
    is_equal(writable, ["inc2.qcow2"], "cancelled: only the topmost image is writable")
judge("inc2.qcow2", load.model, "cancelled")

done_testing()
EOF
