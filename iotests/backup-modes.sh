#!/bin/bash
# SPDX-License-Identifier: MIT
# What a backup copies with sync "top" and "none", what it does about errors with each policy, for source and target, and
# what becomes of its bitmap when it fails half-way: as the peer, in the images, in what is told, and in the bits.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io qemu-storage-daemon
any_backend

random_file base.raw $((4 << 20))
qimg convert -O qcow2 base.raw base.qcow2
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
qio -f qcow2 -c 'write -P 1 1M 100k' -c 'write -z 2M 64k' -c 'write -P 2 3584k 512k' disk.qcow2 >qio.out
qimg bitmap --add -g 64k disk.qcow2 b

python_test <<'EOF'
import json
import os
import shutil
import subprocess

from control import OURS, PEER, Daemon, done_testing, is_equal

SIZE = 4 << 20


def peer(*command):
    done = subprocess.run([os.environ["QEMU_IMG"], *command], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr + str(done.returncode)


def qio(path, *commands):
    commands = [word for command in commands for word in ("-c", command)]
    return subprocess.run([os.environ["QEMU_IO"], "-f", "raw", *commands, f"nbd+unix:///disk?socket={path}"],
                          check=False, timeout=60, capture_output=True, text=True).stdout


def image(name, **options):
    return {"driver": "qcow2", "file": {"driver": "file", "filename": f"{name}.qcow2"}, **options}


def failing(name, sector, errno, kind, once):
    """An image that fails."""
    rule = {"event": "none", "iotype": kind, "errno": errno, "sector": sector, "once": once}
    return {"driver": "blkdebug", "image": image(name), "inject-error": [rule]}


def start(program, disk, target, backing=()):
    shutil.copy("before.qcow2", "disk.qcow2")
    peer("create", "-q", "-f", "qcow2", *backing, "t.qcow2", str(SIZE))
    daemon = Daemon(program=program)
    daemon.command("blockdev-add", disk, node_name="disk")
    daemon.command("blockdev-add", target, node_name="t")
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="disk", node_name="disk", writable=True)
    return daemon, path


def run(daemon, **options):
    daemon.command("blockdev-backup", job_id="j", device="disk", target="t", x_perf={"max-workers": 1}, **options)


def end(daemon, event="BLOCK_JOB_COMPLETED"):
    done = daemon.event(event, device="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    # Ours says where, and counts what sync "top" leaves out as done; the peer does not count it at all.
    return done.get("error", "").rpartition(": ")[2], done["offset"] == done["len"]


def layout():
    """What the target holds itself."""
    return [(part["start"], part["length"], part["zero"], part["data"]) for part in json.loads(
        peer("map", "--output=json", "t.qcow2")) if part["depth"] == 0 and part["present"]]


def same(first, second):
    return peer("compare", f"{first}.qcow2", f"{second}.qcow2")


def synced(program):
    results = []
    for sync in ("full", "top", "none"):
        backing = ["-b", "base.qcow2", "-F", "qcow2"] if sync == "top" else []
        daemon, path = start(program, image("disk"), image("t"), backing)
        if sync == "none":
            run(daemon, sync=sync)
            written = qio(path, "write -P 7 1M 4k", "write -P 8 3000k 200k", "write -P 9 1M 64k", "discard 2M 64k",
                          "read -P 9 1M 64k")
            results.append(("none: guests write", [line for line in written.splitlines() if "bytes at" in line]))
            daemon.command("job-cancel", id="j")
            results.append(("none: it ends when it is cancelled", end(daemon, "BLOCK_JOB_CANCELLED")[0]))
        else:
            run(daemon, sync=sync)
            results.append((f"{sync}: the job", end(daemon)))
        daemon.end()
        results.append((f"{sync}: what the target holds", layout()))
        results.append((f"{sync}: it is clean", peer("check", "t.qcow2").splitlines()[0]))
        if sync == "none":      # with what the disk holds now, that is the moment of the job
            peer("rebase", "-u", "-b", "disk.qcow2", "-F", "qcow2", "t.qcow2")
        results.append((f"{sync}: the moment", same("before", "t")))
    return results


def policies(program):
    results = []
    for side, kind in (("source", "read"), ("target", "write")):
        for policy in ("report", "ignore", "stop", "enospc"):
            for errno in (5, 28):
                bad = [image("disk"), image("t")]
                name = "disk" if side == "source" else "t"
                bad[side == "target"] = failing(name, (1 << 20) // 512, errno, kind, True)
                daemon, _ = start(program, *bad)
                run(daemon, sync="full", **{f"on_{side}_error": policy})
                told = daemon.event("BLOCK_JOB_ERROR", device="j")
                job = None
                if told["action"] == "stop":
                    daemon.event("JOB_STATUS_CHANGE", id="j", status="paused")
                    job = [daemon.command("query-block-jobs")[0][key] for key in ("io-status", "status", "paused")]
                    daemon.command("block-job-resume", device="j")
                ended = end(daemon)
                daemon.end()
                what = f"{side} {policy}, error {errno}"
                results.append((what, (sorted(told.items()), job, ended)))
                if not ended[0]:
                    results.append((f"{what}: the target", same("before", "t")))
    return results


def failed_bitmaps(program):
    results = []
    for mode in ("on-success", "always", "never"):
        daemon, path = start(program, image("disk"), failing("t", (1 << 20) // 512, 5, "write", False))
        qio(path, "write -P 1 64k 64k", "write -P 2 1M 64k", "write -P 3 2M 64k", "write -P 3 2560k 64k")
        run(daemon, sync="bitmap", bitmap="b", bitmap_mode=mode)
        ended = end(daemon)[0]
        bits = daemon.command("x-debug-block-dirty-bitmap-sha256", node="disk", name="b")["sha256"]
        daemon.end()
        results.append((f"it fails half-way, bitmap mode {mode}", (ended, bits)))
    return results


shutil.copy("disk.qcow2", "before.qcow2")
for compared in (synced, policies, failed_bitmaps):
    for (text, ours), (_, theirs) in zip(compared(OURS), compared(PEER)):
        is_equal(ours, theirs, text)
done_testing()
EOF
