#!/bin/bash
# SPDX-License-Identifier: MIT
# block-stream and block-commit meet a target without space: they stop, say so, and go on when there is space. The daemon is killed
# in the middle of them, under load: nothing that was flushed is lost, no image has errors, and the job can be done again.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io mount
any_backend

small_file_system full 3M
say_seed

SEED=$SEED python_test <<'EOF'
import atexit
import os
import random
import signal
import subprocess

from chain_jobs import QEMU_IMG, TextLoad, backing_of, content, export, file_node, finish, judge, make_chain, make_image, run
from control import Daemon, done_testing, is_equal, ok

SIZE = 8 << 20
SEED = int(os.environ["SEED"])
atexit.register(subprocess.run, ["umount", "-l", "full"], check=False)


def add_chain(daemon, compress=False):
    node = {"driver": "qcow2", "node-name": "top", "file": file_node("top.qcow2")}
    if compress:
        node = {"driver": "compress", "node-name": "z", "file": node}
    daemon.command("blockdev-add", node)


def chain_of_four():
    make_chain(SIZE, SEED)
    make_image("top.qcow2", SIZE, "inc2.qcow2", [], SEED)
    return content("top.qcow2")


STREAM = {"device": "top", "base": "base.qcow2"}
COMMIT = {"device": "top", "top": "inc2.qcow2", "base": "inc1.qcow2"}


# ---- no space ----
def without_space(command, arguments, image, compress):
    """@image is what the job writes to; it lies on the small file system."""
    what = f"{command}{', compress' if compress else ''}, no space"
    subprocess.run(["mount", "-o", "remount,size=3M", "full"], check=True)
    before = chain_of_four()
    run("mv", f"{image}.qcow2", "full/")
    os.symlink(f"full/{image}.qcow2", f"{image}.qcow2")
    with open("full/filler", "wb") as filler:
        filler.write(bytes((3 << 20) - os.stat(f"full/{image}.qcow2").st_blocks * 512 - (256 << 10)))
    with Daemon() as daemon:
        add_chain(daemon)
        daemon.command(command, arguments, job_id="j", on_error="enospc", compress=compress)
        error = daemon.event("BLOCK_JOB_ERROR")
        is_equal(error, {"device": "j", "operation": "write", "action": "stop"}, f"{what}: the job stops")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="paused")
        job = daemon.command("query-block-jobs")[0]
        is_equal((job["io-status"], job["status"]), ("nospace", "paused"), f"{what}: and is asked about it")
        subprocess.run(["mount", "-o", "remount,size=32M", "full"], check=True)
        daemon.command("block-job-resume", device="j")
        finish(daemon, "j", what)
    judge(f"{image}.qcow2", before, what)
    judge("top.qcow2", before, what)
    os.unlink(f"{image}.qcow2")
    os.unlink(f"full/{image}.qcow2")
    os.unlink("full/filler")


without_space("block-stream", STREAM, "top", False)
without_space("block-stream", STREAM, "top", True)
without_space("block-commit", COMMIT, "inc1", False)
without_space("block-commit", COMMIT, "inc1", True)


# ---- killed ----
def load_of(path, before, seed):
    load = TextLoad(path, b"e", SIZE, seed)
    load.model[:] = before
    return load


def sound(image, what):
    done = subprocess.run([QEMU_IMG, "check", image], capture_output=True, text=True, check=False, timeout=60)
    ok(done.returncode in (0, 3), f"{what}: {image} has leaks at most", done.stdout + done.stderr)


def killed(command, arguments, compress, attempt):
    what = f"{command}{', compress' if compress else ''}, killed"
    before = chain_of_four()
    node = "z" if compress else "top"
    arguments = {**arguments, "device": node}
    daemon = Daemon()
    add_chain(daemon, compress)
    path, seed = export(daemon, node), SEED + attempt
    with load_of(path, before, seed) as load:
        load.wait_for(50)
    flushed = bytes(load.model)         # it ends with a flush
    daemon.command(command, arguments, job_id="j", speed=(1 << 20) << attempt, compress=not compress)
    with load_of(path, flushed, seed + 1) as load:
        load.wait_for(random.Random(seed).randrange(1, 200))
        daemon.end(signal.SIGKILL)
    for image in ("top.qcow2", "inc2.qcow2", "inc1.qcow2", "base.qcow2"):
        sound(image, what)
    after = content("top.qcow2")
    ok(load.has_kept(flushed, after), f"{what} after {load.ended} requests: what was flushed is there")
    done = backing_of("top.qcow2") == arguments["base"]
    with Daemon() as daemon:
        add_chain(daemon, compress)
        if not done:
            daemon.command(command, arguments, job_id="j")
            finish(daemon, "j", f"{what}, and done again")
    is_equal(backing_of("top.qcow2"), arguments["base"], f"{what}: the backing file in the end")
    for image in ("top.qcow2", arguments["base"]):
        run(QEMU_IMG, "check", "-q", "-r", "leaks", image)
    judge("top.qcow2", after, f"{what}, and done again")


for number in range(2):
    killed("block-stream", STREAM, number == 1, number)
    killed("block-commit", COMMIT, number == 1, number + 2)
done_testing()
EOF
