#!/bin/bash
# SPDX-License-Identifier: MIT
# A chain base <- inc1 <- inc2 of compressed images: under live writes inc1 is streamed into inc2 through a compress filter, then
# the base, too. inc2 stays compressed and as small as a fresh copy. Without the filter `compress` puts it in for the job.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

say_seed

SEED=$SEED python_test <<'EOF'
import os

from chain_jobs import (TextLoad, backing_of, compressed_part, content, export, file_node, finish, judge, make_chain, no_errors,
                        pending, same_size)
from control import Daemon, done_testing, is_equal

SIZE = 16 << 20
seed = int(os.environ["SEED"])


# Below a compress filter.
make_chain(SIZE, seed)
before = content("inc2.qcow2")
with Daemon() as daemon:
    daemon.command("blockdev-add", driver="compress", node_name="z",
                   file={"driver": "qcow2", "node-name": "inc2", "file": file_node("inc2.qcow2")})
    load = TextLoad(export(daemon, "z"), b"e", SIZE, seed)
    load.model[:] = before
    with load:
        load.wait_for(50)
        daemon.command("block-stream", job_id="j", device="z", base="base.qcow2", filter_node_name="f", speed=32 << 20)
        load.wait_for(50)
        finish(daemon, "j", "inc1 into inc2")
        load.wait_for(50)
    no_errors(load)
is_equal(backing_of("inc2.qcow2"), "base.qcow2", "inc2 stands on the base")
os.rename("inc1.qcow2", "gone.qcow2")
check = judge("inc2.qcow2", load.model, "inc1 into inc2")
is_equal(compressed_part(check), 100.0, "all of inc2 is compressed")
same_size("inc2.qcow2", "inc1 into inc2", backing="base.qcow2")

# The whole chain, with `compress` instead of the filter, and a second job after it.
make_chain(SIZE, seed + 10)
before = content("inc2.qcow2")
with Daemon() as daemon:
    daemon.command("blockdev-add", driver="qcow2", node_name="inc2", file=file_node("inc2.qcow2"))
    load = TextLoad(export(daemon, "inc2"), b"e", SIZE, seed)
    load.model[:] = before
    daemon.command("block-stream", job_id="j", device="inc2", base="base.qcow2", compress=True, speed=32 << 20, auto_finalize=False)
    with load:
        load.wait_for(20)
        pending(daemon, "j")
        load.wait_for(20)
    daemon.command("job-finalize", id="j")
    finish(daemon, "j", "with compress")
    no_errors(load)
    is_equal(len(daemon.command("query-named-block-nodes")), 4, "the filters are gone")
    daemon.command("block-stream", job_id="j", device="inc2", compress=True)
    finish(daemon, "j", "a second time")
is_equal(backing_of("inc2.qcow2"), None, "inc2 stands alone")
os.rename("base.qcow2", "gone.qcow2")
check = judge("inc2.qcow2", load.model, "with compress")
is_equal(compressed_part(check), 100.0, "with compress: all of inc2 is compressed")
same_size("inc2.qcow2", "with compress")
done_testing()
EOF
