# SPDX-License-Identifier: MIT
"""Chains of images for iotests of jobs: base.qcow2 <- inc1.qcow2 <- inc2.qcow2, made and judged by the peer.

Their data compress about as text does. What is read through the topmost image is known.
"""
import os
import random
import subprocess

from control import is_equal, ok
from nbd_load import Load

QEMU_IMG, QEMU_IO = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
CLUSTER = 65536


def attempt(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def run(*command, status=0):
    done = attempt(*command)
    if done.returncode != status:
        raise RuntimeError(f"{command}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def text(rng, count):
    """Bytes, of which each 4 KiB are alike at the end only."""
    parts = [rng.randbytes(1536) + bytes([rng.randrange(256)]) * 2560 for _ in range((count + 4095) // 4096)]
    return b"".join(parts)[:count]


class TextLoad(Load):
    """What it writes compresses like the images."""

    def text(self, count):
        return text(self.rng, count)


def make_image(name, size, backing, extents, seed, compressed=True):
    """An image of the peer's that has data in @extents: (offset, bytes); None instead of data: zeroes."""
    rng = random.Random(seed)
    below = ["-b", backing, "-F", "qcow2"] if backing else []
    run(QEMU_IMG, "create", "-q", "-f", "qcow2", *below, name, str(size))
    commands = []
    for number, (offset, count) in enumerate(extents):
        with open(f"{name}.{number}", "wb") as part:
            part.write(text(rng, count))
        commands += ["-c", f"write {'-c ' if compressed else ''}-s {name}.{number} {offset} {count}"]
    if commands:
        run(QEMU_IO, "-f", "qcow2", *commands, name)


def make_chain(size, seed, compressed=True, lengths=(1, 1, 1)):
    """@lengths: of base, inc1 and inc2, as multiples of @size."""
    part = size // 16 // CLUSTER * CLUSTER
    base, inc1, inc2 = (int(size * times) // CLUSTER * CLUSTER for times in lengths)
    make_image("base.qcow2", base, None, [(0, base - part)], seed, compressed)
    make_image("inc1.qcow2", inc1, "base.qcow2", [(2 * part, 4 * part), (8 * part, part)], seed + 1, compressed)
    make_image("inc2.qcow2", inc2, "inc1.qcow2", [(4 * part, 3 * part)], seed + 2, compressed)


def content(name):
    """What is read through the image, with the chain that it names."""
    run(QEMU_IMG, "convert", "-f", "qcow2", "-O", "raw", name, "content.raw")
    with open("content.raw", "rb") as file:
        return file.read()


def backing_of(name):
    for line in run(QEMU_IMG, "info", name).splitlines():
        if line.startswith("backing file:"):
            return line.split(": ")[1].split(" (actual")[0]
    return None


def judge(name, wanted, what, leaks=False):
    """The peer reads the bytes @wanted through the image, and finds neither errors nor (but for @leaks) leaks."""
    status = subprocess.run([QEMU_IMG, "check", name], capture_output=True, text=True, check=False, timeout=120)
    ok(status.returncode == 0 or (leaks and status.returncode == 3), f"{what}: {name} is sound", status.stdout + status.stderr)
    is_equal(content(name) == bytes(wanted), True, f"{what}: {name} has the right content")
    return status.stdout


def same_size(name, what, backing=None):
    """The image is at most 1.10 times as large as a fresh compressed copy of what it has itself."""
    below = ["-B", backing, "-F", "qcow2"] if backing else []
    run(QEMU_IMG, "convert", "-c", "-O", "qcow2", *below, name, "fresh.qcow2")
    size, fresh = os.stat(name).st_blocks * 512, os.stat("fresh.qcow2").st_blocks * 512
    ok(size <= 1.10 * fresh, f"{what}: {name} is as small as a fresh compressed copy: {size / fresh:.3f}",
       f"{size} bytes, fresh {fresh}")


def compressed_part(check):
    """Of the clusters, in percent, as the peer's check says."""
    return float(check.split("fragmented, ")[1].split("%")[0])


def file_node(name):
    return {"driver": "file", "filename": name}


def export(daemon, node, name="e"):
    """The path of the socket of a server that exports @node."""
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id=name, node_name=node, name=name, writable=True)
    return path


def no_errors(load):
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests without error or difference")


def pending(daemon, job):
    """Waits until the job has done its work, and is to be finalized."""
    daemon.event("JOB_STATUS_CHANGE", id=job, status="pending")


def finish(daemon, job, what):
    """The job ends with success."""
    done = daemon.event("BLOCK_JOB_COMPLETED", device=job)
    is_equal(done.get("error"), None, f"{what}: the job succeeds")
    daemon.event("JOB_STATUS_CHANGE", id=job, status="null")
    return done


def ready_commit(daemon, **options):
    """Begins the commit "j" of an image that guests write to; until it is ready."""
    daemon.command("block-commit", job_id="j", auto_dismiss=False, **options)
    daemon.event("JOB_STATUS_CHANGE", id="j", status="ready")


def conclude_commit(daemon, what):
    """That job ends with success."""
    daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
    job, = daemon.command("query-jobs")
    is_equal((job["type"], job.get("error")), ("commit", None), f"{what}: the job has succeeded")
    daemon.command("job-dismiss", id="j")
