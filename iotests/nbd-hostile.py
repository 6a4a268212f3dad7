#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nbd-hostile.py SOCKET SERVER-PID: clients that attack an NBD server, while a good client works on it.

Prints "good" or "bad" for each attack, with what was wrong and how much memory the server had. The export has the
name "" and 16 MiB; the good client has the last 4 MiB for itself.
"""
import os
import sys
import threading
import time

import nbd
from nbd_raw import (ACK, CACHE, EINVAL, EXPORT_NAME, EXTENDED, FLUSH, GO, INFO, INVALID, LIST, LIST_META, PAYLOAD_LEN, READ,
                     SET_META, STATUS, STRUCTURED, TOO_BIG, TRIM, UNKNOWN, UNSUP, WRITE, ZEROES, Gone, Raw,
                     extended_request, go_data, option, request)

SIZE, OWN = 16 << 20, 4 << 20
MIB = 1 << 20
MANY = 16               # connections of an attack that needs several
PATH, PID = sys.argv[1], int(sys.argv[2])


def server_memory(key):
    """KiB of "VmRSS" or "VmHWM", the peak since forget_peak()."""
    with open(f"/proc/{PID}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key + ":"))


def forget_peak():
    with open(f"/proc/{PID}/clear_refs", "w", encoding="ascii") as refs:
        refs.write("5")


class GoodClient(threading.Thread):
    """Writes and verifies; counts its rounds, and notes the longest."""

    def __init__(self):
        super().__init__(daemon=True)
        self.handle = nbd.NBD()
        self.handle.connect_uri(f"nbd+unix:///?socket={PATH}")
        self.rounds, self.longest, self.error, self.stop = 0, 0.0, None, False

    def run(self):
        try:
            while not self.stop:
                begin = time.monotonic()
                offset = SIZE - OWN + self.rounds * 12288 % (OWN - 12288)
                data = (b"%08d" % self.rounds) * 1024
                self.handle.pwrite(data, offset)
                if self.handle.pread(len(data), offset) != data:
                    raise ValueError(f"other data at {offset}")
                self.rounds += 1
                self.longest = max(self.longest, time.monotonic() - begin)
        except (nbd.Error, ValueError) as error:
            self.error = error


def expect(got, *wanted):
    assert got in wanted, f"got {got}, wanted {' or '.join(map(str, wanted))}"


def expect_gone(raw, what):
    assert raw.is_gone(), f"the server goes on after {what}"


# ---- the handshake ----

def drops_in_each_stage():
    """H24: the client goes away after any number of bytes."""
    script = (b"\0\0\0\3" + option(LIST) + option(STRUCTURED) + option(INFO, go_data()) + option(GO, go_data()) +
              request(READ, 0, 4096) + request(WRITE, 0, 4096, bytes(4096)))
    for count in [*range(0, len(script) - 4096, 3), len(script) - 4095, len(script) - 1]:
        with Raw(PATH) as raw:
            raw.send(script[:count])
    for count in (1, 17):
        with Raw(PATH) as raw:
            raw.recv(count)


def wrong_client_flags():
    with Raw(PATH) as raw:
        expect_gone(raw.greet(0xFFFFFFFF), "unknown client flags")


def wrong_option_magic():
    with Raw(PATH) as raw:
        raw.greet().send(option(LIST, magic=0x1122334455667788))
        expect_gone(raw, "a wrong magic number")


def unknown_options():
    with Raw(PATH) as raw:
        raw.greet()
        for number in (0, 4, 12, 0x7FFFFFFF, 0xFFFFFFFF):
            expect(raw.ask(number, b"x" * 100), UNSUP)
        expect(raw.ask(LIST), ACK)


def long_names():
    """H20: up to 4096 bytes a name is unknown, also if the text of the error has no room for it; beyond, invalid."""
    with Raw(PATH) as raw:
        raw.greet()
        for count in (256, 257, 1024, 4095, 4096):
            for number in (INFO, GO):
                expect(raw.ask(number, go_data(b"n" * count)), UNKNOWN)
            expect(raw.ask(LIST_META, go_data(b"n" * count)[:-2] + bytes(4)), INVALID, UNKNOWN)
        for count in (4097, 60000):
            expect(raw.ask(GO, go_data(b"n" * count)), INVALID, TOO_BIG, UNKNOWN)
        expect(raw.ask(GO, go_data(b"\xff\xfe\0\n" * 64)), INVALID, UNKNOWN)
        expect(raw.ask(GO, go_data()), ACK)
    for count in (257, 4096, 4097, 65535):
        with Raw(PATH) as raw:
            raw.greet().send(option(EXPORT_NAME, b"n" * count))
            expect_gone(raw, f"an unknown EXPORT_NAME of {count} bytes")


def lengths_that_lie():
    """Names, lists and queries that reach past their option."""
    queries = b"\0\0\0\0" + b"\0\0\0\1" + b"\xff\xff\xff\xff"
    with Raw(PATH) as raw:
        raw.greet()
        for number, data in [(GO, b""), (GO, b"\0"), (GO, go_data(b"", name_bytes=1 << 31)),
                             (GO, go_data(b"", name_bytes=0xFFFFFFFF)), (INFO, go_data()[:-1]),
                             (INFO, b"\0\0\0\0\xff\xff"), (GO, go_data() + b"x"), (LIST, b"x"), (STRUCTURED, b"x"),
                             (EXTENDED, b"x")]:
            expect(raw.ask(number, data), INVALID, TOO_BIG)
        expect(raw.ask(STRUCTURED), ACK)
        for data in (queries, queries[:8] + b"\0\0\0\2x", queries[:4] + b"\xff\xff\xff\xff", queries[:7]):
            for number in (LIST_META, SET_META):
                expect(raw.ask(number, data), INVALID, TOO_BIG)
        expect(raw.ask(GO, go_data()), ACK)


def huge_options():
    """H21: what is too long is skipped, or ends the connection, and takes no memory."""
    piece = b"x" * MIB
    with Raw(PATH) as raw:
        raw.greet().send(option(LIST_META, length=32 * MIB))
        for _ in range(32):
            raw.send(piece)
        expect(raw.last_reply(), TOO_BIG, INVALID)
        expect(raw.ask(LIST), ACK)
    for length in (32 * MIB + 1, 1 << 31, 0xFFFFFFFF):
        with Raw(PATH) as raw:
            raw.greet().send(option(GO, length=length))
            expect_gone(raw, f"an option of {length} bytes")


def option_storm():
    """H21: more options than anybody needs."""
    with Raw(PATH) as raw:
        raw.greet()
        try:
            raw.send(option(LIST) * 5000)
        except Gone:
            pass
        expect_gone(raw, "5000 options")
    storms = [Raw(PATH) for _ in range(MANY)]
    for raw in storms:
        raw.socket.setblocking(False)
        try:
            raw.socket.send(b"\0\0\0\3" + option(GO, go_data(b"n" * 4096)) * 1000)      # and no reply is read
        except BlockingIOError:
            pass
    time.sleep(0.2)
    for raw in storms:
        raw.socket.close()


def idle_handshakes():
    """H23: as many as the server takes; who comes then waits, and gets in when somebody goes."""
    idle = [Raw(PATH) for _ in range(110)]
    with Raw(PATH) as late:
        late.socket.settimeout(0.5)
        try:
            late.recv(1)
            raise AssertionError("111 connections, and each one is served")
        except TimeoutError:
            pass
        for raw in idle:
            raw.socket.close()
        late.socket.settimeout(30)
        late.recv(17)


# ---- transmission ----

def still_works(raw):
    raw.send(request(READ, 0, 4096))
    expect(raw.simple_reply(4096)[0], 0)


def wrong_request_magic():
    with Raw(PATH) as raw:
        raw.negotiate().send(request(READ, 0, 4096, magic=0xDEADBEEF))
        expect_gone(raw, "a wrong magic number")
    with Raw(PATH) as raw:
        raw.negotiate().send(extended_request(READ, 0, 4096))
        expect_gone(raw, "an extended header that was not agreed on")


def ranges_past_the_end():
    with Raw(PATH) as raw:
        raw.negotiate()
        for offset, length in [(SIZE, 1), (SIZE - 1, 2), (0, 0xFFFFFFFF), (1 << 62, 4096), (1 << 63, 4096),
                               (0xFFFFFFFFFFFFF000, 4096), (0xFFFFFFFFFFFFFFFF, 1), (SIZE - 4096, 0xFFFFF000)]:
            for command in (READ, TRIM, ZEROES, CACHE):
                raw.send(request(command, offset, length))
                assert raw.simple_reply(length if command == READ else 0)[0] != 0, f"{command} {offset} {length} works"
            if length <= 4096:
                raw.send(request(WRITE, offset, length, b"x" * length))
                assert raw.simple_reply()[0] != 0, f"a write of {length} at {offset} works"
        still_works(raw)


def lengths_of_64_bits():
    with Raw(PATH) as raw:
        raw.negotiate(extended=True)
        for offset, length in [(0, 1 << 63), (0, 0xFFFFFFFFFFFFFFFF), (4096, 0xFFFFFFFFFFFFF000), (1 << 63, 1 << 63),
                               (0, 1 << 32), (0, SIZE + 1), (SIZE, 1 << 32)]:
            for command in (READ, TRIM, ZEROES, CACHE, STATUS):
                raw.send(extended_request(command, offset, length))
                assert raw.extended_error() != 0, f"{command} {offset} {length} works"
        raw.send(extended_request(ZEROES, 0, 64 << 10))
        expect(raw.extended_error(), 0)
    for length in (1 << 32, 1 << 63, 0xFFFFFFFFFFFFFFFF):
        with Raw(PATH) as raw:
            raw.negotiate(extended=True).send(extended_request(WRITE, 0, length, flags=PAYLOAD_LEN))
            expect_gone(raw, f"a payload of {length} bytes")


def unknown_commands_and_flags():
    with Raw(PATH) as raw:
        raw.negotiate()
        for command in (8, 9, 0x77, 0xFFFF):
            raw.send(request(command, 0, 4096))
            expect(raw.simple_reply()[0], EINVAL)
        for flags in (1 << 6, 1 << 7, 1 << 15, 0xFFC0):
            raw.send(request(READ, 0, 4096, flags=flags))
            expect(raw.simple_reply(4096)[0], EINVAL)
            raw.send(request(WRITE, 0, 512, bytes(512), flags=flags))
            expect(raw.simple_reply()[0], EINVAL)
        raw.send(request(STATUS, 0, 4096))
        expect(raw.simple_reply()[0], EINVAL)
        for length in (32 * MIB + 512, 63 * MIB):       # skipped, so that the error can be told
            raw.send(request(WRITE, 0, length, bytes(length)))
            assert raw.simple_reply()[0] != 0, f"a write of {length} bytes works"
        raw.send(request(FLUSH))
        expect(raw.simple_reply()[0], 0)
        still_works(raw)
    with Raw(PATH) as raw:
        raw.negotiate().send(request(WRITE, 0, 0xFFFFFFFF))
        expect_gone(raw, "a payload of 4 GiB")


def payloads_that_never_come():
    waiting = [Raw(PATH).negotiate() for _ in range(MANY)]
    for raw in waiting:
        raw.send(request(WRITE, 0, 32 * MIB, b"x" * 1000) if raw is not waiting[0] else request(WRITE, 0, 4096, b"x"))
    time.sleep(0.3)
    for raw in waiting:
        raw.socket.close()


def replies_that_nobody_reads():
    """Each asks for 2 GiB and takes nothing."""
    deaf = [Raw(PATH).negotiate() for _ in range(MANY)]
    for raw in deaf:
        raw.socket.settimeout(0.02)
        try:
            raw.socket.sendall(request(READ, 0, MIB) * 2048)
        except TimeoutError:
            pass
    time.sleep(0.5)
    for raw in deaf:
        raw.socket.close()


def memory_that_all_want():
    """More clients take no replies than the server has memory for; who then asks for much gets it, at the cost of one of them."""
    deaf = [Raw(PATH).negotiate() for _ in range(3 * MANY)]
    for raw in deaf:
        raw.send(request(READ, 0, MIB // 4) * 64)
    time.sleep(0.3)
    with Raw(PATH) as raw:
        raw.negotiate().send(request(READ, 0, 4 * MIB))
        expect(raw.simple_reply(4 * MIB)[0], 0)
    gone = 0
    for raw in deaf:
        raw.socket.setblocking(False)
        try:
            raw.send(request(FLUSH))
        except Gone:
            gone += 1
        except BlockingIOError:
            pass
        raw.socket.close()
    assert 0 < gone < len(deaf), f"{gone} of {len(deaf)} were dropped"


def many_small_replies_that_nobody_reads():
    with Raw(PATH) as raw:
        raw.negotiate(structured=True)
        raw.socket.settimeout(0.5)
        try:
            raw.socket.sendall(request(0x77, 0, 1) * 200000)
        except TimeoutError:
            return
        raise AssertionError("the server takes 200,000 requests whose replies nobody reads")


# Each with the KiB that it may take. SMALL: above what the server has before it. ALL: above what it had before all attacks, since
# memory that is freed may stay its own: 256 MiB in flight and 32 MiB kept of all connections together, 320 KiB of each that count
# on nobody, and what the attacks before left.
SMALL, ALL = 24 << 10, (288 << 10) + 100 * 320 + (24 << 10)
ATTACKS = [
    (drops_in_each_stage, SMALL), (wrong_client_flags, SMALL), (wrong_option_magic, SMALL), (unknown_options, SMALL),
    (long_names, SMALL), (lengths_that_lie, SMALL), (huge_options, SMALL), (option_storm, SMALL),
    (idle_handshakes, SMALL), (wrong_request_magic, SMALL), (ranges_past_the_end, SMALL), (lengths_of_64_bits, SMALL),
    (unknown_commands_and_flags, SMALL + (34 << 10)), (payloads_that_never_come, SMALL),
    (many_small_replies_that_nobody_reads, SMALL), (memory_that_all_want, ALL),
    (replies_that_nobody_reads, ALL), (replies_that_nobody_reads, ALL), (replies_that_nobody_reads, ALL)]


def attack(function, most, start, good):
    """@start: KiB that the server had before all attacks. Returns: what was wrong, or None; a text about memory."""
    forget_peak()
    before = start if most == ALL else server_memory("VmRSS")
    rounds = good.rounds
    try:
        function()
        wrong = None
    except (AssertionError, Gone, TimeoutError, OSError) as error:
        wrong = f"{type(error).__name__}: {error}"
    if not os.path.exists(f"/proc/{PID}"):
        return "the server has ended", ""
    until = time.monotonic() + 10
    while good.rounds < rounds + 3 and not good.error and time.monotonic() < until:
        time.sleep(0.01)
    peak = server_memory("VmHWM") - before
    if good.error or good.rounds < rounds + 3:
        wrong = f"the good client: {good.error or 'no progress'}"
    elif peak > most:
        wrong = wrong or "the server takes too much memory"
    return wrong, f"{peak} KiB above {before}, at most {most}"


def main():
    good = GoodClient()
    good.start()
    start = server_memory("VmRSS")
    for function, most in ATTACKS:
        wrong, memory = attack(function, most, start, good)
        print(f"{'bad' if wrong else 'good'} {function.__name__}: {wrong + ', ' if wrong else ''}{memory}", flush=True)
        if good.error or not os.path.exists(f"/proc/{PID}"):
            break
    good.stop = True
    good.join(10)
    print(f"the good client: {good.rounds} rounds, the longest {good.longest * 1000:.0f} ms")


main()
