#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nbd_bad_server.py DIRECTORY FAULT... - NBD servers of 1 MiB of zeroes, each of which does one thing wrong.

The socket of each is DIRECTORY/FAULT; the last one appears when all are there.

It speaks the protocol to the letter until the fault, so that a client gets that far. `vanish-N` ends the connection
before the N-th message to the client; `garbage-N` sends random bytes instead, and ends it; `silent-N` sends nothing
any more.
"""
import os
import socket
import struct
import sys
import threading

SIZE = 1 << 20
OPT_GO, OPT_STRUCTURED, OPT_SET_META = 7, 8, 10
ACK, INFO, META, UNSUPPORTED, UNKNOWN = 1, 3, 4, (1 << 31) + 1, (1 << 31) + 6
READ, WRITE, DISCONNECT, FLUSH, STATUS = 0, 1, 2, 3, 7
DATA, BLOCK_STATUS, ERROR = 1, 5, 32769


class Client(threading.Thread):
    def __init__(self, sock, fault):
        super().__init__(daemon=True)
        self.sock, self.fault, self.sent = sock, fault, 0
        self.stage = int(fault.rsplit("-", 1)[1]) if fault[-1].isdigit() else None

    def receive(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def send(self, data):
        self.sent += 1
        if self.sent == self.stage:
            if self.fault.startswith("garbage"):
                self.sock.sendall(os.urandom(1000))
            if self.fault.startswith("silent"):
                while self.sock.recv(65536):
                    pass
            raise EOFError
        self.sock.sendall(data)

    def option_reply(self, option, kind, data=b""):
        self.send(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

    def negotiate(self):
        self.send(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        self.receive(4)
        while True:
            _, option, length = struct.unpack(">8sII", self.receive(16))
            data = self.receive(length)
            if option == OPT_STRUCTURED:
                self.option_reply(option, ACK)
            elif option == OPT_SET_META:
                context = 2 if self.fault == "context-changes" else 1
                self.option_reply(option, META, struct.pack(">I", context) + b"base:allocation")
                self.option_reply(option, ACK)
            elif option == OPT_GO:
                if self.go():
                    return
            else:
                self.option_reply(option, UNSUPPORTED)
                del data

    def go(self):
        if self.fault == "long-error":
            self.option_reply(OPT_GO, UNKNOWN, b"\033[31m\n" * 600)
            return False
        size = {"size-0": 0, "size-huge": (1 << 64) - 1, "size-odd": SIZE + 1}.get(self.fault, SIZE)
        minimum = {"block-3": 3, "block-huge": 1 << 31, "block-65536": 65536}.get(self.fault, 1)
        self.option_reply(OPT_GO, INFO, struct.pack(">HQH", 0, size, 0x0D))     # flags, flush, FUA
        self.option_reply(OPT_GO, INFO, struct.pack(">HIII", 3, minimum, max(minimum, 4096), 1 << 25))
        self.option_reply(OPT_GO, ACK)
        return True

    def chunk(self, handle, kind, data, done=True, flags=0):
        self.send(struct.pack(">IHHQI", 0x668E33EF, done | flags, kind, handle, len(data)) + data)

    def serve(self):
        while True:
            _, _, kind, handle, offset, length = struct.unpack(">IHHQQI", self.receive(28))
            if kind == DISCONNECT:
                return
            if kind == WRITE:
                self.receive(length)
            if kind == STATUS:
                self.status(handle, offset, length)
            elif kind == READ:
                self.read(handle, offset, length)
            else:
                self.chunk(handle, 0, b"")

    def status(self, handle, offset, length):
        context = 1
        extents = [(length, 3)]
        if self.fault == "status-past-end":
            extents = [(4096, 3), (SIZE - offset, 3)]
        elif self.fault == "status-far-past-end":
            extents = [((1 << 32) - 512, 3)] * 100
        elif self.fault == "status-zero-length":
            extents = [(0, 3), (length, 3)]
        elif self.fault == "status-empty":
            extents = []
        elif self.fault == "status-other-context":
            context = 77
        data = struct.pack(">I", context) + b"".join(struct.pack(">II", *e) for e in extents)
        if self.fault == "status-half-extent":
            data = data[:-3]
        if self.fault == "status-twice":
            self.chunk(handle, BLOCK_STATUS, data, done=False)
        if self.fault == "status-nothing":
            self.chunk(handle, 0, b"")
        else:
            self.chunk(handle, BLOCK_STATUS, data)

    def read(self, handle, offset, length):
        good = struct.pack(">Q", offset) + bytes(length)
        if self.fault == "read-larger":
            self.chunk(handle, DATA, good + bytes(4096))
        elif self.fault == "read-elsewhere":
            self.chunk(handle, DATA, struct.pack(">Q", offset + length) + bytes(length))
        elif self.fault == "read-before":
            self.chunk(handle, DATA, struct.pack(">Q", offset - 1 & (1 << 64) - 1) + bytes(length))
        elif self.fault == "read-nothing":
            self.chunk(handle, 0, b"")
        elif self.fault == "read-half":
            self.chunk(handle, DATA, good[:8 + length // 2])
        elif self.fault == "read-huge-chunk":
            self.send(struct.pack(">IHHQI", 0x668E33EF, 1, DATA, handle, (1 << 32) - 1))
            self.sock.sendall(bytes(1 << 16))
            raise EOFError
        elif self.fault == "read-other-handle":
            self.chunk(handle ^ 0x5555, DATA, good)
        elif self.fault == "read-strange-kind":
            self.chunk(handle, 99, b"")
        elif self.fault == "read-strange-error":
            self.chunk(handle, ERROR, struct.pack(">IH", 77777, 65535))
        elif self.fault == "read-bad-magic":
            self.send(struct.pack(">IIQ", 0x12345678, 0, handle) + bytes(length))
        elif self.fault == "read-stops":
            self.sock.sendall(struct.pack(">IHHQI", 0x668E33EF, 1, DATA, handle, 8 + length) + good[:1000])
            raise EOFError
        else:
            self.chunk(handle, DATA, good)

    def run(self):
        try:
            self.negotiate()
            self.serve()
        except (EOFError, OSError):
            pass
        self.sock.close()


def accept_all(listener, fault):
    while True:
        Client(listener.accept()[0], fault).start()


def main():
    for fault in sys.argv[2:]:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.join(sys.argv[1], fault))
        listener.listen(16)
        server = threading.Thread(target=accept_all, args=(listener, fault))
        server.start()


main()
