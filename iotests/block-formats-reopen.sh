#!/bin/bash
# SPDX-License-Identifier: MIT
# vdi, vpc, vhdx: a node becomes writable and read-only again while it is in use, as the base of a commit or by itself; what is
# read-only is whole in the file, for others too.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io python3
any_backend

python_test <<'EOF'
import os

from chain_jobs import attempt, conclude_commit, export, file_node, ready_commit, run
from control import Daemon, contains, done_testing, is_equal, ok

IMG, IO, PEER_IMG, PEER_IO = (os.environ[name] for name in ("BLKSTACK_IMG", "BLKSTACK_IO", "QEMU_IMG", "QEMU_IO"))
# Name, driver, creation options, whether the peer checks such images.
GAPS = "a vdi with free blocks between others"
FORMATS = (("vdi", "vdi", "", True), (GAPS, "vdi", "", False), ("a static vdi", "vdi", "static=on", True), ("vpc", "vpc", "force_size=on", False),
           ("a fixed vpc", "vpc", "subformat=fixed,force_size=on", False), ("vhdx", "vhdx", "", True),
           ("vhdx of small blocks", "vhdx", "block_size=1M", True))


def write(name, driver, *writes):
    run(PEER_IO, "-f", driver, *[word for at in writes for word in ("-c", f"write {at}")], name)


def forget_blocks(first, last):
    """Their entries in the block map of a VDI, which is where offset 340 says, become free."""
    with open("base", "r+b") as image:
        image.seek(340)
        image.seek(int.from_bytes(image.read(4), "little") + 4 * first)
        image.write(b"\xff" * 4 * (last + 1 - first))


def fresh(name, driver, options):
    """base <- top; what top reads is in model.raw."""
    for old in ("base", "top.qcow2", "model.raw"):
        if os.path.exists(old):
            os.unlink(old)
    run(PEER_IMG, "create", "-q", "-f", driver, *(["-o", options] if options else []), "base", "16M")
    run(PEER_IMG, "create", "-q", "-f", "raw", "model.raw", "16M")
    run(PEER_IMG, "create", "-q", "-f", "qcow2", "-b", "base", "-F", driver, "top.qcow2")
    if name == GAPS:
        write("base", driver, "-P 9 10M 3M")
    write("base", driver, "-P 1 0 2M", "-P 1 9M 64k")
    if name == GAPS:
        forget_blocks(10, 12)
    write("model.raw", "raw", "-P 1 0 2M", "-P 1 9M 64k")
    write("top.qcow2", "qcow2", "-P 2 64k 64k", "-P 3 5M 1M", "-P 4 9M 32k")
    write("model.raw", "raw", "-P 2 64k 64k", "-P 3 5M 1M", "-P 4 9M 32k")


def holds(driver, checked, what, *options):
    for program in (IMG, PEER_IMG):
        done = attempt(program, "compare", *options, "-f", driver, "-F", "raw", "base", "model.raw")
        ok(done.returncode == 0, f"{what}: the base holds it all, by {os.path.basename(program)}", done.stdout + done.stderr)
        if checked:
            done = attempt(program, "check", *options, "-f", driver, "base")
            ok(done.returncode == 0, f"{what}: no errors, by {os.path.basename(program)}", done.stdout + done.stderr)


def send(daemon, node, *writes):
    path = export(daemon, node)
    run(IO, "-f", "raw", *[word for at in writes for word in ("-c", f"write {at}")], f"nbd+unix:///e?socket={path}")
    write("model.raw", "raw", *writes)
    daemon.command("block-export-del", id="e", mode="hard")
    daemon.event("BLOCK_EXPORT_DELETED", id="e")
    daemon.command("nbd-server-stop")


def commits(name, driver, options, checked):
    """Of the image in use: given up when it is ready, and then again to the end."""
    fresh(name, driver, options)
    with Daemon() as daemon:
        daemon.command("blockdev-add", driver="qcow2", node_name="top", file=file_node("top.qcow2"))
        ready_commit(daemon, device="top")
        daemon.command("block-job-cancel", device="j", force=True)
        daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
        daemon.command("job-dismiss", id="j")
        send(daemon, "top", "-P 5 12M 1M", "-P 6 1M 4k")
        ready_commit(daemon, device="top")
        daemon.command("block-job-complete", device="j")
        conclude_commit(daemon, f"{name}: a commit of the image in use")
        is_equal(daemon.end(), 0, f"{name}: the daemon ends")
    holds(driver, checked, f"{name}: committed")


def reopened(name, driver, options, checked):
    fresh(name, driver, options)
    write("base", driver, "-P 2 64k 64k", "-P 3 5M 1M", "-P 4 9M 32k")
    node = {"driver": driver, "node-name": "base", "file": file_node("base")}
    if driver == "vpc":
        node["force_size_calc"] = "current_size"
    with Daemon() as daemon:
        daemon.command("blockdev-add", {**node, "read-only": True})
        for i in range(3):
            daemon.command("blockdev-reopen", options=[{**node, "read-only": False}])
            send(daemon, "base", f"-P {10 + i} {7 + i}M 1M", f"-P {20 + i} {13 + i}M 4k", f"-P {30 + i} {i}k 512")
            daemon.command("blockdev-reopen", options=[{**node, "read-only": True}])
            holds(driver, checked, f"{name}: read-only again, {i}")
        is_equal(daemon.end(), 0, f"{name}: the daemon ends")
    holds(driver, checked, f"{name}: closed")


def damaged():
    """Two blocks at one place: it is read, and no more."""
    fresh("vdi", "vdi", "")
    with open("base", "r+b") as image:
        image.seek(340)
        place = int.from_bytes(image.read(4), "little")
        image.seek(place)
        first = image.read(4)
        image.seek(place + 4)
        image.write(first)
    node = {"driver": "vdi", "node-name": "base", "file": file_node("base")}
    with Daemon() as daemon:
        daemon.command("blockdev-add", {**node, "read-only": True})
        text = daemon.refused("blockdev-reopen", options=[{**node, "read-only": False}])
        contains(text, "lie at the same place", "a damaged image does not become writable, and says why")
        info, = [e for e in daemon.command("query-named-block-nodes") if e["node-name"] == "base"]
        is_equal(info["ro"], True, "and stays read-only")
        is_equal(daemon.end(), 0, "the daemon ends")


for each in FORMATS:
    commits(*each)
    reopened(*each)
damaged()
done_testing()
EOF
