#!/bin/bash
# SPDX-License-Identifier: MIT
# Exports of the daemon, used by the peer's clients: made and removed by two clients of the monitor and by the command line.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

qimg create -q -f qcow2 disk.qcow2 16M

python_test <<'EOF'
import os
import subprocess

from control import Daemon, contains, done_testing, is_equal, ok

QEMU_IO, QEMU_IMG = os.environ["QEMU_IO"], os.environ["QEMU_IMG"]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def qemu_io(uri, *commands):
    options = [word for command in commands for word in ("-c", command)]
    return run(QEMU_IO, "-f", "raw", *options, uri)


with Daemon("--object", "iothread,id=t,poll-max-ns=0",
            "--blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2") as daemon:
    other = daemon.connect()
    path = os.path.join(daemon.directory, "n")
    uri = f"nbd+unix:///one?socket={path}"
    other.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="one", node_name="disk", name="one", writable=True,
                   description="a disk", allocation_depth=True, iothread="t")
    is_equal(daemon.refused("block-export-add", type="nbd", id="two", node_name="disk", iothread="disk"),
             'iothread "disk" not found', "a thread that is not there")
    done = qemu_io(uri, "write -P 7 0 1M", "read -P 7 0 1M", "flush")
    ok(done.returncode == 0 and "failed" not in done.stdout, "the peer writes and reads", done.stdout + done.stderr)
    contains(run("qemu-nbd", "--list", "-k", path).stdout, "a disk", "the description is listed")
    is_equal(other.command("query-block-exports"), [{"node-name": "disk", "shutting-down": False, "type": "nbd", "id": "one"}],
             "the other client sees the export")

    other.command("block-export-add", type="nbd", id="ro", node_name="disk")
    done = qemu_io(f"nbd+unix:///disk?socket={path}", "write 0 1M")
    ok(done.returncode != 0, "an export is read-only if nothing else is said", done.stdout)
    is_equal(other.refused("blockdev-del", node_name="disk"), "Node disk is in use", "a node with an export stays")

    # A client that is connected: safe refuses, hard ends it; both monitors hear of it.
    client = subprocess.Popen([QEMU_IO, "-f", "raw", uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    client.stdin.write("read 0 4k\n")
    client.stdin.flush()
    client.stdout.readline()
    contains(daemon.refused("block-export-del", id="one"), "client", "safe does not remove an export with a client")
    daemon.command("block-export-del", id="one", mode="hard")
    for name, control in (("who asked", daemon), ("the other one", other)):
        is_equal(control.event("BLOCK_EXPORT_DELETED"), {"id": "one"}, f"{name} hears of it")
    client.communicate("quit\n", timeout=60)
    other.command("nbd-server-stop")
    is_equal(daemon.event("BLOCK_EXPORT_DELETED"), {"id": "ro"}, "the end of the server ends exports")
    is_equal(daemon.command("query-block-exports"), [], "no exports are left")
    daemon.command("blockdev-del", node_name="disk")

done = run(QEMU_IO, "-f", "qcow2", "-c", "read -P 7 0 1M", "disk.qcow2")
ok("verification failed" not in done.stdout and done.returncode == 0, "what was written is in the image", done.stdout)
is_equal(run(QEMU_IMG, "check", "-f", "qcow2", "disk.qcow2").returncode, 0, "the image is clean")
done_testing()
EOF
