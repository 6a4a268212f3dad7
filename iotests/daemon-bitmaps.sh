#!/bin/bash
# SPDX-License-Identifier: MIT
# Dirty bitmaps by commands: the same commands to the peer and to ours have the same results, refusals and bits, also while an
# export uses a bitmap, of read-only images and of inconsistent bitmaps. What is persistent is there after the end, and
# not trusted after a crash.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon qemu-img qemu-io python3
python_test <<'EOF'
import os
import shutil
import signal

from bitmap_twins import HASH, PEER_IMG, PREFIX, Both, flags, run
from control import contains, done_testing, is_equal, ok

ADD, REMOVE, CLEAR, ENABLE, DISABLE, MERGE = [
    PREFIX + name for name in ("add", "remove", "clear", "enable", "disable", "merge")]
DISK = 10 << 20


def make_images():
    for folder in ("ours", "peer"):
        os.makedirs(folder, exist_ok=True)
    for name in ("a", "b", "r", "i"):
        run(PEER_IMG, "create", "-q", "-f", "qcow2", f"ours/{name}", str(DISK))
    for name in ("r", "i"):
        run(PEER_IMG, "bitmap", "--add", f"ours/{name}", "p0")
        run(PEER_IMG, "bitmap", "--add", "--disable", f"ours/{name}", "d0")
    with open("ours/i", "r+b") as image:        # the entry of p0 says that it is in use
        data = image.read()
        at = data.index(b"p0", 512) - 24
        image.seek(at + 12)
        flag = int.from_bytes(data[at + 12:at + 16], "big") | 1
        image.write(flag.to_bytes(4, "big"))
    for name in ("a", "b", "r", "i"):
        shutil.copy(f"ours/{name}", f"peer/{name}")


make_images()
both = Both()
both.add_node("a", "a")
both.add_node("b", "b")
same, same_bits = both.same, both.same_bits

# ---- arguments ----
same(ADD, node="x", name="b0")
same(ADD, node="a")
same(ADD, node="a", name=7)
same(ADD, node="a", name="b0", foo=1)
same(ADD, node="a", name="")
same(ADD, node="a", name="b0", granularity=0)
same(ADD, node="a", name="b0", granularity=513)
same(ADD, node="a", name="b0", granularity=256)
same(ADD, node="a", name="b0", persistent="on")
same(ADD, node="a", name="b0", granularity=4096)
same(ADD, node="a", name="b0")
same(ADD, node="a", name="p1", persistent=True, disabled=True)
same(ADD, node="a", name="p2", persistent=True)
contains(both.daemons[0].refused(ADD, node="a", name="x" * 1024), "too long", "a name of 1024 bytes")
ok(both.daemons[0].refused(ADD, node="a", name="b1", granularity=1 << 32) and
   both.daemons[0].refused(ADD, node="a", name="b1", granularity=-1) and
   both.daemons[0].refused(ADD, node="a", name="b1", granularity="64k"), "granularities that are none")
for command in (REMOVE, CLEAR, ENABLE, DISABLE, HASH):
    same(command, node="a", name="zz")
    same(command, node="zz", name="b0")
same(MERGE, node="a", target="zz", bitmaps=["b0"])
same(MERGE, node="a", target="b0", bitmaps=["zz"])
same(MERGE, node="a", target="b0", bitmaps="b0")
same(MERGE, node="a", target="b0", bitmaps=[{"node": "b"}])
same(MERGE, node="a", target="b0", bitmaps=[{"node": "b", "name": "b0"}])
same(MERGE, node="a", target="b0", bitmaps=[{"node": "zz", "name": "b0"}])
ok(both.daemons[0].refused(MERGE, node="a", target="b0", bitmaps=[7]) and
   both.daemons[0].refused(MERGE, node="a", target="b0", bitmaps=[None]), "sources that are no bitmaps")
is_equal(both.daemons[0].command(MERGE, node="a", target="b0", bitmaps=[]), {}, "nothing is merged")


# ---- bits ----
same_bits("b0", "p1", "p2")
both.write("write 0 4k", "write 1M 100k", "write -z 5M 1M", "write 10484736 1k")
same_bits("b0", "p1", "p2")
same(ENABLE, node="a", name="p1")
same(DISABLE, node="a", name="b0")
both.write("write 3M 1M")
same_bits("b0", "p1", "p2")
same(MERGE, node="a", target="b0", bitmaps=["p1"])
same(ADD, node="b", name="c0", granularity=512)
same(MERGE, node="b", target="c0", bitmaps=[{"node": "a", "name": "b0"}, {"node": "a", "name": "p2"}])
same_bits("b0", "p1", "p2")
same_bits("c0", node="b")
before = same(HASH, node="a", name="b0")
same(MERGE, node="a", target="b0", bitmaps=["p2", "zz"])
is_equal(both.daemons[0].command(HASH, node="a", name="b0"), before, "of a merge that is refused nothing is done")
same(CLEAR, node="a", name="b0")
same_bits("b0")
same(REMOVE, node="a", name="b0")
same(HASH, node="a", name="b0")
same(ADD, node="a", name="b0")
same_bits("b0")

# ---- while an export shows it ----
for daemon in both.daemons:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
same("block-export-add", type="nbd", id="e", node_name="a", name="e", writable=True, bitmaps=["p1"])
contains(both.daemons[0].refused("block-export-add", type="nbd", id="f", node_name="a", name="f", writable=True,
                                 bitmaps=["p1"]), "Bitmap 'p1' is currently in use by another operation and cannot be used",
         "another export of the same bitmap")
for command in (REMOVE, CLEAR, ENABLE, DISABLE):
    same(command, node="a", name="p1")
same(MERGE, node="a", target="p1", bitmaps=["b0"])
same(MERGE, node="a", target="b0", bitmaps=["p1"])
for daemon in both.daemons:
    daemon.command("nbd-server-stop")
    daemon.event("BLOCK_EXPORT_DELETED", id="e")
same(CLEAR, node="a", name="p1")
same(DISABLE, node="a", name="p1")

# ---- read-only and inconsistent ----
both.add_node("r", "r", read_only=True)
both.add_node("i", "i")
for node in ("r", "i"):
    for command in (ENABLE, DISABLE, CLEAR):
        same(command, node=node, name="p0")
    same(ADD, node=node, name="t")
    same(MERGE, node=node, target="t", bitmaps=["p0"])
    same(MERGE, node=node, target="p0", bitmaps=["t"])
    same(ADD, node=node, name="p0")
    same(REMOVE, node=node, name="p0")
same_bits("p0", node="r")
same(REMOVE, node="a", name="p2")
same(ADD, node="a", name="p3", persistent=True)
ours = both.daemons[0]
both.end()
for name in ("a", "r", "i"):
    is_equal(flags(f"ours/{name}"), flags(f"peer/{name}"), f"{name}: the image keeps the same bitmaps")
    run(PEER_IMG, "check", "-q", "-f", "qcow2", f"ours/{name}")

# ---- crashes: what was changed is not trusted; what was removed is not there ----
both.start()
both.add_node("a", "a")
same_bits("p1", "p3")
ours = both.daemons[0]
is_equal(flags("ours/a"), {"p1": [], "p3": ["auto"]}, "a bitmap that was only looked at can be trusted")
ours.command(DISABLE, node="a", name="p3")
is_equal(flags("ours/a"), {"p1": [], "p3": ["in-use", "auto"]}, "one that was disabled cannot")
ours.command(MERGE, node="a", target="p1", bitmaps=["p3"])
is_equal(flags("ours/a")["p1"], ["in-use"], "nor one that others were merged into")
ours.command(REMOVE, node="a", name="p3")
is_equal(flags("ours/a"), {"p1": []}, "one that was removed is gone from the image, and the others are stored")
ours.command(CLEAR, node="a", name="p1")
both.end(signal.SIGKILL)
is_equal(flags("ours/a"), {"p1": ["in-use"]}, "after a crash a bitmap that was cleared is not trusted")
done_testing()
EOF
