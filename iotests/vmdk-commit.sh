#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: while an image is committed to its parent, and after a commit that failed or was cancelled, the image reads what it did: it
# follows the content ID that the parent gets. Another parent in a live graph is looked at anew.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3
any_backend

python_test <<'EOF'
import os
import shutil

from chain_jobs import attempt, conclude_commit, export, file_node, ready_commit, run
from control import Daemon, done_testing, is_equal, ok

IMG, IO, PEER_IMG, PEER_IO = (os.environ[name] for name in ("BLKSTACK_IMG", "BLKSTACK_IO", "QEMU_IMG", "QEMU_IO"))


def fresh(base_options="subformat=monolithicSparse"):
    """base <- mid <- top; what top reads is in model.raw."""
    for name in ("base.vmdk", "mid.vmdk", "top.vmdk", "model.raw"):
        if os.path.exists(name):
            os.unlink(name)
    run(PEER_IMG, "create", "-q", "-f", "raw", "model.raw", "4M")
    run(PEER_IO, "-f", "raw", "-c", "write -P 1 0 2M", "-c", "write -P 2 64k 64k", "-c", "write -P 3 1M 64k", "model.raw")
    run(PEER_IMG, "create", "-q", "-f", "raw", "start.raw", "4M")
    run(PEER_IO, "-f", "raw", "-c", "write -P 1 0 2M", "start.raw")
    run(PEER_IMG, "convert", "-f", "raw", "-O", "vmdk", "-o", base_options, "start.raw", "base.vmdk")
    run(PEER_IMG, "create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "mid.vmdk")
    run(PEER_IO, "-f", "vmdk", "-c", "write -P 2 64k 64k", "mid.vmdk")
    run(PEER_IMG, "create", "-q", "-f", "vmdk", "-b", "mid.vmdk", "-F", "vmdk", "top.vmdk")
    run(PEER_IO, "-f", "vmdk", "-c", "write -P 3 1M 64k", "top.vmdk")


def holds(name, what):
    for program in (IMG, PEER_IMG):
        done = attempt(program, "compare", "-f", "vmdk", "-F", "raw", name, "model.raw")
        ok(done.returncode == 0, f"{what}: {name} reads as before, by {os.path.basename(program)}", done.stdout + done.stderr)


def reads(path, what, *ranges):
    """What was never read before, through the export."""
    done = attempt(IO, "-r", "-f", "raw", *[word for at in ranges for word in ("-c", at)], f"nbd+unix:///e?socket={path}")
    ok(done.returncode == 0 and "verification failed" not in done.stdout, what, done.stdout + done.stderr)


def add(daemon):
    below = None
    for name in ("base", "mid", "top"):
        node = {"driver": "vmdk", "node-name": name, "file": file_node(f"{name}.vmdk")}
        below = {**node, "backing": below} if below else node
    daemon.command("blockdev-add", below)


# ---- a commit to what cannot be written again ----
fresh("subformat=streamOptimized")
done = attempt(IMG, "commit", "-f", "vmdk", "mid.vmdk")
ok(done.returncode == 1 and "can be written once" in done.stderr, "a commit to a streamOptimized image fails, and says why", done.stderr)
holds("top.vmdk", "a failed commit")

# ---- the active image; cancelled when it is ready ----
fresh()
with Daemon() as daemon:
    add(daemon)
    path = export(daemon, "top")
    ready_commit(daemon, device="top", base_node="mid")
    reads(path, "what is read from the parent while it is written", "read -P 1 0 64k", "read -P 2 64k 64k", "read -P 3 1M 64k",
          "read -P 0 3M 64k")
    daemon.command("block-job-cancel", device="j", force=True)
    daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
    daemon.command("job-dismiss", id="j")
    reads(path, "and afterwards", "read -P 1 256k 64k", "read -P 2 64k 64k", "read -P 3 1M 64k")
    is_equal(daemon.end(), 0, "the daemon ends")
holds("top.vmdk", "a cancelled commit")

# ---- the same, and then it becomes read-only: what it is over must be stable before ----
fresh()
with Daemon() as daemon:
    add(daemon)
    ready_commit(daemon, device="top", base_node="mid")
    daemon.command("block-job-cancel", device="j", force=True)
    daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
    daemon.command("job-dismiss", id="j")
    daemon.command("blockdev-reopen", options=[{"driver": "vmdk", "node-name": "top", "read-only": True, "backing": "mid",
                                                "file": file_node("top.vmdk")}])
    is_equal(daemon.end(), 0, "the daemon ends")
holds("top.vmdk", "reopened read-only")

# ---- over one in between, which is not what it was ----
fresh()
with Daemon() as daemon:
    add(daemon)
    ready_commit(daemon, device="top", base_node="base")
    daemon.command("block-job-cancel", device="j", force=True)
    is_equal(daemon.end(), 0, "the daemon ends")
done = attempt(IO, "-r", "-f", "vmdk", "-c", "read 0 64k", "mid.vmdk")
ok("content ID" in done.stdout + done.stderr, "the image in between says that it is not what it was", done.stdout + done.stderr)
run(IMG, "rebase", "-u", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "mid.vmdk")
holds("top.vmdk", "after rebase -u of that one")

# ---- the one in between ----
fresh()
with Daemon() as daemon:
    add(daemon)
    path = export(daemon, "top")
    daemon.command("block-commit", job_id="j", auto_dismiss=False, device="top", top_node="mid", base_node="base")
    conclude_commit(daemon, "the image in between")
    reads(path, "top stands above base", "read -P 1 0 64k", "read -P 2 64k 64k", "read -P 3 1M 64k")
    is_equal(daemon.end(), 0, "the daemon ends")
holds("top.vmdk", "without the one in between")
ok("base.vmdk" in attempt(PEER_IMG, "info", "-f", "vmdk", "top.vmdk").stdout, "top names base")

# ---- a backing file that is none ----
fresh()
shutil.copy("mid.vmdk", "other.vmdk")
run(IO, "-f", "vmdk", "-c", "write -P 9 0 64k", "other.vmdk")
with Daemon() as daemon:
    daemon.command("blockdev-add", {"driver": "vmdk", "node-name": "other", "file": file_node("other.vmdk"), "backing": None})
    for name, below in (("base", None), ("mid", "base"), ("top", "mid")):
        daemon.command("blockdev-add", driver="vmdk", node_name=name, file=file_node(f"{name}.vmdk"), backing=below,
                       read_only=name != "top")
    path = export(daemon, "top")
    reads(path, "the right one", "read -P 1 0 64k", "read -P 2 64k 64k")
    daemon.command("blockdev-reopen", options=[{"driver": "vmdk", "node-name": "top", "file": file_node("top.vmdk"), "backing": "other"}])
    done = attempt(IO, "-r", "-f", "raw", "-c", "read 0 64k", f"nbd+unix:///e?socket={path}")
    ok("read failed" in done.stdout + done.stderr, "another image in its place is not read", done.stdout + done.stderr)
    reads(path, "but what top has is", "read -P 3 1M 64k")
    daemon.command("blockdev-reopen", options=[{"driver": "vmdk", "node-name": "top", "file": file_node("top.vmdk"), "backing": "mid"}])
    reads(path, "the right one again", "read -P 1 0 64k", "read -P 2 64k 64k", "read -P 3 1M 64k")
    is_equal(daemon.end(), 0, "the daemon ends")
holds("top.vmdk", "after the other")
done_testing()
EOF
