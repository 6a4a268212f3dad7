#!/bin/bash
# SPDX-License-Identifier: MIT
# SIGINT, SIGTERM, SIGHUP and quit end the daemon while a job runs and a client writes: the job is cancelled, what was
# answered is in the image, which is clean and free, sockets and the pid file are gone, and a monitor hears what it hears
# of the peer.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io qemu-storage-daemon

random_file base.raw 2M
qimg convert -O qcow2 base.raw base.qcow2
qimg create -q -f qcow2 empty.qcow2 2M
say_seed

SEED=$SEED python_test <<'EOF'
import os
import shutil
import signal
import subprocess

from control import OURS, PEER, Daemon, Gone, done_testing, is_equal, ok
from nbd_load import Load

SIZE = 2 << 20
END = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "quit": None}


class Answered(Load):
    """Knows what was answered, and what was only sent, when the server goes."""

    def content_is_right(self, content):
        content = bytearray(content)
        for _, start, end in self.in_flight.values():
            content[start:end] = self.model[start:end]
        return content == self.model


def peer(*command):
    return subprocess.run([os.environ["QEMU_IMG"], *command], capture_output=True, text=True, check=False, timeout=60)


def heard_until_the_end(daemon):
    """Without pauses, by which the peer's drains show."""
    try:
        while True:
            daemon.events.append(daemon.receive())
    except Gone:
        pass
    events = [(m["event"], m["data"].get("id", m["data"].get("device")), m["data"].get("status"))
              for m in daemon.events if "event" in m]
    return [e for i, e in enumerate(events) if e[2] not in ("paused", "running") or i == 1]


def start(program):
    for name, copy in (("disk", "base"), ("target", "empty")):
        shutil.copy(f"{copy}.qcow2", f"{name}.qcow2")
    daemon = Daemon("--pidfile", "pid", program=program)
    for name in ("disk", "target"):
        daemon.command("blockdev-add", driver="qcow2", node_name=name,
                       file={"driver": "file", "filename": f"{name}.qcow2"})
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="e", node_name="disk", writable=True)
    return daemon, path


def end_by(daemon, how):
    if END[how] is None:
        daemon.send({"execute": "quit"})
    else:
        daemon.process.send_signal(END[how])


def ends(program, how):
    daemon, _ = start(program)
    daemon.command("blockdev-backup", job_id="j", device="disk", target="target", sync="full", speed=1)
    end_by(daemon, how)
    heard = heard_until_the_end(daemon)
    is_equal(daemon.end(), 0, f"{how}: the status")
    return heard


for how in END:
    daemon, path = start(OURS)
    with open("base.raw", "rb") as base:
        load = Answered(path, b"disk", SIZE, int(os.environ["SEED"]))
        load.model[:] = base.read()
    with load:
        load.wait_for(50)
        daemon.command("blockdev-backup", job_id="j", device="disk", target="target", sync="full", speed=1)
        load.wait_for(50)
        end_by(daemon, how)
        heard = heard_until_the_end(daemon)
        status = daemon.end()
        load.over = True
    left = os.listdir(daemon.directory), os.path.exists("pid")
    is_equal((status, *left), (0, [], False), f"{how}: ends, nothing is left")
    for image in ("disk.qcow2", "target.qcow2"):
        checked = peer("check", image)
        ok(checked.returncode == 0, f"{how}: {image} is clean and free", checked.stdout + checked.stderr)
    peer("convert", "-O", "raw", "disk.qcow2", "content.raw")
    with open("content.raw", "rb") as content:
        ok(load.content_is_right(content.read()), f"{how}: what was answered is there, after {load.ended} requests")
    if os.environ["BLKSTACK_AIO"] == "threads":
        is_equal(ends(OURS, how), ends(PEER, how), f"{how}: what is heard of it is as with the peer")
done_testing()
EOF
