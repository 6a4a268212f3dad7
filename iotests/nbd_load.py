# SPDX-License-Identifier: MIT
"""A client of an NBD export that writes without a pause and knows what must be there: for iotests about live changes.

    with Load(path, b"disk", size, seed) as load:
        load.wait_for(100)                  # so many more requests have ended
        ...
    load.failed, load.different             # both must be 0
    load.model                              # what the disk must hold
"""
import random
import struct
import threading

import nbd_raw

UNIT = 512


class Load(threading.Thread):
    """Requests to ranges that do not overlap, @depth at a time, while the block lasts; then a flush."""
    depth = 8

    def __init__(self, path, name, size, seed, biggest=128):
        super().__init__(daemon=True)
        self.rng, self.biggest = random.Random(seed), biggest
        self.model = bytearray(size)
        self.changed = []               # (offset, bytes) of all changes
        self.connection = nbd_raw.Raw(path).negotiate(name)
        self.in_flight, self.cookie = {}, 0
        self.ended, self.failed, self.different, self.broken = 0, 0, 0, None
        self.over, self.progress = False, threading.Condition()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.join()
        self.connection.__exit__()

    def wait_for(self, count):
        with self.progress:
            target = self.ended + count
            if not self.progress.wait_for(lambda: self.ended >= target or self.broken, nbd_raw.PATIENCE):
                raise TimeoutError("the client hangs")
            if self.broken:
                raise self.broken

    def has_kept(self, flushed, after):
        """Does @after have all of @flushed, but for what this client has changed since, which may be there, or not?"""
        expected = bytearray(flushed)
        for at, count in self.changed:
            expected[at:at + count] = after[at:at + count]
        return after == expected

    def run(self):
        try:
            while not self.over or self.in_flight:
                while not self.over and len(self.in_flight) < self.depth:
                    self.send_one()
                self.take_one()
            self.connection.send(nbd_raw.request(nbd_raw.FLUSH))
            self.failed += self.connection.simple_reply()[0] != 0
            self.connection.send(nbd_raw.request(nbd_raw.DISC))
        except (nbd_raw.Gone, OSError, AssertionError) as error:
            self.broken, self.failed = error, self.failed + 1

    def change(self, at, data):
        """What is about to be written."""
        self.changed.append((at, len(data)))
        self.model[at:at + len(data)] = data

    def text(self, count):
        """Compressible bytes, none of them twice the same."""
        return (b"%016x " % self.rng.getrandbits(64) * (count // 17 + 1))[:count]

    def send_one(self):
        count = self.rng.choice((1, 1, 8, 8, 8, 9, 64, self.biggest)) * UNIT
        at = self.rng.randrange((len(self.model) - count) // UNIT) * UNIT
        if any(at < end and start < at + count for _, start, end in self.in_flight.values()):
            return
        kind, data = self.rng.choice((nbd_raw.WRITE,) * 7 + (nbd_raw.READ,) * 2 + (nbd_raw.ZEROES,)), b""
        if kind == nbd_raw.WRITE:
            data = self.text(count)
        if kind != nbd_raw.READ:
            self.change(at, data or bytes(count))
        self.cookie += 1
        self.in_flight[self.cookie] = (kind, at, at + count)
        self.connection.send(nbd_raw.request(kind, at, count, data, cookie=self.cookie))

    def take_one(self):
        magic, error, cookie = struct.unpack(">IIQ", self.connection.recv(16))
        assert magic == nbd_raw.SIMPLE_REPLY, f"magic number {magic:x}"
        kind, start, end = self.in_flight.pop(cookie)
        if error:
            self.failed += 1
        elif kind == nbd_raw.READ:
            self.different += self.connection.recv(end - start) != self.model[start:end]
        with self.progress:
            self.ended += 1
            self.progress.notify_all()
