#!/bin/bash
# SPDX-License-Identifier: MIT
# An NBD client writes without a pause while the compress filter is inserted and removed 100 times, at times with other
# filters: no error, no difference, and a sound image. What cannot be inserted or removed is refused and changes nothing.
. "$(dirname "$0")/lib.sh"
requires qemu-img

qimg create -q -f qcow2 disk.qcow2 8M
say_seed

SEED=$SEED python_test <<'EOF'
import os
import subprocess

from control import Daemon, contains, done_testing, is_equal, ok
from nbd_load import Load

SIZE = 8 << 20
QEMU_IMG = os.environ["QEMU_IMG"]


def peer(*command):
    return subprocess.run([QEMU_IMG, *command], capture_output=True, text=True, check=False, timeout=60)


def exported(daemon):
    return [export["node-name"] for export in daemon.command("query-block-exports")]


with Daemon("--blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2") as daemon:
    path = os.path.join(daemon.directory, "n")
    daemon.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    daemon.command("block-export-add", type="nbd", id="e", node_name="disk", writable=True)
    with Load(path, b"disk", SIZE, int(os.environ["SEED"])) as load:
        for i in range(100):
            z = {"driver": "compress", "node-name": "z"}
            if i % 4 == 1:
                z["write-buffer"] = 0
            daemon.command("blockdev-insert-filter", node="disk", filter=z)
            if i == 0:
                is_equal(exported(daemon), ["z"], "the export uses the filter")
                is_equal(daemon.refused("blockdev-del", node_name="z"), "Node z is in use", "the filter is in use")
            load.wait_for(15)
            if i % 10 == 0:
                daemon.command("blockdev-insert-filter", node="z" if i % 20 else "disk",
                               filter={"driver": "copy-on-read", "node-name": "c"})
                load.wait_for(5)
                daemon.command("blockdev-remove-filter", node_name="c")
            daemon.command("blockdev-remove-filter", node_name="z")
            load.wait_for(5)
        # Once more, so that the last ones are stored compressed.
        daemon.command("blockdev-insert-filter", node="disk", filter={"driver": "compress", "node-name": "z"})
        load.wait_for(15)
    daemon.command("blockdev-remove-filter", node_name="z")
    is_equal((load.failed, load.different, load.broken), (0, 0, None), f"{load.ended} requests without error or difference")
    is_equal(exported(daemon), ["disk"], "the export uses the image again")

    # Refusals.
    before = exported(daemon)
    z = {"driver": "compress", "node-name": "z"}
    daemon.command("blockdev-add", driver="null-co", node_name="null", size=1 << 20)
    for what, node, changes, why in (
            ("no such node", "nobody", {}, "Cannot find device='' nor node-name='nobody'"),
            ("a child of its own", "disk", {"file": "disk"}, "Parameter 'filter.file' is unexpected"),
            ("a format", "disk", {"driver": "raw"}, "Driver 'raw' is no filter: it cannot be inserted above a node"),
            ("an unknown driver", "disk", {"driver": "zip"}, "Parameter 'driver' does not accept value 'zip'"),
            ("an unknown option", "disk", {"lvl": 1}, "Parameter 'filter.lvl' is unexpected"),
            ("a wrong type", "disk", {"level": "1"}, "Invalid parameter type for 'filter.level', expected: integer"),
            ("a level that is too high", "disk", {"level": 20}, "level"),
            ("a name that is taken", "disk", {"node-name": "disk"}, "Duplicate nodes with node-name='disk'"),
            ("no image", "null", {}, "null-co")):
        contains(daemon.refused("blockdev-insert-filter", node=node, filter={**z, **changes}), why, f"refused: {what}")
    is_equal(daemon.refused("blockdev-insert-filter", node="disk", filter={"driver": "compress"}),
             "'node-name' must be specified for the root node", "refused: no name")
    is_equal(daemon.refused("blockdev-insert-filter", node="disk", filter="z"),
             "Invalid parameter type for 'filter', expected: object", "refused: no object")
    is_equal(daemon.refused("blockdev-remove-filter", node_name="nobody"),
             "Cannot find device='' nor node-name='nobody'", "refused: to remove what is not there")
    contains(daemon.refused("blockdev-remove-filter", node_name="disk"), "its driver 'qcow2' is no filter",
             "refused: to remove what is no filter")
    is_equal(exported(daemon), before, "nothing has changed")
    contains(daemon.refused("blockdev-del", node_name="z"), "Failed to find node", "no filter is left")

    # A filter that was added with its image, as one tree, leaves the image.
    subprocess.run([QEMU_IMG, "create", "-q", "-f", "qcow2", "other.qcow2", "1M"], check=True)
    daemon.command("blockdev-add", driver="compress", node_name="top",
                   file={"driver": "qcow2", "node-name": "other", "file": {"driver": "file", "filename": "other.qcow2"}})
    daemon.command("blockdev-remove-filter", node_name="top")
    daemon.command("blockdev-insert-filter", node="other", filter={"driver": "compress", "node-name": "again"})
    is_equal(daemon.refused("blockdev-del", node_name="other"), "Node other is in use", "the image is there without its filter")
    daemon.command("blockdev-del", node_name="again")
    daemon.command("blockdev-del", node_name="other")

with open("model.raw", "wb") as model:
    model.write(load.model)
checked = peer("check", "disk.qcow2")
ok(checked.returncode == 0, "the image has no errors and no leaks", checked.stdout + checked.stderr)
compared = peer("compare", "-f", "qcow2", "-F", "raw", "disk.qcow2", "model.raw")
ok(compared.returncode == 0, "it holds what the client wrote", compared.stdout + compared.stderr)
ok("compressed clusters" in checked.stdout and " 0.00% compressed" not in checked.stdout, "some of it is compressed",
   checked.stdout)
done_testing()
EOF
