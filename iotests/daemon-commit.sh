#!/bin/bash
# SPDX-License-Identifier: MIT
# Images below the one that guests write to are committed into others: through a compress filter into one whose clusters are
# compressed, with `compress`, twice. What was merged is compressed; base and overlays of other lengths read as before.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io

say_seed

SEED=$SEED python_test <<'EOF'
import os
import shutil

from chain_jobs import (TextLoad, backing_of, compressed_part, content, export, file_node, finish, judge, make_chain, make_image,
                        no_errors, pending, same_size)
from control import Daemon, done_testing, is_equal, ok

SIZE = 16 << 20
seed = int(os.environ["SEED"])


def chain_with_top(lengths=(1, 1, 1), compressed=True):
    """base <- inc1 <- inc2 <- top, of which the last is for the guests. Returns what is read through it."""
    make_chain(SIZE, seed, compressed, lengths)
    make_image("top.qcow2", SIZE, "inc2.qcow2", [], seed)
    return content("top.qcow2")


def add_chain(daemon, below_inc2=None):
    """Opens the chain; @below_inc2: what the backing of inc2 is instead of inc1."""
    inc2 = {"driver": "qcow2", "node-name": "inc2", "file": file_node("inc2.qcow2")}
    if below_inc2:
        inc2["backing"] = below_inc2
    daemon.command("blockdev-add", driver="qcow2", node_name="top", file=file_node("top.qcow2"), backing=inc2)


def read_only(daemon):
    """The images that nobody can write to."""
    return sorted(os.path.basename(node["file"]) for node in daemon.command("query-named-block-nodes")
                  if node["ro"] and node["drv"] == "qcow2")


def commit_under_load(daemon, before, what, **arguments):
    load = TextLoad(export(daemon, "top"), b"e", SIZE, seed)
    load.model[:] = before
    with load:
        load.wait_for(20)
        daemon.command("block-commit", job_id="j", device="top", speed=32 << 20, **arguments)
        load.wait_for(20)
        finish(daemon, "j", what)
        load.wait_for(20)
    no_errors(load)
    return load.model


# inc2 into inc1, through a compress filter that stands above inc1.
before = chain_with_top()
with Daemon() as daemon:
    add_chain(daemon, {"driver": "compress", "node-name": "z",
                       "file": {"driver": "qcow2", "node-name": "inc1", "file": file_node("inc1.qcow2")}})
    model = commit_under_load(daemon, before, "through a filter", top="inc2.qcow2", base_node="z")
    is_equal(read_only(daemon), ["base.qcow2", "inc1.qcow2"], "inc1 is read-only again, inc2 is closed")
is_equal(backing_of("top.qcow2"), "inc1.qcow2", "the top stands on inc1")
os.rename("inc2.qcow2", "gone.qcow2")
judge("top.qcow2", model, "through a filter")
check = judge("inc1.qcow2", before, "through a filter")
is_equal(compressed_part(check), 100.0, "all of inc1 is compressed")
same_size("inc1.qcow2", "through a filter", backing="base.qcow2")

# With `compress`, inc2 and inc1 into the base; then once more.
before = chain_with_top()
with Daemon() as daemon:
    add_chain(daemon)
    model = commit_under_load(daemon, before, "with compress", top_node="inc2", base="base.qcow2", compress=True)
    nodes = [node["drv"] for node in daemon.command("query-named-block-nodes")]
    is_equal(sorted(nodes), ["file", "file", "qcow2", "qcow2"], "filters and images between are gone")
is_equal(backing_of("top.qcow2"), "base.qcow2", "the top stands on the base")
for name in ("inc1", "inc2"):
    os.rename(f"{name}.qcow2", f"{name}-gone.qcow2")
judge("top.qcow2", model, "with compress")
check = judge("base.qcow2", before, "with compress")
is_equal(compressed_part(check), 100.0, "all of the base is compressed")
same_size("base.qcow2", "with compress")
make_image("over.qcow2", SIZE, "top.qcow2", [], seed)
with Daemon() as daemon:
    daemon.command("blockdev-add", driver="qcow2", node_name="over", file=file_node("over.qcow2"))
    daemon.command("block-commit", job_id="j", device="over", top="top.qcow2", base="base.qcow2", compress=True)
    finish(daemon, "j", "a second time")
os.rename("top.qcow2", "top-gone.qcow2")
check = judge("base.qcow2", model, "a second time")
is_equal(compressed_part(check), 100.0, "a second time: all of the base is compressed")
same_size("base.qcow2", "a second time")
judge("over.qcow2", model, "a second time")

# The base is shorter than the top, or longer; more than one overlay; the name in the header.
for lengths in ((0.5, 1, 1), (1, 1, 0.5)):
    before = chain_with_top(lengths, compressed=False)
    shutil.copy("top.qcow2", "other.qcow2")
    with Daemon() as daemon:
        add_chain(daemon)
        daemon.command("blockdev-add", driver="qcow2", node_name="other", file=file_node("other.qcow2"), backing="inc2")
        model = commit_under_load(daemon, before, f"lengths {lengths}", top="inc2.qcow2", auto_finalize=True,
                                  backing_file=os.path.abspath("base.qcow2"))
    for name in ("top.qcow2", "other.qcow2"):
        is_equal(backing_of(name), os.path.abspath("base.qcow2"), f"lengths {lengths}: {name} names the base as it was told")
    for name in ("inc1", "inc2"):
        os.rename(f"{name}.qcow2", f"{name}-gone.qcow2")
    judge("top.qcow2", model, f"lengths {lengths}")
    judge("other.qcow2", before, f"lengths {lengths}")
    judge("base.qcow2", before, f"lengths {lengths}")

# Cancelled, it leaves a chain that reads the same, and images that are as they were.
before = chain_with_top()
with Daemon() as daemon:
    add_chain(daemon)
    daemon.command("block-commit", job_id="j", device="top", top="inc2.qcow2", compress=True, auto_finalize=False,
                   filter_node_name="f")
    pending(daemon, "j")
    ok(any(node["node-name"] == "f" for node in daemon.command("query-named-block-nodes")), "the filter has its name")
    daemon.command("job-cancel", id="j")
    daemon.event("BLOCK_JOB_CANCELLED", device="j")
    is_equal(read_only(daemon), ["base.qcow2", "inc1.qcow2", "inc2.qcow2"], "the images are read-only again")
is_equal(backing_of("top.qcow2"), "inc2.qcow2", "cancelled: the top stands on inc2")
judge("top.qcow2", before, "cancelled")
done_testing()
EOF
