#!/bin/bash
# SPDX-License-Identifier: MIT
# The wire format of the monitor: the same session on blkstack-daemon and on the peer, compared reply by reply.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon
any_backend

python_test <<'EOF'
from control import OURS, PEER, Daemon, diag, done_testing, is_equal, ok

# What is said in the place of a text that the two word differently by intent.
DIFFERENT = ("JSON parse error", "Parameter 'null' does not accept value", "Parameter 'enable[0]' does not accept value",
             "does not support OOB", "'exec-oob' is unexpected", "clashes with 'exec-oob'")

BEFORE = [
    {"execute": "query-version"}, {"execute": "nope"}, {"execute": "qmp_capabilities", "arguments": {"foo": 1}},
    {"execute": "qmp_capabilities", "arguments": {"enable": ["nope"]}}, "{]\n", {"execute": 3, "id": 1},
    {"execute": "qmp_capabilities", "arguments": {"enable": 3}},
    {"execute": "qmp_capabilities", "arguments": {"enable": []}, "id": [1, {"a": None}]},
    {"execute": "qmp_capabilities"},
]
MESSAGES = [
    {"execute": "query-version", "id": 7}, {"execute": "nope", "id": "x"}, {"execute": "query-version", "arguments": {}},
    {"execute": "query-version", "arguments": {"x": 1}}, {"execute": "query-version", "arguments": 3},
    {"execute": "query-version", "arguments": None}, {"execute": "query-version", "bogus": 3}, {"execute": 3},
    {"execute": None}, {"arguments": {}}, {}, [], "3\n", "null\n", "'x'\n", "nul\n", "}\n", "[1,\n2]\n",
    "{'execute':'query-version', 'id': '\\u00e9\\n'}\n", {"execute": "query-version", "id": 1.5},
    {"execute": "query-version", "id": None}, {"execute": "query-version", "id": {"a": [True, "%d"]}},
    "{'execute': 'query-version', 'id': 1, 'id': 2}\n", "{'execute': 'query-version',}\n",
    "{'execute' 'query-version'}\n", "{'execute': 'query-version', 'id': '\\q'}\n",
    {"exec-oob": "query-version"},
]


def simple(message):
    """Without what differs by intent."""
    message = dict(message)
    if isinstance(message.get("return"), dict) and "package" in message["return"]:
        version = message["return"]
        ok(sorted(version["qemu"]) == ["major", "micro", "minor"], "a version has three numbers")
        message["return"] = "a version"
    if "error" in message and any(part in message["error"]["desc"] for part in DIFFERENT):
        message["error"] = {"class": message["error"]["class"], "desc": "..."}
    return message


def session(program):
    """(what was said, the reply) for each message."""
    with Daemon(program=program) as daemon:
        client = daemon.connect(negotiate=False)
        replies = [("the greeting", sorted(client.greeting["QMP"]))]
        replies += [(message, simple(client.ask(message))) for message in BEFORE + MESSAGES]
        # Several commands in a line, and one over several lines.
        client.send("{'execute':'query-version','id':1}{'execute':'query-version', 'id':2} x {'execute':'nope'}\n")
        replies += [("several in a line", simple(client.reply())) for _ in range(4)]
        client.send("{'execute':\r\n'query-version',")
        client.send("\n'id': 3\n\n}")
        replies.append(("one over several lines", simple(client.reply())))
        client.close()
        # Whoever comes next begins from the beginning.
        client = daemon.connect(negotiate=False)
        replies.append(("the next client", simple(client.ask({"execute": "query-version"}))))
        client.close()
    return replies


class OneAtATime(Daemon):
    """The peer has one client at a time."""

    def __init__(self, program):
        super().__init__(program=program)
        self.close()


Daemon, Both = OneAtATime, Daemon
ours, peer = session(OURS), session(PEER)
for (what, mine), (_, theirs) in zip(ours, peer):
    is_equal(mine, theirs, f"the same: {what if isinstance(what, str) else str(what)}".replace("\n", " "))
done_testing()
EOF
