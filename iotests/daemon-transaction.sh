#!/bin/bash
# SPDX-License-Identifier: MIT
# Transactions of bitmap actions happen together or not at all: each action fails at each position among others, for reasons of
# its own and by "abort", and all is as before, as with the peer. The actions of one see one moment under writes.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon qemu-img qemu-io python3
python_test <<'EOF'
import os
import shutil
import subprocess

from bitmap_twins import HASH, PEER_IMG, PEER_IO, PREFIX, Both, flags, run
from control import done_testing, is_equal, ok

DISK = 10 << 20
os.makedirs("ours")
run(PEER_IMG, "create", "-q", "-f", "qcow2", "ours/a", str(DISK))
for options, name in ((["--add"], "p0"), (["--add", "--disable"], "p1")):
    run(PEER_IMG, "bitmap", *options, "ours/a", name)
shutil.copytree("ours", "peer")
both = Both()
both.add_node("a", "a")
same, same_bits = both.same, both.same_bits


def action(kind, **data):
    """A bitmap action at node a, or one by its whole name."""
    if kind == "abort":
        return {"type": kind, "data": {}}
    return {"type": PREFIX + kind, "data": {"node": "a", **data}}


def transaction(*actions, **properties):
    arguments = {"actions": list(actions)}
    if properties:
        arguments["properties"] = {key.replace("_", "-"): value for key, value in properties.items()}
    return same("transaction", arguments)


for number, name in enumerate(("b0", "b1", "b2", "b3")):
    same(PREFIX + "add", node="a", name=name, disabled=number == 3)
both.write("write 0 100k", "write 2M 64k")
same(PREFIX + "clear", node="a", name="b1")
both.write("write 1M 64k")
NAMES = ("b0", "b1", "b2", "b3", "p0", "p1")
before = [both.daemons[0].command(HASH, node="a", name=name) for name in NAMES]

# ---- what can be said wrongly ----
transaction()
same("transaction", actions={})
same("transaction", {})
transaction({"type": "abort"})
transaction({"type": "abort", "data": 1})
transaction({"type": "foo", "data": {}})
transaction({"type": PREFIX + "add", "data": {"node": "a"}})
transaction({"type": PREFIX + "clear", "data": {"node": "a", "name": "b0", "x": 1}})
transaction(action("clear", name="b0"), completion_mode="grouped")
transaction(action("clear", name="b0"), completion_mode="foo")
transaction(action("clear", name="b0"), foo=1)
ok(both.daemons[0].refused("transaction", actions=[7]), "an action that is none")

# ---- each action at each position fails ----
GOOD = [
    action("add", name="n0", granularity=4096),
    action("add", name="n1", persistent=True, disabled=True),
    action("merge", target="n1", bitmaps=["b0", {"node": "a", "name": "p0"}]),
    action("clear", name="b0"),
    action("clear", name="p0"),
    action("merge", target="p1", bitmaps=["b1", "b2"]),
    action("disable", name="b2"),
    action("enable", name="b3"),
    action("disable", name="p0"),
    action("remove", name="b1"),
    action("remove", name="p1"),
    action("merge", target="b2", bitmaps=["b0", "n1"]),
]
BAD = [
    action("abort"),
    action("add", name="b0"),
    action("add", name="bad", granularity=511),
    action("remove", name="zz"),
    action("clear", name="zz"),
    action("disable", name="zz"),
    action("merge", target="b2", bitmaps=["b0", "zz"]),
    action("merge", target="zz", bitmaps=["b0"]),
]
for position in range(len(GOOD) + 1):
    for bad in BAD:
        transaction(*GOOD[:position], bad, *GOOD[position:])
    is_equal(both.daemons[0].refused("transaction", actions=GOOD[:position] + [action("enable", name="zz")]),
             "Dirty bitmap 'zz' not found", f"enable at {position}, which ends the peer by a signal")
after = [both.daemons[0].command(HASH, node="a", name=name) for name in NAMES]
is_equal(after, before, "no bit has changed")
for name in ("n0", "n1", "bad"):
    same(HASH, node="a", name=name)
both.write("write 8M 64k")
same_bits(*NAMES)                       # and those that record are those that did

# A bitmap that is to be removed cannot be used, or made anew, by the actions behind.
transaction(action("remove", name="b1"), action("add", name="b1"))
transaction(action("remove", name="b1"), action("remove", name="b1"))
transaction(action("remove", name="b1"), action("merge", target="b0", bitmaps=["b1"]))
transaction(action("clear", name="b0"), action("clear", name="b0"), action("remove", name="b0"), action("abort"))
same_bits(*NAMES)

# ---- all are good ----
transaction(*GOOD)
both.write("write 4M 64k")
same_bits("b0", "b2", "b3", "p0", "n0", "n1", "b1", "p1")
both.end()
is_equal(flags("ours/a"), flags("peer/a"), "the image keeps the same bitmaps")
run(PEER_IMG, "check", "-q", "-f", "qcow2", "ours/a")

# ---- one moment: each write is in the bitmap before, or in the one behind, of each pair ----
both.start()
ours, peer = both.daemons
peer.end()
both.daemons = [ours]
both.add_node("a", "a")
path = os.path.join(ours.directory, "n")
ours.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
ours.command("block-export-add", type="nbd", id="w", node_name="a", name="w", writable=True)
count = 160
ours.command(PREFIX + "add", node="a", name="all", granularity=65536)
ours.command(PREFIX + "add", node="a", name="t0", granularity=65536)
writer = subprocess.Popen([PEER_IO, "-f", "raw", f"nbd+unix:///w?socket={path}",
                           *(f"-caio_write {number * 64}k 64k" for number in range(count)), "-caio_flush"],
                          stdout=subprocess.DEVNULL)
number = 0
while writer.poll() is None:
    ours.command("transaction", actions=[action("disable", name=f"t{number}"),
                                         action("add", name=f"t{number + 1}", granularity=65536)])
    number += 1
ours.command(PREFIX + "add", node="a", name="sum", granularity=65536, disabled=True)
ours.command(PREFIX + "merge", node="a", target="sum", bitmaps=[f"t{i}" for i in range(number + 1)])
is_equal(ours.command(HASH, node="a", name="sum"), ours.command(HASH, node="a", name="all"),
         "no write falls between two bitmaps")
is_equal(writer.returncode, 0, "all is written")
ours.end()
done_testing()
EOF
