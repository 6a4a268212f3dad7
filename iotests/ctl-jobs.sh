#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-ctl and jobs, of our daemon and of the peer's: --wait starts one and returns what became of it, watch shows them until
# they have ended; neither a limit of time nor Ctrl-C ends a job.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon python3
any_backend
random_file source 25165824 1
truncate -s 24M target
python_test <<'PYTHON'
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

from control import CTL, OURS, PATIENCE, PEER, Daemon, contains, ctl, done_testing, is_equal, ok

MONITOR = ("--chardev", "socket,id=ctl,path=ctl,server=on,wait=off", "--monitor", "ctl")
SLOW = "speed=1M"           # 24 s: does not end while it is looked at


def node(name, driver, *options):
    return "--blockdev", f"{driver},node-name={name}," + ",".join(options)


def create(job, filename):
    return f'blockdev-create {json.dumps({"job-id": job, "options": {"driver": "file", "filename": filename, "size": 1 << 20}})}'


def backup(job, *options):
    return "blockdev-backup", f"job-id={job}", "device=a", "target=b", "sync=full", *options


def wait_until(stream, part):
    """What is read until this is there, or to the end, which is an error at a terminal."""
    seen, end = b"", time.monotonic() + PATIENCE
    while (part is None or part.encode() not in seen) and time.monotonic() < end:
        if select.select([stream], [], [], 0.1)[0]:
            try:
                data = os.read(stream, 65536)
            except OSError:
                data = b""
            if not data:
                break
            seen += data
    return seen.decode()


for program in (OURS, PEER):
    name = os.path.basename(program)
    with Daemon(*node("a", "file", "filename=source"), *node("b", "file", "filename=target"), *MONITOR, program=program) as daemon:
        jobs = lambda: [job["id"] for job in daemon.command("query-jobs")]

        # --wait
        status, out, err = ctl("--wait", "ctl", *backup("j"))
        ok(status == 0 and not err and json.loads(out).items() >= {"id": "j", "type": "backup", "status": "concluded"}.items() and
           json.loads(out)["current-progress"] == 24 << 20, f"{name}: --wait returns what became of the job", out + err)
        with open("source", "rb") as source, open("target", "rb") as target:
            ok(source.read() == target.read(), f"{name}: ... which has done its work")
        status, out, err = ctl("--json", "ctl", "-e", "wait " + create("bad", "no/where"))
        ok(status == 1 and re.match("blkstack-ctl: job 'bad' has failed: .*no/where.*\n$", err) and
           "no/where" in json.loads(out)["return"]["error"] and jobs() == [], f"{name}: ... and why it failed", out + err)
        is_equal(ctl("--wait", "ctl", "-e", create("good", "new"), "-e", "query-jobs")[1].split("\n")[-3:], ["[", "]", ""],
                 f"{name}: a job that has ended is dismissed")
        is_equal((ctl("-w", "ctl", *backup("j", "auto-dismiss=off"))[0], jobs()), (0, ["j"]),
                 f"{name}: ... unless somebody else is to look at it")
        daemon.command("job-dismiss", id="j")
        actions = [{"type": "blockdev-backup", "data": {"job-id": job, "device": device, "target": target, "sync": "full"}}
                   for job, device, target in (("j1", "a", "b"),)]
        status, out, _ = ctl("--wait", "ctl", "transaction", "actions=" + json.dumps(actions))
        ok(status == 0 and json.loads(out)["id"] == "j1", f"{name}: a job that a transaction starts", out)
        status, out, _ = ctl("--wait", "ctl", *backup("j", "auto-finalize=off"))
        ok(status == 0 and json.loads(out)["status"] == "pending" and jobs() == ["j"], f"{name}: a job that waits for a decision", out)
        status, out, _ = ctl("--wait", "ctl", "job-finalize", "j")
        ok(status == 0 and json.loads(out)["status"] == "concluded" and jobs() == [], f"{name}: ... which is made", out)
        status, out, err = ctl("--wait=1", "ctl", *backup("j", SLOW))
        ok(status == 1 and not out and err == "blkstack-ctl: stopped waiting after 1 seconds; the jobs go on\n" and jobs() == ["j"],
           f"{name}: a limit of time", out + err)
        is_equal(ctl("--wait", "ctl", *backup("j"))[0], 1, f"{name}: a command that is refused starts no job")

        # watch
        watch = subprocess.Popen([CTL, "ctl", "watch", "j"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        contains(wait_until(watch.stdout.fileno(), "\n"), "j: ", f"{name}: watch prints lines")
        watch.send_signal(signal.SIGINT)
        is_equal((watch.wait(PATIENCE), watch.stderr.read(), jobs()),
                 (130, b"blkstack-ctl: stopped watching; the jobs go on\n", ["j"]), f"{name}: Ctrl-C ends watching, not the job")
        pid, fd = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(CTL, [CTL, "ctl", "watch"])
        seen = wait_until(fd, "/s")
        ok(re.search(r"j +\[#* *\] +\d+% running \([\d.]+ [KM]iB of 24 MiB, [\d.]+ [KM]?i?B/s", seen), f"{name}: bars at a terminal", seen)
        daemon.command("job-cancel", id="j")
        contains(wait_until(fd, None), "cancelled", f"{name}: ... until the end")
        is_equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 1, f"{name}: ... which was not a good one")
        os.close(fd)
        ctl("ctl", *backup("j", SLOW))
        status, out, err = ctl("--wait", "ctl", "block-job-cancel", "j")
        ok(status == 0 and json.loads(out)["cancelled"] and not err and jobs() == [], f"{name}: to be cancelled was what was wanted",
           out + err)
        is_equal(ctl("--keep-going", "ctl", text=create("good", "new") + "\nwatch good\nwatch other\nwatch good\n")[::2],
                 (1, "blkstack-ctl: there is no job 'other'\n"), f"{name}: watch in a script")
        contains(ctl("ctl", "watch")[1], "good: 100% completed\n", f"{name}: watch of all jobs")
        ctl("ctl", "-e", create("bad", "no/where"))
        status, out, _ = ctl("ctl", "watch")
        ok(status == 1 and re.search("^bad: .*no/where", out, re.M) and jobs() == ["good", "bad"] or jobs() == ["bad", "good"],
           f"{name}: watch tells of one that failed, and dismisses nothing", out)
done_testing()
PYTHON
