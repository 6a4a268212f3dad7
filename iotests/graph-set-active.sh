#!/bin/bash
# SPDX-License-Identifier: MIT
# blockdev-set-active: an image goes from one daemon to another and back, with its chain and a filter, and nothing is lost; the
# peer may write to it while it is inactive. What is in use stays active, what is inactive refuses all.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io

python_test <<'EOF'
import os
import subprocess

from control import Daemon, contains, done_testing, is_equal, ok

QEMU_IMG, QEMU_IO = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def peer_io(what, *commands):
    """What the peer's io tool says of an image, or of an export."""
    arguments = ["-f", "raw", what] if what.startswith("nbd") else ["-f", "qcow2", what]
    return run(QEMU_IO, *(word for command in commands for word in ("-c", command)), *arguments)


def active(daemon):
    return {n["node-name"]: n["active"] for n in daemon.command("query-named-block-nodes", flat=True)}


def file(name):
    return {"driver": "file", "filename": name, "node-name": name + "-file"}


def add_chain(daemon, **options):
    """A filter above an overlay above a base; the base is added by itself."""
    daemon.command("blockdev-add", {"driver": "qcow2", "node-name": "base", "file": file("base"), "read-only": True, **options})
    daemon.command("blockdev-add", {"driver": "compress", "node-name": "z", **options,
                                    "file": {"driver": "qcow2", "node-name": "top", "file": file("top"), "backing": "base"}})


def start_server(daemon):
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    return f"nbd+unix:///e?socket={path}"


def export(daemon, node="z"):
    return daemon.refused("block-export-add", type="nbd", id="e", node_name=node, name="e", writable=True)


def end_export(daemon):
    daemon.command("block-export-del", id="e", mode="hard")
    daemon.event("BLOCK_EXPORT_DELETED")


ALL = {"z", "top", "top-file", "base", "base-file"}
run(QEMU_IMG, "create", "-q", "-f", "qcow2", "base", "1M")
peer_io("base", "write -P 1 0 1M")
run(QEMU_IMG, "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
with Daemon() as first, Daemon() as second:
    uri, other_uri = start_server(first), start_server(second)
    add_chain(first)
    add_chain(second, active=False)
    is_equal(active(first), dict.fromkeys(ALL, True), "all are active")
    is_equal(active(second), {"z": False, "base": False}, "nothing is opened for those that begin inactive")

    # In use.
    is_equal(export(first), "", "an export")
    peer_io(uri, "write -P 2 64k 64k", "write -P 3 130k 1k")
    first.command("block-dirty-bitmap-add", node="top", name="kept", persistent=True)
    peer_io(uri, "write -P 4 256k 64k")
    for node, user in (("z", "e"), ("top", "z"), ("top-file", "top"), ("base", "top"), (None, "e")):
        contains(first.refused("blockdev-set-active", node_name=node, active=False), f"'{user}' uses it", f"in use: {node}")
    contains(peer_io("top", "read 0 64k")[1], "lock", "the peer is kept out meanwhile")
    contains(second.refused("blockdev-set-active", node_name="z", active=True), "lock", "and so is the other daemon")
    ok(not any(active(second).values()), "which stays inactive, with all below", active(second))
    end_export(first)
    first.command("block-dirty-bitmap-add", node="top", name="lost")
    contains(first.refused("blockdev-set-active", node_name="top", active=False), "'z' uses it", "from the top only")
    contains(first.refused("blockdev-set-active", node_name="z", active=False), "'lost' would be lost", "a bitmap that is not kept")
    is_equal(active(first), dict.fromkeys(ALL, True), "all are active still")
    first.command("block-dirty-bitmap-remove", node="top", name="lost")

    # Over to the peer.
    first.command("blockdev-set-active", node_name="z", active=False)
    first.command("blockdev-set-active", node_name="z", active=False)
    is_equal(active(first), dict.fromkeys(ALL, False), "all below are inactive, too")
    is_equal(run(QEMU_IMG, "check", "top")[0], 0, "the peer finds no errors and no leaks")
    wrong = peer_io("top", "read -P 2 64k 64k", "read -P 3 130k 1k", "read -P 4 256k 64k", "read -P 1 512k 64k",
                    "write -P 5 512k 64k")
    ok(wrong[0] == 0 and "failed" not in wrong[1], "the peer reads what was written, and writes", wrong[1])
    is_equal(run(QEMU_IMG, "resize", "-q", "-f", "qcow2", "base", "2M"), (0, ""), "it may change the backing as well")

    # All is refused but to become active.
    for command, arguments in (("block_resize", {"node_name": "z", "size": 1 << 20}),
                               ("blockdev-reopen", {"options": [{"driver": "compress", "node-name": "z", "file": "top"}]}),
                               ("blockdev-snapshot-internal-sync", {"device": "z", "name": "s"}),
                               ("blockdev-add", {"driver": "raw", "node_name": "r", "file": "z"})):
        ok(first.refused(command, **arguments) != "", f"refused: {command}")
    is_equal(first.refused("blockdev-set-active", node_name="x", active=True), "Failed to find node with node-name='x'", "no node")
    ok(all(not state for state in active(first).values()), "all are inactive still")

    # Over to the other daemon, and back.
    is_equal(export(second), "", "an export makes its node active")
    is_equal(active(second), dict.fromkeys(ALL, True), "with all below, of which some are opened now")
    contains(first.refused("blockdev-set-active", active=True), "lock", "two cannot have it")
    ok(not any(active(first).values()), "it stays inactive, with all below")
    first.command("blockdev-set-active", node_name="top-file", active=True)
    wrong = peer_io(other_uri, "read -P 2 64k 64k", "read -P 5 512k 64k", "write -P 6 0 64k")
    ok("failed" not in wrong[1], "the other daemon has all, and writes", wrong[1])
    end_export(second)
    second.command("blockdev-set-active", active=False)
    is_equal(active(second), dict.fromkeys(ALL, False), "all nodes at once")
    first.command("blockdev-set-active", node_name="z", active=True)
    is_equal(active(first), dict.fromkeys(ALL, True), "back")
    bitmaps = {n["node-name"]: n.get("dirty-bitmaps", []) for n in first.command("query-named-block-nodes", flat=True)}
    is_equal([b["name"] for b in bitmaps["top"]], ["kept"], "the bitmap is there again")
    is_equal(export(first), "", "an export")
    wrong = peer_io(uri, "read -P 6 0 64k", "read -P 2 64k 64k", "read -P 3 130k 1k", "read -P 5 512k 64k", "write -P 7 0 64k")
    ok("failed" not in wrong[1], "what was written meanwhile is read", wrong[1])
    end_export(first)
    second.command("blockdev-del", node_name="z")
    second.command("blockdev-del", node_name="base")
    is_equal(active(second), {}, "inactive nodes can be deleted")
    first.command("blockdev-set-active", active=False)
    first.command("blockdev-set-active", active=True)

    # What a node has opened before it fails is let go.
    first.command("blockdev-set-active", active=False)
    first.command("blockdev-add", {"driver": "qcow2", "node-name": "late", "active": False,
                                   "backing": {"driver": "file", "filename": "gone"},
                                   "file": {"driver": "file", "filename": "top", "node-name": "late-file"}})
    contains(first.refused("blockdev-set-active", node_name="late", active=True), "gone", "a backing that is not there")
    is_equal(active(first)["late-file"], False, "its file is not open")
    first.command("blockdev-del", node_name="late")
    first.command("blockdev-set-active", active=True)

    # An image that has become bad.
    first.command("blockdev-set-active", active=False)
    os.rename("top", "elsewhere")
    contains(first.refused("blockdev-set-active", node_name="z", active=True), "'top'", "an image that is not there")
    with open("top", "wb") as bad:
        bad.write(b"no image" * 1000)
    contains(first.refused("blockdev-set-active", node_name="z", active=True), "qcow2", "no image any more")
    os.rename("elsewhere", "top")
    ok(not any(active(first).values()), "all is inactive still")
    first.command("blockdev-set-active", node_name="z", active=True)
    is_equal(active(first), dict.fromkeys(ALL, True), "and active when it is there again")
wrong = peer_io("top", "read -P 7 0 64k", "read -P 2 64k 64k")
ok(wrong[0] == 0 and "failed" not in wrong[1], "the peer reads the end of it", wrong[1])
code, text = run(QEMU_IMG, "check", "top")
ok(code == 0, "no errors and no leaks", text)
done_testing()
EOF
