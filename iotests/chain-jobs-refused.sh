#!/bin/bash
# SPDX-License-Identifier: MIT
# What block-stream and block-commit refuse they refuse as the peer does, and the graph stays as it was.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io qemu-storage-daemon

python_test <<'EOF'
from chain_jobs import file_node, make_chain, make_image
from control import OURS, PEER, Daemon, done_testing, is_equal, ok

SIZE = 1 << 20
STREAM = (
    {"device": "nope"},
    {"device": "inc3", "base": "nope"},
    {"device": "inc3", "base_node": "nope"},
    {"device": "inc3", "bottom": "nope"},
    {"device": "inc3", "base": "base.qcow2", "base_node": "base"},
    {"device": "inc3", "base": "base.qcow2", "bottom": "inc1"},
    {"device": "inc3", "base_node": "base", "bottom": "inc1"},
    {"device": "inc3", "base_node": "new"},
    {"device": "inc3", "bottom": "new"},
    {"device": "inc3", "backing_file": "x"},
    {"device": "inc3", "on_error": "x"},
    {"device": "inc3", "speed": -1},
    {"device": "inc3", "no_such": 1},
)
# Of this one the peer says that it streams the entire chain, which it does not.
SAID_OTHERWISE = {"device": "inc3", "bottom": "inc1", "backing_file": "x"}
STREAM += (SAID_OTHERWISE,)
COMMIT = (
    {"device": "nope"},
    {"device": "base"},
    {"device": "inc2", "top_node": "inc1", "base_node": "base"},
    {"device": "inc3", "top_node": "nope"},
    {"device": "inc3", "top": "nope"},
    {"device": "inc3", "base": "nope"},
    {"device": "inc3", "base_node": "nope"},
    {"device": "inc3", "base_node": "inc2", "top_node": "inc1"},
    {"device": "inc3", "base_node": "inc1", "top_node": "inc1"},
    {"device": "inc3", "base_node": "new"},
    {"device": "inc3", "top_node": "new"},
    {"device": "inc3", "base_node": "base", "base": "base.qcow2"},
    {"device": "inc3", "top_node": "inc2", "top": "inc2.qcow2"},
    {"device": "inc3", "base_node": "base", "backing_file": "x"},
    {"device": "inc3", "top_node": "inc2", "speed": -1},
)


def add_chain(daemon):
    below = {}
    for name in ("base", "inc1", "inc2", "inc3"):
        daemon.command("blockdev-add", driver="qcow2", node_name=name, read_only=name != "inc3", file=file_node(name + ".qcow2"),
                       **below)
        below = {"backing": name}
    daemon.command("blockdev-add", driver="qcow2", node_name="new", file=file_node("new.qcow2"))


def nodes(daemon):
    return sorted((node["node-name"], node["drv"], node["ro"]) for node in daemon.command("query-named-block-nodes"))


def answers(program):
    """What each refused command says, by command and arguments."""
    said = {}
    with Daemon(program=program) as daemon:
        add_chain(daemon)
        before = nodes(daemon)
        for command, cases in (("block-stream", STREAM), ("block-commit", COMMIT)):
            for arguments in cases:
                said[command, str(arguments)] = daemon.refused(command, **{"job_id": "j", **arguments})
        is_equal(nodes(daemon), before, "the graph is as it was")
        # refused when it is nearly there, it leaves no job that waits to be dismissed
        daemon.command("block-stream", job_id="j", device="inc3", base_node="base", auto_finalize=False)
        daemon.event("JOB_STATUS_CHANGE", id="j", status="pending")
        ok(daemon.refused("blockdev-backup", job_id="k", device="new", target="inc3", sync="full", auto_dismiss=False), "refused")
        is_equal([job["id"] for job in daemon.command("query-jobs")], ["j"], "a refused job is no job")
        daemon.command("job-cancel", id="j")
    return said


make_chain(SIZE, 1)
make_image("inc3.qcow2", SIZE, "inc2.qcow2", [], 1)
make_image("new.qcow2", SIZE, None, [], 1)
theirs, ours = answers(PEER), answers(OURS)
for case, text in theirs.items():
    if case[1] == str(SAID_OTHERWISE):
        text = text and "'bottom' and 'backing-file' cannot be specified at the same time"
    is_equal(ours[case], text, f"{case[0]} {case[1]}")
done_testing()
EOF
