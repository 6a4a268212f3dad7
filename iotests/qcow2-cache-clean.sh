#!/bin/bash
# SPDX-License-Identifier: MIT
# cache-clean-interval of qcow2: tables that nobody has used for so long are read anew from the file; with 0 they stay. It changes while
# the image is open.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io

qimg create -q -f qcow2 disk.qcow2 16M >/dev/null
qio -f qcow2 -c "write -q -P 5 0 1M" disk.qcow2

python_test <<'EOF'
import os
import time

import nbd_raw
from control import Daemon, done_testing, is_equal, ok

NODE = {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "disk.qcow2", "node-name": "f"}}


def reads(daemon, client):
    """Of the file, for one read of the disk."""
    def count():
        return next(n["stats"]["rd_operations"] for n in daemon.command("query-blockstats", query_nodes=True) if n["node-name"] == "f")

    before = count()
    client.send(nbd_raw.request(nbd_raw.READ, 0, 4096))
    is_equal(client.simple_reply(4096), (0, bytes([5]) * 4096), "a read")
    return count() - before


def goes(daemon, client, alone):
    """Is a table read anew, after a rest?"""
    for _ in range(8):
        time.sleep(2.2)
        if reads(daemon, client) > alone:
            return True
    return False


with Daemon() as daemon:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("blockdev-add", {**NODE, "cache-clean-interval": 1})
    daemon.command("block-export-add", type="nbd", id="e", node_name="q", name="e")
    with nbd_raw.Raw(path).negotiate(b"e") as client:
        first, alone = reads(daemon, client), min(reads(daemon, client) for _ in range(5))
        ok(first > alone, "tables are read once", f"{first} {alone}")
        ok(goes(daemon, client, alone), "what is not used for a second is read again")
        daemon.command("blockdev-reopen", options=[{**NODE, "cache-clean-interval": 0}])
        reads(daemon, client)
        time.sleep(2.2)
        is_equal(reads(daemon, client), alone, "0: it stays")
        daemon.command("blockdev-reopen", options=[{**NODE, "cache-clean-interval": 1}])
        ok(goes(daemon, client, alone), "and goes again, after a reopening")
done_testing()
EOF
