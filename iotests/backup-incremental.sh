#!/bin/bash
# SPDX-License-Identifier: MIT
# Five generations of incremental backups, driven by a persistent bitmap while a client writes, each into an overlay of the one
# before, by "compress": each generation, restored, is the disk of its moment. The daemon is restarted in between. A backup that
# is cancelled loses nothing. What becomes of the bitmap is what the peer makes of it, for every sync and bitmap mode.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io qemu-storage-daemon
any_backend

random_file base.raw $((4 << 20))
qimg convert -O qcow2 base.raw disk.qcow2
qimg bitmap --add -g 64k disk.qcow2 b
say_seed

SEED=$SEED python_test <<'EOF'
import os
import random
import shutil
import subprocess

from control import PEER, OURS, Daemon, done_testing, is_equal, ok

SIZE = 4 << 20
random.seed(int(os.environ["SEED"]))
MAP = "x-debug-block-dirty-bitmap-sha256"


def peer(*command):
    return subprocess.run([os.environ["QEMU_IMG"], *command], capture_output=True, text=True, check=True, timeout=60).stdout


def add(daemon, name, **options):
    daemon.command("blockdev-add", driver="qcow2", node_name=name, file={"driver": "file", "filename": f"{name}.qcow2"},
                   **options)


def read(image):
    peer("convert", "-O", "raw", image, "content.raw")
    with open("content.raw", "rb") as file:
        return file.read()


def qio(path, *commands):
    commands = [word for command in commands for word in ("-c", command)]
    subprocess.run([os.environ["QEMU_IO"], "-f", "raw", *commands, f"nbd+unix:///disk?socket={path}"], check=True, timeout=60,
                   stdout=subprocess.DEVNULL)


def scribble(path, model):
    """Random writes of a client."""
    commands = []
    for _ in range(12):
        count, byte = random.randrange(1, 300) * 512, random.randrange(256)
        at = random.randrange((SIZE - count) // 512) * 512
        commands.append(f"write -P {byte} {at} {count}")
        model[at:at + count] = bytes([byte]) * count
    qio(path, *commands)


def start(**options):
    daemon = Daemon(**options)
    add(daemon, "disk", discard="unmap")
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="e", node_name="disk", writable=True)
    return daemon, path


def stop(daemon):
    daemon.command("block-export-del", id="e")
    daemon.event("BLOCK_EXPORT_DELETED", id="e")
    daemon.command("blockdev-del", node_name="disk")
    daemon.end()


def run(daemon, name, event="BLOCK_JOB_COMPLETED", **options):
    daemon.command("blockdev-backup", job_id="j", device="disk", target=name, **options)
    done = daemon.event(event, device="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    return done


# ---- five generations ----
with open("base.raw", "rb") as base:
    model = bytearray(base.read())
states = []
daemon, path = start()
for generation in range(5):
    scribble(path, model)
    if generation == 2:             # what the image keeps of the bitmap counts
        stop(daemon)
        daemon, path = start()
    name = f"g{generation}"
    backing = () if generation == 0 else ("-b", f"g{generation - 1}.qcow2", "-F", "qcow2")
    peer("create", "-q", "-f", "qcow2", *backing, f"{name}.qcow2", str(SIZE))
    add(daemon, name)
    if generation == 0:
        daemon.command("transaction", actions=[
            {"type": "block-dirty-bitmap-clear", "data": {"node": "disk", "name": "b"}},
            {"type": "blockdev-backup", "data": {"job-id": "j", "device": "disk", "target": name, "sync": "full",
                                                 "compress": True, "speed": 1 << 20}}])
    else:
        if generation == 3:         # one that comes to nothing
            daemon.command("blockdev-backup", job_id="x", device="disk", target=name, sync="incremental", bitmap="b",
                           speed=1)
            scribble(path, model)
            daemon.command("job-cancel", id="x")
            daemon.event("BLOCK_JOB_CANCELLED", device="x")
            daemon.event("JOB_STATUS_CHANGE", id="x", status="null")
        daemon.command("blockdev-backup", job_id="j", device="disk", target=name, sync="incremental", bitmap="b",
                       compress=True, speed=64 << 10)
    states.append(bytes(model))
    scribble(path, model)           # overlaps what is being copied
    daemon.command("block-job-set-speed", device="j", speed=0)
    done = daemon.event("BLOCK_JOB_COMPLETED", device="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    ok("error" not in done and done["offset"] == done["len"] and (generation == 0 or done["len"] < SIZE),
       f"generation {generation}: {done['len']} bytes copied", done)
    daemon.command("blockdev-del", node_name=name)
stop(daemon)
for generation, state in enumerate(states):
    image = f"g{generation}.qcow2"
    peer("check", image)
    ok(read(image) == state, f"generation {generation}: restored, it is the disk of its moment")
ok(read("disk.qcow2") == model, "the disk has all that was written")

# ---- what becomes of the bitmap ----
MODES = [("incremental", "on-success")] + [(sync, mode) for sync in ("bitmap", "full", "top")
                                           for mode in ("on-success", "always", "never")]


def bitmap_of(daemon):
    return daemon.command(MAP, node="disk", name="b")["sha256"]


def bitmaps_with(program):
    """For each sync and mode what the bitmap is after a cancelled and after a finished backup, with a write in between."""
    results = []
    shutil.copy("before.qcow2", "disk.qcow2")
    daemon, path = start(program=program)
    qio(path, "write -P 1 1M 200k", "write -P 2 3M 64k")
    for sync, mode in MODES:
        peer("create", "-q", "-f", "qcow2", "t.qcow2", str(SIZE))
        add(daemon, "t")
        options = {"sync": sync, "bitmap": "b", "bitmap-mode": mode, "target": "t", "device": "disk", "job-id": "j"}
        why = daemon.refused("blockdev-backup", options, auto_finalize=False)
        if why:
            results.append((sync, mode, why))
        else:
            daemon.event("JOB_STATUS_CHANGE", id="j", status="pending")
            qio(path, "write -P 3 2M 64k")
            daemon.command("job-cancel", id="j")
            daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
            cancelled = bitmap_of(daemon)
            daemon.command("blockdev-backup", options)
            done = daemon.event("BLOCK_JOB_COMPLETED", device="j")
            daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
            results.append((sync, mode, cancelled, bitmap_of(daemon), "error" in done))
        daemon.command("blockdev-del", node_name="t")
    stop(daemon)
    return results


shutil.copy("disk.qcow2", "before.qcow2")
for ours, theirs in zip(bitmaps_with(OURS), bitmaps_with(PEER)):
    is_equal(ours, theirs, f"sync {ours[0]}, bitmap mode {ours[1]}: as the peer")
done_testing()
EOF
