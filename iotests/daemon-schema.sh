#!/bin/bash
# SPDX-License-Identifier: MIT
# query-qmp-schema: every command stands in it with the arguments that it takes, every type that is named is there, and what
# the peer has under the same name is a part of the peer's.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon
any_backend

python_test <<'EOF'
import os
import re

from control import PEER, Daemon, done_testing, is_equal, ok

LIBRARY = ("core", "drivers", "exports", "filters", "jobs")
OWN = ("metadata-only", "check-only", "active", "allow-inactive")     # what the peer has not; newer ones have the last two
CHAIN_JOBS = ("compress", "backing-mask-protocol")       # newer ones have the second
OWN_OF = {"block-stream": CHAIN_JOBS, "block-commit": CHAIN_JOBS, "blockdev-mirror": ("compress", "unmap")}


def names_of_types(entity):
    names = [entity[key] for key in ("arg-type", "ret-type", "element-type") if key in entity]
    return names + [member["type"] for key in ("members", "variants") for member in entity.get(key, []) if "type" in member]


def arguments(schema, command):
    """Name -> is it optional, of the members that do not depend on others."""
    return {member["name"]: "default" in member for member in schema[schema[command]["arg-type"]]["members"]}


def read_schema(daemon):
    entities = daemon.command("query-qmp-schema")
    schema = {entity["name"]: entity for entity in entities}
    is_equal(len(schema), len(entities), "no name stands in the schema twice")
    return schema


with Daemon(program=PEER) as peer, Daemon() as daemon:
    theirs, ours = read_schema(peer), read_schema(daemon)
    commands = sorted(command["name"] for command in daemon.command("query-commands"))
    is_equal(sorted(name for name, entity in ours.items() if entity["meta-type"] == "command"), commands,
             "the commands of query-commands")
    missing = {name for entity in ours.values() for name in names_of_types(entity) if name not in ours}
    is_equal(missing, set(), "all types that are named are there")
    for command in commands:
        mine = arguments(ours, command)
        # What the schema says is required is, and what it does not know is refused.
        if command not in ("quit", "qmp_capabilities", "nbd-server-stop"):
            desc = daemon.refused(command, {"no-such-argument": 1})
            first = next((name for name, optional in mine.items() if not optional), None)
            needed = "driver" if command == "blockdev-add" else first
            ok(desc in (f"Parameter '{needed}' is missing", "Parameter 'no-such-argument' is unexpected")
               and ("missing" in desc) == (first is not None), f"{command}: refuses what the schema does", desc)
        if command in theirs:
            peers = arguments(theirs, command)
            mine = {name: optional for name, optional in mine.items() if name not in OWN + OWN_OF.get(command, ())}
            is_equal({name: peers.get(name) for name in mine}, mine, f"{command}: arguments that the peer has")
    tags = {"blockdev-add": "driver", "block-export-add": "type", "object-add": "qom-type"}
    for command, tag in tags.items():
        entity, peers = ours[ours[command]["arg-type"]], theirs[theirs[command]["arg-type"]]
        is_equal((entity["tag"], peers["tag"]), (tag, tag), f"{command}: the tag")
        variants = {variant["case"]: variant["type"] for variant in entity["variants"]}
        tag_type = next(member["type"] for member in entity["members"] if member["name"] == tag)
        is_equal(sorted(ours[tag_type]["values"]), sorted(variants), f"{command}: a variant for each value of the tag")
    # The events: those of the sources, and what comes with them.
    names = set()
    for folder, _, files in os.walk(os.environ["BLKSTACK_SOURCE"]):
        for name in files if os.path.relpath(folder, os.environ["BLKSTACK_SOURCE"]).split("/")[0] in LIBRARY else ():
            with open(os.path.join(folder, name), encoding="utf-8") as source:
                text = source.read()
            if "blk_notify(" in text:
                names |= set(re.findall('"([A-Z]+(?:_[A-Z]+)+)"', text))
    events = {name for name, entity in ours.items() if entity["meta-type"] == "event"}
    is_equal(events, names, "the events are those that the sources tell of")
    for node in "source", "target":
        daemon.command("blockdev-add", driver="null-co", node_name=node, size=1 << 20, read_zeroes=True)
    daemon.command("blockdev-mirror", job_id="j", device="source", target="target", sync="full", auto_finalize=False)
    daemon.event("BLOCK_JOB_READY", device="j")
    daemon.command("job-complete", id="j")
    daemon.event("BLOCK_JOB_PENDING", id="j")
    daemon.command("job-finalize", id="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="null")
    told = daemon.all_events
    is_equal({event["event"] for event in told}, {"JOB_STATUS_CHANGE", "BLOCK_JOB_READY", "BLOCK_JOB_PENDING",
                                                  "BLOCK_JOB_COMPLETED"}, "a job tells of all its states")
    for event in told:
        members = arguments(ours, event["event"])
        ok(set(event["data"]) <= set(members) and all(members[name] for name in set(members) - set(event["data"])),
           f"{event['event']}: what comes with it is what the schema says", f"{event}\n{members}")
done_testing()
EOF
