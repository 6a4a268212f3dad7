#!/bin/bash
# SPDX-License-Identifier: MIT
# Mirrors of a disk that an NBD client writes to without a pause, in both copy modes and with each sync: the client goes on in
# the target, without an error or a difference. Cancelled when it is ready, the target is one moment of the source. A guest that writes
# faster than the job copies does not keep it from getting ready. Into a compress node, or with compress, the target stays small.
. "$(dirname "$0")/lib.sh"
requires qemu-img
any_backend

text_file base.raw 4M
qimg convert -f raw -O qcow2 base.raw base.qcow2
qimg convert -c -f raw -O qcow2 base.raw fresh.qcow2
say_seed

SEED=$SEED python_test <<'EOF'
import os
import subprocess
import threading
import time

import nbd_raw
from control import Daemon, contains, done_testing, is_equal, ok
from nbd_load import Load

SIZE = 4 << 20
SEED = int(os.environ["SEED"])
QEMU_IMG = os.environ["QEMU_IMG"]


def peer(*command):
    return subprocess.run([QEMU_IMG, *command], capture_output=True, text=True, check=False, timeout=60)


def image(name, *options):
    peer("create", "-q", "-f", "qcow2", *options, name, str(SIZE))
    return {"driver": "qcow2", "node-name": name[0], "file": {"driver": "file", "filename": name}}


def judge(name, model, text):
    with open("model.raw", "wb") as raw:
        raw.write(model)
    checked = peer("check", name)
    ok(checked.returncode == 0, f"{text}: the target has no errors and no leaks", checked.stdout + checked.stderr)
    compared = peer("compare", "-f", "qcow2", "-F", "raw", name, "model.raw")
    ok(compared.returncode == 0, f"{text}: it holds what the client wrote", compared.stdout + compared.stderr)


def serve(daemon, node):
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="e", node_name=node, name="disk", writable=True)
    return path


def ready(daemon, **options):
    daemon.command("blockdev-mirror", job_id="j", device="s", target="t", **options)
    daemon.event("JOB_STATUS_CHANGE", id="j", status="ready")


def mirrored(sync, **options):
    text = f"sync {sync} {options}"
    base = ("-b", "base.qcow2", "-F", "qcow2")
    source, target = image("s.qcow2", *base), image("t.qcow2", *(() if sync == "full" else base))
    with Daemon() as daemon:
        daemon.command("blockdev-add", source)
        daemon.command("blockdev-add", target)
        load = Load(serve(daemon, "s"), b"disk", SIZE, SEED)
        with open("base.raw", "rb") as raw:
            load.model[:] = raw.read()
        if sync == "none":
            ready(daemon, sync=sync, **options)
        with load:
            load.wait_for(40)
            if sync != "none":
                ready(daemon, sync=sync, **options)
            load.wait_for(60)
            daemon.command("job-complete", id="j")
            daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
            load.wait_for(40)
        is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{text}: {load.ended} requests are right")
        is_equal(daemon.command("query-block-exports")[0]["node-name"], "t", f"{text}: the client uses the target")
        error, = [e["data"].get("error") for e in daemon.events if e["event"] == "BLOCK_JOB_COMPLETED"]
        is_equal(error, None, f"{text}: the job has succeeded")
        daemon.command("blockdev-del", node_name="s")
    judge("t.qcow2", load.model, text)


for mode in ("background", "write-blocking"):
    for sync in ("full", "top", "none"):
        mirrored(sync, copy_mode=mode)
mirrored("top", copy_mode="background", granularity=4096, auto_finalize=True)
mirrored("full", compress=True)

# ---- a guest that is faster than the job: 4 MiB, of which it copies 8 MiB a second ----
mirrored("full", speed=8 << 20)


# ---- transactions that drain the target first, while guests wait for their copies; told to complete while it is paused ----
source, target = image("s.qcow2"), image("t.qcow2")
with Daemon() as daemon:
    daemon.command("blockdev-add", source)
    daemon.command("blockdev-add", target)
    with Load(serve(daemon, "s"), b"disk", SIZE, SEED) as load:
        ready(daemon, sync="full", copy_mode="write-blocking", auto_dismiss=False)
        for command in ("add", "remove") * 10:
            daemon.command("transaction", actions=[{"type": f"block-dirty-bitmap-{command}", "data": {"node": node, "name": "b"}}
                                                   for node in ("t", "s")])
            load.wait_for(2)
        daemon.command("job-pause", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="standby")
        load.wait_for(10)
        daemon.command("job-complete", id="j")
        load.wait_for(10)
        is_equal(daemon.command("query-jobs")[0]["status"], "standby", "a paused job completes when it goes on")
        daemon.command("job-resume", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
        load.wait_for(10)
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"beside transactions {load.ended} requests are right")
judge("t.qcow2", load.model, "beside transactions")


# ---- write-blocking: what was written is in the target when the client is told so ----
source = image("s.qcow2")
with open("t.raw", "wb") as raw:
    raw.truncate(SIZE)
with Daemon() as daemon:
    daemon.command("blockdev-add", source)
    daemon.command("blockdev-add", driver="file", node_name="t", filename="t.raw")
    path, there = serve(daemon, "s"), 0
    ready(daemon, sync="none", copy_mode="write-blocking")
    with nbd_raw.Raw(path).negotiate(b"disk") as client, open("t.raw", "rb", buffering=0) as raw:
        for place in range(20):
            client.send(nbd_raw.request(nbd_raw.WRITE, place * 70000 // 512 * 512, 1024, bytes([place + 1]) * 1024))
            assert client.simple_reply()[0] == 0
            there += os.pread(raw.fileno(), 1024, place * 70000 // 512 * 512) == bytes([place + 1]) * 1024
    is_equal(there, 20, "write-blocking: the target has what was written")


# ---- one moment: a client writes its counter to eight places in turn, and waits for each ----
class Counter(threading.Thread):
    STEP = SIZE // 8

    def __init__(self, path):
        super().__init__(daemon=True)
        self.connection, self.over, self.rounds = nbd_raw.Raw(path).negotiate(b"disk"), False, 0

    def run(self):
        while not self.over:
            self.rounds += 1
            for place in range(8):
                payload = self.rounds.to_bytes(4, "big") * 1024
                self.connection.send(nbd_raw.request(nbd_raw.WRITE, place * self.STEP, len(payload), payload))
                assert self.connection.simple_reply()[0] == 0


for finalize in (True, False):
    source, target = image("s.qcow2"), image("t.qcow2")
    with Daemon() as daemon:
        daemon.command("blockdev-add", source)
        daemon.command("blockdev-add", target)
        counter = Counter(serve(daemon, "s"))
        counter.start()
        ready(daemon, sync="full", auto_finalize=finalize, auto_dismiss=False)
        daemon.command("block-job-cancel", device="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded" if finalize else "pending")
        at_end = counter.rounds
        while counter.rounds < at_end + 20 and counter.is_alive():
            time.sleep(0.001)
        if not finalize:
            daemon.command("job-finalize", id="j")
        counter.over = True
        counter.join()
        ok(any(e["event"] == "BLOCK_JOB_COMPLETED" for e in daemon.events), "cancelled when ready: it is said to be completed")
        is_equal(daemon.command("query-block-exports")[0]["node-name"], "s", "the client uses the source still")
    subprocess.run([QEMU_IMG, "convert", "-f", "qcow2", "-O", "raw", "t.qcow2", "t.raw"], check=True)
    with open("t.raw", "rb") as raw:
        data = raw.read()
    seen = [int.from_bytes(data[place * Counter.STEP:][:4], "big") for place in range(8)]
    ok(seen == sorted(seen, reverse=True) and 0 <= seen[0] - seen[7] <= 1 and at_end - 1 <= seen[0] <= at_end + 1 or
       (seen[0] <= at_end + 1 and seen == sorted(seen, reverse=True) and seen[0] - seen[7] <= 1),
       "the target is one moment of the source", f"{seen}, at the end {at_end}")

# ---- small ----
limit = os.path.getsize("fresh.qcow2") * 1.10
for compress in (False, True):
    source, target = image("s.qcow2", "-b", "base.qcow2", "-F", "qcow2"), image("t.qcow2")
    with Daemon() as daemon:
        daemon.command("blockdev-add", source)
        if compress:
            daemon.command("blockdev-add", target)
        else:
            daemon.command("blockdev-add", driver="compress", node_name="t", file={**target, "node-name": "i"})
        ready(daemon, sync="full", **({"compress": True} if compress else {}))
        daemon.command("job-complete", id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    ok(os.path.getsize("t.qcow2") <= limit, f"compress {compress}: within 1.10 of a fresh convert -c",
       f"{os.path.getsize('t.qcow2')}, limit {limit}")
    with open("base.raw", "rb") as raw:
        judge("t.qcow2", raw.read(), f"compress {compress}")
done_testing()
EOF
