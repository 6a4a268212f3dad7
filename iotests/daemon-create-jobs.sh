#!/bin/bash
# SPDX-License-Identifier: MIT
# blockdev-create and the commands about jobs: the same session on the peer and on ours has the same results, refusals with
# their classes, states and events; the images are the peer's to read; a daemon that quits while a job runs ends well.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon qemu-img python3
any_backend
python_test <<'EOF'
import json
import os
import subprocess

from control import OURS, PEER, CommandError, Daemon, done_testing, is_equal, ok

PEER_IMG = os.environ["QEMU_IMG"]
MIB = 1 << 20


def reply(daemon, command, keywords):
    try:
        return daemon.command(command, **keywords)
    except CommandError as error:
        return (error.error_class, error.desc)


def same(command, **keywords):
    """The same result or class; ours may say more than the peer."""
    ours, peer = [reply(daemon, command, here(folder, keywords)) for daemon, folder in daemons]
    good = ours == peer
    if isinstance(ours, tuple) and isinstance(peer, tuple):
        good = ours[0] == peer[0] and ours[1].startswith(peer[1])
    ok(good, f"{command} {json.dumps(keywords)[:150]}", f"ours: {ours}\npeer: {peer}")


def here(folder, value):
    """Names of files that begin with './' lie in the daemon's folder."""
    if isinstance(value, dict):
        return {key: here(folder, inner) for key, inner in value.items()}
    return f"{folder}/{value[2:]}" if isinstance(value, str) and value.startswith("./") else value


def run_job(**options):
    """Creates on both: the same states and the same end; the job's error is returned, ours and the peer's."""
    ends, stories = [], []
    for daemon, folder in daemons:
        daemon.command("blockdev-create", job_id="j", options=here(folder, options))
        daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
        stories.append([e["data"]["status"] for e in daemon.events if e["event"] == "JOB_STATUS_CHANGE"])
        daemon.events.clear()
        job, = daemon.command("query-jobs")
        ends.append(job)
        daemon.command("job-dismiss", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    is_equal(stories[0], stories[1], f"states of creating {json.dumps(options)[:150]}")
    errors = [end.pop("error", None) for end in ends]
    is_equal(ends[0], ends[1], "what query-jobs says of it")
    return errors


def created(name, format, **options):
    is_equal(run_job(driver="file", filename=f"./{name}", size=0), [None, None], f"the file {name}")
    for daemon, folder in daemons:
        daemon.command("blockdev-add", driver="file", node_name="n", filename=f"{folder}/{name}")
    is_equal(run_job(driver=format, file="n", **options), [None, None], f"the image {name}")
    for daemon, _ in daemons:
        daemon.command("blockdev-del", node_name="n")
    infos = [json.loads(subprocess.check_output([PEER_IMG, "info", "-f", format, "--output=json", f"{folder}/{name}"]))
             for _, folder in daemons]
    for info in infos:
        for key in ("actual-size", "filename", "full-backing-filename"):
            info.pop(key, None)
        info.get("format-specific", {}).get("data", {}).pop("cid", None)
        for extent in info.get("format-specific", {}).get("data", {}).get("extents", []):
            extent.pop("filename")
    is_equal(infos[0], infos[1], f"{name}: the peer says the same of both")


def refused(**options):
    ours, peer = run_job(**options)
    ok(ours and peer, f"refused by both: {ours}", f"ours: {ours}\npeer: {peer}")
    return ours, peer


for name in ("ours", "peer"):
    os.mkdir(name)
daemons = [(Daemon(program=OURS), "ours"), (Daemon(program=PEER), "peer")]

# ---- arguments ----
same("blockdev-create")
same("blockdev-create", job_id="j")
same("blockdev-create", job_id="j", options=7)
same("blockdev-create", job_id="j", options={})
same("blockdev-create", job_id="j", options={"driver": "x"})
same("blockdev-create", job_id="j", options={"driver": "null-co"})
same("blockdev-create", job_id="j", options={"driver": "dmg"})
same("blockdev-create", job_id="j", options={"driver": "file"})
same("blockdev-create", job_id="j", options={"driver": "file", "filename": "./f", "size": 1, "foo": 1})
same("blockdev-create", job_id="1j", options={"driver": "file", "filename": "./f", "size": 1})
same("blockdev-create", job_id="j", options={"driver": "qcow2"})
same("blockdev-create", job_id="j", options={"driver": "qcow2", "file": "n"})
same("blockdev-create", job_id="j", options={"driver": "qcow2", "file": "n", "size": 1, "version": "v9"})
for verb in ("pause", "resume", "cancel", "complete", "finalize", "dismiss"):
    same(f"job-{verb}", id="x")
    same(f"job-{verb}")
    same(f"block-job-{verb}", **{"id" if verb in ("finalize", "dismiss") else "device": "x"})
    same(f"block-job-{verb}", foo=1)
same("block-job-set-speed", device="x", speed=1)
same("block-job-set-speed", device="x")
same("query-jobs")
same("query-block-jobs")

# ---- a job that is over ----
same("blockdev-create", job_id="j", options={"driver": "file", "filename": "./f", "size": MIB})
for daemon, _ in daemons:
    daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
    daemon.events.clear()
same("blockdev-create", job_id="j", options={"driver": "file", "filename": "./f", "size": MIB})
same("query-jobs")
same("query-block-jobs")
same("block-job-pause", device="j")
for verb in ("pause", "resume", "cancel", "complete", "finalize"):
    same(f"job-{verb}", id="j")
same("job-dismiss", id="j")
same("job-dismiss", id="j")
for daemon, _ in daemons:
    daemon.events.clear()

# ---- what is made ----
is_equal(run_job(driver="file", filename="./raw", size=MIB + 1), [None, None], "a file of an odd length")
is_equal([os.path.getsize(f"{folder}/raw") for _, folder in daemons], [MIB + 1] * 2, "is as long as it was told")
created("a.qcow2", "qcow2", size=8 * MIB)
created("b.qcow2", "qcow2", size=8 * MIB, version="v2", **{"cluster-size": 4096, "preallocation": "metadata"})
created("c.qcow2", "qcow2", size=8 * MIB,
        **{"compression-type": "zstd", "refcount-bits": 1, "lazy-refcounts": True, "extended-l2": True})
created("d.qcow2", "qcow2", size=8 * MIB, **{"backing-file": "a.qcow2", "backing-fmt": "qcow2"})
created("a.vdi", "vdi", size=8 * MIB, preallocation="metadata")
created("a.vpc", "vpc", size=8 * MIB, **{"force-size": True})
created("a.vmdk", "vmdk", size=8 * MIB, **{"adapter-type": "lsilogic"})
is_equal(run_job(driver="qcow2", size=MIB, file={"driver": "file", "filename": "./raw"}), [None, None],
         "in a node that is opened for that time")

# ---- what is refused, and leaves what was there ----
size = os.path.getsize("ours/a.qcow2")
for daemon, folder in daemons:
    daemon.command("blockdev-add", driver="file", node_name="n", filename=f"{folder}/a.qcow2")
for options in ({"size": 8 * MIB, "cluster-size": 1000}, {"size": 8 * MIB, "refcount-bits": 3},
                {"size": 8 * MIB, "version": "v2", "lazy-refcounts": True}, {"size": 8 * MIB, "backing-fmt": "raw"}):
    refused(driver="qcow2", file="n", **options)
refused(driver="qcow2", file="nope", size=MIB)
refused(driver="file", filename="./no/f", size=MIB)
is_equal(os.path.getsize("ours/a.qcow2"), size, "what was there is still there")
ours = daemons[0][0]
ours.command("blockdev-add", driver="qcow2", node_name="user", file="n")
ours.command("blockdev-create", job_id="j", options={"driver": "qcow2", "file": "n", "size": MIB})
ours.event("JOB_STATUS_CHANGE", id="j", status="concluded")
ok("Conflicts" in ours.command("query-jobs")[0].get("error", ""), "a node that somebody uses is not overwritten")

# ---- the end while a job runs ----
for daemon, folder in daemons:
    daemon.command("blockdev-create", job_id="end",
                   options={"driver": "file", "filename": f"{folder}/large", "size": 64 * MIB, "preallocation": "full"})
    is_equal(daemon.end(), 0, "a daemon that is told to end while a job runs ends with status 0")
is_equal(os.path.getsize("ours/large"), 64 * MIB, "what it did was not torn")
done_testing()
EOF
