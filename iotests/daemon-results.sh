#!/bin/bash
# SPDX-License-Identifier: MIT
# What commands return and what events bring is what the schema says: no member more, none less, of the types that are said; and
# what the peer's schema says of the same commands and events is the same, but for a few differences with their reasons.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-storage-daemon
any_backend

python_test <<'PYTHON'
import os
import re
import subprocess

from control import PEER, Daemon, done_testing, is_equal, ok
from schema_types import Schema

# Members that one of the two has not, or has otherwise: a pattern of the path, and why.
DIFFERENCES = [
    (r"block(dev-add|dev-reopen|dev-create).*\.(metadata-only|check-only|active)", "options of ours for all nodes"),
    (r"block-export-add\.allow-inactive", "newer"),
    (r".*<(fault|log-writes)>.*", "drivers that the peer calls otherwise"),
    (r".*<compress>\.(level|threads|write-buffer)", "ours"),
    (r".*<copy-before-write>\.bitmap\.(name|node)", "whether both are there is asked when it is opened"),
    (r".*<https?>\.(force-range|retries|sslverify|tls-creds)", "ours"),
    (r".*<nbd>\.(connections|filename|host|path|port)", "ours, and the older forms of server"),
    (r".*<nbd>\.server(\..*)?", "one flat group, which is looked at when it is opened"),
    (r".*<(null-co|file)>\.filename", "so that such a name can be written"),
    (r".*<parallels>\.backing", "ours"),
    (r".*<qcow2>\.(compression-level|decompressed-cache|discard-no-unref)", "ours, and newer"),
    (r".*<qcow2>\.data-file", "null: none"),
    (r".*<(vmdk)>\.(cache-size|decompressed-cache)", "ours"),
    (r".*<vpc>\.force_size_calc", "ours"),
    (r"blockdev-create\.options<(qcow2|vmdk)>\.(backing-fmt|footer|compat6)", "any driver's name; ours"),
    (r"blockdev-create\.options<raw>.*", "the peer makes no raw images in files"),
    (r"block-(stream|commit)\.(backing-mask-protocol|compress)", "newer, and ours"),
    (r"blockdev-mirror\.(unmap|compress)", "the peer has them elsewhere"),
    (r"object-add<tls-creds-(psk|x509)>\.dir", "nothing works without it"),
    (r".* ->.*\.active", "newer"),
    (r".* ->.*\.format-specific<(luks|rbd)>.*", "no such formats"),
    (r".* ->.*\.format-specific<qcow2>\.data\.encrypt<luks>.*", "only that it is"),
    (r".* ->.*\.format-specific<vmdk>\.data\.extents\[\]\..*", "of an extent only what there is"),
    (r".* ->.*\.driver-specific.*", "a union of drivers there, one object here"),
    (r"query-block ->.*", "there are no devices, so it is empty"),
    (r"query-qmp-schema ->.*", "of any content here"),
    (r".* ->.*\.timed_stats.*", "no intervals can be asked for, so it is empty"),
]
# What is optional in the results of the peer, and never there here.
NEVER_THERE = re.compile(r".* ->.*(_max|_max_length|iops_size|\.group|\.qdev|\.device|idle_time_ns|_latency_histogram.*)$")


def everything(schema):
    """path -> kind of all arguments, results and data."""
    out = {}
    for name, entity in schema.of.items():
        if entity["meta-type"] == "command":
            schema.members(name, entity["arg-type"], out)
            out[f"{name} ->"] = schema.kind(entity["ret-type"]), frozenset()
            schema.members(f"{name} ->", entity["ret-type"], out)
        elif entity["meta-type"] == "event":
            schema.members(name, entity["arg-type"], out)
    return out


def root(path):
    return re.split(r"[ .<\[]", path)[0]


with Daemon(program=PEER) as peer, Daemon() as daemon:
    theirs, ours = everything(Schema(peer)), everything(Schema(daemon))
used = set()
wrong = []
for path, (kind, values) in sorted(ours.items()):
    if root(path) not in {root(name) for name in theirs}:
        continue
    reasons = [pattern for pattern, _ in DIFFERENCES if re.fullmatch(pattern, path)]
    their_kind, their_values = theirs.get(path, (None, frozenset()))
    if kind != their_kind or values - their_values:
        if reasons:
            used.update(reasons)
        else:
            wrong.append(f"{path}: {kind} {sorted(values - their_values)}, not {their_kind}")
# Drivers, formats and objects that we have not make values fewer, and so do the names of our own.
own = {"compress", "fault", "log-writes", "driver", "snapshot-access"}
wrong = [text for text in wrong if not re.search(r"\.driver: enum \[('fault', )?('log-writes'(, )?)?\]", text)]
is_equal(wrong, [], "names, types and values as the peer's")
commands = {root(path) for path in ours}
missing = [path for path in theirs if " ->" in path and root(path) in commands and path not in ours and not NEVER_THERE.fullmatch(path)
           and not any(re.fullmatch(pattern, path) for pattern, _ in DIFFERENCES)]
is_equal(missing, [], "nothing of the peer's results is missing")
is_equal([why for pattern, why in DIFFERENCES if pattern not in used and " ->" not in pattern], [], "all differences are there")

# ---- real replies ----


def img(*words):
    subprocess.run([os.environ["QEMU_IMG"], *words], check=True, capture_output=True, timeout=60)


img("create", "-q", "-f", "qcow2", "base", "4M")
subprocess.run([os.environ["QEMU_IO"], "-f", "qcow2", "-c", "write -P 1 0 2M", "base"], check=True, capture_output=True, timeout=60)
img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "4M")
img("snapshot", "-c", "s", "top")
img("create", "-q", "-f", "qcow2", "target", "4M")
img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicSparse", "v.vmdk", "4M")
IMAGES = {"old": ["qcow2", "compat=0.10"], "apart": ["qcow2", "data_file=apart.raw,data_file_raw=on"], "fine": ["qcow2", "extended_l2=on"],
          "packed": ["qcow2", "compression_type=zstd,refcount_bits=1"], "marked": ["qcow2", "lazy_refcounts=on"],
          "many": ["vmdk", "subformat=twoGbMaxExtentSparse"], "stream": ["vmdk", "subformat=streamOptimized"]}
for image, (driver, text) in IMAGES.items():
    img("create", "-q", "-f", driver, "-o", text, image, "4M")
img("bitmap", "--add", "marked", "m")
QUERIES = [("query-version", {}), ("query-commands", {}), ("query-qmp-schema", {}), ("query-chardev", {}), ("query-block", {}),
           ("query-blockstats", {}), ("query-blockstats", {"query-nodes": True}), ("query-named-block-nodes", {}),
           ("query-named-block-nodes", {"flat": True}), ("query-jobs", {}), ("query-block-jobs", {}), ("query-block-exports", {}),
           ("qom-get", {"path": "g", "property": "limits"}), ("x-debug-block-dirty-bitmap-sha256", {"node": "top", "name": "b"})]
with Daemon() as daemon:
    schema = Schema(daemon)
    unproved = {name for name, entity in schema.of.items() if entity["meta-type"] == "command" and schema.kind(entity["ret-type"]) != "object"}

    def run(name, arguments=None, /, **keywords):
        value = daemon.command(name, arguments, **keywords)
        told = schema.wrong(value, schema.of[name]["ret-type"], name)
        unproved.discard(name)
        ok(not told, f"{name} {arguments or keywords or ''}", "\n".join(told[:20]))
        return value

    def look():
        for name, arguments in QUERIES:
            run(name, arguments)

    run("object-add", qom_type="throttle-group", id="g", limits={"iops-total": 1000000})
    run("blockdev-add", driver="qcow2", node_name="top", file={"driver": "file", "filename": "top"})
    run("blockdev-add", driver="compress", node_name="target", file={
        "driver": "qcow2", "node-name": "t", "file": {"driver": "throttle", "throttle-group": "g", "file": {"driver": "file", "filename": "target"}}})
    run("blockdev-add", driver="vmdk", node_name="v", file={"driver": "file", "filename": "v.vmdk"})
    for name, options in IMAGES.items():
        run("blockdev-add", driver=options[0], node_name=name, file={"driver": "file", "filename": name})
    run("block-dirty-bitmap-add", node="top", name="b", persistent=True)
    run("nbd-server-start", addr={"type": "unix", "data": {"path": os.path.join(daemon.directory, "n")}})
    run("block-export-add", type="nbd", id="e", node_name="top", writable=True)
    look()
    run("blockdev-backup", job_id="j", device="top", target="target", sync="full", speed=1 << 16)
    look()
    run("block-job-pause", device="j")
    look()
    run("block-job-resume", device="j")
    run("block-job-set-speed", device="j", speed=0)
    daemon.event("BLOCK_JOB_COMPLETED", device="j")
    run("blockdev-create", job_id="c", options={"driver": "file", "filename": "/nowhere/x", "size": 1})
    daemon.event("JOB_STATUS_CHANGE", id="c", status="concluded")
    look()
    run("job-dismiss", id="c")
    run("blockdev-backup", job_id="k", device="top", target="v", sync="full", speed=1)
    run("block-job-cancel", device="k", force=True)
    daemon.event("BLOCK_JOB_CANCELLED", device="k")
    look()
    run("block-set-write-threshold", node_name="t", write_threshold=1)
    run("block-export-del", id="e", mode="hard")
    daemon.event("BLOCK_EXPORT_DELETED", id="e")
    run("blockdev-snapshot-delete-internal-sync", device="top", name="s")
    look()
    for event in daemon.all_events:
        told = schema.wrong(event["data"], schema.of[event["event"]]["arg-type"], event["event"])
        ok(not told, f"{event['event']} {event['data']}", "\n".join(told))
    is_equal({event["event"] for event in daemon.all_events} >= {"JOB_STATUS_CHANGE", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED",
                                                                  "BLOCK_EXPORT_DELETED"}, True, "events were seen")
    is_equal(unproved, set(), "every command that returns something was asked")
done_testing()
PYTHON
