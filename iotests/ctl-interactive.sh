#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-ctl at a terminal: completion of commands, arguments, values, nodes and jobs; history, Ctrl-C, events that come while
# somebody types, and a daemon that ends.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon python3
any_backend
grep -q "define HAVE_LIBEDIT" "$BLKSTACK_BUILD/config.h" || skip_all "built without libedit"
truncate -s 1M disk
python_test <<'PYTHON'
import os
import pty
import select
import signal
import time

from control import CTL, OURS, PATIENCE, PEER, Daemon, done_testing, is_equal, ok

MONITOR = ("--chardev", "socket,id=ctl,path=ctl,server=on,wait=off", "--monitor", "ctl")


class Session:
    """A user at a terminal."""

    def __init__(self, *words):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "dumb"
            os.execv(CTL, [CTL, *words])
        self.seen, self.mark, self.prompt = "", 0, False

    def wait(self, text):
        """Until the text has come after what was waited for before."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen[self.mark:] and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    break
        at = self.seen.find(text, self.mark)
        if at < 0:
            return False
        self.mark = at + len(text)
        return True

    def type(self, keys, text, what, running=False):
        """The keys make the text appear. They are typed at a prompt, where the terminal leaves them to the client, or while a command
        is running."""
        if not self.prompt and not running:
            self.wait("blkstack> ")
        self.prompt = not running and not keys.endswith("\n")
        mark = self.mark
        os.write(self.fd, keys.encode())
        ok(self.wait(text), what, f"typed: {keys!r}\nseen: {self.seen[mark:]!r}\nwanted: {text!r}")

    def end(self):
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            if not data:
                break
            self.seen += data.decode(errors="replace")
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


for program in (OURS, PEER):
    name = os.path.basename(program)
    with Daemon("--blockdev", "file,node-name=disk-one,filename=disk", *MONITOR, program=program) as daemon:
        user = Session("--history", "history", "ctl")
        user.type("query-vers\t", "query-version ", f"{name}: a command is completed")
        user.type("\n", '"package"', f"{name}: ... and runs")
        user.type("block_resi\tnode-n\t", "block_resize node-name=", f"{name}: an argument")
        user.type("dis\t", "disk-one ", f"{name}: a node")
        user.type("size=2M\n", "}", f"{name}: ... of which the command is about")
        is_equal(os.stat("disk").st_size, 2 << 20, f"{name}: ... and is done")
        user.type("object-add throt\tid=g limits.iops-tot\t", "limits.iops-total", f"{name}: values, and arguments below others")
        user.type("=7\n", "}", f"{name}: ... which become a command")
        user.type("blockdev-add driver=null-co read-o\t", "read-only=", f"{name}: arguments common to all drivers")
        user.type("o\t\t", "read-only=off  read-only=on", f"{name}: several choices are listed")
        user.type("\x03", "^C", f"{name}: Ctrl-C forgets the line")
        user.type("qom-get path=g property=x-iops-total\n", "7", f"{name}: ... and the next one runs")
        user.type("help qom-se\t\n", "property", f"{name}: help")
        user.type(" qom-get g type\n", "\n", f"{name}: a line that is not to be remembered")
        user.type("\x10\n", "property", f"{name}: the last line comes back")

        # Events come while something is being typed, which stays.
        user.type("query-blo", "query-blo", f"{name}: the beginning of a line")
        daemon.command("blockdev-create", {"job-id": "job-one", "options": {"driver": "file", "filename": "f", "size": 512}})
        ok(user.wait('"JOB_STATUS_CHANGE"') and user.wait('"concluded"') and user.wait("query-blo"),
           f"{name}: events are printed as they come", user.seen[-500:])
        user.type("ck-export\t\n", "[", f"{name}: ... and the line is still there")
        user.type("job-dis\tid=\t", "id=job-one ", f"{name}: jobs")
        user.type("\n", "}", f"{name}: ... one is dismissed")
        is_equal(daemon.command("query-jobs"), [], f"{name}: ... and gone")
        user.type("nonsense\n", "has not been found", f"{name}: a mistake")
        user.type("quer\t\t", "query-block-exports  query-", f"{name}: ... is no end")
        user.type("\x15exit\n", "exit", f"{name}: exit")
        is_equal(user.end(), 0, f"{name}: ... with status 0")
        with open("history", encoding="utf-8") as history:
            kept = history.read().replace("\\040", " ")
        ok("qom-get path=g" in kept and "qom-get g type" not in kept and os.stat("history").st_mode & 0o77 == 0,
           f"{name}: the history is kept, for its owner alone", kept)

        user = Session("--history", "history", "ctl")
        user.type("\x10\x10\n", "has not been found", f"{name}: it is there in the next session")
        user.type("\x04", "", f"{name}: Ctrl-D")
        is_equal(user.end(), 0, f"{name}: ... is an end, too")

        # Ctrl-C ends watching and the session goes on.
        user = Session("ctl")
        user.type("", "", f"{name}: a third session")
        with open("target", "wb") as target:
            target.truncate(os.stat("disk").st_size)
        daemon.command("blockdev-add", driver="file", node_name="target", filename="target")
        daemon.command("blockdev-backup", job_id="slow", device="disk-one", target="target", sync="none")
        user.type("watch\n", "slow: ", f"{name}: watch")
        user.type("\x03", "the jobs go on", f"{name}: Ctrl-C ends it", running=True)
        user.type("query-jobs\n", '"slow"', f"{name}: ... not the job, and not the session")
        user.type("wait job-cancel id=\t", "id=slow ", f"{name}: completion behind wait")
        user.type("\n", '"cancelled": true', f"{name}: wait")
        os.kill(daemon.pid, signal.SIGTERM)
        ok(user.wait("has closed the connection"), f"{name}: an end of the daemon is seen at the prompt", user.seen[-300:])
        is_equal(user.end(), 1, f"{name}: ... and ends the session")
done_testing()
PYTHON
