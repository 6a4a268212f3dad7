#!/bin/bash
# SPDX-License-Identifier: MIT
# blockdev-reopen changes options of drivers: which ones, as with the peer; what they do from then on; all nodes or none of them;
# while a client writes through all of them.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-storage-daemon

say_seed
export SEED
python_test <<'PYTHON'
import os
import subprocess

import nbd_raw
from control import PEER, Daemon, contains, done_testing, is_equal, ok
from nbd_load import Load

QEMU_IMG = os.environ["QEMU_IMG"]
SIZE = 4 << 20


def img(*command):
    done = subprocess.run([QEMU_IMG, *command], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def node(driver, name, below, **options):
    return {"driver": driver, "node-name": name, "file": below, **{key.replace("_", "-"): value for key, value in options.items()}}


def qcow2(**options):
    return node("qcow2", "q", "qf", **options)


def raw(**options):
    return node("raw", "r", "rf", **options)


def throttle(group):
    return node("throttle", "t", "n", throttle_group=group)


def rf(**options):
    return {"driver": "file", "node-name": "rf", "filename": "r.img", **options}


# What may change, and what may not; the texts are the peer's, but for those with True.
ATTEMPTS = [
    ([qcow2(l2_cache_size=2 << 20)], 0), ([qcow2(cache_size=3 << 20)], 0), ([qcow2(cache_size=1 << 20, l2_cache_size=2 << 20)], 0),
    ([qcow2(refcount_cache_size=1 << 20)], 0), ([qcow2(l2_cache_entry_size=4096)], 0), ([qcow2(cache_clean_interval=3)], 0),
    ([qcow2(lazy_refcounts=True)], 0), ([qcow2(overlap_check="all")], 0),
    ([qcow2(overlap_check={"template": "none", "main-header": True})], 0), ([qcow2(overlap_check="constant")], 0),
    ([qcow2(pass_discard_request=False, pass_discard_snapshot=True, pass_discard_other=True)], 0), ([qcow2(discard="unmap")], 0),
    ([qcow2()], 0), ([raw(offset=512)], 0), ([raw(offset=1 << 20, size=1 << 20)], 0), ([raw(size=1 << 20)], 0),
    ([raw(offset=1 << 30)], True), ([raw(size=100)], True), ([raw(size=8 << 20)], True), ([raw()], 0),
    ([throttle("g2")], 0), ([throttle("nope")], 0), ([throttle("g1")], 0),
    ([rf(locking="on")], 0), ([rf(aio="native")], 0),
    ([{"driver": "null-co", "node-name": "n", "size": 2 << 20}], 0),
    # The second one is wrong: nothing happens to the first.
    ([throttle("g2"), raw(size=100)], True), ([raw(size=512), throttle("nope")], 0), ([qcow2(lazy_refcounts=True), raw(size=100)], True),
]


def session(program):
    told = []
    img("create", "-q", "-f", "qcow2", "q.qcow2", "4M")
    img("snapshot", "-c", "s", "q.qcow2")
    img("create", "-q", "-f", "raw", "r.img", "4M")
    with Daemon(program=program) as d:
        for group in "g1", "g2":
            d.command("object-add", qom_type="throttle-group", id=group)
        d.command("blockdev-add", driver="null-co", node_name="n", size=1 << 20)
        d.command("blockdev-add", driver="file", node_name="qf", filename="q.qcow2")
        d.command("blockdev-add", rf())
        for one in qcow2(), raw(), throttle("g1"):
            d.command("blockdev-add", one)
        for attempt, differs in ATTEMPTS:
            desc = d.refused("blockdev-reopen", options=attempt)
            sizes = {n["node-name"]: n["image"]["virtual-size"] for n in d.command("query-named-block-nodes", flat=True)}
            told.append((bool(desc) if differs else desc, sizes))
        told.append((d.refused("object-del", id="g1") != "", d.refused("object-del", id="g2")))
    return told


ours, theirs = session(os.environ["BLKSTACK_DAEMON"]), session(PEER)
for (attempt, _), our, their in zip(ATTEMPTS, ours, theirs):
    is_equal(our, their, f"as the peer: {attempt}: {their[0] or 'done'}")
is_equal(ours[-1], theirs[-1], "what failed has not changed the group of the throttle filter")


# ---- what they do ----

def connect(daemon, name):
    return nbd_raw.Raw(os.path.join(daemon.directory, "n")).negotiate(name)


def write(client, at, data):
    client.send(nbd_raw.request(nbd_raw.WRITE, at, len(data), data))
    return client.simple_reply()[0]


def read(client, at, count):
    client.send(nbd_raw.request(nbd_raw.READ, at, count))
    return client.simple_reply(count)[1]


def flush(client):
    client.send(nbd_raw.request(nbd_raw.FLUSH))
    return client.simple_reply()[0]


def stats(daemon, name):
    return next(one for one in daemon.command("query-blockstats", query_nodes=True) if one["node-name"] == name)


def is_marked_dirty():
    with open("disk", "rb") as image:
        image.seek(72)
        return bool(image.read(8)[7] & 1)


img("create", "-q", "-f", "qcow2", "disk", str(SIZE))
img("create", "-q", "-f", "raw", "r.img", "4M")
with open("r.img", "r+b") as image:
    image.seek(1 << 20)
    image.write(b"w" * (1 << 20))
TEXT = b"".join(b"%d %d\n" % (i, i * i % 9973) for i in range(20000))[:4 * 65536]
with Daemon() as daemon:
    def chain(level=0, write_buffer=1 << 20, lazy=False, group="g1", **more):
        """All nodes, from the bottom up."""
        return [{"driver": "qcow2", "node-name": "disk", "file": "low", "lazy-refcounts": lazy, **more},
                {"driver": "compress", "node-name": "z", "file": "disk", "level": level, "write-buffer": write_buffer},
                {"driver": "throttle", "node-name": "top", "file": "z", "throttle-group": group}]

    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": os.path.join(daemon.directory, "n")}})
    for group in "g1", "g2":
        daemon.command("object-add", qom_type="throttle-group", id=group)
    daemon.command("blockdev-add", driver="file", node_name="low", filename="disk")
    for one in chain():
        daemon.command("blockdev-add", one)
    daemon.command("blockdev-add", driver="raw", node_name="r", file={"driver": "file", "filename": "r.img"})
    for name in "top", "r":
        daemon.command("block-export-add", type="nbd", id=f"e-{name}", node_name=name, name=name, writable=True)
    with connect(daemon, b"top") as client:
        def payload_now():
            """Bytes that the same clusters take when they are written with the options that there are."""
            before = stats(daemon, "disk").get("driver-specific", {"payload-bytes": 0})["payload-bytes"]
            write(client, 0, TEXT)
            flush(client)
            return stats(daemon, "disk")["driver-specific"]["payload-bytes"] - before

        def payload(**options):
            daemon.command("blockdev-reopen", options=chain(**options))
            return payload_now()

        def goes_down():
            """Is a small write handed down before a flush?"""
            before = stats(daemon, "disk")["stats"]["wr_operations"]
            write(client, 2 << 20, b"x" * 4096)
            return stats(daemon, "disk")["stats"]["wr_operations"] > before

        low, high = payload(level=1), payload(level=12)
        ok(high < low, "level: what is written later is stored in less space", f"{low} {high}")
        is_equal(payload(level=1), low, "and as before, if it is taken back")
        contains(daemon.refused("blockdev-reopen", options=chain(level=13)), "12", "a level that the codec has not is refused")
        writes = []
        for size in 1 << 20, 0, 1 << 20:
            daemon.command("blockdev-reopen", options=chain(write_buffer=size))
            writes.append(goes_down())
        is_equal(writes, [False, True, False], "write-buffer: whether a small write goes down at once")
        marks = []
        for number, lazy in enumerate((False, True, False)):
            daemon.command("blockdev-reopen", options=chain(lazy=lazy))
            write(client, (3 << 20) + number * 65536, os.urandom(65536))        # a cluster that is not there yet
            flush(client)
            marks.append(is_marked_dirty())
        is_equal(marks, [False, True, False], "lazy-refcounts: whether the image is marked")
        # With and without a buffer: the level is known to the one, or to the filter.
        for size, other in (1 << 20, 0), (1 << 20, 1 << 21), (0, 0), (0, 1 << 20):
            low, small = payload(level=1, write_buffer=size), goes_down()
            gone = [*chain(level=12, write_buffer=other), {"driver": "raw", "node-name": "r", "size": 8 << 20,
                                                           "file": {"driver": "file", "filename": "r.img"}}]
            contains(daemon.refused("blockdev-reopen", options=gone), "beyond the end", f"write-buffer={size}: the last node fails")
            is_equal((payload_now(), goes_down()), (low, small), f"write-buffer={size}, not {other}: level and buffer are what they were")
        daemon.command("blockdev-reopen", options=chain(level=1))
        wrong = [*chain(lazy=True, level=12, write_buffer=0, group="g2"), {"driver": "raw", "node-name": "r", "file": "gone"}]
        contains(daemon.refused("blockdev-reopen", options=wrong), "gone", "one that is wrong")
        wrong[-1] = {"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": "r.img"}, "size": 8 << 20}
        contains(daemon.refused("blockdev-reopen", options=wrong), "beyond the end", "one that fails when the others are prepared")
        is_equal(payload_now(), low, "the others are what they were: level")
        write(client, (3 << 20) + 5 * 65536, os.urandom(65536))
        flush(client)
        is_equal((is_marked_dirty(), daemon.refused("object-del", id="g1") != ""), (False, True), "refcounts, group")
        write(client, 0, bytes(SIZE))
        flush(client)

    # A filter that is read-only makes its buffer when it becomes writable: of the size that there was.
    img("create", "-q", "-f", "qcow2", "late", "1M")
    late = {"driver": "compress", "node-name": "late", "write-buffer": 0,
            "file": {"driver": "qcow2", "node-name": "late-disk", "file": {"driver": "file", "filename": "late"}}}
    daemon.command("blockdev-add", {**late, "read-only": True})
    failing = {"driver": "raw", "node-name": "r", "size": 8 << 20, "file": {"driver": "file", "filename": "r.img"}}
    contains(daemon.refused("blockdev-reopen", options=[{**late, "read-only": True, "write-buffer": 1 << 20}, failing]), "beyond the end",
             "read-only: the last node fails")
    daemon.command("blockdev-reopen", options=[{**late, "read-only": False}])
    daemon.command("block-export-add", type="nbd", id="late", node_name="late", name="late", writable=True)
    with connect(daemon, b"late") as client:
        before = stats(daemon, "late-disk")["stats"]["wr_operations"]
        done = write(client, 0, b"x" * 4096)
        ok(stats(daemon, "late-disk")["stats"]["wr_operations"] > before, "read-only: write-buffer is what it was", f"{done} {before} {stats(daemon, 'late-disk')}")
    daemon.command("block-export-del", id="late", mode="hard")
    daemon.event("BLOCK_EXPORT_DELETED", id="late")

    # A window that moves: who is connected reads from there, within the length that there was.
    window = {"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": "r.img"}}
    with connect(daemon, b"r") as client:
        seen = [read(client, 0, 4)]
        daemon.command("blockdev-reopen", options=[{**window, "offset": 1 << 20, "size": 1 << 20}])
        seen.append(read(client, 0, 4))
        daemon.command("blockdev-reopen", options=[window])
        seen.append(read(client, 0, 4))
    is_equal(seen, [bytes(4), b"wwww", bytes(4)], "raw: offset")

    # Under load.
    with Load(os.path.join(daemon.directory, "n"), b"top", SIZE, int(os.environ["SEED"])) as load:
        for i in range(60):
            check = ("none", "constant", "cached", "all")[i % 4]
            options = chain(level=i % 13, write_buffer=(i % 3) << 17, lazy=i % 2 == 0, group="g2" if i % 5 else "g1", **{
                "overlap-check": check, "decompressed-cache": (i % 4) << 18, "cache-size": (1 + i % 3) << 18,
                "pass-discard-other": i % 7 != 0, "compression-level": str(1 + i % 9)})
            daemon.command("blockdev-reopen", options=options if i % 6 else options[::-1])
            load.wait_for(5)
            if i % 4 == 1:
                ok(daemon.refused("blockdev-reopen", options=[*chain(lazy=i % 8 == 1, write_buffer=0), {**window, "size": 100}]) != "",
                   "a reopening that fails")
                load.wait_for(5)
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests without error or difference")
    # What relies on the length of a node keeps it.
    daemon.command("block-export-del", id="e-r", mode="hard")
    daemon.event("BLOCK_EXPORT_DELETED", id="e-r")
    img("create", "-q", "-f", "qcow2", "inner", "1M")
    daemon.command("blockdev-add", driver="raw", node_name="w", file={"driver": "file", "filename": "inner"})
    daemon.command("blockdev-add", driver="qcow2", node_name="i", file="w")
    contains(daemon.refused("blockdev-reopen", options=[{"driver": "raw", "node-name": "w", "size": 65536,
                                                         "file": {"driver": "file", "filename": "inner"}}]),
             "'i' relies on it", "a window below a format does not become shorter")

with open("model", "wb") as model:
    model.write(load.model)
contains(img("compare", "-F", "raw", "disk", "model")[1], "identical", "the image holds what the client wrote")
is_equal(img("check", "disk")[0], 0, "it has no errors and no leaks")
done_testing()
PYTHON
