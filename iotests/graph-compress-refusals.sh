#!/bin/bash
# SPDX-License-Identifier: MIT
# blockdev-add and blockdev-insert-filter of compress above images that cannot rewrite compressed clusters: the error reply names
# node, driver and reason, and the graph stays as it was.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img

truncate -s 1M raw.img
img create -q -f vmdk -o subformat=streamOptimized stream.vmdk 1M
qimg create -q -f qcow2 -o data_file=data.raw external.qcow2 1M
qimg create -q -f qcow2 read-only.qcow2 1M
sums=$(sha256sum ./*.img ./*.vmdk ./*.qcow2)

python_test <<EOF
import hashlib

from control import Daemon, contains, done_testing, is_equal

SUMS = """$sums"""


def graph_of(daemon):
    return daemon.command("query-named-block-nodes")


REWRITE = "cannot rewrite compressed clusters; put the filter above a qcow2 node without an external data file"
IMAGES = (
    ("raw", "raw.img", REWRITE, {}),
    ("vmdk", "stream.vmdk", "has compressed clusters that can be written once, and not rewritten", {}),
    ("qcow2", "external.qcow2", REWRITE, {}),
    ("qcow2", "read-only.qcow2", "is read-only", {"read-only": True}),
)

with Daemon() as daemon:
    z = {"driver": "compress", "node-name": "z"}
    for driver, name, reason, options in IMAGES:
        image = {"driver": driver, "node-name": "image", "file": {"driver": "file", "filename": name}, **options}
        daemon.command("blockdev-add", image)
        before = graph_of(daemon)
        for what, told in (("inserted", daemon.refused("blockdev-insert-filter", node="image", filter=z)),
                           ("added", daemon.refused("blockdev-add", **z, file="image"))):
            contains(told, f"the node 'image' (driver '{driver}', {name}) {reason}", f"{name}: not {what}")
        is_equal(graph_of(daemon), before, f"{name}: the graph is as it was")
        is_equal(daemon.refused("blockdev-del", node_name="image"), "", f"{name}: nobody uses the image")
        contains(daemon.refused("blockdev-add", **z, file=image), f"(driver '{driver}', {name}) {reason}", f"{name}: no tree")
        is_equal(graph_of(daemon), [], f"{name}: nothing is left of it")

for line in SUMS.splitlines():
    wanted, name = line.split(maxsplit=1)
    with open(name, "rb") as file:
        is_equal(hashlib.sha256(file.read()).hexdigest(), wanted, f"{name} has not changed")
done_testing()
EOF
