#!/bin/bash
# SPDX-License-Identifier: MIT
# Mirrors whose requests fail: by each policy the job fails, tries again or stops, and is right after a resume; also where there is
# no space, when it copies and when it is ready. A daemon that is killed in the middle of a mirror loses nothing that was flushed; the images have leaks at most, and the mirror works afterwards.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
any_backend

small_file_system full 1M
text_file base.raw 2M
say_seed

SEED=$SEED python_test <<'EOF'
import atexit
import os
import random
import subprocess
import threading
import time

import nbd_raw
from control import Daemon, contains, done_testing, is_equal, ok

SIZE = 2 << 20
RNG = random.Random(int(os.environ["SEED"]))
QEMU_IMG = os.environ["QEMU_IMG"]


def peer(*command):
    return subprocess.run([QEMU_IMG, *command], capture_output=True, text=True, check=False, timeout=60)


def image(name, fault=None):
    file = {"driver": "file", "filename": name}
    if fault:
        file = {"driver": "blkdebug", "image": file, "inject-error": [{"once": True, **fault}]}
    return {"driver": "qcow2", "node-name": name[0], "file": file}


def make_images():
    peer("convert", "-f", "raw", "-O", "qcow2", "base.raw", "s.qcow2")
    peer("create", "-q", "-f", "qcow2", "t.qcow2", str(SIZE))


def identical(text):
    compared = peer("compare", "-f", "qcow2", "-F", "qcow2", "s.qcow2", "t.qcow2")
    ok(compared.returncode == 0, f"{text}: the target holds the same", compared.stdout + compared.stderr)
    checked = peer("check", "t.qcow2")
    ok(checked.returncode == 0, f"{text}: it has no errors and no leaks", checked.stdout + checked.stderr)


def policy(side, errno, choice, action):
    """One request fails. @action: what the job says of it."""
    text = f"errno {errno} of the {side}, {choice}"
    operation = "read" if side == "source" else "write"
    fault = {"event": f"{operation}_aio", "errno": errno}
    make_images()
    with Daemon() as daemon:
        daemon.command("blockdev-add", image("s.qcow2", fault if side == "source" else None))
        daemon.command("blockdev-add", image("t.qcow2", fault if side == "target" else None))
        daemon.command("blockdev-mirror", job_id="j", device="s", target="t", sync="full", auto_dismiss=False,
                       **{f"on_{side}_error": choice})
        is_equal(daemon.event("BLOCK_JOB_ERROR"), {"device": "j", "operation": operation, "action": action}, text)
        if action == "report":
            daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
            contains(daemon.command("query-jobs")[0].get("error", ""), os.strerror(errno), f"{text}: the job has failed")
            return
        if action == "stop":
            daemon.event("JOB_STATUS_CHANGE", id="j", status="paused")
            job, = daemon.command("query-block-jobs")
            is_equal((job["io-status"], job["paused"]), ("nospace" if errno == 28 else "failed", True), f"{text}: it is paused")
            daemon.command("job-resume", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="ready")
        is_equal(daemon.command("query-block-jobs")[0]["io-status"], "ok", f"{text}: it is ready")
        daemon.command("job-complete", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
        ok("error" not in daemon.command("query-jobs")[0], f"{text}: it has succeeded")
    identical(text)


policy("target", 5, "report", "report")
policy("target", 5, "ignore", "ignore")
policy("target", 5, "stop", "stop")
policy("target", 28, "stop", "stop")
policy("target", 28, "enospc", "stop")
policy("target", 5, "enospc", "report")
policy("source", 5, "report", "report")
policy("source", 5, "ignore", "ignore")
policy("source", 5, "stop", "stop")


def serve(daemon):
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="e", node_name="s", name="disk", writable=True)
    return path


# ---- no space: while it copies, and when what guests write is copied before it is done ----
def without_space(mode):
    text = f"no space, {mode}"
    if os.path.exists("full/t.qcow2"):
        os.unlink("full/t.qcow2")
    subprocess.run(["mount", "-o", "remount,size=1M", "full"], check=True)
    peer("create", "-q", "-f", "qcow2", "full/t.qcow2", str(SIZE))
    if mode == "background":
        peer("convert", "-f", "raw", "-O", "qcow2", "base.raw", "s.qcow2")
    else:
        peer("create", "-q", "-f", "qcow2", "s.qcow2", str(SIZE))
    with Daemon() as daemon:
        daemon.command("blockdev-add", image("s.qcow2"))
        daemon.command("blockdev-add", {**image("full/t.qcow2"), "node-name": "t"})
        path = serve(daemon)
        daemon.command("blockdev-mirror", job_id="j", device="s", target="t", sync="full", auto_dismiss=False, copy_mode=mode,
                       on_target_error="enospc")
        if mode == "write-blocking":
            daemon.event("JOB_STATUS_CHANGE", id="j", status="ready")
            with nbd_raw.Raw(path).negotiate(b"disk") as client, open("base.raw", "rb") as raw:
                for place in range(0, SIZE, 65536):
                    client.send(nbd_raw.request(nbd_raw.WRITE, place, 65536, raw.read(65536)))
                    assert client.simple_reply()[0] == 0
        is_equal(daemon.event("BLOCK_JOB_ERROR"), {"device": "j", "operation": "write", "action": "stop"}, f"{text}: it stops")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="paused" if mode == "background" else "standby")
        is_equal(daemon.command("query-block-jobs")[0]["io-status"], "nospace", f"{text}: it says why")
        subprocess.run(["mount", "-o", "remount,size=16M", "full"], check=True)
        daemon.command("job-resume", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="ready")
        daemon.command("job-complete", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
        ok("error" not in daemon.command("query-jobs")[0], f"{text}: there is space, it succeeds")
    compared = peer("compare", "-f", "raw", "-F", "qcow2", "base.raw", "full/t.qcow2")
    ok(compared.returncode == 0, f"{text}: the target holds the same", compared.stdout + compared.stderr)


atexit.register(subprocess.run, ["umount", "-l", "full"], check=False)
without_space("background")
without_space("write-blocking")

# ---- zeroes that keep their space ----
peer("create", "-q", "-f", "qcow2", "s.qcow2", str(SIZE))
for unmap in (True, False):
    peer("convert", "-f", "raw", "-O", "qcow2", "base.raw", "t.qcow2")
    with Daemon() as daemon:
        daemon.command("blockdev-add", image("s.qcow2"))
        daemon.command("blockdev-add", image("t.qcow2"))
        daemon.command("blockdev-mirror", job_id="j", device="s", target="t", sync="full", unmap=unmap, buf_size=1 << 20)
        daemon.event("JOB_STATUS_CHANGE", id="j", status="ready")
        daemon.command("job-complete", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    is_equal("offset" in peer("map", "--output=json", "t.qcow2").stdout, not unmap, f"unmap {unmap}: what was there has its place")
    identical(f"unmap {unmap}")

# ---- all of the source, where it has no backing ----
peer("create", "-q", "-f", "qcow2", "s.qcow2", str(SIZE))
peer("convert", "-f", "raw", "-O", "qcow2", "base.raw", "t.qcow2")
with Daemon() as daemon:
    daemon.command("blockdev-add", image("s.qcow2"))
    daemon.command("blockdev-add", image("t.qcow2"))
    daemon.command("blockdev-mirror", job_id="j", device="s", target="t", sync="top")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="ready")
    daemon.command("job-complete", id="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
identical("sync=top of an image without a backing, over old data")


# ---- killed in the middle ----
class Flushing(threading.Thread):
    """Writes clusters of its own and flushes; knows what was there when a flush had returned."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.connection = nbd_raw.Raw(path).negotiate(b"disk")
        self.stable, self.rounds = {}, 0

    def run(self):
        written = {}
        try:
            while True:
                for _ in range(RNG.randrange(1, 8)):
                    place, self.rounds = RNG.randrange(SIZE // 4096), self.rounds + 1
                    payload = self.rounds.to_bytes(4, "big") * 1024
                    # what is in flight may be there or not
                    self.stable.pop(place, None)
                    self.connection.send(nbd_raw.request(nbd_raw.WRITE, place * 4096, 4096, payload))
                    assert self.connection.simple_reply()[0] == 0
                    written[place] = payload
                self.connection.send(nbd_raw.request(nbd_raw.FLUSH))
                assert self.connection.simple_reply()[0] == 0
                self.stable.update(written)
                written = {}
        except (nbd_raw.Gone, OSError):
            pass


def killed(mode, compress, until):
    text = f"killed, {mode}, compress {compress}, {until} writes"
    make_images()
    daemon = Daemon("--blockdev", "qcow2,node-name=s,file.driver=file,file.filename=s.qcow2",
                    "--blockdev", "qcow2,node-name=t,file.driver=file,file.filename=t.qcow2")
    load = Flushing(serve(daemon))
    load.start()
    daemon.command("blockdev-mirror", job_id="j", device="s", target="t", sync="full", copy_mode=mode, compress=compress,
                   speed=SIZE)
    while load.rounds < until and load.is_alive():
        time.sleep(0.001)
    states = [job["status"] for job in daemon.command("query-jobs")]
    ok(states in (["running"], ["ready"]), f"{text}: the job is under way", states)
    daemon.kill()
    load.join()
    for name in ("s.qcow2", "t.qcow2"):
        checked = peer("check", name)
        ok(checked.returncode in (0, 3), f"{text}: {name} has leaks at most", checked.stdout + checked.stderr)
    peer("convert", "-f", "qcow2", "-O", "raw", "s.qcow2", "s.raw")
    with open("s.raw", "rb") as raw:
        data = raw.read()
    lost = [place for place, payload in load.stable.items() if data[place * 4096:][:4096] != payload]
    is_equal(lost, [], f"{text}: nothing is lost of {len(load.stable)} flushed blocks")
    with Daemon() as again:
        again.command("blockdev-add", image("s.qcow2"))
        again.command("blockdev-add", image("t.qcow2"))
        again.command("blockdev-mirror", job_id="j", device="s", target="t", sync="full", auto_dismiss=False)
        again.event("JOB_STATUS_CHANGE", id="j", status="ready")
        again.command("job-complete", id="j")
        again.event("JOB_STATUS_CHANGE", id="j", status="concluded")
    compared = peer("compare", "-f", "qcow2", "-F", "qcow2", "s.qcow2", "t.qcow2")
    ok(compared.returncode == 0, f"{text}: mirrored again it is the same", compared.stdout + compared.stderr)


for mode in ("background", "write-blocking"):
    for compress in (False, True):
        killed(mode, compress, RNG.randrange(50, 400))
done_testing()
EOF
