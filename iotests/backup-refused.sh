#!/bin/bash
# SPDX-License-Identifier: MIT
# blockdev-backup says no as the peer does, and then nothing has changed; a job's states and notices are the peer's, when it
# ends by itself, is finalized and dismissed by hand, is cancelled, and in a transaction whose jobs complete together.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-storage-daemon
any_backend

python_test <<'EOF'
import os
import subprocess

from control import OURS, PEER, Daemon, done_testing, is_equal

SIZE = 4 << 20
B = {"job-id": "j", "device": "s", "target": "t", "sync": "full"}
CASES = [
    {}, {"job-id": "j"}, {**B, "sync": "foo"}, {**B, "sync": 1}, {**B, "foo": 1},
    {**B, "device": "x"}, {**B, "target": "x"}, {**B, "target": "s"}, {**B, "target": "short"},
    {**B, "on-source-error": "foo"},
    {**B, "sync": "bitmap"}, {**B, "sync": "incremental"}, {**B, "sync": "bitmap", "bitmap": "x"},
    {**B, "sync": "bitmap", "bitmap": "x", "bitmap-mode": "never"}, {**B, "sync": "bitmap", "bitmap": "b"},
    {**B, "sync": "incremental", "bitmap": "b", "bitmap-mode": "never"},
    {**B, "sync": "incremental", "bitmap": "b", "bitmap-mode": "always"},
    {**B, "bitmap": "b"}, {**B, "bitmap-mode": "always"}, {**B, "bitmap": "b", "bitmap-mode": "never"},
    {**B, "sync": "top", "bitmap": "b", "bitmap-mode": "never"},
    {**B, "sync": "none", "bitmap": "b", "bitmap-mode": "on-success"},
    {**B, "bitmap": "", "bitmap-mode": "always"}, {**B, "filter-node-name": "s"},
    {**B, "speed": -1}, {**B, "x-perf": {"max-workers": 0}},
]


def create(name, size=SIZE, backing=()):
    subprocess.run([os.environ["QEMU_IMG"], "create", "-q", "-f", "qcow2", *backing, name, str(size)], check=True)


def start(program):
    for name in ("s", "t", "u"):
        create(name)
    create("short", SIZE // 2)
    daemon = Daemon(program=program)
    for name in ("s", "t", "u", "short"):
        daemon.command("blockdev-add", driver="qcow2", node_name=name, file={"driver": "file", "filename": name})
    daemon.command("block-dirty-bitmap-add", node="s", name="b")
    return daemon


def told(daemon, until):
    """What the daemon has told, in short, until a job is in that state. Drains of the peer show as pauses: left out."""
    job, status = until
    heard = []
    while True:
        if daemon.events:
            message = daemon.events.pop(0)
        else:
            message = daemon.receive()
        data = message["data"]
        if message["event"] == "JOB_STATUS_CHANGE":
            heard.append((data["id"], data["status"]))
        else:
            heard.append((message["event"], sorted(data.items())))
        if heard[-1] == (job, status):
            return [word for i, word in enumerate(heard) if word[1] not in ("paused", "running") or i < 2]


def query(daemon):
    return [sorted(job.items()) for name in ("query-jobs", "query-block-jobs") for job in daemon.command(name)]


def run(program):
    results = []
    daemon = start(program)
    for case in CASES:
        results.append((f"refused: {case}", daemon.refused("blockdev-backup", case)))
    results.append(("nothing has changed", query(daemon)))
    for event in list(daemon.events):       # jobs that were made, and did not begin
        daemon.events.remove(event)
    daemon.command("blockdev-backup", B)
    results.append(("by itself", told(daemon, ("j", "null"))))
    hand = {"auto-finalize": False, "auto-dismiss": False}
    daemon.command("blockdev-backup", B, **{key.replace("-", "_"): value for key, value in hand.items()})
    results.append(("by hand", told(daemon, ("j", "pending"))))
    results.append(("pending", query(daemon)))
    daemon.command("job-finalize", id="j")
    results.append(("finalized", told(daemon, ("j", "concluded"))))
    results.append(("concluded", query(daemon)))
    daemon.command("job-dismiss", id="j")
    results.append(("dismissed", query(daemon)))
    daemon.events.clear()
    daemon.command("blockdev-backup", B, sync="none", auto_dismiss=False)
    results.append(("second job on the target", daemon.refused("blockdev-backup", B, job_id="k", device="u")))
    results.append(("the same id", daemon.refused("blockdev-backup", B, target="u")))
    results.append(("cannot be completed", daemon.refused("block-job-complete", device="j")))
    daemon.command("block-job-cancel", device="j")
    told(daemon, ("j", "concluded"))
    results.append(("cancelled", query(daemon)))
    daemon.command("job-dismiss", id="j")
    for mode in ("grouped", "individual"):
        daemon.events.clear()
        daemon.command("transaction", actions=[
            {"type": "blockdev-backup", "data": B}, {"type": "blockdev-backup", "data": {
                **B, "job-id": "k", "device": "s", "target": "u", "sync": "none"}}],
            properties={"completion-mode": mode})
        if mode == "grouped":
            daemon.event("JOB_STATUS_CHANGE", id="j", status="waiting")
        else:
            daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
        daemon.command("block-job-cancel", device="k")
        daemon.event("BLOCK_JOB_CANCELLED", device="k")
        ends = [message["event"] for message in daemon.events if message["event"].startswith("BLOCK_JOB")]
        results.append((f"{mode}: how the other one ends", ends))
        daemon.event("JOB_STATUS_CHANGE", id="k", status="null")
    refused = daemon.refused("transaction", actions=[{"type": "blockdev-backup", "data": B}, {"type": "abort", "data": {}}])
    results.append(("a transaction that is aborted", refused))
    results.append(("leaves no job", query(daemon)))
    for name in ("s", "t", "u"):
        results.append((f"{name} is free", daemon.refused("blockdev-del", node_name=name)))
    daemon.end()
    return results


for (text, ours), (_, theirs) in zip(run(OURS), run(PEER)):
    is_equal(ours, theirs, text)
done_testing()
EOF
