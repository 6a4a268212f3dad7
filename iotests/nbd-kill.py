#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What the end of an NBD server may do to its clients.

nbd-kill.py term SOCKET PID [tls]      stops the server with 64 reads in flight: each is answered with the right data
nbd-kill.py write URI STATE SEED       writes and flushes until the server is gone; STATE: what may be found afterwards
nbd-kill.py verify URI STATE           is that what is found?
"""
import json
import os
import random
import signal
import struct
import sys

import nbd
from nbd_raw import READ, Gone, Raw, request

PIECE = 4096


def content(piece, version):
    return (b"%d.%d " % (piece, version)).ljust(32, b"-") * (PIECE // 32) if version else bytes(PIECE)


def term(path, pid, tls):
    """Piece n of 64 KiB is 64 KiB of the byte n + 1."""
    count, size = 64, 65536
    with Raw(path) as raw:
        raw.negotiate(tls=tls)
        raw.send(b"".join(request(READ, number * size, size, cookie=number) for number in range(count)))
        for answered in range(count):
            try:
                _, error, cookie = struct.unpack(">IIQ", raw.recv(16))
                data = b"" if error else raw.recv(size)
            except Gone:
                sys.exit(f"only {answered} of {count} are answered")
            if data != bytes([cookie + 1]) * size:
                sys.exit(f"read {cookie}: error {error}, or other data")
            if answered == 0:
                os.kill(pid, signal.SIGTERM)
        if not raw.is_gone():
            sys.exit("the connection stays open")
    print(f"good: {count} answered")


def write(uri, state, seed):
    """allowed: of each piece the version that was flushed last, and those that were sent since."""
    handle, rng = nbd.NBD(), random.Random(seed)
    handle.connect_uri(uri)
    pieces = handle.get_size() // PIECE
    allowed, done, version, flushes = {}, {}, 0, 0
    if os.path.exists(state):
        with open(state, encoding="ascii") as file:
            allowed = {int(piece): versions for piece, versions in json.load(file).items()}
            version = max((max(versions) for versions in allowed.values()), default=0)
    try:
        while True:
            for _ in range(rng.randrange(1, 20)):
                version += 1
                piece = rng.randrange(pieces)
                allowed.setdefault(piece, [0]).append(version)
                handle.pwrite(content(piece, version), piece * PIECE)
                done[piece] = version
            handle.flush()
            flushes += 1
            allowed.update((piece, [written]) for piece, written in done.items())
            done.clear()
    except nbd.Error:
        pass
    with open(state, "w", encoding="ascii") as file:
        json.dump(allowed, file)
    print(f"{version} writes in all, {flushes} flushes")


def verify(uri, state):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    with open(state, encoding="ascii") as file:
        allowed = {int(piece): versions for piece, versions in json.load(file).items()}
    for piece in range(handle.get_size() // PIECE):
        versions, found = allowed.get(piece, [0]), handle.pread(PIECE, piece * PIECE)
        matching = [version for version in versions if found == content(piece, version)]
        if not matching:
            sys.exit(f"piece {piece} begins {found[:32]}, allowed are versions {versions}")
        allowed[piece] = matching[:1]
    with open(state, "w", encoding="ascii") as file:
        json.dump(allowed, file)
    print("good")


if sys.argv[1] == "term":
    term(sys.argv[2], int(sys.argv[3]), "tls" in sys.argv[4:])
elif sys.argv[1] == "write":
    write(*sys.argv[2:])
else:
    verify(*sys.argv[2:])
