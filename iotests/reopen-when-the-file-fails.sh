#!/bin/bash
# SPDX-License-Identifier: MIT
# A node whose file refuses writes (a limit of the process) cannot become read-only while it holds changes: that is said, the node
# stays writable and keeps them, and once the file takes writes again all is well.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3
any_backend

python_test <<'EOF'
import os
import resource

from chain_jobs import attempt, file_node, run
from control import Daemon, contains, done_testing, is_equal, ok

IMG, IO, PEER_IMG, PEER_IO = (os.environ[name] for name in ("BLKSTACK_IMG", "BLKSTACK_IO", "QEMU_IMG", "QEMU_IO"))
# Driver, creation options, what is said, whether the peer checks such images.
FORMATS = (("qcow2", "", "its tables could not be written", True), ("vmdk", "", "its tables could not be written", True),
           ("vdi", "", "its table of blocks could not be written", True),
           ("vpc", "force_size=on", "its table of blocks could not be written", False),
           ("vhdx", "", "its table of blocks could not be written", True))


def limit(daemon, bytes):
    """Writes to files at that place or behind it fail."""
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (bytes, resource.RLIM_INFINITY))


def fresh(driver, options):
    for old in ("base", "model.raw"):
        if os.path.exists(old):
            os.unlink(old)
    run(PEER_IMG, "create", "-q", "-f", driver, *(["-o", options] if options else []), "base", "16M")
    run(PEER_IMG, "create", "-q", "-f", "raw", "model.raw", "16M")


def words(writes):
    return [word for at in writes for word in ("-c", f"write {at}")]


def write(path, *writes):
    """Into the export and the model. Nothing is flushed."""
    run(IO, "-t", "unsafe", "-f", "raw", *words(writes), f"nbd+unix:///e?socket={path}")
    run(PEER_IO, "-f", "raw", *words(writes), "model.raw")


def is_read_only(daemon):
    info, = [each for each in daemon.command("query-named-block-nodes") if each["node-name"] == "disk"]
    return info["ro"]


def failing(driver, options, sentence, checked):
    fresh(driver, options)
    node = {"driver": driver, "node-name": "disk", "file": file_node("base")}
    if driver == "vpc":
        node["force_size_calc"] = "current_size"
    with Daemon() as daemon:
        path = os.path.join(daemon.directory, "n")
        daemon.command("blockdev-add", node)
        daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        daemon.command("block-export-add", type="nbd", id="e", node_name="disk", name="e", writable=True)
        write(path, "-P 1 0 2M", "-P 2 9M 64k")
        limit(daemon, 0)                    # before the export ends, since that flushes
        text = daemon.refused("block-export-del", id="e", mode="hard")
        contains(text, "wrote last could not be stored: File too large", f"{driver}: who takes the export away is told")
        daemon.event("BLOCK_EXPORT_DELETED", id="e")
        for attempts in ("once", "again"):
            text = daemon.refused("blockdev-reopen", options=[{**node, "read-only": True}])
            contains(text, sentence, f"{driver}: it is said that it cannot become read-only, {attempts}")
            contains(text, "File too large", f"{driver}: and why, {attempts}")
            is_equal(is_read_only(daemon), False, f"{driver}: it stays writable, {attempts}")
        limit(daemon, resource.RLIM_INFINITY)
        daemon.command("block-export-add", type="nbd", id="e", node_name="disk", name="e", writable=True)
        write(path, "-P 3 1M 64k", "-P 4 12M 1M")
        daemon.command("block-export-del", id="e", mode="hard")
        daemon.event("BLOCK_EXPORT_DELETED", id="e")
        daemon.command("blockdev-reopen", options=[{**node, "read-only": True}])
        is_equal(is_read_only(daemon), True, f"{driver}: it becomes read-only when the file takes writes")
        is_equal(daemon.end(), 0, f"{driver}: the daemon ends")
    for program in (IMG, PEER_IMG):
        done = attempt(program, "compare", "-f", driver, "-F", "raw", "base", "model.raw")
        ok(done.returncode == 0, f"{driver}: nothing is lost, by {os.path.basename(program)}", done.stdout + done.stderr)
        if checked:
            done = attempt(program, "check", "-f", driver, "base")
            ok(done.returncode == 0, f"{driver}: no errors, by {os.path.basename(program)}", done.stdout + done.stderr)


for each in FORMATS:
    failing(*each)
done_testing()
EOF
