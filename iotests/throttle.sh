#!/bin/bash
# SPDX-License-Identifier: MIT
# Throttle groups: what is taken, refused and told is what the peer takes, refuses and tells; limits hold in bytes and in
# requests, bursts pass, two nodes share a group; nodes and filters go at once, however long their requests would have to wait.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon qemu-img qemu-io python3
any_backend
python_test <<'PYTHON'
import os
import subprocess
import time

from control import PEER, CommandError, Daemon, done_testing, is_equal, ok

IMG, IO = os.environ["BLKSTACK_IMG"], os.environ["BLKSTACK_IO"]
PEER_IMG, PEER_IO = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
GROUP = {"qom-type": "throttle-group"}
NULL = {"driver": "null-co", "size": 1 << 30}
DATA = {"driver": "file", "filename": "data"}


# ---- the same commands to the peer and to ours ----
twins = [Daemon(), Daemon(program=PEER)]
number = 0


def same(command, arguments=None, /, **keywords):
    """Both do it, or refuse it with the same words, before which ours may say what they are about."""
    results = []
    for twin in twins:
        try:
            results.append(twin.command(command, arguments, **keywords))
        except CommandError as error:
            results.append(error.desc)
    ours, peer = results
    good = ours == peer or (isinstance(ours, str) and isinstance(peer, str) and ours.endswith(": " + peer))
    ok(good, f"{command} {arguments or keywords}", f"ours: {ours}\npeer: {peer}")


def add(**options):
    global number
    number += 1
    same("object-add", {**GROUP, "id": f"g{number}", **{key.replace("_", "-"): value for key, value in options.items()}})


for limits in ({}, {"iops-total": 100}, {"iops-total": 100, "iops-read": 5}, {"bps-total": 100, "bps-write": 5},
               {"bps-total": 1, "bps-total-max": 9, "bps-read-max": 9},
               {"iops-total-max": 100}, {"iops-total": 100, "iops-total-max": 10},
               {"iops-total": 100, "iops-total-max-length": 10}, {"iops-total-max-length": 1},
               {"iops-total": 100, "iops-total-max": 1000, "iops-total-max-length": 0},
               {"bps-read": 10**15}, {"bps-write": 10**15 + 1}, {"bps-write-max": 10**15 + 1}, {"iops-size": 4096},
               {"iops-size": 4096, "iops-write": 5}, {"iops-total-max-length": 2**32},
               {"iops-total": 1, "iops-total-max": 10**15, "iops-total-max-length": 2},
               {"iops-total": 1, "iops-total-max": 10**6, "iops-total-max-length": 10**9},
               {"bps-foo": 1}, {"bps-total": "1"}, {"bps-total": 1.5}, 7, None):
    add(limits=limits)
add(x_iops_total=5)
add(x_iops_total=5, limits={"bps-total": 6})
add(x_iops_total=5, limits={"iops-total": 6})
add(x_iops_total=5, x_iops_read=6)
add(x_iops_total="5")
add(x_bps_read=10**15 + 1)
add(x_iops_total_max_length=0)
for path, name in (("/objects/g2", "limits"), ("g2", "limits"), ("g25", "limits"), ("g26", "limits"), ("g2", "x-iops-total"),
                   ("g2", "type"), ("g2", "nothing"), ("nothing", "limits")):
    same("qom-get", path=path, property=name)
for value in ({"iops-total": 7, "bps-read": 3}, {"iops-write": 7}, {"iops-total": 0, "iops-write": 7}, {"iops": 1},
              {"bps-read-max-length": 0}):
    same("qom-set", {"path": "/objects/g2", "property": "limits", "value": value})
    same("qom-get", path="g2", property="limits")
for name in ("x-iops-write", "type", "nothing"):
    same("qom-set", {"path": "g2", "property": name, "value": 3})
same("qom-set", {"path": "nothing", "property": "limits", "value": {}})
same("object-add", {"qom-type": "secret", "id": "s", "data": "x"})
for group in ("nothing", "s", None, 7):
    same("blockdev-add", {"driver": "throttle", "node-name": "t", "throttle-group": group, "file": NULL})
same("blockdev-add", {"driver": "throttle", "node-name": "t", "file": NULL})
same("blockdev-add", {"driver": "throttle", "node-name": "t", "throttle-group": "g2", "file": NULL})
ok("in use" in twins[0].refused("object-del", id="g2"), "a group that a node is in stays")
same("blockdev-del", node_name="t")
same("object-del", id="g2")
for twin in twins:
    twin.end()

# ---- command lines ----
options = "driver=throttle,throttle-group=g,file.driver=null-co,file.size=1M"
for text in ("throttle-group,id=g,x-iops-total=1000", "throttle-group,id=g,limits.bps-read=100000,limits.iops-write=100",
             '{"qom-type": "throttle-group", "id": "g", "limits": {"iops-total": 1000}}'):
    for program in ([IMG, "info"], [PEER_IMG, "info"], [IO, "-c", "read 0 4k"], [PEER_IO, "-c", "read 0 4k"]):
        done = subprocess.run([*program, "--object", text, "--image-opts", options], check=False, capture_output=True)
        is_equal(done.returncode, 0, f"{os.path.basename(program[0])} --object {text}")

# ---- what passes, and how long it takes. Bounds are on the one side only that a slow machine keeps. ----
for file in ("data", "more"):
    with open(file, "wb") as image:
        image.write(bytes(range(1, 256)) * 4096 * 32)
FILTER = {"driver": "throttle", "node-name": "t", "throttle-group": "g", "file": {**DATA, "node-name": "n"}}


def daemon(*nodes, **limits):
    d = Daemon()
    d.command("object-add", {**GROUP, "id": "g", "limits": {key.replace("_", "-"): v for key, v in limits.items()}})
    for node in nodes or (FILTER,):
        d.command("blockdev-add", node)
    path = os.path.join(d.directory, "n")
    d.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    for node in nodes or (FILTER,):
        d.command("block-export-add", type="nbd", id=node["node-name"], node_name=node["node-name"], writable=True)
    return d, lambda name: f"nbd+unix:///{name}?socket={path}"


def send(name, *commands):
    return subprocess.Popen([PEER_IO, "-f", "raw", *(f"-c{command}" for command in commands), name],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def seconds(*clients):
    begin = time.monotonic()
    for client in clients:
        client.communicate()
    return time.monotonic() - begin


d, name = daemon(bps_total=4 << 20)
elapsed = seconds(send(name("t"), "read 0 512k", "read 0 512k", "read 0 512k", "read 0 512k", "read 0 512k"))
ok(elapsed > 0.3, "2.5 MiB at 4 MiB a second", elapsed)
elapsed = seconds(send(name("t"), "write -z 0 4M", "write 0 4k"))
ok(elapsed > 0.6, "zeroes are writes, and a request larger than a burst passes", elapsed)
d.command("qom-set", {"path": "g", "property": "limits", "value": {"bps-total": 0, "iops-read": 10}})
elapsed = seconds(send(name("t"), *["read 0 4k"] * 6))
ok(elapsed > 0.3, "6 reads at 10 a second, by a change while the node is in use", elapsed)
is_equal(d.end(), 0, "the daemon ends")

d, name = daemon(iops_total=1, iops_total_max=1000)
elapsed = seconds(send(name("t"), *["write 0 4k"] * 200))
ok(elapsed < 100, "a burst of 200 requests passes where one a second may", elapsed)
is_equal(d.end(), 0, "the daemon ends")

# Two nodes: each gets its share, though one has as many requests in flight as there may be.
second = {**FILTER, "node-name": "u", "file": {**DATA, "filename": "more"}}
d, name = daemon(FILTER, second, iops_total=100)
greedy = send(name("t"), *["aio_read 0 4k"] * 400, "aio_flush")
modest = send(name("u"), *["read 0 4k"] * 20)
modest.communicate()
is_equal(greedy.poll(), None, "20 requests of one node do not wait for 400 of another")

# Nobody waits for those 400: filters are removed, nodes deleted, and the daemon ends.
d.command("qom-set", {"path": "g", "property": "limits", "value": {"iops-total": 0, "bps-read": 1}})
begin = time.monotonic()
d.command("blockdev-insert-filter", node="n", filter={"driver": "copy-on-read", "node-name": "c"})
d.command("blockdev-remove-filter", node_name="c")
ok(time.monotonic() - begin < 50, "the graph below changes while requests wait for an hour")
is_equal(d.end(), 0, "the daemon ends")
greedy.communicate()

d, name = daemon(bps_write=1)
writer = send(name("t"), *[f"aio_write -P 7 {i}M 4k" for i in range(20)], "aio_flush")
while d.command("query-block-exports") == [] or writer.poll() is not None:
    time.sleep(0.01)
time.sleep(0.2)
d.command("block-export-del", id="t", mode="hard")
d.event("BLOCK_EXPORT_DELETED", id="t")
d.command("blockdev-del", node_name="t")
d.command("object-del", id="g")
ok(True, "an export whose requests wait for an hour, its node and their group are deleted at once")
is_equal(d.end(), 0, "the daemon ends")
writer.communicate()
done_testing()
PYTHON
