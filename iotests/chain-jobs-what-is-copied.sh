#!/bin/bash
# SPDX-License-Identifier: MIT
# However the images are named, block-stream and block-commit copy what lies between them, and no more; and the header says what
# the peer's says.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io qemu-storage-daemon

python_test <<'EOF'
import json
import os

from chain_jobs import QEMU_IMG, backing_of, content, file_node, finish, judge, make_chain, make_image, pending, run
from control import OURS, PEER, Daemon, done_testing, is_equal

SIZE = 4 << 20
PART = SIZE // 16
BETWEEN = 6 * PART                  # of inc1 and inc2 together: see make_chain()


def own_bytes(image):
    """What the image has itself."""
    extents = json.loads(run(QEMU_IMG, "map", "--output=json", image))
    return sum(extent["length"] for extent in extents if extent["depth"] == 0 and extent["present"])


def add_chain(daemon, *names):
    below = {}
    for name in names:
        daemon.command("blockdev-add", driver="qcow2", node_name=name, file=file_node(name + ".qcow2"),
                       read_only=name != names[-1], **below)
        below = {"backing": name}


# ---- stream ----
for arguments, own in (
        ({"base": "base.qcow2"}, BETWEEN),
        ({"base_node": "base"}, BETWEEN),
        ({"base_node": "inc1"}, 3 * PART),
        ({"bottom": "inc1"}, BETWEEN),
        ({"base_node": "base", "backing_file": os.path.abspath("base.qcow2")}, BETWEEN),
        ({}, SIZE - PART)):
    said = []
    for program in (PEER, OURS):
        make_chain(SIZE, 1, compressed=False)
        before = content("inc2.qcow2")
        with Daemon(program=program) as daemon:
            add_chain(daemon, "base", "inc1", "inc2")
            daemon.command("block-stream", **arguments, job_id="j", device="inc2")
            done = finish(daemon, "j", f"stream {arguments}")
        said.append((backing_of("inc2.qcow2"), done["len"], done["offset"]))
        is_equal(own_bytes("inc2.qcow2"), own, f"stream {arguments}: what it copies")
        judge("inc2.qcow2", before, f"stream {arguments}")
    is_equal(said[1], said[0], f"stream {arguments}: backing file and lengths")

# ---- commit ----
for arguments in ({"top": "inc2.qcow2", "base": "base.qcow2"}, {"top_node": "inc2", "base_node": "base"}, {"top": "inc2.qcow2"},
                  {"top_node": "inc2", "backing_file": os.path.abspath("base.qcow2")}):
    said = []
    for program in (PEER, OURS):
        make_chain(SIZE, 1, compressed=False)
        make_image("top.qcow2", SIZE, "inc2.qcow2", [], 1)
        before = content("top.qcow2")
        with Daemon(program=program) as daemon:
            add_chain(daemon, "base", "inc1", "inc2", "top")
            daemon.command("block-commit", **arguments, job_id="j", device="top", auto_finalize=False)
            pending(daemon, "j")
            stats = {node["node-name"]: node["stats"]["wr_bytes"] for node in daemon.command("query-blockstats", query_nodes=True)}
            daemon.command("job-finalize", id="j")
            done = finish(daemon, "j", f"commit {arguments}")
            if program == OURS:
                is_equal(stats["base"], BETWEEN, f"commit {arguments}: what it copies")
        said.append((backing_of("top.qcow2"), done["len"], done["offset"]))
        judge("top.qcow2", before, f"commit {arguments}")
        judge("base.qcow2", before, f"commit {arguments}")
    is_equal(said[1], said[0], f"commit {arguments}: backing file and lengths")
done_testing()
EOF
