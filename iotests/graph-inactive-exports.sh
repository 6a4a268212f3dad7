#!/bin/bash
# SPDX-License-Identifier: MIT
# block-export-add with allow-inactive: an export, and the clients that are connected to it, stay while the image is with another
# daemon; meanwhile requests fail and nobody gets in; afterwards they see what the other one wrote.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io

python_test <<'EOF'
import os
import subprocess

import nbd_raw
from control import Daemon, contains, done_testing, is_equal, ok

QEMU_IMG, QEMU_IO = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
EPERM = 1
PIECE = 65536


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def add_nodes(daemon, **options):
    """The image, below a filter whose name is that of the export's node."""
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": os.path.join(daemon.directory, "n")}})
    daemon.command("blockdev-add", {"driver": "compress", "node-name": "z", **options,
                                    "file": {"driver": "qcow2", "node-name": "disk", "file": {"driver": "file", "filename": "disk"}}})


def export(daemon, **options):
    return daemon.refused("block-export-add", type="nbd", id="e", node_name="z", name="e", **options)


def set_active(daemon, active, node="z"):
    return daemon.refused("blockdev-set-active", node_name=node, active=active)


def state(daemon):
    return {n["active"] for n in daemon.command("query-named-block-nodes", flat=True)}


def connect(daemon):
    return nbd_raw.Raw(os.path.join(daemon.directory, "n")).negotiate(b"e")


def write(client, at, byte):
    client.send(nbd_raw.request(nbd_raw.WRITE, at, PIECE, bytes([byte]) * PIECE))
    return client.simple_reply()[0]


def read(client, at):
    """The byte that is there, or the error."""
    client.send(nbd_raw.request(nbd_raw.READ, at, PIECE))
    error, data = client.simple_reply(PIECE)
    return -error if error else data[0] if data == data[:1] * PIECE else "mixed"


def ask(daemon):
    """What a new client is told."""
    return run(QEMU_IO, "-f", "raw", "-c", "read 0 64k", f"nbd+unix:///e?socket={os.path.join(daemon.directory, 'n')}")


def others(client):
    """Errors of the other requests."""
    told = []
    for command in nbd_raw.FLUSH, nbd_raw.TRIM, nbd_raw.ZEROES:
        client.send(nbd_raw.request(command, 0, 0 if command == nbd_raw.FLUSH else PIECE))
        told.append(client.simple_reply()[0])
    return told


run(QEMU_IMG, "create", "-q", "-f", "qcow2", "disk", "1M")
with Daemon() as first, Daemon() as second:
    add_nodes(first)
    add_nodes(second, active=False)

    # Without the option.
    is_equal(export(first, writable=True), "", "an export without allow-inactive")
    contains(set_active(first, False), "'e' uses it", "keeps its node active")
    first.command("block-export-del", id="e")
    first.event("BLOCK_EXPORT_DELETED")

    is_equal(export(first, writable=True, allow_inactive=True), "", "an export of an active node")
    is_equal(export(second, writable=True, allow_inactive=True), "", "an export of one that was never active")
    is_equal((state(first), state(second)), ({True}, {False}), "neither changes its node")
    contains(ask(second)[1], "inactive", "a client is told why it is refused")

    with connect(first) as client:
        is_equal((write(client, 0, 1), read(client, 0)), (0, 1), "a client writes and reads")
        contains(set_active(second, True), "lock", "two cannot have it")
        is_equal(state(second), {False}, "the other one stays inactive")

        # Over to the other daemon.
        is_equal(set_active(first, False), "", "the node becomes inactive below the export")
        is_equal(state(first), {False}, "with all below")
        is_equal((read(client, 0), write(client, 0, 9)), (-EPERM, EPERM), "requests fail")
        is_equal(others(client), [EPERM] * 3, "all of them")
        contains(ask(first)[1], "inactive", "nobody gets in")
        is_equal([e["id"] for e in first.command("query-block-exports")], ["e"], "the export is there")
        is_equal(set_active(second, True), "", "the other node becomes active below its export")
        with connect(second) as guest:
            is_equal((read(guest, 0), write(guest, 0, 2), write(guest, PIECE, 3)), (1, 0, 0), "its client goes on where the first one was")
        contains(set_active(first, True), "lock", "two cannot have it")
        is_equal(read(client, 0), -EPERM, "requests fail still")

        # And back.
        is_equal((set_active(second, False), set_active(first, True)), ("", ""), "back")
        is_equal((read(client, 0), read(client, PIECE), write(client, 2 * PIECE, 4), read(client, 2 * PIECE)), (2, 3, 0, 4),
                 "the client that has stayed sees what was written, and writes")
        is_equal(others(client)[:1], [0], "and flushes")
    is_equal([e for e in first.all_events if e["event"] == "BLOCK_IO_ERROR"], [], "no event: nothing was wrong")

    # Nodes that may not be used as the export needs it.
    is_equal(set_active(first, False), "", "inactive again")
    first.command("blockdev-add", driver="raw", node_name="r", read_only=True, active=False, file={"driver": "file", "filename": "disk"})
    contains(first.refused("block-export-add", type="nbd", id="w", node_name="r", writable=True, allow_inactive=True), "read-only",
             "a writable export of an inactive read-only node")
    first.command("blockdev-del", node_name="r")

    # It goes while the node is inactive; and without the option the node becomes active.
    first.command("block-export-del", id="e")
    first.event("BLOCK_EXPORT_DELETED")
    is_equal(state(first), {False}, "an export is removed from an inactive node")
    is_equal((export(first, writable=True), state(first)), ("", {True}), "without allow-inactive the node is made active")
    first.command("block-export-del", id="e")
    first.event("BLOCK_EXPORT_DELETED")

    # A file node of its own, which is locked by what its user does.
    run(QEMU_IMG, "create", "-q", "-f", "raw", "plain", "1M")
    first.command("blockdev-add", driver="raw", node_name="reader", read_only=True, file={"driver": "file", "filename": "plain"})
    second.command("blockdev-add", driver="file", node_name="f", filename="plain", active=False)
    is_equal(second.refused("block-export-add", type="nbd", id="f", node_name="f", writable=True, allow_inactive=True), "",
             "a writable export of an inactive file")
    contains(set_active(second, True, "f"), "lock", "it may not be written to, since somebody else relies on it")
    is_equal([n["active"] for n in second.command("query-named-block-nodes", flat=True) if n["node-name"] == "f"], [False],
             "and stays inactive")
    first.command("blockdev-del", node_name="reader")
    is_equal(set_active(second, True, "f"), "", "when the other one has gone, it may")
code, text = run(QEMU_IMG, "check", "disk")
ok(code == 0, "no errors and no leaks", text)
wrong = run(QEMU_IO, "-f", "qcow2", "-c", "read -P 3 64k 64k", "-c", "read -P 4 128k 64k", "disk")
ok(wrong[0] == 0 and "failed" not in wrong[1], "the peer reads the end of it", wrong[1])
done_testing()
EOF
