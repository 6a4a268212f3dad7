#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes hostile qcow2 images: craft.py list GROUP | craft.py IMAGE GROUP CASE.

IMAGE must be a sound qcow2 image of version 3 with 64 KiB clusters, 16-bit refcounts, plain data in the first megabyte,
compressed data from 4 MiB on, and one internal snapshot; for the group "bitmaps" also the bitmaps "b0" and "b1", both with some
bits set. CASE changes a few bytes of it in place. Groups that begin with
"extended" want one with extended L2 entries, those with "data-file" one with an external data file and plain data only.
"""
import struct
import sys

COPIED, COMPRESSED = 1 << 63, 1 << 62
FORMATS = {1: '>B', 2: '>H', 4: '>I', 8: '>Q'}


class Image:
    def __init__(self, name):
        self.file = open(name, 'r+b')
        self.l1 = self.get(40)
        self.l2 = self.get(self.l1) & 0x00fffffffffffe00
        self.table = self.get(48)
        self.block = self.get(self.table)
        self.snapshots = self.get(64)
        width = 16 if self.get(72) & 1 << 4 else 8      # of an L2 entry: extended ones have a bitmap
        self.plain = self.l2                    # L2 entry of guest offset 0
        self.packed = self.l2 + width * 64      # L2 entry of guest offset 4 MiB

    def get(self, offset, size=8):
        self.file.seek(offset)
        return struct.unpack(FORMATS[size], self.file.read(size))[0]

    def put(self, offset, value, size=8):
        self.file.seek(offset)
        self.file.write(struct.pack(FORMATS[size], value))

    def bytes(self, offset, data):
        self.file.seek(offset)
        self.file.write(data)

    def payload(self):
        return self.get(self.packed) & ((1 << 54) - 1)


def extensions(image, data):
    image.bytes(112, data)


def backing(image, name, offset=8192, size=None):
    image.put(8, offset)
    image.put(16, len(name) if size is None else size, 4)
    image.bytes(offset, name)


def feature_name(image):
    extensions(image, struct.pack('>II', 0x6803f857, 48) + bytes([0, 45]) + b'time travel'.ljust(46, b'\0') + bytes(8))
    image.put(72, 1 << 45)


def data_file(image, name, bit):
    padded = name.ljust((len(name) + 7) // 8 * 8, b'\0')
    extensions(image, struct.pack('>II', 0x44415441, len(name)) + padded + bytes(8))
    image.put(72, bit)


# Refused at open: group -> name -> change.
HEADER = {
    'header': {
        'header-length-huge': lambda i: i.put(100, 0xfffffff8, 4),
        'header-length-beyond-cluster': lambda i: i.put(100, 65544, 4),
        'header-length-short': lambda i: i.put(100, 72, 4),
        'header-length-odd': lambda i: i.put(100, 109, 4),
        'version-1': lambda i: i.put(4, 1, 4),
        'version-4': lambda i: i.put(4, 4, 4),
        'cluster-bits-0': lambda i: i.put(20, 0, 4),
        'cluster-bits-22': lambda i: i.put(20, 22, 4),
        'cluster-bits-huge': lambda i: i.put(20, 0xffffffff, 4),
        'size-huge': lambda i: i.put(24, (1 << 64) - 1),
        'extension-giant': lambda i: extensions(i, struct.pack('>II', 0x12345678, 0xffffffff)),
        'extension-beyond-cluster': lambda i: extensions(i, struct.pack('>II', 0x12345678, 65536)),
        'backing-name-beyond-cluster': lambda i: backing(i, b'x', 65530, 100),
        'backing-name-far-away': lambda i: i.put(8, 1 << 40) or i.put(16, 10, 4),
        'backing-name-long': lambda i: backing(i, b'x' * 2000),
        'backing-name-in-header': lambda i: i.put(8, 16) or i.put(16, 10, 4),
        'backing-name-empty': lambda i: backing(i, b'', 8192, 0) or i.put(8, 8192),
        'backing-name-with-nul': lambda i: backing(i, b'ab\0cd'),
        'feature-named': feature_name,
        'feature-unnamed': lambda i: i.put(72, 1 << 44),
        'encryption-unknown': lambda i: i.put(32, 77, 4),
    },
    'compression-type': {
        'zstd-without-bit': lambda i: i.put(104, 1, 1),
        'zlib-with-bit': lambda i: i.put(72, 8),
        'unknown-with-bit': lambda i: i.put(104, 7, 1) or i.put(72, 8),
        'unknown-without-bit': lambda i: i.put(104, 255, 1),
    },
    'tables': {
        'refcount-order-7': lambda i: i.put(96, 7, 4),
        'refcount-order-huge': lambda i: i.put(96, 0xffffffff, 4),
    },
}

# Tables of mappings that cannot be where, or as long as, the header or the snapshot table says.
DAMAGED = {
    'l1-place': {                   # nobody knows where the table is
        'unaligned': lambda i: i.put(40, i.l1 + 8),
        'far': lambda i: i.put(40, 0x7fffffffffff0000),
        'negative': lambda i: i.put(40, 0xffffffffffff0000),
        'outside': lambda i: i.put(40, end(i) + 0x80000),
        'at-0': lambda i: i.put(40, 0),
        'on-refcount-table': lambda i: i.put(40, i.table),
        'on-snapshots': lambda i: i.put(40, i.snapshots),
    },
    'l1-length': {
        'large': lambda i: i.put(36, 0x7fffffff, 4),
        'huge': lambda i: i.put(36, 0xffffffff, 4),
        'empty': lambda i: i.put(36, 0, 4),
        'outside': lambda i: i.put(36, 4 << 20, 4),
        'over-l2': lambda i: i.put(36, 20000, 4),
        'size-above': lambda i: i.put(24, 1 << 40),
    },
    'snapshots-number': {
        'many': lambda i: i.put(60, 65537, 4),
        'huge': lambda i: i.put(60, 0xffffffff, 4),
    },
    'snapshots-place': {            # nobody knows where the table is
        'unaligned': lambda i: i.put(64, i.snapshots + 8),
        'overflow': lambda i: i.put(64, 0xffffffffffff0000),
        'at-0': lambda i: i.put(64, 0),
    },
    'snapshot-l1': {                # can be repaired
        'large': lambda i: i.put(i.snapshots + 8, 0x7fffffff, 4),
        'empty': lambda i: i.put(i.snapshots + 8, 0, 4),
    },
    'snapshot-twin': {'on-active-l1': lambda i: i.put(i.snapshots, i.l1)},
}

# Refused at open, but not by check, which can do without.
REFCOUNT_TABLE = {
    'refcount-table': {
        'absent': lambda i: i.put(56, 0, 4),
        'large': lambda i: i.put(56, 0x7fffffff, 4),
        'unaligned': lambda i: i.put(48, 0x10200),
        'far': lambda i: i.put(48, 0x7fffffffffff0000),
        'at-0': lambda i: i.put(48, 0),
        'on-l1': lambda i: i.put(48, i.l1),
        'on-l2': lambda i: i.put(48, i.l2),
        'on-snapshots': lambda i: i.put(48, i.snapshots),
    },
}

# Refused by what reads the snapshot table, info; check finds it.
SNAPSHOT = {
    'snapshot': {
        'table-past-end': lambda i: i.put(64, 1 << 40),
        'more-than-there-are': lambda i: i.put(60, 60000, 4),
        'extra-data-huge': lambda i: i.put(i.snapshots + 36, 0xffffffff, 4),
        'extra-data-large': lambda i: i.put(i.snapshots + 36, 1025, 4),
        'name-long': lambda i: i.put(i.snapshots + 14, 65535, 2) or i.put(60, 60000, 4),
        'l1-unaligned': lambda i: i.put(i.snapshots, 12345),
        'l1-overflow': lambda i: i.put(i.snapshots, 0xffffffffffff0000),
    },
}

def snapshot_entries(image):
    """[head of 40 bytes, extra data, id, name] of each snapshot."""
    entries, place = [], image.snapshots
    for _ in range(image.get(60, 4)):
        image.file.seek(place)
        head = bytearray(image.file.read(40))
        sizes = struct.unpack('>I', head[36:])[0], *struct.unpack('>HH', head[12:16])
        entries.append([head] + [image.file.read(size) for size in sizes])
        place += (40 + sum(sizes) + 7) // 8 * 8
    return entries


def change_entry(image, index, extra=None, name_id=None, name=None):
    """Another extra data, id or name of snapshot @index; lengths follow."""
    entries = snapshot_entries(image)
    for part, new in enumerate((extra, name_id, name), 1):
        entries[index][part] = entries[index][part] if new is None else new
    table = b''
    for head, *parts in entries:
        head[12:16] = struct.pack('>HH', len(parts[1]), len(parts[2]))
        head[36:40] = struct.pack('>I', len(parts[0]))
        table += (bytes(head) + b''.join(parts)).ljust((40 + sum(map(len, parts)) + 7) // 8 * 8, b'\0')
    image.bytes(image.snapshots, table)


# With a second snapshot, "two". "snapshot-odd": unusual, but the format allows it. "snapshot-lies": it does not.
CHANGED_SNAPSHOTS = {
    'snapshot-odd': {
        'id-twice': lambda i: change_entry(i, 1, name_id=b'1'),
        'id-long': lambda i: change_entry(i, 0, name_id=b'7' * 100),
        'id-largest': lambda i: change_entry(i, 1, name_id=b'18446744073709551615'),
        'name-twice': lambda i: change_entry(i, 1, name=b'one'),
        'name-of-other-id': lambda i: change_entry(i, 1, name=b'1'),
        'name-long': lambda i: change_entry(i, 1, name=b'x' * 5000),
        'name-empty': lambda i: change_entry(i, 1, name=b''),
        'name-no-text': lambda i: change_entry(i, 1, name=b'\xff\x00\xfe\n'),
        'extra-16': lambda i: change_entry(i, 0, extra=struct.pack('>QQ', 0, 64 << 20)),
        'extra-1024': lambda i: change_entry(i, 0, extra=struct.pack('>QQ', 0, 64 << 20) + bytes(range(252)) * 4),
        'disk-smaller': lambda i: change_entry(i, 0, extra=struct.pack('>QQQ', 0, 32 << 20, 0)),
    },
    'snapshot-lies': {
        'table-cut-off': lambda i: i.file.truncate(i.snapshots + 50),
        'extra-none': lambda i: change_entry(i, 0, extra=b''),
        'extra-8': lambda i: change_entry(i, 0, extra=bytes(8)),
        'id-empty': lambda i: change_entry(i, 0, name_id=b''),
        'extra-1032': lambda i: change_entry(i, 0, extra=bytes(1032)),
        'disk-huge': lambda i: change_entry(i, 0, extra=struct.pack('>QQQ', 0, 1 << 62, 0)),
        'disk-negative': lambda i: change_entry(i, 0, extra=struct.pack('>QQQ', 0, (1 << 64) - 512, 0)),
        'l1-outside': lambda i: i.put(i.snapshots, end(i) + 0x100000),
        'l1-unaligned': lambda i: i.put(i.snapshots, i.get(i.snapshots) + 512),
        'l1-on-header': lambda i: i.put(i.snapshots, 0),
        'l1-on-l1': lambda i: i.put(i.snapshots, i.l1),
        'l1-on-l2': lambda i: i.put(i.snapshots, i.l2),
        'l1-on-data': lambda i: i.put(i.snapshots, i.get(i.plain) & 0x00fffffffffffe00),
        'l1-on-refcounts': lambda i: i.put(i.snapshots, i.table),
        'l1-on-table': lambda i: i.put(i.snapshots, i.snapshots),
        'l1-long': lambda i: i.put(i.snapshots + 8, 20000, 4),
        'l1-empty': lambda i: i.put(i.snapshots + 8, 0, 4),
        'table-on-l2': lambda i: i.put(64, i.l2),
        'table-on-data': lambda i: i.put(64, i.get(i.plain) & 0x00fffffffffffe00),
    },
}

# Opened, and found by check.
TABLE = {
    'entries': {
        'l2-past-end': lambda i: i.put(i.l1, COPIED | 1 << 45),
        'l2-unaligned': lambda i: i.put(i.l1, COPIED | i.l2 + 512),
        'l2-is-header': lambda i: i.put(i.l1, COPIED | 0x10000),
        'l2-is-l1': lambda i: i.put(i.l1, COPIED | i.l1),
        'data-past-end': lambda i: i.put(i.plain, COPIED | 1 << 45),
        'data-beyond-refcounts': lambda i: i.put(i.plain, COPIED | 0x00ffffffffff0000),
        'data-unaligned': lambda i: i.put(i.plain, i.get(i.plain) + 512),
        'data-is-l2': lambda i: i.put(i.plain, COPIED | i.l2),
        'data-twice': lambda i: i.put(i.plain, i.get(i.plain + 8)),
        'refcount-block-past-end': lambda i: i.put(i.table, 1 << 45),
        'refcount-block-unaligned': lambda i: i.put(i.table, i.block + 512),
        'refcount-block-at-0': lambda i: i.put(i.table, 0),
        'refcount-block-is-table': lambda i: i.put(i.table, i.table),
        'refcount-block-twice': lambda i: i.put(i.table + 8, i.block),
        'refcount-too-low': lambda i: i.put(i.block + 2 * (i.l2 >> 16), 0, 2),
    },
    'payload': {
        'past-end': lambda i: i.put(i.packed, COMPRESSED | 1 << 45),
        'at-0': lambda i: i.put(i.packed, COMPRESSED),
        'over-l2': lambda i: i.put(i.packed, COMPRESSED | i.l2),
        'copied': lambda i: i.put(i.packed, COPIED | i.get(i.packed)),
    },
}

EXTENDED = {
    'extended-header': {
        'clusters-too-small': lambda i: i.put(20, 13, 4),
        'clusters-smallest': lambda i: i.put(20, 9, 4),
    },
    'extended-length': {'size-above-l1': lambda i: i.put(24, 300 << 20)},
    'extended-entries': {
        'bit-for-both': lambda i: i.put(i.plain + 8, i.get(i.plain + 8) | 1 << 32),
        'all-bits': lambda i: i.put(i.plain + 8, (1 << 64) - 1),
        'data-without-space': lambda i: i.put(i.plain, 0),
        'data-without-space-copied': lambda i: i.put(i.plain, COPIED),
        'data-unaligned': lambda i: i.put(i.plain, i.get(i.plain) + 512),
        'data-past-end': lambda i: i.put(i.plain, COPIED | 1 << 45),
        'data-is-l2': lambda i: i.put(i.plain, COPIED | i.l2),
        'reserved-zero-flag': lambda i: i.put(i.plain, i.get(i.plain) | 1),
        'compressed-with-data-bits': lambda i: i.put(i.packed + 8, 5),
        'compressed-with-zero-bits': lambda i: i.put(i.packed + 8, 5 << 32),
        'compressed-copied': lambda i: i.put(i.packed, COPIED | i.get(i.packed)),
        'standard-entries': lambda i: i.put(72, 0),
    },
    'extended-bit': {'standard-entries-as-extended': lambda i: i.put(72, 1 << 4)},
}

DATA_FILE = {
    'data-file-header': {
        'name-empty': lambda i: data_file(i, b'', 4),
        'name-with-nul': lambda i: data_file(i, b'ab\0cd', 4),
        'name-beyond-cluster': lambda i: extensions(i, struct.pack('>II', 0x44415441, 65536)),
        'with-snapshots': lambda i: i.put(60, 1, 4) or i.put(64, 0x50000),
    },
    'data-file-entries': {
        'elsewhere': lambda i: i.put(i.plain + 8, i.get(i.plain + 8) + 65536),
        'far': lambda i: i.put(i.plain + 8, COPIED | 1 << 50),
        'unaligned': lambda i: i.put(i.plain + 8, i.get(i.plain + 8) + 512),
        'not-copied': lambda i: i.put(i.plain + 8, 65536),
        'compressed': lambda i: i.put(i.plain + 8, COMPRESSED | 65536),
        'compressed-over-header': lambda i: i.put(i.plain, COMPRESSED | 512),
        'l2-past-end': lambda i: i.put(i.l1, COPIED | 1 << 45),
    },
    'data-file-open': {
        'missing': lambda i: data_file(i, b'missing.raw', 4),
        'itself': lambda i: data_file(i, b'disk.qcow2', 4),
        'unnamed': lambda i: i.put(112, 0x12345678, 4),
    },
    'data-file-bit': {'bit-removed': lambda i: i.put(72, 0)},
}

# Only `check --data` can see these.
DATA = {
    'data': {
        'garbage': lambda i: i.bytes(i.payload(), b'\xff' * 16),
        'cut-off': lambda i: i.bytes(i.payload() + 4, bytes(8)),
        'too-short': lambda i: i.bytes(i.payload(), b'\x03\x00'),
    },
}
# Names of other files. The test makes host.img, a file, and pipe, a FIFO, in the directory above the image.
NAMES = {
    'backing-name': {
        'host-file': lambda i: backing(i, b'../host.img'),
        'host-file-by-protocol': lambda i: backing(i, b'file:../host.img'),
        'host-file-by-json': lambda i: backing(i, b'json:{"driver":"raw","file":{"driver":"file","filename":'
                                                  b'"../host.img"}}'),
        'host-file-by-json-of-qcow2': lambda i: backing(i, b'json:{"driver":"qcow2","file":{"driver":"file",'
                                                           b'"filename":"../host.img"}}'),
        'host-file-by-link': lambda i: backing(i, b'link'),
        'pipe': lambda i: backing(i, b'../pipe'),
        'device': lambda i: backing(i, b'/dev/zero'),
        'device-by-json': lambda i: backing(i, b'json:{"driver":"file","filename":"/dev/zero"}'),
        'network': lambda i: backing(i, b'nbd://localhost:1/x'),
    },
    'unnamed-format': {'backing-format-removed': lambda i: i.put(112, 0x12345678, 4)},
    'data-file-name': {
        'host-file': lambda i: data_file(i, b'../host.img', 4),
        'host-file-by-json': lambda i: data_file(i, b'json:{"driver":"file","filename":"../host.img"}', 4),
        'pipe': lambda i: data_file(i, b'../pipe', 4),
        'device': lambda i: data_file(i, b'/dev/zero', 4),
        'host-file-by-protocol': lambda i: data_file(i, b'file:../host.img', 4),
        'host-file-by-link': lambda i: data_file(i, b'link', 4),
        'network': lambda i: data_file(i, b'nbd://localhost:1/x', 4),
    },
}


def end(image):
    return image.file.seek(0, 2) + 65535 & ~65535


def costly_l1(image):
    """The largest active L1 table, and each entry names the same L2 table."""
    place, entry = end(image), struct.pack('>Q', image.get(image.l1))
    image.bytes(place, entry * (4 << 20))
    image.put(36, 4 << 20, 4)
    image.put(40, place)


def costly_refcounts(image, entry):
    """The largest refcount table, and each entry is the same."""
    place = end(image)
    image.bytes(place, struct.pack('>Q', image.block) + struct.pack('>Q', entry) * ((1 << 20) - 1))
    image.put(48, place)
    image.put(56, 128, 4)


def costly_snapshots(image):
    """As many snapshots as there may be, each with the largest L1 table, and all of them the same table."""
    table, place = end(image), end(image) + (4 << 20)
    name = b'a' * 15
    image.bytes(table, (struct.pack('>QIHHIIQII', place, 4 << 20, 1, len(name), 0, 0, 0, 0, 16) + bytes(16) +
                        b'1' + name) * 65535)
    image.file.truncate(place + (32 << 20))
    image.put(60, 65535, 4)
    image.put(64, table)


COSTLY = {
    'costly': {
        'l1-of-one-l2': costly_l1,
        'l1-of-holes': lambda i: i.file.truncate(1 << 40) and i.put(36, 4 << 20, 4) or i.put(40, 1 << 30),
        'refcount-table-of-one-block': lambda i: costly_refcounts(i, i.block),
        'refcount-table-of-holes': lambda i: costly_refcounts(i, 0),
        'snapshots': costly_snapshots,
        'file-of-exabytes': lambda i: i.file.truncate(1 << 43),
        'extensions-many': lambda i: extensions(i, struct.pack('>II', 0x12345678, 0) * 8190),
        'features-many': lambda i: extensions(i, struct.pack('>II', 0x6803f857, 48 * 1300) +
                                              (b'\2\5' + b'x' * 46) * 1300),
    },
}
class Bitmaps:
    """Places of the bitmaps of an image: of the extension's data, the directory, its two entries, their tables."""

    def __init__(self, image):
        image.file.seek(0)
        head = image.file.read(65536)
        self.extension = head.index(struct.pack('>II', 0x23852875, 24)) + 8
        self.directory = image.get(self.extension + 16)
        self.first = self.directory
        self.second = self.directory + 32
        self.table = image.get(self.first)
        self.data = image.get(self.table)


def bitmaps(change):
    return lambda image: change(image, Bitmaps(image))


# Only the bitmaps are damaged: the disk can be read. In most cases one of them is sound.
BITMAPS = {
    'bitmaps-all': {
        'count-0': bitmaps(lambda i, b: i.put(b.extension, 0, 4)),
        'count-large': bitmaps(lambda i, b: i.put(b.extension, 65536, 4)),
        'count-huge': bitmaps(lambda i, b: i.put(b.extension, 0xffffffff, 4)),
        'reserved': bitmaps(lambda i, b: i.put(b.extension + 4, 1, 4)),
        'extension-short': bitmaps(lambda i, b: i.put(b.extension - 4, 16, 4)),
        'directory-huge': bitmaps(lambda i, b: i.put(b.extension + 8, (1 << 64) - 1)),
        'directory-large': bitmaps(lambda i, b: i.put(b.extension + 8, 65535 * 1024 + 8)),
        'directory-past-end': bitmaps(lambda i, b: i.put(b.extension + 16, 1 << 45)),
        'directory-overflow': bitmaps(lambda i, b: i.put(b.extension + 16, 0xffffffffffff0000)),
        'directory-unaligned': bitmaps(lambda i, b: i.put(b.extension + 16, b.directory + 8)),
        'directory-at-0': bitmaps(lambda i, b: i.put(b.extension + 16, 0)),
        'directory-is-l2': bitmaps(lambda i, b: i.put(b.extension + 16, i.l2)),
        'directory-is-table': bitmaps(lambda i, b: i.put(b.extension + 16, b.table)),
    },
    'bitmaps-one': {
        'count-3': bitmaps(lambda i, b: i.put(b.extension, 3, 4)),
        'directory-short': bitmaps(lambda i, b: i.put(b.extension + 8, 40)),
        'name-empty': bitmaps(lambda i, b: i.put(b.second + 18, 0, 2)),
        'name-long': bitmaps(lambda i, b: i.put(b.second + 18, 1024, 2)),
        'name-with-nul': bitmaps(lambda i, b: i.bytes(b.second + 24, b'b\0')),
        'name-twice': bitmaps(lambda i, b: i.bytes(b.second + 24, b'b0')),
        'extra-huge': bitmaps(lambda i, b: i.put(b.second + 20, 0xfffffff0, 4)),
        'flags-unknown': bitmaps(lambda i, b: i.put(b.first + 12, 0x80000002, 4)),
        'type-unknown': bitmaps(lambda i, b: i.put(b.first + 16, 2, 1)),
        'granularity-8': bitmaps(lambda i, b: i.put(b.first + 17, 8, 1)),
        'granularity-255': bitmaps(lambda i, b: i.put(b.first + 17, 255, 1)),
        'granularity-other': bitmaps(lambda i, b: i.put(b.first + 17, 9, 1) or i.put(b.second + 17, 20, 1) or
                                     i.put(b.first + 8, 2, 4)),
        'table-size-0': bitmaps(lambda i, b: i.put(b.first + 8, 0, 4)),
        'table-size-2': bitmaps(lambda i, b: i.put(b.first + 8, 2, 4)),
        'table-size-huge': bitmaps(lambda i, b: i.put(b.first + 8, 0xffffffff, 4)),
        'table-at-0': bitmaps(lambda i, b: i.put(b.first, 0)),
        'table-unaligned': bitmaps(lambda i, b: i.put(b.first, b.table + 8)),
        'table-past-end': bitmaps(lambda i, b: i.put(b.first, 1 << 45)),
        'table-overflow': bitmaps(lambda i, b: i.put(b.first, 0xffffffffffff0000)),
        'table-is-l2': bitmaps(lambda i, b: i.put(b.first, i.l2)),
        'table-twice': bitmaps(lambda i, b: i.put(b.second, b.table)),
        'data-past-end': bitmaps(lambda i, b: i.put(b.table, 1 << 45)),
        'data-unaligned': bitmaps(lambda i, b: i.put(b.table, b.data + 512)),
        'data-and-ones': bitmaps(lambda i, b: i.put(b.table, b.data + 1)),
        'data-reserved': bitmaps(lambda i, b: i.put(b.table, b.data | 1 << 63)),
        'data-is-l2': bitmaps(lambda i, b: i.put(b.table, i.l2)),
        'data-is-header': bitmaps(lambda i, b: i.put(b.table, 1 << 16)),
        'data-twice': bitmaps(lambda i, b: i.put(i.get(b.second), b.data)),
    },
}


def costly_bitmaps(image):
    """As many bitmaps as there may be, with one table of ones, in a directory of their own."""
    b, place = Bitmaps(image), end(image)
    image.put(b.table, 1)
    entries = b''.join(struct.pack('>QIIBBHI', b.table, 1, 2, 1, 16, 6, 0) + b'%06d' % n + bytes(2) for n in range(65535))
    image.bytes(place, entries)
    image.put(b.extension, 65535, 4)
    image.put(b.extension + 8, len(entries))
    image.put(b.extension + 16, place)


def costly_directory(image):
    """The largest directory, all of it a hole."""
    b, place = Bitmaps(image), end(image)
    image.file.truncate(place + (64 << 20))
    image.put(b.extension, 65535, 4)
    image.put(b.extension + 8, 65535 * 1024)
    image.put(b.extension + 16, place)


COSTLY_BITMAPS = {'bitmaps-costly': {'many': costly_bitmaps, 'directory-of-holes': costly_directory}}


def uncount(image, offset):
    image.put(image.block + 2 * (offset >> 16), 0, 2)


def snapshot_l2(image):
    return image.get(image.get(image.snapshots)) & 0x00fffffffffffe00


# Found when somebody writes.
CORRUPT = {
    'corrupt': {
        'data-count-0': lambda i: uncount(i, i.get(i.plain) & 0x00fffffffffffe00),
        'payload-is-header': lambda i: i.put(i.plain, COMPRESSED),
        'data-is-refcount-block': lambda i: i.put(i.plain, COPIED | i.block),
        'snapshot-l1-count-0': lambda i: uncount(i, i.get(i.snapshots)),
        'snapshot-l2-count-0': lambda i: uncount(i, snapshot_l2(i)),
        'snapshot-table-count-0': lambda i: uncount(i, i.snapshots),
    },
}
GROUPS = {**BITMAPS, **CHANGED_SNAPSHOTS, **COSTLY_BITMAPS, **COSTLY, **CORRUPT, **DAMAGED, **HEADER, **REFCOUNT_TABLE, **SNAPSHOT, **TABLE, **EXTENDED,
          **DATA_FILE, **DATA, **NAMES}


def main():
    if sys.argv[1] == 'list':
        print('\n'.join(GROUPS[sys.argv[2]]))
        return
    changes = [group[sys.argv[3]] for name, group in GROUPS.items() if name == sys.argv[2]]
    image = Image(sys.argv[1])
    changes[0](image)
    image.file.close()


main()
