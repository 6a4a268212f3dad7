#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Breaks metadata of qcow2 images at random and repairs them: broken.py IMAGE CASES SEED

Each case changes a few bytes or entries of tables in a copy of IMAGE, runs `check -r all`, and judges: no crash and no
hang; guest clusters that could be read before read the same; and after exit status 0 both programs find the image sound.
Prints "wrong SEED: ..." for each case that fails, "lost SEED: ..." where the active L1 table cannot be found, "left SEED: ..."
where something else is left, and a summary.

The reader is independent of the program under test. It knows versions 2 and 3 with zlib; no backing files.
"""
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib

COPIED, COMPRESSED, OFFSET = 1 << 63, 1 << 62, 0x00fffffffffffe00


class Image:
    def __init__(self, name):
        with open(name, 'rb') as file:
            self.data = bytearray(file.read())
        self.version, self.bits = self.get(4, 4), self.get(20, 4)
        self.cluster = 1 << self.bits
        self.size, self.l1_size, self.l1 = self.get(24), self.get(36, 4), self.get(40)
        self.table, self.table_clusters = self.get(48), self.get(56, 4)
        self.snapshot_count, self.snapshot_table = self.get(60, 4), self.get(64)
        self.order = self.get(96, 4) if self.version >= 3 else 4

    def get(self, offset, size=8):
        return int.from_bytes(self.data[offset:offset + size].ljust(size, b'\0'), 'big')

    def put(self, offset, value, size=8):
        if offset + size <= len(self.data):
            self.data[offset:offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, 'big')

    def bytes_at(self, offset, count):
        return bytes(self.data[offset:offset + count]).ljust(count, b'\0')

    def end(self):
        return (len(self.data) + self.cluster - 1) // self.cluster * self.cluster

    def entries(self, offset, count):
        return struct.unpack('>%dQ' % count, self.bytes_at(offset, 8 * count))

    def snapshots(self):
        """Places of the entries, each with the place and the length of its L1 table."""
        place, found = self.snapshot_table, []
        for _ in range(min(self.snapshot_count, 16)):
            if place + 40 > len(self.data):
                break
            found.append((place, self.get(place), self.get(place + 8, 4)))
            place += (40 + self.get(place + 36, 4) + self.get(place + 12, 2) + self.get(place + 14, 2) + 7) // 8 * 8
        return found

    def tables(self):
        """Clusters of header, L1 tables and snapshot table: an L2 table or data there is no such thing."""
        found = {0}
        for place, entries in [(self.l1, self.l1_size)] + [(l1, count) for _, l1, count in self.snapshots()]:
            clusters = (min(entries, 1 << 16) * 8 + self.cluster - 1) // self.cluster
            found |= {place // self.cluster + i for i in range(clusters)}
        return found | {place // self.cluster for place, _, _ in self.snapshots()}

    def inside(self, offset, count):
        return offset + count <= self.end()

    def payload(self, entry):
        shift = 62 - (self.bits - 8)
        offset = entry & (1 << shift) - 1
        count = ((entry & ~(COPIED | COMPRESSED)) >> shift) * 512 + 512 - offset % 512
        if offset < self.cluster or not self.inside(offset, count):
            return None
        try:
            data = zlib.decompressobj(-15).decompress(self.bytes_at(offset, count), self.cluster)
        except zlib.error:
            return None
        return data if len(data) == self.cluster else None

    def read_entry(self, entry, hidden):
        """What the guest reads; None if nobody can say."""
        if entry & COMPRESSED:
            return self.payload(entry)
        offset = entry & OFFSET
        if entry & 1 and self.version >= 3:
            return bytes(self.cluster)
        if offset == 0:
            return bytes(self.cluster)
        if offset % self.cluster or offset // self.cluster in hidden:
            return None
        return self.bytes_at(offset, self.cluster)

    def is_repaired(self, entry, tables):
        """Does a repair change such an entry of an L2 table?"""
        if entry & COMPRESSED:
            return self.payload(entry) is None
        offset = entry & OFFSET
        return bool(entry & ~(COPIED | OFFSET | 1)) or offset % self.cluster != 0 or offset // self.cluster in tables or \
            not self.inside(offset, self.cluster)

    def tangled(self, tables):
        """L2 tables that repairs change: data there is no promise. Where counts have few bits, copies may change any."""
        l1s = [(self.l1, self.l1_size)] + [(l1, min(count, 1 << 16)) for _, l1, count in self.snapshots()]
        l2s = {(e & OFFSET) // self.cluster for place, count in l1s for e in self.entries(place, count) if e & OFFSET}
        return {l2 for l2 in l2s if self.order < 3 or any(
            self.is_repaired(e, tables | l2s) for e in self.entries(l2 * self.cluster, self.cluster // 8) if e & OFFSET)}

    def guest(self):
        per_table = self.cluster // 8
        tables = self.tables()
        hidden = tables | self.tangled(tables)
        clusters = (self.size + self.cluster - 1) // self.cluster
        for index, entry in enumerate(self.entries(self.l1, self.l1_size)):
            table = entry & OFFSET
            count = max(0, min(per_table, clusters - index * per_table))
            if table and (table % self.cluster or not self.inside(table, self.cluster) or
                          table // self.cluster in tables):
                yield from [None] * count
                continue
            for word in self.entries(table, count) if table else [0] * count:
                yield self.read_entry(word, hidden)


class Breaker:
    def __init__(self, image, seed):
        self.image, self.random = image, random.Random(seed)
        self.l2s = [e & OFFSET for e in image.entries(image.l1, image.l1_size) if e & OFFSET]
        self.blocks = [e for e in image.entries(image.table, image.table_clusters * image.cluster // 8) if e]
        self.places = [image.l1, image.table] + self.l2s + self.blocks
        if image.snapshot_count:
            self.places += [image.snapshot_table] + [l1 for _, l1, _ in image.snapshots()]

    def value(self, old):
        """A word that is wrong in one of the ways in which tables go wrong."""
        image, pick = self.image, self.random
        return pick.choice([
            lambda: 0,
            lambda: pick.getrandbits(64),
            lambda: old ^ 1 << pick.randrange(64),
            lambda: COPIED | pick.choice(self.places),
            lambda: pick.choice(self.places),
            lambda: COPIED | pick.randrange(image.end() // image.cluster) * image.cluster,
            lambda: COPIED | image.end() + pick.randrange(1 << 20) * image.cluster,
            lambda: old + 512,
            lambda: COMPRESSED | pick.randrange(len(image.data)),
            lambda: image.get(pick.choice(self.l2s) + 8 * pick.randrange(image.cluster // 8)),
        ])()

    def word_in(self, place, count):
        at = place + 8 * self.random.randrange(count)
        old = self.image.get(at)
        new = self.value(old)
        self.image.put(at, new)
        return 'word at %#x: %#x -> %#x' % (at, old, new & (1 << 64) - 1)

    def l1_entry(self):
        return 'L1 ' + self.word_in(self.image.l1, self.image.l1_size)

    def l2_entry(self):
        return 'L2 ' + self.word_in(self.random.choice(self.l2s), self.image.cluster // 8)

    def reftable_entry(self):
        return 'refcount table ' + self.word_in(self.image.table, 2)

    def lost_block(self):
        self.image.put(self.image.table, 0)
        return 'first refcount block lost'

    def zero_block(self):
        block = self.random.choice(self.blocks)
        self.image.data[block:block + self.image.cluster] = bytes(self.image.cluster)
        return 'refcount block at %#x zeroed' % block

    def counts(self):
        block = self.random.choice(self.blocks)
        for _ in range(self.random.randrange(1, 20)):
            self.image.put(block + self.random.randrange(64), self.random.getrandbits(8), 1)
        return 'counts at %#x' % block

    def some_bytes(self):
        place = self.random.choice(self.places)
        for _ in range(self.random.randrange(1, 8)):
            self.image.put(place + self.random.randrange(min(256, self.image.cluster)), self.random.getrandbits(8), 1)
        return 'bytes at %#x' % place

    def table_on_table(self):
        a, b = self.random.choice(self.places), self.random.choice(self.places)
        self.image.data[a:a + 512] = self.image.data[b:b + 512]
        return 'first sector of %#x over %#x' % (b, a)

    def reftable_place(self):
        new = self.random.choice(self.places + [0, 512, self.image.end() + self.image.cluster, 1 << 60])
        self.image.put(48, new)
        return 'refcount table at %#x' % new

    def reftable_length(self):
        self.image.put(56, self.random.choice([0, 1, 2, 1000, 1 << 31]), 4)
        return 'length of the refcount table'

    def marks(self):
        if self.image.version >= 3:
            self.image.put(72, self.image.get(72) | self.random.choice([1, 2, 3]))
        return 'dirty or corrupt bit'

    def in_header(self, l1):
        """An entry that is broken already may say so: without its header this would be no image."""
        return l1 < self.image.cluster

    def snapshot(self):
        if not self.image.snapshot_count:
            return self.l2_entry()
        place, l1, _ = self.random.choice(self.image.snapshots())
        if self.random.random() < 0.5 or self.in_header(l1):
            self.image.put(place, self.random.choice(self.places + [0, 512, 1 << 62, self.image.end()]))
            return 'L1 table of a snapshot moved'
        return 'L1 of a snapshot: ' + self.word_in(l1, self.image.l1_size)

    def shared_tables(self):
        """L1 entries, of the active table or of a snapshot's, that name the same L2 table."""
        entry = self.random.choice([COPIED, 0]) | self.random.choice(self.l2s)
        l1s = [self.image.l1] + [l1 for _, l1, _ in self.image.snapshots() if not self.in_header(l1)]
        for _ in range(self.random.randrange(1, 6)):
            self.image.put(self.random.choice(l1s) + 8 * self.random.randrange(self.image.l1_size), entry)
        return 'L1 entries that share the table at %#x' % (entry & OFFSET)

    def shared_clusters(self):
        """L2 entries that name the same data."""
        entry = self.image.get(self.random.choice(self.l2s) + 8 * self.random.randrange(self.image.cluster // 8))
        for _ in range(self.random.randrange(1, 20)):
            at = self.random.choice(self.l2s) + 8 * self.random.randrange(self.image.cluster // 8)
            self.image.put(at, entry)
        return 'L2 entries like %#x' % entry

    def cut_off(self):
        cut = self.random.randrange(1, 4 * self.image.cluster)
        if max(self.places) + self.image.cluster <= len(self.image.data) - cut:
            del self.image.data[-cut:]
        return 'the end of the file is cut off'

    def run(self):
        kinds = [self.l1_entry, self.l2_entry, self.l2_entry, self.reftable_entry, self.lost_block, self.zero_block,
                 self.counts, self.some_bytes, self.table_on_table, self.reftable_place, self.reftable_length,
                 self.marks, self.snapshot, self.snapshot, self.cut_off, self.shared_tables, self.shared_clusters]
        return '; '.join(self.random.choice(kinds)() for _ in range(self.random.choice([1, 1, 2, 4])))


def digests(name):
    return [None if data is None else hashlib.md5(data).digest() for data in Image(name).guest()]


def run(*command):
    """Exit status and output; a hang is status 124."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=False)
        return done.returncode, done.stdout.decode(errors='replace')
    except subprocess.TimeoutExpired:
        return 124, 'hangs'


def one_case(base, seed):
    """(exit status of the repair, what was done, what is wrong or '', is the active L1 table lost?)"""
    shutil.copy(base, 'disk.qcow2')
    image = Image('disk.qcow2')
    what = Breaker(image, seed).run()
    with open('disk.qcow2', 'wb') as file:
        file.write(image.data)
    before = digests('disk.qcow2')
    status, output = run(os.environ['BLKSTACK_IMG'], 'check', '-r', 'all', '-f', 'qcow2', 'disk.qcow2')
    lost = 'nothing is repaired' in output
    if not 0 <= status <= 3:
        return status, what, 'status %d: %s' % (status, output[-500:]), lost
    after = digests('disk.qcow2')
    changed = [i for i, (x, y) in enumerate(zip(before, after)) if x not in (None, y)]
    if changed or len(before) != len(after):
        return status, what, 'guest clusters %s read otherwise: %s' % (changed[:5], output[:1500]), lost
    if status == 0:
        for program in 'BLKSTACK_IMG', 'QEMU_IMG':
            found, output = run(os.environ[program], 'check', '-f', 'qcow2', 'disk.qcow2')
            if found != 0:
                return status, what, '%s finds: %s' % (program, output[:1500]), lost
    return status, what, '', lost


def main():
    base, cases, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    statuses = []
    for number in range(seed, seed + cases):
        status, what, wrong, lost = one_case(base, number)
        statuses.append(status)
        if wrong:
            print('wrong %d: %s: %s' % (number, what, wrong.replace('\n', ' | ')))
        elif status:
            print('%s %d: %s' % ('lost' if lost else 'left', number, what))
    print('repaired %d of %d' % (statuses.count(0), cases))


main()
