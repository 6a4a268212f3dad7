#!/bin/bash
# SPDX-License-Identifier: MIT
# Arguments that are lists, objects, unions or one of several types: what is of a wrong type, unknown or missing in them is refused
# before anything is done, in the words of the peer but for a few, which name the argument where the peer does not.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon
any_backend

python_test <<'PYTHON'
from control import PEER, Daemon, done_testing, is_equal

def merge(value):
    return "block-dirty-bitmap-merge", {"node": "n", "target": "b", "bitmaps": value}


def action(value, **others):
    return "transaction", {"actions": value, **others}


def qcow2(**others):
    return "blockdev-add", {"driver": "qcow2", "node-name": "q", "file": "n", **others}


def create(options):
    return "blockdev-create", {"job-id": "j", "options": options}


def rules(value):
    return "object-add", {"qom-type": "authz-list", "id": "a", "rules": value}


def server(addr):
    return "nbd-server-start", {"addr": addr}


def export(bitmaps):
    return "block-export-add", {"type": "nbd", "id": "e", "node-name": "n", "bitmaps": bitmaps}


# What we say where the peer says something else.
OURS = {
    "Invalid parameter type for 'bitmaps[0]', expected: BlockDirtyBitmapOrStr",     # the peer names no argument
    "Parameter 'overlap-check.template' does not accept value 'x'",                 # ... and not where it stands
    "Invalid parameter type for 'overlap-check', expected: string",                 # one of our two tables is asked
    "Invalid parameter type for 'options.size', expected: integer",                 # as everywhere
    "Invalid parameter type for 'options[0].file', expected: BlockdevRef",          # where it stands
    "Invalid parameter type for 'options.file', expected: BlockdevRef",             # where it stands
}
CALLS = [
    merge([1]), merge([{"node": 1}]), merge({}), merge([{"node": "n"}]), merge([{"node": "n", "name": "x", "y": 1}]),
    action(1), action([1]), action([{"type": "abort"}]), action([{"type": "abort", "data": {"x": 1}}]),
    action([{"type": "abort", "data": 1}]), action([{"type": "nope", "data": {}}]), action([{"data": {}}]),
    action([{"type": "blockdev-snapshot", "data": {"node": 1}}]), action([{"type": "abort", "data": {}, "x": 1}]),
    action([], properties={"completion-mode": "x"}), action([], properties=1), action([], properties={"x": 1}),
    qcow2(file=None), qcow2(file=3), qcow2(**{"overlap-check": {"template": "x"}}), qcow2(**{"overlap-check": 3}),
    qcow2(**{"overlap-check": {"main-header": 1}}), qcow2(**{"overlap-check": {"main-header": True, "x": 1}}),
    create(3), create({"driver": "qcow2"}), create({"driver": "qcow2", "file": "n", "size": "x"}),
    create({"driver": "qcow2", "file": None, "size": 1}), create({"driver": "qcow2", "file": {"driver": "x"}, "size": 1}),
    ("blockdev-reopen", {"options": [3]}), ("blockdev-reopen", {"options": 3}),
    ("blockdev-reopen", {"options": [{"driver": "qcow2", "file": 3}]}),
    rules(3), rules([3]), rules([{"match": "x"}]), rules([{"match": "x", "policy": "x"}]),
    server(3), server({"type": "unix"}), server({"type": "unix", "data": 3}), server({"type": "unix", "data": {}}),
    server({"type": "x", "data": {}}), export(3), export([3]), export([{"node": "n"}]),
    ("block_resize", {"node-name": "n", "size": "x"}), ("block_resize", {"node-name": "n", "size": -1}),
]

with Daemon(program=PEER) as peer, Daemon() as daemon:
    for one in peer, daemon:
        one.command("blockdev-add", driver="null-co", node_name="n", size=1 << 20)
    said = set()
    for name, arguments in CALLS:
        ours, theirs = daemon.refused(name, arguments), peer.refused(name, arguments)
        said.add(ours)
        is_equal(ours, ours if ours in OURS else theirs, f"{name} {arguments}: {ours}")
    is_equal(OURS - said, set(), "the list of differences has nothing in it that is none")
    # Types that only we have.
    for name, arguments, desc in [
        ("blockdev-add", {"driver": "fault", "image": "n", "inject-error": [{"errno": 5}]}, "Parameter 'inject-error[0].event' is missing"),
        ("blockdev-add", {"driver": "fault", "image": "n", "inject-error": [{"event": "none", "errno": "5"}]},
         "Invalid parameter type for 'inject-error[0].errno', expected: integer"),
        ("blockdev-add", {"driver": "fault", "image": "n", "set-state": {"event": "none"}},
         "Invalid parameter type for 'set-state', expected: array"),
        ("blockdev-add", {"driver": "fault", "image": "n", "take-child-perms": ["x"]},
         "Parameter 'take-child-perms[0]' does not accept value 'x'"),
        ("blockdev-add", {"driver": "fault", "image": "n", "unshare-child-perms": "write"},
         "Invalid parameter type for 'unshare-child-perms', expected: array"),
        ("blockdev-insert-filter", {"node": "n", "filter": "x"}, "Invalid parameter type for 'filter', expected: object"),
        ("blockdev-insert-filter", {"node": "n", "filter": {"driver": "throttle", "node-name": "t"}},
         "Parameter 'filter.throttle-group' is missing"),
    ]:
        is_equal(daemon.refused(name, arguments), desc, f"{name} {arguments}")
    is_equal([node["node-name"] for node in daemon.command("query-named-block-nodes")], ["n"], "nothing was made")
    # What is right is taken: a rule of each kind, and the filter whose child is called otherwise.
    daemon.command("blockdev-insert-filter", node="n", filter={
        "driver": "fault", "node-name": "f", "inject-error": [{"event": "none", "errno": 5, "once": True}],
        "set-state": [{"event": "pwritev", "new_state": 2}], "take-child-perms": ["write"]})
    is_equal(sorted(node["node-name"] for node in daemon.command("query-named-block-nodes")), ["f", "n"], "a filter with rules was inserted")
    daemon.command("blockdev-remove-filter", node_name="f")
done_testing()
PYTHON
