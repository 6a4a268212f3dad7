# SPDX-License-Identifier: MIT
"""Cases over NBD: a server on a unix socket, and the same client for both programs (bench/nbd_client.c).

Wall time is that of the client's requests; CPU time and memory are those of the server, from its start until it has
stored everything and ended.
"""
import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import process

SERVER_SECONDS = 30     # for it to begin, and to end


@dataclass
class Server:
    process: subprocess.Popen
    peak: int = 0                   # bytes
    usage: object = None            # once it has ended
    error: str = ""                 # "": none

    def end(self):
        """Asks it to end, and waits until it has."""
        self.peak = peak_memory(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + SERVER_SECONDS
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until:
                self.error = "the server does not end"
                self.process.kill()
                _, status, usage = os.wait4(self.process.pid, 0)
                break
            time.sleep(0.005)
        self.usage = usage
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode not in (0, -signal.SIGTERM) and not self.error:
            self.error = f"the server ends with status {self.process.returncode}"


def peak_memory(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)


@contextmanager
def serve(argv, socket):
    """A server that has begun; it has ended afterwards."""
    with tempfile.TemporaryFile() as complaints:
        server = Server(subprocess.Popen(list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=complaints,
                                         stderr=complaints))
        try:
            until = time.monotonic() + SERVER_SECONDS
            while not Path(socket).is_socket() and server.process.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            yield server
        finally:
            if server.process.returncode is None:
                server.end()
            if not server.error and server.process.returncode > 0:
                server.error = (process.read_all(complaints).strip().splitlines() or ["the server fails"])[-1]


def measure(server_argv, client_argv):
    """Words of both may be {socket}. Returns: a process.Run."""
    with tempfile.TemporaryDirectory(prefix="nbd") as directory:
        socket = f"{directory}/s"
        words = [[str(word).replace("{socket}", socket) for word in argv] for argv in (server_argv, client_argv)]
        with serve(words[0], socket) as server:
            run = process.run(words[1])
        run.error = run.error or server.error
        if not run.error:
            said = json.loads(run.output)
            run.wall = said["requests"] / said["per_second"]
            run.percentiles = {50: said["p50_us"] / 1e6, 99: said["p99_us"] / 1e6}
            run.cpu, run.peak = server.usage.ru_utime + server.usage.ru_stime, server.peak
        return run
