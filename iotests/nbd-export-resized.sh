#!/bin/bash
# SPDX-License-Identifier: MIT
# A node that is resized while it is served: who connects from then on sees the new length, who was connected goes on within
# the old one, and our client comes back to an export that has grown, but never to one that has become too short for it.
. "$(dirname "$0")/lib.sh"
requires qemu-img nbdinfo
any_backend

qimg create -q -f qcow2 disk.qcow2 16M

python_test <<'EOF'
import os
import re
import subprocess

from control import Daemon, contains, done_testing, is_equal, ok

MIB = 1 << 20


class Client:
    """blkstack-io on the export, which says a line for each command."""

    def __init__(self, path, delay):
        options = f"driver=raw,file.driver=nbd,file.path={path},file.export=disk,file.reconnect-delay={delay}"
        self.process = subprocess.Popen([os.environ["BLKSTACK_IO"], "--image-opts", options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)

    def ask(self, command):
        """All that is printed about it."""
        self.process.stdin.write(command + "\n")
        said = ""
        while not re.search(r"ops;|failed|MiB$", said, re.MULTILINE):
            line = self.process.stdout.readline()
            if not line:
                break
            said += line
        return said

    def end(self):
        self.process.communicate("quit\n", timeout=60)


def length_now():
    return int(subprocess.run(["nbdinfo", "--size", f"nbd+unix:///disk?socket={path}"], capture_output=True, text=True,
                              check=True, timeout=60).stdout)


def serve():
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="disk", node_name="disk", writable=True)


with Daemon("--blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2") as daemon:
    path = os.path.join(daemon.directory, "n")
    serve()
    client = Client(path, 60)
    contains(client.ask("write -P 1 15M 1M"), "wrote 1048576", "a client writes up to the end")
    daemon.command("block_resize", node_name="disk", size=32 * MIB)
    is_equal(length_now(), 32 * MIB, "a new connection sees that the disk has grown")
    contains(client.ask("length"), "16 MiB", "who was connected has the length of then")
    contains(client.ask("read -P 1 15M 1M"), "read 1048576", "and goes on")
    late = Client(path, 60)
    contains(late.ask("write -P 2 31M 1M"), "wrote 1048576", "who comes later writes up to the new end")
    late.end()

    daemon.command("nbd-server-stop")
    serve()
    said = client.ask("read -P 1 15M 1M")
    ok("read 1048576" in said and "failed" not in said, "a client comes back to an export that has grown", said)

    client.end()

    client = Client(path, 1)
    contains(client.ask("read -P 1 15M 1M"), "read 1048576", "a client that waits for a second at most")
    daemon.command("block_resize", node_name="disk", size=8 * MIB)
    is_equal(length_now(), 8 * MIB, "a new connection sees that it has become shorter")
    contains(client.ask("read 15M 1M"), "failed", "what is not there any more cannot be read")
    contains(client.ask("read 0 1M"), "read 1048576", "the rest can")
    daemon.command("nbd-server-stop")
    serve()
    contains(client.ask("read 0 1M"), "failed", "and it does not come back to an export that is too short")
    client.end()
done_testing()
EOF
