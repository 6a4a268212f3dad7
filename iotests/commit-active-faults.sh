#!/bin/bash
# SPDX-License-Identifier: MIT
# The image that guests write to is committed into one below it. A daemon that is killed in the middle loses nothing that was
# flushed, and the job works afterwards. Without space in the base it stops, and is right when there is space.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
any_backend

small_file_system full 3M
say_seed

SEED=$SEED python_test <<'EOF'
import atexit
import os
import random
import subprocess

from chain_jobs import conclude_commit, content, export, file_node, judge, make_chain, make_image, ready_commit
from control import Daemon, done_testing, is_equal, ok
from nbd_load import Load

SIZE = 4 << 20
SEED = int(os.environ["SEED"])
RNG = random.Random(SEED)
atexit.register(subprocess.run, ["umount", "-l", "full"], check=False)


def add(daemon):
    daemon.command("blockdev-add", driver="qcow2", node_name="inc2", file=file_node("inc2.qcow2"))


# ---- killed in the middle: what was flushed is there, and the images have leaks at most ----
for attempt in range(3):
    make_chain(SIZE, SEED + attempt)
    before = content("inc2.qcow2")
    daemon = Daemon()
    add(daemon)
    path = export(daemon, "inc2")
    load = Load(path, b"e", SIZE, SEED + attempt)
    load.model[:] = before
    with load:
        load.wait_for(40)
    flushed = bytes(load.model)         # it ends with a flush
    daemon.command("block-commit", job_id="j", device="inc2", compress=attempt == 1, speed=(1 << 20) << (2 * attempt))
    load = Load(path, b"e", SIZE, SEED + attempt)
    load.model[:] = flushed
    with load:
        load.wait_for(RNG.randrange(1, 60 * attempt + 10))
        daemon.kill()
    after = content("inc2.qcow2")
    ok(load.has_kept(flushed, after), f"killed after {load.ended} requests: what was flushed is there")
    with Daemon() as daemon:
        add(daemon)
        ready_commit(daemon, device="inc2")
        daemon.command("job-complete", id="j")
        conclude_commit(daemon, "killed and started again")
    judge("base.qcow2", after, "killed and started again", leaks=True)
    judge("inc2.qcow2", after, "killed and started again", leaks=True)

# ---- without space ----
make_image("full/base.qcow2", SIZE, None, [], SEED)
make_image("inc2.qcow2", SIZE, "full/base.qcow2", [(0, SIZE)], SEED, False)
before = content("inc2.qcow2")
with Daemon() as daemon:
    add(daemon)
    daemon.command("block-commit", job_id="j", device="inc2", on_error="enospc", auto_dismiss=False)
    is_equal(daemon.event("BLOCK_JOB_ERROR"), {"device": "j", "operation": "write", "action": "stop"}, "no space: it stops")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="paused")
    is_equal(daemon.command("query-block-jobs")[0]["io-status"], "nospace", "and says why")
    subprocess.run(["mount", "-o", "remount,size=16M", "full"], check=True)
    daemon.command("job-resume", id="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="ready")
    daemon.command("job-complete", id="j")
    conclude_commit(daemon, "there is space")
judge("full/base.qcow2", before, "there is space")
done_testing()
EOF
