#!/bin/bash
# SPDX-License-Identifier: MIT
# External snapshots of a node that an NBD client writes to: results, refusals and roll-back as the peer's; every image of the
# chain holds what the client wrote up to its moment.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-storage-daemon

say_seed
export SEED
python_test <<'EOF'
import json
import os
import subprocess

from control import OURS, PEER, Daemon, contains, done_testing, is_equal, ok
from nbd_load import Load

SIZE = 1 << 20
QEMU_IMG = os.environ["QEMU_IMG"]


def img(*command):
    done = subprocess.run([QEMU_IMG, *command], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def add(daemon, name, driver="qcow2", **more):
    daemon.command("blockdev-add", {"driver": driver, "node-name": name, "file": {"driver": "file", "filename": name}, **more})


def parsed(name):
    """A file name, with the members of a json: name in the order of the alphabet."""
    return json.dumps(json.loads(name[5:]), sort_keys=True) if name.startswith("json:") else name


def chain(daemon):
    """What named nodes there are, with the lengths of their chains and what they say of their backing files."""
    nodes = daemon.command("query-named-block-nodes", flat=False)
    return sorted((n["node-name"], n["backing_file_depth"], n["drv"], n["ro"], parsed(n["file"]),
                   parsed(n["image"].get("backing-filename", ""))) for n in nodes if n["node-name"][0] != "#")


def session(program):
    """The same commands to either daemon. Returns: what was answered."""
    for name, options in (("base", ()), ("over", ("-b", "base", "-F", "qcow2")), ("bare", ()), ("used", ())):
        img("create", "-q", "-f", "qcow2", *options, name, *(() if options else ("1M",)))
    with open("raw", "wb") as raw:
        raw.truncate(SIZE)
    told = []
    with Daemon(program=program) as d:
        path = os.path.join(d.directory, "n")
        d.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        for name in ("base", "bare", "used"):
            add(d, name)
        add(d, "over", backing=None)
        add(d, "raw", "raw")
        for node in ("base", "used"):
            d.command("block-export-add", type="nbd", id=node, node_name=node, writable=True)
        for node, overlay in (("nobody", "over"), ("base", "nobody"), ("base", "raw"), ("base", "used")):
            told.append(d.refused("blockdev-snapshot", node=node, overlay=overlay))
        over = {"type": "blockdev-snapshot", "data": {"node": "base", "overlay": "over"}}
        told.append(d.refused("transaction", actions=[over, {"type": "abort", "data": {}}]))
        told.append(chain(d))
        told.append(d.refused("transaction", actions=[over, {"type": "blockdev-snapshot",
                                                             "data": {"node": "over", "overlay": "bare"}}]))
        told.append(chain(d))
        told.append(sorted(e["node-name"] for e in d.command("query-block-exports")))
        told.append(d.refused("blockdev-snapshot", node="raw", overlay="over"))
        sync = {"node-name": "bare", "snapshot-file": "sync", "snapshot-node-name": "s"}
        for changes in ({"snapshot-node-name": None}, {"node-name": "nobody"}, {"snapshot-node-name": "over"},
                        {"format": "foo"}, {"format": "raw"}, {"mode": "existing", "snapshot-file": "none"}, {"mode": "some"}):
            wanted = {key: value for key, value in {**sync, **changes}.items() if value}
            told.append(d.refused("blockdev-snapshot-sync", wanted))
        told.append(d.refused("transaction", actions=[{"type": "blockdev-snapshot-sync", "data": sync},
                                                      {"type": "abort", "data": {}}]))
        told.append(chain(d))
        told.append(d.refused("blockdev-snapshot-sync", sync))
        told.append(chain(d))
        told.append(sorted(e["node-name"] for e in d.command("query-block-exports")))
        # The image says something else of its backing; what is open stays.
        for device, image, name in (("s", "s", "elsewhere"), ("s", "bare", "other"), ("s", "base", "b"), ("s", "s-x", "b"),
                                    ("nobody", "s", "b"), ("base", "base", "b"), ("s", "raw", "b")):
            told.append(d.refused("change-backing-file", device=device, image_node_name=image, backing_file=name))
        told.append([named[:4] + named[5:] for named in chain(d)])
        told.append([img("info", "-U", "--output=json", name)[1].partition('"backing-filename": ')[2][:12]
                     for name in ("sync", "bare")])
    for name in ("base", "over", "bare", "used", "sync"):
        told.append(img("check", name)[0])
    # What the last image says of its backing leads to all of the chain.
    told.append(json.loads(img("info", "--output=json", "sync")[1]).get("full-backing-filename", "")[:5])
    return told


theirs, ours = session(PEER), session(OURS)
for number, (their, our) in enumerate(zip(theirs, ours)):
    is_equal(our, their, f"answer {number} is the peer's")

# Under load: three images, one above the other.
for name in ("a", "b", "c"):
    img("create", "-q", "-f", "qcow2", name, "4M")
with Daemon() as daemon:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    add(daemon, "a")
    daemon.command("block-export-add", type="nbd", id="e", node_name="a", name="e", writable=True)
    with Load(path, b"e", 4 << 20, int(os.environ["SEED"])) as load:
        load.wait_for(50)
        daemon.command("blockdev-insert-filter", node="a", filter={"driver": "compress", "node-name": "z"})
        load.wait_for(50)
        add(daemon, "b")
        daemon.command("blockdev-snapshot", node="z", overlay="b")
        load.wait_for(50)
        daemon.command("blockdev-snapshot-sync", node_name="b", snapshot_file="d", snapshot_node_name="d")
        load.wait_for(50)
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests without error or difference")
    stats = {node["node-name"]: node for node in daemon.command("query-blockstats", query_nodes=True)}
    ok(stats["d"]["stats"]["wr_operations"] > 0 and stats["d"]["stats"]["wr_bytes"] > 0, "writes are counted", stats["d"])
    saved = stats["z"]["driver-specific"]
    ok(saved["driver"] == "compress" and saved["saved-bytes"] == saved["compressed-bytes"] - saved["payload-bytes"] > 0,
       "what compressing saved is told", saved)
    is_equal(daemon.command("query-blockstats"), [], "there are no devices")
with open("model", "wb") as model:
    model.write(load.model)
contains(img("compare", "-F", "raw", "d", "model")[1], "Images are identical", "the last image has all")
for name in ("a", "b", "d"):
    is_equal(img("check", name)[0], 0, f"{name} has no errors and no leaks")

# Events.
img("create", "-q", "-f", "qcow2", "t", "1M")
with Daemon() as daemon:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    add(daemon, "t")
    daemon.command("block-export-add", type="nbd", id="e", node_name="t", name="e", writable=True)
    is_equal(daemon.refused("block-set-write-threshold", node_name="x", write_threshold=5), "Device 'x' not found", "no such node")
    daemon.command("block-set-write-threshold", node_name="t", write_threshold=65536)
    by_name = {node["node-name"]: node for node in daemon.command("query-named-block-nodes", flat=True)}
    is_equal(by_name["t"]["write_threshold"], 65536, "the threshold is set")
    uri = f"nbd+unix:///e?socket={path}"
    subprocess.run([os.environ["QEMU_IO"], "-f", "raw", "-c", "write 0 64k", "-c", "discard 64k 64k", "-c", "write -z 128k 64k",
                    "-c", "write 256k 4k", uri], check=True, capture_output=True)
    is_equal(daemon.event("BLOCK_WRITE_THRESHOLD"), {"node-name": "t", "write-threshold": 65536, "amount-exceeded": 131072},
             "the write beyond it is told, with the peer's numbers")
    by_name = {node["node-name"]: node for node in daemon.command("query-named-block-nodes", flat=True)}
    is_equal(by_name["t"]["write_threshold"], 0, "once")
    is_equal([e for e in daemon.events if e["event"] == "BLOCK_WRITE_THRESHOLD"], [], "and not again")
    daemon.command("block_resize", node_name="t", size=2 << 20)
    is_equal(daemon.command("query-named-block-nodes", flat=True)[-1]["image"]["virtual-size"], 2 << 20, "block_resize")
    is_equal(daemon.refused("block_resize", node_name="t", size=-1), "Parameter 'size' expects a >0 size", "a negative length")
    is_equal(daemon.refused("block_resize", node_name="x", size=1), "Cannot find device='' nor node-name='x'", "no node")

    # An L2 entry that cannot be: told once. A write that fails: told with its reason.
    with open("bad", "wb") as bad:
        subprocess.run([QEMU_IMG, "create", "-q", "-f", "qcow2", "bad", "1M"], check=True)
    subprocess.run([os.environ["QEMU_IO"], "-f", "qcow2", "-c", "write 0 64k", "bad"], check=True, capture_output=True)
    with open("bad", "r+b") as bad:
        bad.seek(0x30000)
        l1 = int.from_bytes(bad.read(8), "big") & 0x00fffffffffffe00
        bad.seek(l1)
        bad.write((0x8000000000000000 | 0x50000 + 512).to_bytes(8, "big"))
    add(daemon, "bad")
    daemon.command("block-export-add", type="nbd", id="f", node_name="bad", name="f", writable=True)
    subprocess.run([os.environ["QEMU_IO"], "-f", "raw", "-c", "read 0 64k", f"nbd+unix:///f?socket={path}"], check=False,
                   capture_output=True)
    event = daemon.event("BLOCK_IMAGE_CORRUPTED")
    is_equal((event["device"], event["node-name"], type(event["fatal"])), ("", "bad", bool), "a damaged image is told")
    event = daemon.event("BLOCK_IO_ERROR")
    is_equal(event, {"device": "", "node-name": "bad", "operation": "read", "action": "report", "nospace": False,
                     "reason": "Input/output error"}, "and the request that failed")
done_testing()
EOF
