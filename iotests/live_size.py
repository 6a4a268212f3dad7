#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""live_size.py FILE - how long a qcow2 file would be if what is live in it were packed without holes: bytes.

Counts, once each, what anything refers to: whole tables, plain clusters, and the sectors of payloads; of payloads more, if
there are so many references that narrow counts need more clusters for them.
"""
import struct
import sys


class Image:
    def __init__(self, name):
        self.data = open(name, "rb").read()
        h = self.data
        self.version, bits = self.get(4, 4), self.get(20, 4)
        self.bits, self.cluster = bits, 1 << bits
        incompatible = self.get(72, 8) if self.version >= 3 else 0
        self.entry = 16 if incompatible & 16 else 8
        self.data_file = bool(incompatible & 4)
        self.max_count = (1 << (1 << (self.get(96, 4) if self.version >= 3 else 4))) - 1
        self.plain, self.payloads, self.tables, self.references = {0}, set(), {}, 0
        self.tree(self.get(40, 8), self.get(36, 4))
        self.snapshots(self.get(64, 8), self.get(60, 4))
        self.refcounts(self.get(48, 8), self.get(56, 4))
        self.extensions()
        assert h[:4] == b"QFI\xfb"

    def get(self, at, size):
        return int.from_bytes(self.data[at:at + size], "big")

    def words(self, at, count):
        return struct.unpack(f">{count}Q", self.data[at:at + 8 * count].ljust(8 * count, b"\0"))

    def run(self, at, size):
        self.plain.update(range(at >> self.bits, (at + size + self.cluster - 1) >> self.bits))

    def tree(self, at, count):
        self.run(at, 8 * count)
        for word in self.words(at, count):
            table = word & 0x00fffffffffffe00
            if table:
                if table not in self.tables:
                    self.run(table, self.cluster)
                    self.tables[table] = self.entries(self.words(table, self.cluster // 8)[::self.entry // 8])
                self.references += self.tables[table]

    def entries(self, words):
        """Returns how many payloads there are."""
        offset_bits, payloads = 62 - (self.bits - 8), 0
        for word in words:
            offset = word & 0x00fffffffffffe00
            if word >> 62 & 1:
                at = word & ((1 << offset_bits) - 1)
                sectors = ((word & ((1 << 62) - 1)) >> offset_bits) + 1
                self.payloads.add((at >> 9, sectors))
                payloads += 1
            elif offset and not self.data_file:
                self.run(offset, self.cluster)
        return payloads

    def snapshots(self, at, count):
        start = at
        for _ in range(count):
            self.tree(self.get(at, 8), self.get(at + 8, 4))
            at += (40 + self.get(at + 36, 4) + self.get(at + 12, 2) + self.get(at + 14, 2) + 7) & ~7
        if count:
            self.run(start, at - start)

    def refcounts(self, at, clusters):
        self.run(at, clusters << self.bits)
        for word in self.words(at, clusters * self.cluster // 8):
            if word:
                self.run(word, self.cluster)

    def extensions(self):
        at = self.get(100, 4) if self.version >= 3 else 72
        while self.get(at, 4):
            kind, size = self.get(at, 4), self.get(at + 4, 4)
            if kind == 0x23852875:
                self.bitmaps(self.get(at + 24, 8), self.get(at + 16, 8), self.get(at + 8, 4))
            at += 8 + (size + 7) & ~7

    def bitmaps(self, at, size, count):
        self.run(at, size)
        for _ in range(count):
            table, entries = self.get(at, 8), self.get(at + 8, 4)
            self.run(table, 8 * entries)
            for word in self.words(table, entries):
                if word & ~1:
                    self.run(word, self.cluster)
            at += (24 + self.get(at + 18, 2) + self.get(at + 20, 4) + 7) & ~7

    def size(self):
        sectors = sum(n for _, n in self.payloads)
        payload_clusters = -(-self.references // self.max_count)
        return (len(self.plain) << self.bits) + max(sectors * 512, payload_clusters << self.bits)


print(Image(sys.argv[1]).size())
