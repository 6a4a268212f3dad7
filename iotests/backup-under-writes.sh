#!/bin/bash
# SPDX-License-Identifier: MIT
# Two backups begin in one transaction while a client writes to the disk without a pause, one to a compress node and one to a
# plain image: both hold the disk as it was between two writes at the time of the transaction, and the client met no error.
# Another client reads all the while, eight requests at a time: some of them wait while the transaction puts its filters in.
# A second backup into the same image, by "compress", works as well.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

random_file head.bin $((2 << 20))
text_file text.bin $((2 << 20))
qimg create -q -f raw base.raw 16M
cat head.bin text.bin | dd of=base.raw bs=1M conv=notrunc status=none
qimg convert -O qcow2 base.raw disk.qcow2
qimg create -q -f qcow2 zipped.qcow2 16M
qimg create -q -f qcow2 -o cluster_size=512k plain.qcow2 16M
say_seed
direct=no
if has_direct_io; then direct=yes; fi

SEED=$SEED DIRECT=$direct python_test <<'EOF'
import contextlib
import os
import subprocess

from chain_jobs import TextLoad
from control import Daemon, done_testing, is_equal, ok

SIZE = 16 << 20


class Sequence(TextLoad):
    """One request at a time, so that the disk is at each moment what some number of writes have made of it."""
    depth = 1

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.writes = []                # (offset, bytes)

    def change(self, at, data):
        self.writes.append((at, data))
        super().change(at, data)


def peer(*command):
    return subprocess.run([os.environ["QEMU_IMG"], *command], capture_output=True, text=True, check=False, timeout=60)


def add(daemon, name, **options):
    daemon.command("blockdev-add", driver="qcow2", node_name=name, discard="unmap",
                   file={"driver": "file", "filename": f"{name}.qcow2", **options})


def read(name):
    with open(name, "rb") as file:
        return file.read()


def judge(image):
    """What it holds, and what the peer says of it."""
    checked = peer("check", image)
    ok(checked.returncode == 0, f"{image}: no errors and no leaks", checked.stdout + checked.stderr)
    peer("convert", "-O", "raw", image, "content.raw")
    return read("content.raw"), checked.stdout


def is_compressed(image, text):
    """What is live in it takes at most a tenth more than in a fresh image of the same content."""
    print("#", *[line for line in text.splitlines() if "compressed" in line])
    peer("convert", "-c", "-O", "qcow2", image, "fresh.qcow2")
    live = int(subprocess.run([f"{os.environ['BLKSTACK_SOURCE']}/iotests/live_size.py", image], capture_output=True,
                              check=True).stdout)
    fresh, whole = os.path.getsize("fresh.qcow2"), os.path.getsize(image)
    ok(live <= fresh * 1.1, f"{image}: {live} bytes in {whole}; {fresh} in a fresh image")


def is_moment(disk, first, last, text):
    """The disk is what it was after some number of the writes from @first to @last."""
    state = bytearray(begin)
    for number in range(last):
        if number >= first and state == disk:
            break
        at, data = load.writes[number]
        state[at:at + len(data)] = data
    ok(state == disk, text)


def backup(job, target, **options):
    return {"job-id": job, "device": "disk", "target": target, "sync": "full", "speed": 1 << 20, **options}


def finish(daemon, *jobs):
    for job in jobs:
        daemon.command("block-job-set-speed", device=job, speed=0)
    for job in jobs:
        done = daemon.event("BLOCK_JOB_COMPLETED", device=job)
        is_equal((done.get("error"), done["offset"]), (None, done["len"]), f"{job}: completed")
        daemon.event("JOB_STATUS_CHANGE", id=job, status="null")


@contextlib.contextmanager
def readers(path):
    """Reads without a pause; the server is never without a request."""
    with subprocess.Popen([os.environ["BLKSTACK_IMG"], "bench", "-f", "raw", "-c", "1000000000", "-d", "8",
                           f"nbd+unix:///disk?socket={path}"], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()       # it is about to begin
            yield
            ok(process.poll() is None, "the reading client met no error")
        finally:
            process.kill()


begin = read("base.raw")
with Daemon() as daemon:
    # Where there is direct I/O, so that requests take their time, and others come meanwhile.
    add(daemon, "disk", cache={"direct": os.environ["DIRECT"] == "yes"})
    for name in ("zipped", "plain"):
        add(daemon, name)
    daemon.command("blockdev-add", driver="compress", node_name="zip", file="zipped")
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="e", node_name="disk", writable=True)
    load = Sequence(path, b"disk", SIZE, int(os.environ["SEED"]))
    load.model[:] = begin
    with load, readers(path):
        load.wait_for(20)
        first = max(len(load.writes) - 1, 0)        # all before have ended
        daemon.command("transaction", actions=[{"type": "blockdev-backup", "data": backup("z", "zip")},
                                               {"type": "blockdev-backup", "data": backup("p", "plain")}])
        last = len(load.writes)
        load.wait_for(150)
        finish(daemon, "z", "p")
        for name in ("zip", "zipped", "plain"):
            daemon.command("blockdev-del", node_name=name)
        plain, _ = judge("plain.qcow2")
        zipped, text = judge("zipped.qcow2")
        ok(plain == zipped, "both backups are of the same moment")
        is_moment(zipped, first, last, "that moment lies between two writes, at the time of the transaction")
        is_compressed("zipped.qcow2", text)

        add(daemon, "zipped")
        load.wait_for(20)
        first = len(load.writes) - 1
        daemon.command("blockdev-backup", backup("c", "zipped", compress=True))
        last = len(load.writes)
        load.wait_for(100)
        finish(daemon, "c")
        load.wait_for(20)
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests without error or difference")
zipped, text = judge("zipped.qcow2")
is_moment(zipped, first, last, "a second backup into the same image is of its own moment")
is_compressed("zipped.qcow2", text)
ok(judge("disk.qcow2")[0] == load.model, "the disk has all that was written")
done_testing()
EOF
