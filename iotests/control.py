# SPDX-License-Identifier: MIT
"""Storage daemons, ours and the peer's, and their clients, for iotests.

    . "$(dirname "$0")/lib.sh"
    python_test <<'EOF'
    from control import Daemon, is_equal, done_testing
    with Daemon() as daemon:
        daemon.command("blockdev-add", driver="null-co", node_name="n", size=1048576)
        is_equal(daemon.refused("blockdev-del", node_name="x"), "Failed to find ...", "a node that is not there")
        daemon.command("block-stream", device="n", job_id="j")
        daemon.event("JOB_STATUS_CHANGE", id="j", status="concluded")
    done_testing()
    EOF

Keyword arguments are arguments of the command, with '_' for '-'. What a daemon prints goes to standard error. Every
process that is started here is ended here, by its pid.
"""
import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

OURS = os.environ.get("BLKSTACK_DAEMON", "blkstack-daemon")
PEER = os.environ.get("QEMU_STORAGE_DAEMON", "qemu-storage-daemon")
CTL = os.environ.get("BLKSTACK_CTL", "blkstack-ctl")
PATIENCE = 60 * int(os.environ.get("IOTEST_TIMEOUT_FACTOR", "1"))      # seconds


# ---- TAP ----

class Tap:
    count = failed = 0


def ok(condition, text, details=""):
    Tap.count += 1
    Tap.failed += not condition
    print(f"{'ok' if condition else 'not ok'} {Tap.count} - {text}", flush=True)
    if not condition and details:
        diag(details)
    return bool(condition)


def diag(text):
    for line in str(text).splitlines():
        print(f"# {line}", flush=True)


def is_equal(got, wanted, text):
    return ok(got == wanted, text, f"got:    {got}\nwanted: {wanted}")


def contains(got, part, text):
    return ok(part in got, text, f"got: {got}\nwanted in it: {part}")


def done_testing():
    print(f"1..{Tap.count}", flush=True)
    sys.exit(Tap.failed > 0)


# ---- one connection to a monitor ----

class CommandError(Exception):
    """The daemon's error reply."""

    def __init__(self, error):
        super().__init__(f"{error['class']}: {error['desc']}")
        self.error_class, self.desc = error["class"], error["desc"]


class Gone(Exception):
    """The daemon has closed the connection."""


def to_arguments(arguments, keywords):
    merged = dict(arguments or {})
    merged.update({key.replace("_", "-"): value for key, value in keywords.items() if value is not None})
    return merged


def connect_when_it_listens(client, address):
    """A socket that is there may not listen yet."""
    end = time.monotonic() + 5
    while True:
        try:
            return client.connect(address)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
        time.sleep(0.01)


class Control:
    """A client. @address: a path, or (host, port)."""

    def __init__(self, address, negotiate=True, patience=PATIENCE):
        """@patience: in seconds, until the connection is made."""
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(patience)
        self.connect_to(address)
        self.buffer, self.events, self.all_events = b"", [], []     # events: those that nobody has looked at
        self.greeting = self.receive()
        if negotiate:
            self.command("qmp_capabilities")
        self.socket.settimeout(PATIENCE)

    def connect_to(self, address):
        connect_when_it_listens(self.socket, address)

    def close(self):
        self.socket.close()

    def send(self, data):
        """Bytes, text, or an object that becomes a line of JSON."""
        if not isinstance(data, (bytes, str)):
            data = json.dumps(data) + "\n"
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def receive(self):
        """The next message, reply or event."""
        while b"\n" not in self.buffer:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Gone
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        message = json.loads(line)
        if "event" in message:
            self.all_events.append(message)
        return message

    def reply(self):
        """The next reply; events that come before it are kept. A greeting that comes twice, as the peer's may, is none."""
        while "event" in (message := self.receive()) or "QMP" in message:
            if "event" in message:
                self.events.append(message)
        return message

    def ask(self, data):
        self.send(data)
        return self.reply()

    def command(self, name, arguments=None, /, **keywords):
        """The value that the command returns. CommandError."""
        message = {"execute": name}
        if arguments or keywords:
            message["arguments"] = to_arguments(arguments, keywords)
        reply = self.ask(message)
        if "error" in reply:
            raise CommandError(reply["error"])
        return reply["return"]

    def refused(self, name, arguments=None, /, **keywords):
        """Why the command is refused; "" if it is not."""
        try:
            self.command(name, arguments, **keywords)
        except CommandError as error:
            return error.desc
        return ""

    def event(self, name, timeout=PATIENCE, /, **match):
        """The data of the first event (not looked at before) with this name and these members of its data."""
        def fits(message):
            data = message.get("data", {})
            return message.get("event") == name and all(data.get(k.replace("_", "-")) == v for k, v in match.items())

        for message in self.events:
            if fits(message):
                self.events.remove(message)
                return message.get("data", {})
        end = time.monotonic() + timeout
        while True:
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                message = self.receive()
            finally:
                self.socket.settimeout(PATIENCE)
            if fits(message):
                return message.get("data", {})
            self.events.append(message)


# ---- blkstack-ctl ----

def ctl(*words, text=None):
    """Exit status, standard output and standard error of the client."""
    done = subprocess.run([CTL, *words], input=text, stdin=subprocess.DEVNULL if text is None else None, capture_output=True,
                          check=False, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


# ---- a process ----

class Daemon(Control):
    """A daemon and the first client of its monitor, which is the last that it makes: all else is there when it answers."""

    def __init__(self, *options, program=OURS, environment=None):
        self.directory = tempfile.mkdtemp(prefix="bd.", dir="/tmp")
        atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        self.path = os.path.join(self.directory, "m")
        monitor = ["--chardev", f"socket,id=control,path={self.path},server=on,wait=off",
                   "--monitor", "chardev=control"]
        self.process = subprocess.Popen([program, *options, *monitor], stdout=sys.stderr, stdin=subprocess.DEVNULL,
                                        env={**os.environ, **(environment or {})})
        atexit.register(self.kill)
        self.pid = self.process.pid
        self.wait_for_socket(self.path)
        if program == PEER:
            self.connect_to_the_peer()
        else:
            super().__init__(self.path)

    def connect_to_the_peer(self):
        """While it moves its monitor to a thread of its own, as it does at first on a busy machine, the peer may greet a
        client twice, not answer it, or lose bytes that it sends. So the first client waits for the greeting, and goes."""
        with socket.socket(socket.AF_UNIX) as first, contextlib.suppress(TimeoutError):
            first.settimeout(PATIENCE / 10)
            connect_when_it_listens(first, self.path)
            first.recv(1)
        for patience in (PATIENCE / 10, PATIENCE / 10, PATIENCE):
            try:
                return super().__init__(self.path, patience=patience)
            except TimeoutError:
                self.socket.close()
        raise RuntimeError("the peer does not answer")

    def wait_for_socket(self, path):
        end = time.monotonic() + PATIENCE
        while not os.path.exists(path):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the daemon does not start: status {self.process.poll()}")
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            is_equal(self.end(), 0, "the daemon ends with status 0")
        else:
            self.kill()

    def connect(self, negotiate=True):
        """A further client."""
        return Control(self.path, negotiate)

    def end(self, number=signal.SIGTERM):
        """Sends a signal, if the daemon still runs. Returns: the exit status; negative: the signal that killed it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.close()
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.close()

    # ---- memory, in KiB ----

    def memory(self, key="VmRSS"):
        """VmRSS, or VmHWM: the peak since forget_peak()."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(key + ":"))

    def forget_peak(self):
        with open(f"/proc/{self.pid}/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")
