#!/bin/bash
# SPDX-License-Identifier: MIT
# The power fails while a job of the daemon changes an image, and guests write: what log-writes recorded below the image
# is replayed up to flushes, and with some or most of what was not stable missing. The peer finds no errors in it, reads
# all that guests had flushed, and all that a job had promised.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io

say_seed

SEED=$SEED python_test <<'EOF'
import os
import random
import shutil
import struct
import subprocess
import sys

import nbd_raw
from chain_jobs import QEMU_IMG, content, export, file_node, finish, make_chain, make_image, run
from control import Daemon, diag, done_testing, is_equal, ok

SIZE, SECTOR, STATES = 2 << 20, 512, 8
seed = int(os.environ["SEED"])
rng = random.Random(seed)


def recorded(name):
    """The options of a qcow2 image below which everything is written down. How its file begins is kept."""
    shutil.copyfile(name, "start")
    with open("log", "wb"):
        pass
    return {"driver": "qcow2", "node-name": "image", "read-only": False, "file": {
        "driver": "log-writes", "log": file_node("log"),
        "file": file_node(name)}}


def entries():
    """How many are in the log, after a flush."""
    with open("log", "rb") as log:
        return struct.unpack("<QQQ", log.read(24))[2]


class Guest:
    """Writes one piece after the other. What it flushed, and what a job promised, is in all states from then on."""

    def __init__(self, path, before):
        self.connection = nbd_raw.Raw(path).negotiate(b"e")
        self.now = bytearray(before)
        self.maybe = []                     # (offset, data) of writes
        self.stable = [(0, bytes(before), 0)]       # (entries, what a state with so many has, how many writes made it)

    def say(self, command, offset=0, data=b""):
        self.connection.send(nbd_raw.request(command, offset, len(data), data))
        assert self.connection.simple_reply()[0] == 0

    def write(self, count=1):
        for _ in range(count):
            data = bytes([rng.randrange(1, 256)]) * (SECTOR * rng.choice((1, 8, 40)))
            offset = rng.randrange((SIZE - len(data)) // SECTOR) * SECTOR
            self.maybe.append((offset, data))
            self.now[offset:offset + len(data)] = data
            self.say(nbd_raw.WRITE, offset, data)
        self.say(nbd_raw.FLUSH)

    def promised(self, data=None):
        self.stable.append((entries(), bytes(data or self.now), len(self.maybe)))

    def allows(self, have, number):
        """Is @have a content after so many entries: of each sector what is stable, or what was written later?"""
        _, wanted, writes = [stable for stable in self.stable if stable[0] <= number][-1]
        if len(have) != len(wanted):
            return False
        wrong = {at for at in range(0, SIZE, SECTOR) if have[at:at + SECTOR] != wanted[at:at + SECTOR]}
        for offset, data in self.maybe[writes:]:
            wrong -= {at for at in range(offset, offset + len(data), SECTOR) if have[at:at + SECTOR] == data[:SECTOR]}
        return not wrong


def judge(name, guest, what, through=None, until=None):
    """States of the image @name at flushes all over the log, or its first @until entries; @through: the image through which
    it is read."""
    tool = [sys.executable, "-B", os.path.join(os.environ["BLKSTACK_SOURCE"], "iotests", "replay_log.py")]
    borders = [int(number) for number in run(*tool, "borders", "log").split() if until is None or int(number) <= until]
    chosen = sorted(rng.sample(borders[:-1], min(STATES - 1, len(borders) - 1))) + borders[-1:]
    for turn, number in enumerate(chosen):
        lost = ([], ["last"], [str(seed + number)])[turn % 3]
        there = number - 1 if lost else number      # what comes before a flush may be lost without it
        shutil.copyfile("start", name)
        run(*tool, "replay", "log", name, str(there), *lost)
        check = subprocess.run([QEMU_IMG, "check", name], capture_output=True, text=True, check=False, timeout=60)
        ok(check.returncode in (0, 3), f"{what}: {there} entries {lost}: no errors, at most leaks",
           check.stdout + check.stderr)
        ok(guest.allows(content(through or name), there), f"{what}: {there} entries {lost}: the content")
    diag(f"{what}: {len(borders)} flushes")


# stream: guests write to the image that the others are copied into.
make_chain(SIZE, seed)
before = content("inc2.qcow2")
with Daemon() as daemon:
    daemon.command("blockdev-add", recorded("inc2.qcow2"))
    guest = Guest(export(daemon, "image"), before)
    daemon.command("block-stream", job_id="j", device="image", base="base.qcow2", compress=True, speed=2 << 20)
    for _ in range(4):
        guest.write(4)
        guest.promised()
    finish(daemon, "j", "stream")
    guest.write(4)
    guest.promised()
judge("inc2.qcow2", guest, "stream")

# commit: the image below has what it had or what is committed; through the chain there is no difference.
make_chain(SIZE, seed + 1)
before = content("inc2.qcow2")
with Daemon() as daemon:
    daemon.command("blockdev-add", driver="qcow2", node_name="top",
                   file=file_node("inc2.qcow2"),
                   backing={"driver": "qcow2", "node-name": "mid", "file": file_node("inc1.qcow2"),
                            "backing": recorded("base.qcow2")})
    guest = Guest(export(daemon, "top"), before)
    shutil.copyfile("inc2.qcow2", "kept.qcow2")
    daemon.command("block-commit", job_id="j", device="top", top_node="mid", base_node="image", compress=True)
    finish(daemon, "j", "commit")
os.rename("kept.qcow2", "inc2.qcow2")
judge("base.qcow2", guest, "commit", through="inc2.qcow2")

# active commit: the base has what it had or what is committed, and all when the job has ended; until then there is no difference
# through the image that guests write to.
for compress in False, True:
    what = f"active commit{' compressed' if compress else ''}"
    make_chain(SIZE, seed + 3)
    before, below = content("inc2.qcow2"), content("base.qcow2")
    with Daemon() as daemon:
        daemon.command("blockdev-add", driver="qcow2", node_name="top", file=file_node("inc2.qcow2"),
                       backing={"driver": "qcow2", "node-name": "mid", "file": file_node("inc1.qcow2"),
                                "backing": recorded("base.qcow2")})
        guest = Guest(export(daemon, "top"), before)
        guest.stable = [(0, below, 0)]
        guest.maybe = [(at, before[at:at + SECTOR]) for at in range(0, SIZE, SECTOR)]
        daemon.command("block-commit", job_id="j", device="top", base_node="image", compress=compress, speed=2 << 20)
        guest.write(4)
        daemon.event("BLOCK_JOB_READY", device="j")
        guest.write(4)
        shutil.copyfile("inc2.qcow2", "kept.qcow2")
        hides, until = bytes(guest.now), entries()
        daemon.command("block-job-complete", device="j")
        finish(daemon, "j", what)
        guest.promised()
        guest.write(4)
        guest.promised()
    judge("base.qcow2", guest, what)
    guest.stable, guest.maybe = [(0, hides, 0)], []
    judge("base.qcow2", guest, f"{what}, through the chain", through="kept.qcow2", until=until)

# mirror and backup: part of the copy is there until the job says that it is complete.
for command, compress in ("blockdev-mirror", True), ("blockdev-mirror", False), ("blockdev-backup", True):
    make_image("source.qcow2", SIZE, None, [(0, SIZE // 2), (SIZE * 3 // 4, SIZE // 8)], seed + 2)
    run(QEMU_IMG, "create", "-q", "-f", "qcow2", "target.qcow2", str(SIZE))
    before, what = content("source.qcow2"), f"{command}{' compressed' if compress else ''}"
    with Daemon() as daemon:
        daemon.command("blockdev-add", driver="qcow2", node_name="source", file=file_node("source.qcow2"))
        daemon.command("blockdev-add", recorded("target.qcow2"))
        guest = Guest(export(daemon, "source"), before)
        guest.stable = [(0, bytes(SIZE), 0)]
        guest.maybe = [(at, before[at:at + SECTOR]) for at in range(0, SIZE, SECTOR)]
        daemon.command(command, job_id="j", device="source", target="image", sync="full", compress=compress,
                       speed=4 << 20)
        guest.write(4)
        if command == "blockdev-mirror":
            daemon.event("BLOCK_JOB_READY", device="j")
            guest.write(4)
            daemon.command("block-job-complete", device="j")
        finish(daemon, "j", what)
        guest.promised(before if command == "blockdev-backup" else None)
        if command == "blockdev-mirror":
            guest.write(4)
            guest.promised()
    judge("target.qcow2", guest, what)
done_testing()
EOF
