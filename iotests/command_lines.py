# SPDX-License-Identifier: MIT
"""The same command lines given to one of our tools and to the peer's: exit status, which streams are written to, their text.

    . "$(dirname "$0")/lib.sh"
    python_test <<'EOF'
    from command_lines import compare
    compare("blkstack-img", "qemu-img", TABLE, DIFFERENCES, set_up)     # or compare_all() for several tools
    EOF

TABLE is text, one command line a row, in the shell's syntax and without the name of the program; `@` stands for the program in
rows for the shell. A mark stands before it:

    (no mark)   exit status, standard output, and the files in the directory (but sockets) are alike; both or neither say something on
                standard error, and both or neither begin it with the name of the program
    =           standard error is alike, too
    ?           exit status, files and which of the streams are written to: for help, versions and advice
    sh          the row is for the shell (behind the mark)
    !NAME       a difference that is known and wanted: DIFFERENCES[NAME] = (reason, exit status, regex of all our output)

Each row finds fresh copies of what set_up() made. A row whose difference has gone is a failure as well: the list stays short.
"""
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

from control import PATIENCE, diag, done_testing, ok

PROGRAMS = {"blkstack-img": "BLKSTACK_IMG", "blkstack-io": "BLKSTACK_IO", "blkstack-nbd": "BLKSTACK_NBD",
            "blkstack-daemon": "BLKSTACK_DAEMON",
            "qemu-storage-daemon": "QEMU_STORAGE_DAEMON", "qemu-img": "QEMU_IMG", "qemu-io": "QEMU_IO"}


class Row:
    """One line of the table."""

    def __init__(self, line):
        self.difference, self.shell, self.mark = None, False, " "
        words = line.split(" ")
        while words and (words[0] in ("=", "?", "sh", "") or words[0].startswith("!")):
            word = words.pop(0)
            if word.startswith("!"):
                self.difference = word[1:]
            elif word == "sh":
                self.shell = True
            elif word:
                self.mark = word
        self.line = " ".join(words)
        self.text = line


class Outcome:
    """What a program did."""

    def __init__(self, row, name, directory):
        program = os.environ.get(PROGRAMS.get(name, ""), name)
        command = ["/bin/sh", "-c", row.line.replace("@", program)] if row.shell else [program, *shlex.split(row.line)]
        with subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, start_new_session=True) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE / 4)
                self.status = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                self.status = "does not end"
        self.out, self.err = self.plain(out, name), self.plain(err, name)
        self.files = sorted(entry.name for entry in os.scandir(directory) if not stat.S_ISSOCK(entry.stat().st_mode))
        self.prefixed = self.err.startswith("PROGRAM: ")

    @staticmethod
    def plain(text, name):
        """Without the program's name, and without times."""
        text = re.sub(rf"(\S*/)?(lt-)?{name}\b", "PROGRAM", text.decode(errors="replace"))
        text = re.sub(r"^\d+ (.*) ops; [\d:.]+ \(.*\)$", r"\1 TIME", text, flags=re.M)
        text = re.sub(r"ops; [\d:.]+( sec)? \(.*\)$", "ops; TIME", text, flags=re.M)
        text = re.sub(r"^(Run completed in|Sending) [\d.]+ (seconds)", r"\1 TIME \2", text, flags=re.M)
        text = re.sub(r"^(\d+,\d+),.*", r"\1,TIME", text, flags=re.M)
        text = re.sub(r'^\{"QMP": .*$', "GREETING", text, flags=re.M)
        text = re.sub(r'"timestamp": \{[^}]*\}', "TIME", text)
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)

    def compared(self, mark):
        """What has to be alike."""
        streams = bool(self.out), bool(self.err)
        result = {"status": self.status, "files": self.files}
        if mark == "?":
            return {**result, "written to": streams}
        if mark == "=":
            return {**result, "out": self.out, "err": self.err}
        return {**result, "out": self.out, "says something": streams[1], "with its name": self.prefixed}

    def __str__(self):
        return f"status {self.status}, files {self.files}\n--- out\n{self.out}--- err\n{self.err}"


class Directory:
    """Where one of the programs runs: what set_up() made, made anew when a row has changed it."""

    def __init__(self, name):
        self.name, self.fresh = name, None

    def state(self):
        return sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(self.name))

    def run(self, row, program):
        if self.fresh is None or self.state() != self.fresh:
            shutil.rmtree(self.name, ignore_errors=True)
            shutil.copytree("set-up", self.name, symlinks=True)
            self.fresh = self.state()
        return Outcome(row, program, self.name)


def judge(row, mine, theirs, differences):
    details = f"ours: {mine}\npeer: {theirs}"
    alike = mine.compared(row.mark) == theirs.compared(row.mark)
    if row.difference is None:
        ok(alike, f"alike: {row.text}", details)
        return
    reason, status, regex = differences[row.difference]
    fits = mine.status == status and re.search(regex, mine.out + mine.err)
    ok(not alike and fits, f"{row.line}: {reason}", f"wanted: status {status} and /{regex}/\n{details}")


def compare_all(tables, differences, set_up):
    """Makes all the tests of a script, and ends it. @tables: (our program, the peer's program, rows)."""
    os.mkdir("set-up")
    set_up("set-up")
    directories, used, count = (Directory("ours"), Directory("peer")), set(), 0
    with ThreadPoolExecutor(2) as pool:
        for ours, peer, table in tables:
            for row in [Row(line) for line in table.splitlines() if line.strip() and not line.startswith("#")]:
                outcomes = [pool.submit(d.run, row, name) for d, name in zip(directories, (ours, peer))]
                judge(row, *(outcome.result() for outcome in outcomes), differences)
                used.add(row.difference)
                count += 1
    diag(f"{count} command lines")
    ok(not set(differences) - used, "every difference that is named has a command line", str(set(differences) - used))
    done_testing()


def compare(ours, peer, table, differences, set_up):
    compare_all(((ours, peer, table),), differences, set_up)
