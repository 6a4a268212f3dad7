#!/bin/bash
# SPDX-License-Identifier: MIT
# H35: control input that is no JSON, nested too deep, too long, of wrong types, or never ends leaves the daemon and its other
# clients unharmed, in bounded memory.
. "$(dirname "$0")/lib.sh"

python_test <<'EOF'
import os
import threading

from control import Daemon, diag, done_testing, is_equal, ok

MIB = 1 << 20


class GoodClient(threading.Thread):
    """Makes and deletes nodes all the time, and counts its rounds."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.client, self.rounds, self.error, self.stop = daemon.connect(), 0, None, False

    def run(self):
        try:
            while not self.stop:
                self.client.command("blockdev-add", driver="null-co", node_name="good", size=MIB)
                self.client.command("blockdev-del", node_name="good")
                self.rounds += 1
        except Exception as error:      # whatever it is, it must not be
            self.error = error


def works(client, text):
    is_equal("qemu" in client.command("query-version"), True, text)


def errors_of(client, data, count=1):
    """Sends @data, a line; its replies."""
    client.send(data)
    return [client.reply()["error"]["desc"] for _ in range(count)]


def no_json(client):
    for line in (b"hello\n", b"\0\0\n", b"\x7fELF\1\2\3\n", b"\xe2\x28\xa1\n", b"'\n", b"{'a\n", b"]\n", b"{]\n", b"{,}\n"):
        ok(errors_of(client, line), f"an error for {line!r}")
    works(client, "and a command after that")


def nested(client):
    for opening in (b"[", b"{'a':", b"[{'a':"):
        ok("deep" in errors_of(client, opening * 10000 + b"\n")[0], f"10000 times {opening!r}")
    closed = b"{'execute': 'blockdev-add', 'arguments': {'a': " + b"[" * 10000 + b"]" * 10000 + b"}}\n"
    ok("deep" in errors_of(client, closed)[0], "10000 levels in a command that is whole")
    works(client, "and a command after that")


def long_lines(client):
    for piece in (b"x", b" 1,", b"[1],"):
        begin = b"[" if b"," in piece else b""
        client.send(begin)
        for _ in range(100):
            client.send((piece * (MIB // len(piece) + 1))[:MIB])
        ok("longer" in errors_of(client, b"\n")[0], f"100 MiB of {piece!r} in a line")
    client.send(b"{'execute': '")
    for _ in range(100):
        client.send(b"y" * MIB)
    ok("longer" in errors_of(client, b"'}\n")[0], "a name of 100 MiB")
    works(client, "and a command after that")


def wrong_types(client):
    values = (None, True, 3, -1, 1.5, "x", [], {}, [[]], {"a": {"b": []}})
    names = [command["name"] for command in client.command("query-commands")]
    for name in names:
        if name in ("quit", "nbd-server-stop"):
            continue
        for value in values:
            for arguments in (value, {"node-name": value}, {"driver": value, "node-name": "n"}, {"id": value, "type": value},
                              {"addr": value}, {"qom-type": value, "id": value}, {"device": value, "name": value}):
                reply = client.ask({"execute": name, "arguments": arguments})
                if "error" not in reply and not (arguments == {} or name.startswith("query")):
                    ok(False, f"{name} takes {arguments}")
    ok(True, f"{len(names)} commands with arguments of wrong types")
    works(client, "and a command after that")


def half_a_command(client):
    client.send(b"{'execute': 'query-ver")


def reads_nothing(client):
    """Sends commands until the daemon listens no more."""
    client.socket.settimeout(0.5)
    try:
        for _ in range(64):
            client.send(b"{'execute': 'query-commands'}\n" * 4096)
        ok(False, "the daemon stops to listen to a client that reads nothing")
    except TimeoutError:
        ok(True, "the daemon stops to listen to a client that reads nothing")


with Daemon() as daemon:
    good = GoodClient(daemon)
    good.start()
    kept = []
    for attack, most in ((no_json, 4), (nested, 4), (long_lines, 8), (wrong_types, 4), (half_a_command, 4), (reads_nothing, 8)):
        client = daemon.connect()
        kept.append(client)
        daemon.forget_peak()
        before, rounds = daemon.memory(), good.rounds
        attack(client)
        while good.rounds <= rounds and not good.error:
            pass
        grown = daemon.memory("VmHWM") - before
        if os.environ.get("BLKSTACK_SANITIZE") != "1":      # a sanitizer keeps what was freed
            ok(grown < most * 1024, f"{attack.__name__}: at most {most} MiB", f"{grown} KiB")
        diag(f"{attack.__name__}: {grown} KiB, {good.rounds - rounds} rounds of the good client meanwhile")
    for _ in range(8):      # half a command of almost 1 MiB each, and silence
        client = daemon.connect()
        client.send(b"[" + b" " * (MIB - 16))
        kept.append(client)
    works(daemon, "the first client works to the end")
    good.stop = True
    good.join()
    ok(good.error is None, "the good client saw no error", good.error)
done_testing()
EOF
