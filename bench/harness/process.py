# SPDX-License-Identifier: MIT
"""Runs one program and tells what it cost: wall time, CPU time of all its threads, peak memory, how it ended."""
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

LAUNCH = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))]
TIMEOUT = 900   # seconds


@dataclass
class Run:
    """One execution of a program, or several in a row added up."""
    wall: float = 0.0           # seconds, from the start of the program to its end
    cpu: float = 0.0            # seconds, user and system, all threads
    peak: int = 0               # bytes
    error: str = ""             # why it failed; "": it did not
    output: str = ""            # standard output
    file_bytes: int = 0         # room that the file it wrote takes on the disk; 0: it wrote none
    latencies: list = field(default_factory=list)   # seconds
    percentiles: dict = field(default_factory=dict) # percent: seconds, where the program itself makes them

    def add(self, other):
        self.wall += other.wall
        self.cpu += other.cpu
        self.peak = max(self.peak, other.peak)
        self.error = self.error or other.error
        self.output += other.output


def run(argv):
    """Runs argv, whose first word is a path, to its end. What takes longer than TIMEOUT is killed, and has failed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as cost:
        launcher = subprocess.Popen([*LAUNCH, str(cost.fileno()), *map(str, argv)], stdin=subprocess.DEVNULL,
                                    stdout=out, stderr=err, pass_fds=[cost.fileno()], start_new_session=True)
        try:
            launcher.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            return Run(TIMEOUT, error=f"it took longer than {TIMEOUT} seconds")
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
                launcher.wait()
        printed, complaint, costs = map(read_all, (out, err, cost))
        if launcher.returncode != 0:
            return Run(error=(complaint.strip().splitlines() or ["it cannot be started"])[-1])
        wall, cpu, peak, status = costs.split()
        result = Run(float(wall), float(cpu), int(peak), output=printed)
        if int(status) != 0:
            result.error = ((complaint + printed).strip().splitlines() or [f"exit status {status}"])[0]
        return result


def read_all(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def must_run(argv):
    """Runs argv for what it makes. Returns its standard output."""
    result = run(argv)
    if result.error:
        sys.exit(f"bench/run: {Path(argv[0]).name}: {result.error}")
    return result.output
