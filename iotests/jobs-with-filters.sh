#!/bin/bash
# SPDX-License-Identifier: MIT
# Jobs whose images stand below filters: throttle, copy-on-read, compress and fault, above or below the source, the target and the
# images of a chain. They copy what they do without, and images that were opened read-only below a filter are made writable.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io

say_seed

SEED=$SEED python_test <<'EOF'
import os

from chain_jobs import TextLoad, content, export, file_node, judge, make_chain, make_image, no_errors
from control import Daemon, done_testing, is_equal

SIZE = 2 << 20
SEED = int(os.environ["SEED"])
GROUP = ("--object", "throttle-group,id=g,x-bps-total=400000000")


def filtered(kind, node, name):
    """@node below a filter."""
    return {
        "none": node,
        "throttle": {"driver": "throttle", "node-name": name, "throttle-group": "g", "file": node},
        "copy-on-read": {"driver": "copy-on-read", "node-name": name, "file": node},
        "compress": {"driver": "compress", "node-name": name, "file": node},
        "fault": {"driver": "fault", "node-name": name, "image": node, "inject-error": [
            {"event": "none", "iotype": "discard", "errno": 5, "sector": 1, "once": True}]},
    }[kind]


def image(name, above="none", below="none", backing=None, read_only=False):
    """A qcow2 image with a filter above it, and one above its file. Nodes: NAME, and NAME-above, if there is one."""
    image_node = {"driver": "qcow2", "node-name": name, "read-only": read_only, "backing": backing,
                  "file": filtered(below, file_node(name + ".qcow2"), name + "-below")}
    tree = filtered(above, image_node, name + "-above")
    return {**tree, "read-only": read_only}


def place(name, above):
    return name if above == "none" else name + "-above"


def wait(daemon, what, ready=False):
    if ready:
        daemon.event("BLOCK_JOB_READY", device="j")
        daemon.command("job-complete", id="j")
    daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
    job, = daemon.command("query-jobs")
    is_equal(job.get("error"), None, f"{what}: it succeeds")
    daemon.command("job-dismiss", id="j")


def begin(daemon, command, **arguments):
    daemon.command(command, job_id="j", auto_dismiss=False, **arguments)


# ---- copies of one disk ----
def copied(command, source, target, compress=False):
    """@source, @target: the filters above and below."""
    what = f"{command}, {source} to {target}{', compress' if compress else ''}"
    make_image("s.qcow2", SIZE, None, [(0, SIZE // 2), (SIZE * 3 // 4, 65536)], SEED)
    make_image("t.qcow2", SIZE, None, [], SEED)
    before = content("s.qcow2")
    with Daemon(*GROUP) as daemon:
        daemon.command("blockdev-add", image("s", *source))
        daemon.command("blockdev-add", image("t", *target))
        device, to = place("s", source[0]), place("t", target[0])
        load = TextLoad(export(daemon, device), b"e", SIZE, SEED)
        load.model[:] = before
        with load:
            load.wait_for(10)
            begin(daemon, command, device=device, target=to, sync="full", compress=compress)
            load.wait_for(10)
            wait(daemon, what, command == "blockdev-mirror")
            load.wait_for(10)
        no_errors(load)
        if command == "blockdev-mirror":
            is_equal(daemon.command("query-block-exports")[0]["node-name"], to, f"{what}: guests use the target")
    if command == "blockdev-mirror":
        judge("t.qcow2", load.model, what)


# Without guests the moment of a backup is known.
def backed_up(source, target, compress=False):
    what = f"backup, {source} to {target}{', compress' if compress else ''}"
    make_image("s.qcow2", SIZE, None, [(0, SIZE // 2), (SIZE * 3 // 4, 65536)], SEED)
    make_image("t.qcow2", SIZE, None, [], SEED)
    with Daemon(*GROUP) as daemon:
        daemon.command("blockdev-add", image("s", *source))
        daemon.command("blockdev-add", image("t", *target))
        begin(daemon, "blockdev-backup", device=place("s", source[0]), target=place("t", target[0]), sync="full", compress=compress)
        wait(daemon, what)
    judge("t.qcow2", content("s.qcow2"), what)


for source, target, packed in (
        (("throttle", "none"), ("throttle", "none"), False), (("none", "throttle"), ("none", "throttle"), True),
        (("copy-on-read", "fault"), ("compress", "throttle"), False), (("fault", "none"), ("fault", "none"), True),
        (("compress", "none"), ("throttle", "fault"), True), (("throttle", "none"), ("copy-on-read", "none"), True)):
    copied("blockdev-mirror", source, target, packed)
    copied("blockdev-backup", source, target, packed)
    backed_up(source, target, packed)


# ---- chains ----
def chain(top, middle, base):
    """@top, @middle, @base: the filters above and below. What lies below the topmost image is read-only."""
    below = image("inc1", *middle, backing=image("base", *base, read_only=True), read_only=True)
    return image("inc2", *top, backing=below)


def changed(what, command, upper, middle, bottom, ready=False, judged="inc2", **arguments):
    what = f"{what}, {upper} over {middle} over {bottom}"
    make_chain(SIZE, SEED)
    before = content("inc2.qcow2")
    with Daemon(*GROUP) as daemon:
        daemon.command("blockdev-add", chain(upper, middle, bottom))
        device = place("inc2", upper[0])
        load = TextLoad(export(daemon, device), b"e", SIZE, SEED)
        load.model[:] = before
        with load:
            load.wait_for(10)
            begin(daemon, command, device=device, **arguments)
            load.wait_for(10)
            wait(daemon, what, ready)
            load.wait_for(10)
        no_errors(load)
        writable = [node["node-name"] for node in daemon.command("query-named-block-nodes")
                    if node["drv"] == "qcow2" and not node["ro"]]
        is_equal(writable, ["base", "inc2"] if ready else ["inc2"], f"{what}: what is writable afterwards")
    judge(f"{judged}.qcow2", load.model, what, leaks=ready)


NONE = ("none", "none")
# A filter below an image is a part of what the image is called in a header, and others cannot open that; as with the peer.
TO_BASE = {"base": "base.qcow2", "backing_file": "base.qcow2"}
for middle, base in ((("throttle", "none"), ("throttle", "none")), (("none", "throttle"), ("none", "throttle")),
                     (("fault", "none"), ("fault", "none")), (NONE, ("throttle", "fault")), (("none", "fault"), NONE)):
    for top in ("throttle", "none"), ("compress", "throttle"):
        changed("stream", "block-stream", top, middle, base)
        changed("stream to the base", "block-stream", top, middle, base, **TO_BASE)
        changed("active commit", "block-commit", top, middle, base, True, "base", base_node=place("base", base[0]))
    changed("commit", "block-commit", NONE, middle, base, top="inc1.qcow2", **TO_BASE)
    changed("commit with compress", "block-commit", NONE, middle, base, top="inc1.qcow2", compress=True, **TO_BASE)
done_testing()
EOF
