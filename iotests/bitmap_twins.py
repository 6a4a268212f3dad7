# SPDX-License-Identifier: MIT
"""Our storage daemon and the peer's, given the same commands about dirty bitmaps, for iotests."""
import json
import os
import signal
import subprocess

from control import OURS, PEER, CommandError, Daemon, ok

PEER_IMG, PEER_IO = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
PREFIX = "block-dirty-bitmap-"
HASH = "x-debug-block-dirty-bitmap-sha256"


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def flags(name):
    info = json.loads(subprocess.check_output([PEER_IMG, "info", "-U", "-f", "qcow2", "--output=json", name]))
    return {bitmap["name"]: bitmap["flags"] for bitmap in info["format-specific"]["data"].get("bitmaps", [])}


class Both:
    """Ours and the peer's, each with images of its own in a directory of its own."""

    def __init__(self):
        self.names = ("ours", "peer")
        self.start()

    def start(self):
        self.daemons = [Daemon(program=program) for program in (OURS, PEER)]

    def add_node(self, name, file, **options):
        for daemon, folder in zip(self.daemons, self.names):
            daemon.command("blockdev-add", driver="qcow2", node_name=name,
                           file={"driver": "file", "filename": f"{folder}/{file}"}, **options)

    def same(self, command, arguments=None, **keywords):
        """Both do it, or refuse it with the same words, to which ours may add why."""
        results = []
        for daemon in self.daemons:
            try:
                results.append(daemon.command(command, arguments, **keywords))
            except CommandError as error:
                results.append(error.desc)
        ours, peer = results
        good = ours == peer or (isinstance(ours, str) and isinstance(peer, str) and ours.startswith(peer.rstrip(".")))
        text = json.dumps(arguments or keywords)
        ok(good, f"{command} {text if len(text) < 200 else text[:200] + '...'}", f"ours: {ours}\npeer: {peer}")
        return peer

    def write(self, *commands):
        """By an NBD client of each, to node a."""
        for daemon in self.daemons:
            path = os.path.join(daemon.directory, "n")
            daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
            daemon.command("block-export-add", type="nbd", id="w", node_name="a", name="w", writable=True)
            run(PEER_IO, "-f", "raw", f"nbd+unix:///w?socket={path}", *(f"-c{command}" for command in commands))
            daemon.command("nbd-server-stop")
            daemon.event("BLOCK_EXPORT_DELETED", id="w")

    def end(self, number=signal.SIGTERM):
        for daemon in self.daemons:
            daemon.end(number)

    def same_bits(self, *names, node="a"):
        for name in names:
            self.same(HASH, node=node, name=name)
