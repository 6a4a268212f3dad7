#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-ctl sends commands to our daemon and to the peer's: words and JSON become the same commands, help comes from the
# schema, scripts stop where something fails, replies and events are JSON, and the exit status tells what happened.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon python3
any_backend
python_test <<'PYTHON'
import json
import os
import re
import select
import socket
import subprocess

from control import CTL, OURS, PEER, Daemon, contains, ctl, done_testing, is_equal, ok


def nodes_made_by(daemon, name, *ways):
    """Each way to write a command makes the same nodes, which are deleted again."""
    nodes = []
    for way in ways:
        status, out, err = ctl("ctl", *way) if isinstance(way, list) else ctl("ctl", text=way)
        ok((status, out, err) == (0, "{\n}\n", ""), f"{name}: {way}", f"{status} {out} {err}")
        nodes.append([node for node in daemon.command("query-named-block-nodes") if node["node-name"] in "rn"])
        daemon.command("blockdev-del", node_name="r")
    ok(len(nodes[0]) == 2 and all(other == nodes[0] for other in nodes), f"{name}: ... all the same", nodes)
    return nodes[0]


def monitor(path):
    """Options for one more: the peer serves one client at a time on each."""
    return "--chardev", f"socket,id={path},path={path},server=on,wait=off", "--monitor", path


for program in (OURS, PEER):
    name = os.path.basename(program)
    with Daemon(*monitor("ctl"), *monitor("events"), program=program) as daemon:
        m = "ctl"
        status, out, err = ctl(m, "query-version")
        ok(status == 0 and "qemu" in json.loads(out) and not err, f"{name}: what a command returns is printed as JSON", out + err)
        tree = {"driver": "raw", "node-name": "r", "read-only": True,
                "file": {"driver": "null-co", "size": 1 << 20, "node-name": "n"}}
        nodes = nodes_made_by(
            daemon, name,
            ["blockdev-add", "driver=raw", "node-name=r", "read-only=on", "file.driver=null-co", "file.size=1M",
             "file.node-name=n"],
            ["blockdev-add", "raw,node-name=r,read-only=true", "file.driver=null-co,file.size=0x100000,file.node-name=n"],
            ["blockdev-add", json.dumps(tree)],
            ["blockdev-add", "raw", "node-name=r", "read-only=yes",
             'file={"driver": "null-co", "size": 1048576, "node-name": "n"}'],
            ["--execute", f"blockdev-add {json.dumps(tree)}"],
            "blockdev-add raw node-name='r' read-only=on \"file.driver=null-co\" file.size=1024k file.node-name=n",
            json.dumps({"execute": "blockdev-add", "arguments": tree}))
        ok(all(node["image"]["virtual-size"] == 1 << 20 for node in nodes) and any(node["ro"] for node in nodes),
           f"{name}: ... with values of the right types", nodes)

        # Refusals: by the daemon 1, by the client 2.
        is_equal(ctl(m, "blockdev-del", "x"), (1, "", "blkstack-ctl: Failed to find node with node-name='x'\n"),
                 f"{name}: a refusal is one sentence; a word without a key is the argument that is required")
        is_equal(ctl(m, "no-command"), (1, "", "blkstack-ctl: The command no-command has not been found\n"),
                 f"{name}: what there is not")
        for words, part in ((("blockdev-add", "null-co", "size=big"), "'size' is a number"),
                            (("blockdev-add", "null-co", "read-only=maybe"), "'read-only' is on or off, not 'maybe'"),
                            (("blockdev-add", "raw", "file.driver=null-co", "file.size=-"), "'file.size' is a number"),
                            (("blockdev-add", "{}", "x=y"), "nothing can follow"),
                            (("blockdev-add", "{"), "line 1"), (("blockdev-add", "null-co", "=x"), "key"),
                            (("help", "nothing"), "no command 'nothing'"), (("-e", "query-jobs 'x"), "quot"),
                            (("-e", "[]"), "not been found"), (("-e", '{"execute": 7}'), "a command in JSON is"),
                            (("-e", '{"execute": "quit", "arguments": []}'), "a command in JSON is"),
                            (("-e", ""), ""), (("-e", "quit", "quit"), "not both"), (("-t", "x"), "no number of seconds"),
                            (("-x",), "unrecognized option"), (("-e",), "missing argument"), (("--wait=x",), "no number")):
            status, out, err = ctl(m, *words)
            wanted = 1 if part == "not been found" else 2
            ok(status == wanted and not out and part in err and err.count("\n") == 1, f"{name}: {words}: {wanted}", f"{status} {err}")
        is_equal(ctl()[0], 2, f"{name}: no socket is named")

        # Help
        status, out, _ = ctl(m, "help", "blockdev-add", "driver=null-co")
        ok(status == 0 and re.search(r"read-zeroes +\(optional\) +boolean", out) and "data-file" not in out and
           re.search(r"driver +\(required\) +.*\bnull-co\|", out), f"{name}: help knows the arguments of one driver", out)
        out = ctl(m, "help", "blockdev-add", "qcow2", "file.driver=null-co")[1]
        ok(re.search(r"file\.read-zeroes +\(optional\) +boolean", out) and "data-file" in out,
           f"{name}: ... and those of the node below", out)
        if program == OURS:
            ok(re.search(r"size .*int +- .* \(default: 1G\)", ctl(m, "help", "blockdev-add", "null-co")[1]) and
               re.search(r"^blockdev-add +- \w+", ctl(m, "help")[1], re.M), f"{name}: ... with defaults and what they are",
               ctl(m, "help", "blockdev-add", "null-co")[1])
        ok(set(c["name"] for c in daemon.command("query-commands")) <= set(re.findall(r"^[\w-]+", ctl(m, "help")[1], re.M)),
           f"{name}: help lists all commands")

        # Scripts
        script = ("# a comment\n\n  object-add throttle-group id=g limits.iops-total=5\n"
                  'qom-get {"path": "g", "property": "x-iops-total"}\nnonsense\n'
                  '{"execute": "qom-get", "arguments": {"path": "g", "property": "type"}, "id": [7]}\nexit\nquit')
        is_equal(ctl(m, text=script), (1, "{\n}\n5\n", "blkstack-ctl: The command nonsense has not been found\n"),
                 f"{name}: a script stops where something fails")
        script = script.replace("object-add", "object-del g\nobject-add")
        is_equal(ctl("-k", m, text=script)[:2], (1, '{\n}\n{\n}\n5\n"throttle-group"\n'), f"{name}: ... or goes on")
        status, out, err = ctl("--json", "--keep-going", m, text=script)
        replies = [json.loads(line) for line in out.splitlines()]
        is_equal((status, err, replies[2], replies[4]), (1, "", {"return": 5}, {"return": "throttle-group", "id": [7]}),
                 f"{name}: replies as they are, with the id that the user gave")
        is_equal(replies[3]["error"]["class"], "CommandNotFound", f"{name}: ... errors too")
        is_equal(ctl(m, "-e", 'qom-get g property="type"', "-e", "blockdev-del x", "-e", "quit")[:2], (1, '"throttle-group"\n'),
                 f"{name}: several -e, until one fails")
        is_equal(ctl(m, text="exit\n"), (0, "", ""), f"{name}: nothing to do")

        # Events
        create = {"job-id": "good", "options": {"driver": "file", "filename": "new", "size": 1 << 20}}
        events = subprocess.Popen([CTL, "events", "events", "JOB_STATUS_CHANGE"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = ""
        while not line:         # it may not listen yet
            daemon.command("blockdev-create", create)
            daemon.event("JOB_STATUS_CHANGE", id="good", status="concluded")
            daemon.command("job-dismiss", id="good")
            line = events.stdout.readline() if select.select([events.stdout], [], [], 0.2)[0] else ""
        is_equal(json.loads(line)["event"], "JOB_STATUS_CHANGE", f"{name}: events are printed as lines of JSON")
        out = ctl("--events", "--json", m, text=f"blockdev-create {json.dumps(create)}\nwatch good\njob-dismiss good\nquery-jobs\n")[1]
        ok('"status": "null"' in out and out.endswith('{"return": []}\n'), f"{name}: ... and among the replies, with --events", out)

        is_equal(ctl(m, "quit")[0], 0, f"{name}: quit")
        is_equal((events.wait(), events.stderr.read()), (1, "blkstack-ctl: the server has closed the connection\n"),
                 f"{name}: events end with the connection")

# Where there is no daemon.
listener = socket.socket(socket.AF_UNIX)
listener.bind("left")
listener.close()
for address, part in (("nowhere", "there is no socket 'nowhere'"), ("left", "nobody listens on the socket 'left'"),
                      ("/etc/passwd", "'/etc/passwd' is no socket"), ("new/x", "Not a directory"),
                      ("127.0.0.1:1", "cannot connect to '127.0.0.1:1': Connection refused")):
    status, out, err = ctl(address, "quit")
    ok(status == 1 and not out and part in err and err.count("\n") == 1, f"{part}", err)
os.symlink("left", "x" * 200)
contains(ctl("x" * 200, "quit")[2], "longer than 107 bytes", "a name that is too long for a socket")
daemon = Daemon("--chardev", "socket,id=tcp,host=127.0.0.1,port=0,server=on,wait=off", "--monitor", "tcp")
tcp = next(c["filename"] for c in daemon.command("query-chardev") if c["label"] == "tcp")
port = re.search(r"127\.0\.0\.1:(\d+)", tcp).group(1)
is_equal(ctl(f"127.0.0.1:{port}", "query-jobs"), (0, "[\n]\n", ""), "a monitor on TCP")
daemon.kill()
done_testing()
PYTHON
