#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nbd-fuzz.py SOCKET PID SEED CONNECTIONS: random conversations with an NBD server, most of them nearly right.

Each has a seed of its own. Prints the one after which the server had ended, or did not answer an honest client.
"""
import os
import random
import socket
import struct
import sys

from nbd_raw import (EXPORT_NAME, GO, INFO, LIST, LIST_META, READ, SET_META, STRUCTURED, EXTENDED, WRITE, Gone, Raw,
                     extended_request, go_data, option, request)

SIZE = 4 << 20
EDGES = [0, 1, 511, 512, 513, 4095, 4096, 65535, 65536, SIZE - 1, SIZE, SIZE + 1, 1 << 24, 1 << 31, (1 << 32) - 1, 1 << 32,
         (1 << 32) + 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 512, (1 << 64) - 1]
CONTEXTS = [b"base:allocation", b"base:", b"qemu:", b"qemu:allocation-depth", b"qemu:dirty-bitmap:x", b"x" * 300, b""]


class Fuzzer:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, percent):
        return self.random.randrange(100) < percent

    def number(self, bits):
        n = self.random.choice(EDGES) if self.chance(60) else self.random.getrandbits(self.random.randrange(1, bits + 1))
        return n % (1 << bits)

    def bytes(self, most):
        return self.random.randbytes(self.random.randrange(most))

    def name(self):
        return self.random.choice((b"", b"", b"", b"none", self.bytes(5000)))

    def queries(self):
        count = self.random.randrange(4)
        data = struct.pack(">I", 0) + struct.pack(">I", self.number(32) if self.chance(10) else count)
        for _ in range(count):
            context = self.random.choice(CONTEXTS)
            data += struct.pack(">I", self.number(32) if self.chance(10) else len(context)) + context
        return data

    def option(self):
        number = self.random.choice((LIST, INFO, STRUCTURED, EXTENDED, LIST_META, SET_META, GO, self.random.randrange(14)))
        if number in (INFO, GO):
            data = go_data(self.name(), [self.random.randrange(6) for _ in range(self.random.randrange(4))])
        elif number in (LIST_META, SET_META):
            data = self.queries()
        elif number == EXPORT_NAME:
            data = self.name()
        else:
            data = b"" if self.chance(90) else self.bytes(100)
        if self.chance(10):
            data = self.bytes(200)
        return option(number, data, length=self.number(32) if self.chance(3) else None)

    def request(self, extended):
        command = self.random.choice((READ, WRITE, self.random.randrange(9), self.number(16) if self.chance(5) else READ))
        offset = self.number(64) if self.chance(25) else self.random.randrange(SIZE)
        length = self.number(64 if extended else 32) if self.chance(15) else self.random.randrange(1, 70000)
        flags = self.number(16) if self.chance(10) else 1 << self.random.randrange(6) if self.chance(30) else 0
        payload = b""
        if command == WRITE:
            flags |= 1 << 5 if extended else 0
            payload = self.bytes(2) * (length // 2) if length <= 1 << 20 else self.bytes(1000)
        make = extended_request if extended else request
        return make(command, offset, length, payload, flags, cookie=self.number(64))

    def damage(self, data):
        data = bytearray(data)
        for _ in range(self.random.randrange(1, 4)):
            if data:
                data[self.random.randrange(len(data))] = self.random.randrange(256)
        return bytes(data[:self.random.randrange(len(data) + 1)] if self.chance(30) else data)

    def script(self):
        """Returns: a list of what is sent at once."""
        parts = [struct.pack(">I", 3 if self.chance(95) else self.number(32))]
        extended = self.chance(40)
        if extended:
            parts.append(option(EXTENDED))
        elif self.chance(50):
            parts.append(option(STRUCTURED))
        parts += [self.option() for _ in range(self.random.randrange(5))]
        if self.chance(80):
            parts.append(option(SET_META, struct.pack(">III", 0, 1, 15) + CONTEXTS[0]))
            parts.append(option(GO, go_data()))
            parts += [self.request(extended if self.chance(97) else not extended)
                      for _ in range(self.random.randrange(40))]
        if self.chance(30):
            place = self.random.randrange(len(parts))
            parts[place] = self.damage(parts[place])
        if self.chance(20):
            parts.insert(self.random.randrange(len(parts)), self.bytes(300))
        return [b"".join(parts)] if self.chance(50) else parts

    def converse(self, path):
        with Raw(path) as raw:
            raw.socket.settimeout(0.02)
            try:
                for part in self.script():
                    raw.socket.sendall(part)
                    if self.chance(20):
                        raw.socket.recv(1 << 20)
                if self.chance(20):
                    return                                  # while it is being answered
                if self.chance(50):
                    raw.socket.shutdown(socket.SHUT_WR)     # then all replies come, and the end
                while raw.socket.recv(1 << 20):
                    pass
            except OSError:
                pass


def honest(path):
    with Raw(path) as raw:
        raw.negotiate().send(request(READ, 0, 512))
        return raw.simple_reply(512)[0] == 0


def main():
    path, pid, seed, connections = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    for number in range(connections):
        Fuzzer(seed + number).converse(path)
        if number % 50 == 49 or number == connections - 1:
            try:
                good = honest(path)
            except (Gone, OSError, AssertionError) as error:
                good = False
                print(error)
            if not good or not os.path.exists(f"/proc/{pid}"):
                sys.exit(f"the server has ended, or serves nobody, after conversations up to seed {seed + number}")
    print(f"good: {connections} conversations")


main()
