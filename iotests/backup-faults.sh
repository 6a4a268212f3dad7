#!/bin/bash
# SPDX-License-Identifier: MIT
# A backup meets a target without space: it stops, says so, and goes on when there is space. A point in time is exported while a
# client writes on. The daemon is killed in the middle of a backup under load: nothing that was flushed is lost, and no image
# has errors.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io mount
any_backend

small_file_system full 3M
random_file base.raw $((4 << 20))
qimg convert -O qcow2 base.raw disk.qcow2
qimg create -q -f qcow2 full/t.qcow2 4M
say_seed

SEED=$SEED python_test <<'EOF'
import atexit
import os
import signal
import subprocess

from control import Daemon, contains, done_testing, is_equal, ok
from nbd_load import Load

SIZE = 4 << 20
atexit.register(subprocess.run, ["umount", "-l", "full"], check=False)


def peer(*command, status=0):
    done = subprocess.run([os.environ["QEMU_IMG"], *command], capture_output=True, text=True, check=False, timeout=60)
    ok(done.returncode in (status, 0), f"qemu-img {' '.join(command)}", done.stdout + done.stderr)
    return done.stdout


def qio(target, *commands):
    """What the peer prints."""
    read_only = [] if any(command.startswith("write") for command in commands) else ["-r"]
    commands = [word for command in commands for word in ("-c", command)]
    return subprocess.run([os.environ["QEMU_IO"], "-f", "raw", *read_only, *commands, target], check=False, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def add(daemon, name, filename=None):
    daemon.command("blockdev-add", driver="qcow2", node_name=name, discard="unmap",
                   file={"driver": "file", "filename": filename or f"{name}.qcow2"})


def serve(daemon, *exports):
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    for name, writable in exports:
        daemon.command("block-export-add", type="nbd", id=name, node_name=name, writable=writable)
    return path


def read(name):
    with open(name, "rb") as file:
        return file.read()


# ---- no space ----
with Daemon() as daemon:
    add(daemon, "disk")
    add(daemon, "t", "full/t.qcow2")
    daemon.command("blockdev-backup", job_id="j", device="disk", target="t", sync="full", on_target_error="enospc")
    error = daemon.event("BLOCK_JOB_ERROR")
    is_equal(error, {"device": "j", "operation": "write", "action": "stop"}, "no space: the job stops")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="paused")
    job = daemon.command("query-block-jobs")[0]
    is_equal((job["io-status"], job["status"], job["paused"]), ("nospace", "paused", True), "and is asked about it")
    ok(job["offset"] < job["len"], "it has not done all", job)
    subprocess.run(["mount", "-o", "remount,size=16M", "full"], check=True)
    daemon.command("block-job-resume", device="j")
    done = daemon.event("BLOCK_JOB_COMPLETED", device="j")
    is_equal((done.get("error"), done["offset"]), (None, SIZE), "there is space: it completes")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
peer("compare", "disk.qcow2", "full/t.qcow2")
peer("check", "full/t.qcow2")

# ---- a point in time, exported ----
peer("create", "-q", "-f", "qcow2", "fleece.qcow2", str(SIZE))
with Daemon() as daemon:
    add(daemon, "disk")
    add(daemon, "fleece")
    for what, options, why in (
            ("no filter below", {"driver": "snapshot-access", "file": "disk"}, "must be a copy-before-write filter"),
            ("a target that is not there", {"driver": "copy-before-write", "file": "disk", "target": "x"}, "node-name='x'"),
            ("a bitmap that is not there", {"driver": "copy-before-write", "file": "disk", "target": "fleece",
                                            "bitmap": {"node": "disk", "name": "b"}}, "'b' not found")):
        contains(daemon.refused("blockdev-add", options, node_name="r"), why, f"refused: {what}")
    daemon.command("block-dirty-bitmap-add", node="disk", name="b")
    serve(daemon, ("disk", True))
    path = os.path.join(daemon.directory, "n")
    disk, view, part = (f"nbd+unix:///{name}?socket={path}" for name in ("disk", "view", "part"))
    daemon.command("blockdev-insert-filter", node="disk",
                   filter={"driver": "copy-before-write", "node-name": "cbw", "target": "fleece"})
    daemon.command("blockdev-add", driver="snapshot-access", node_name="view", discard="unmap", file="cbw")
    daemon.command("block-export-add", type="nbd", id="view", node_name="view")
    load = Load(path, b"disk", SIZE, int(os.environ["SEED"]))
    load.model[:] = read("base.raw")
    with load:
        load.wait_for(200)
        peer("convert", "-f", "raw", "-O", "raw", view, "seen.raw")
        load.wait_for(50)
    ok(read("seen.raw") == read("base.raw"), "the view has what the disk had, under writes")
    is_equal((load.failed, load.different, load.broken), (0, 0, None), "and the client of the disk met no error")
    daemon.command("block-export-del", id="view", mode="hard")
    daemon.event("BLOCK_EXPORT_DELETED", id="view")
    daemon.command("blockdev-del", node_name="view")
    daemon.command("blockdev-remove-filter", node_name="cbw")
    # Only what the bitmap has is kept.
    daemon.command("block-dirty-bitmap-clear", node="disk", name="b")
    qio(disk, "write -P 7 1M 64k")
    daemon.command("blockdev-insert-filter", node="disk", filter={
        "driver": "copy-before-write", "node-name": "cbw", "target": "fleece", "bitmap": {"node": "disk", "name": "b"}})
    daemon.command("block-dirty-bitmap-clear", node="disk", name="b")
    daemon.command("blockdev-add", driver="snapshot-access", node_name="part", file="cbw")
    daemon.command("block-export-add", type="nbd", id="part", node_name="part")
    qio(disk, "write -P 8 1M 4k")
    contains(qio(part, "read -P 7 1M 64k"), "read 65536/65536", "with a bitmap: what is dirty there can be read")
    contains(qio(part, "read 2M 64k"), "read failed", "and nothing else")
    contains(qio(disk, "read -P 8 1M 4k"), "read 4096/4096", "the client sees what it has written")
    contains(qio(part, "write 1M 4k"), "Permission denied", "it cannot be written")
    contains(daemon.refused("block_resize", node_name="cbw", size=SIZE // 2), "cannot get shorter", "refused: to get shorter")

# A copy fails: either the client's write fails, or the point in time is lost.
peer("create", "-q", "-f", "qcow2", "bad.qcow2", str(SIZE))
for mode in ("break-guest-write", "break-snapshot"):
    with Daemon() as daemon:
        add(daemon, "disk")
        daemon.command("blockdev-add", driver="fault", node_name="bad", image={
            "driver": "qcow2", "file": {"driver": "file", "filename": "bad.qcow2"}},
            inject_error=[{"event": "none", "iotype": "write", "errno": 28}])
        daemon.command("blockdev-add", {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "bad",
                                        "on-cbw-error": mode})
        daemon.command("blockdev-add", driver="snapshot-access", node_name="view", file="cbw")
        path = serve(daemon, ("cbw", True), ("view", False))
        guest, view = (f"nbd+unix:///{name}?socket={path}" for name in ("cbw", "view"))
        broken = mode == "break-snapshot"
        contains(qio(guest, "write -P 9 2M 4k"), "wrote 4096" if broken else "write failed", f"{mode}: the client's write")
        contains(qio(view, "read 3M 4k"), "read failed" if broken else "read 4096/4096", f"{mode}: the point in time")

# ---- the daemon is killed ----

def start():
    daemon = Daemon()
    add(daemon, "disk")
    add(daemon, "t")
    daemon.command("blockdev-add", driver="compress", node_name="z", file="t")
    return daemon, serve(daemon, ("disk", True))


def content(image):
    subprocess.run([os.environ["QEMU_IMG"], "convert", "-O", "raw", image, "content.raw"], check=True, timeout=60)
    return bytearray(read("content.raw"))


peer("create", "-q", "-f", "qcow2", "t.qcow2", str(SIZE))
for attempt in range(3):
    before = content("disk.qcow2")
    daemon, path = start()
    with Load(path, b"disk", SIZE, int(os.environ["SEED"]) + attempt) as load:
        load.model[:] = before
        load.wait_for(60)
    flushed = bytes(load.model)         # it ends with a flush
    daemon.command("blockdev-backup", job_id="j", device="disk", target="z", sync="full", speed=(1 << 20) << attempt)
    with Load(path, b"disk", SIZE, int(os.environ["SEED"]) + attempt) as load:
        load.model[:] = flushed
        load.wait_for(60 * attempt + 10)
        daemon.end(signal.SIGKILL)
    for image in ("disk.qcow2", "t.qcow2"):
        peer("check", image, status=3)
    after = content("disk.qcow2")
    ok(load.has_kept(flushed, after), f"killed after {load.ended} requests: what was flushed is there")
    daemon, path = start()
    daemon.command("blockdev-backup", job_id="j", device="disk", target="z", sync="full")
    daemon.event("BLOCK_JOB_COMPLETED", device="j", offset=SIZE)
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    daemon.end()
    peer("compare", "disk.qcow2", "t.qcow2")
    for image in ("disk.qcow2", "t.qcow2"):
        peer("check", "-r", "leaks", image)
done_testing()
EOF
