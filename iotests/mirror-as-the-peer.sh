#!/bin/bash
# SPDX-License-Identifier: MIT
# The same mirrors on the peer and on ours: refusals, states, events, what queries say, and what is in the images at the end.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon qemu-img qemu-io python3
any_backend
python_test <<'PYTHON'
import json
import os
import shutil
import subprocess

from control import OURS, PEER, CommandError, Daemon, done_testing, is_equal, ok

PEER_IMG, PEER_IO = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
MIB = 1 << 20


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def create(name, size, *options, commands=()):
    run(PEER_IMG, "create", "-q", "-f", "qcow2", *options, name, str(size))
    if commands:
        run(PEER_IO, "-f", "qcow2", *(f"-c{command}" for command in commands), name)


def make_images(folder):
    os.mkdir(folder)
    base = ("-F", "qcow2", "-b", "base")
    create(f"{folder}/base", 4 * MIB, commands=["write -q -P 1 0 2M"])
    create(f"{folder}/s", 4 * MIB, *base, commands=["write -q -P 2 1M 64k", "write -q -z 256k 64k", "write -q -P 3 4032k 64k"])
    create(f"{folder}/t", 4 * MIB, commands=["write -q -P 9 2M 1M"])
    create(f"{folder}/top", 4 * MIB, *base)
    create(f"{folder}/short", 3 * MIB)
    create(f"{folder}/long", 5 * MIB)


def start():
    for folder in ("ours", "peer"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree("new", folder)
    both = []
    for folder, program in (("ours", OURS), ("peer", PEER)):
        daemon = Daemon(program=program)
        for name in ("s", "t", "top", "short", "long"):
            daemon.command("blockdev-add", driver="qcow2", node_name=name,
                           file={"driver": "file", "filename": f"{folder}/{name}", "node-name": name + "-file"})
        both.append(daemon)
    return both


def reply(daemon, command, keywords):
    try:
        return daemon.command(command, **keywords)
    except CommandError as error:
        return (error.error_class, error.desc)


def same(command, **keywords):
    ours, peer = [reply(daemon, command, keywords) for daemon in daemons]
    good = ours == peer
    if isinstance(ours, tuple) and isinstance(peer, tuple):
        good = ours[0] == peer[0] and ours[1].startswith(peer[1])
    ok(good, f"{command} {json.dumps(keywords)[:150]}", f"ours: {ours}\npeer: {peer}")


def wait(status, text):
    """The same story up to there: pauses and drains left out, and what ours adds to an error."""
    stories = []
    for daemon in daemons:
        data = daemon.event("JOB_STATUS_CHANGE", id="j", status=status)
        if status == "ready":
            daemon.events.append({"event": "JOB_STATUS_CHANGE", "data": data})
            daemon.events.append({"event": "BLOCK_JOB_READY", "data": daemon.event("BLOCK_JOB_READY")})
        story = [(e["event"], e["data"].get("status"), e["data"].get("len"), e["data"].get("offset"),
                  str(e["data"].get("error")).split(":")[0]) for e in daemon.events]
        stories.append([event for event in story if event[1] not in ("paused", "standby")])
        daemon.events.clear()
    is_equal(stories[0], stories[1], text)


def contents(folder, name):
    run(PEER_IMG, "convert", "-f", "qcow2", "-O", "raw", f"{folder}/{name}", f"{folder}/{name}.raw")
    with open(f"{folder}/{name}.raw", "rb") as raw:
        return raw.read()


def mirrored(target, end, **options):
    """@end: a command that ends the job when it is ready."""
    global daemons
    daemons = start()
    text = f"{target} {end} {options}"
    same("blockdev-mirror", device="s", target=target, job_id="j", **options)
    wait("ready", f"{text}: until it is ready")
    same("query-jobs")
    same("query-block-jobs")
    same("blockdev-mirror", device="long", target=target, job_id="k", sync="full")
    is_equal(daemons[0].refused("blockdev-mirror", device="s", target="long", job_id="k", sync="full"),
             "Node 's' is busy: block device is in use by block job: mirror", f"{text}: the source is in use")
    for verb in ("finalize", "dismiss", "resume"):
        same(f"job-{verb}", id="j")
    same(end[0], **end[1])
    if options.get("auto_finalize") is False:
        wait("pending", f"{text}: until it is pending")
        same("job-finalize", id="j")
    wait("null", f"{text}: until it is forgotten")
    same("query-jobs")
    same("blockdev-del", node_name="s")
    same("blockdev-del", node_name=target)
    for daemon in daemons:
        is_equal(daemon.end(), 0, "the daemon ends with status 0")
    ok(contents("ours", target) == contents("peer", target), f"{text}: both targets hold the same")
    run(PEER_IMG, "check", "-q", f"ours/{target}")


make_images("new")

# ---- refusals ----
daemons = start()
for keywords in (
        {}, {"target": None}, {"sync": None}, {"job_id": None}, {"job_id": "1j"}, {"device": "nope"}, {"target": "nope"},
        {"target": "s"}, {"sync": "xx"}, {"sync": "bitmap"}, {"sync": "incremental"}, {"granularity": 1000}, {"granularity": 256},
        {"granularity": 128 * MIB}, {"copy_mode": "x"}, {"on_source_error": "x"}, {"filter_node_name": "t"},
        {"filter_node_name": "1t"}, {"filter_node_name": ""}, {"replaces": "nope"}, {"replaces": "t"}, {"replaces": "s-file"}):
    if keywords:
        same("blockdev-mirror", **{**{"device": "s", "target": "t", "sync": "full", "job_id": "j"}, **keywords})
    else:
        same("blockdev-mirror")
for daemon in daemons:
    is_equal(daemon.events, [], "nothing has begun")
for target in ("short", "long"):
    same("blockdev-mirror", device="s", target=target, sync="full", job_id="j")
    wait("null", f"a target of another length, {target}")
ours = daemons[0]
is_equal(ours.refused("blockdev-mirror", device="s", target="t-file", sync="full", job_id="j")[:14], "Conflicts with",
         "the file of an image is no target")
is_equal(daemons[0].command("query-jobs"), [], "no job is left")
for daemon in daemons:
    is_equal(daemon.end(), 0, "the daemon ends with status 0")

# ---- below a filter: the filter stays, above the target ----
daemons = start()
for daemon in daemons:
    daemon.command("blockdev-add", driver="copy-on-read", node_name="c", file="s")
same("blockdev-mirror", device="c", target="t", replaces="s", sync="full", job_id="j")
wait("ready", "replaces: until it is ready")
same("job-complete", id="j")
wait("null", "replaces: until it is forgotten")
same("blockdev-del", node_name="s")
ok("in use" in daemons[0].refused("blockdev-del", node_name="t"), "replaces: the filter has the target")
for daemon in daemons:
    is_equal(daemon.end(), 0, "the daemon ends with status 0")
ok(contents("ours", "t") == contents("peer", "t"), "replaces: both targets hold the same")

# ---- ends ----
COMPLETE, CANCEL = ("job-complete", {"id": "j"}), ("block-job-cancel", {"device": "j"})
FORCE, KILL = ("block-job-cancel", {"device": "j", "force": True}), ("job-cancel", {"id": "j"})
mirrored("t", COMPLETE, sync="full")
mirrored("top", COMPLETE, sync="top", copy_mode="write-blocking", filter_node_name="f")
mirrored("top", ("block-job-complete", {"device": "j"}), sync="none")
mirrored("t", CANCEL, sync="full", granularity=65536)
mirrored("top", COMPLETE, sync="top", auto_finalize=False)
mirrored("t", FORCE, sync="full")
mirrored("t", KILL, sync="full")
done_testing()
PYTHON
