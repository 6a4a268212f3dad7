#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes VMDK images that lie, and ones of kinds that nobody here creates.

    craft_vmdk.py make GROUP [BASE]     all cases of the group, as CASE.GROUP.vmdk: copies of BASE that are changed (groups of
                                        sparse images), or descriptors; prints the cases
    craft_vmdk.py IMAGE cowd|sesparse MODEL [embedded]     an image that holds what the raw file MODEL does

Sparse images are as both programs make them: header, descriptor from sector 1 on, redundant directory at 21; the disk has
data in its first megabyte. "open" are images that must be refused when they are opened, "grain" ones whose first grain cannot
be read, "stream" the same of compressed images, "write" ones that must be refused, or whose first grain must, when written.
"""
import os
import shutil
import struct
import sys
import zlib

SECTOR, GRAIN = 512, 65536
FORMATS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}


class Image:
    def __init__(self, name):
        self.file = open(name, "r+b")
        self.rgd, self.gd = self.get(48), self.get(56)
        self.rgt, self.gt = self.get(self.rgd * SECTOR, 4), self.get(self.gd * SECTOR, 4)
        self.grain = self.get(self.gt * SECTOR, 4)

    def get(self, offset, size=8):
        self.file.seek(offset)
        return struct.unpack(FORMATS[size], self.file.read(size))[0]

    def put(self, offset, value, size=8):
        self.file.seek(offset)
        self.file.write(struct.pack(FORMATS[size], value))

    def bytes(self, offset, data):
        self.file.seek(offset)
        self.file.write(data)

    def payload(self, data, size=None):
        """The first grain becomes a marker with this payload, at the end of the file."""
        end = (self.file.seek(0, 2) + SECTOR - 1) // SECTOR
        self.bytes(end * SECTOR, struct.pack("<QI", 0, len(data) if size is None else size) + data)
        self.file.seek(0, 2)
        self.file.truncate((self.file.tell() + SECTOR - 1) // SECTOR * SECTOR)
        for table in (self.gt, self.rgt):
            self.put(table * SECTOR, end, 4)


def field(offset, value, size=8):
    return lambda image: image.put(offset, value, size)


def entry(value):
    """The first grain's entries."""
    def change(image):
        image.put(image.gt * SECTOR, value(image) if callable(value) else value, 4)
        image.put(image.rgt * SECTOR, value(image) if callable(value) else value, 4)
    return change


def table(value):
    """The first table's place."""
    return lambda image: image.put(image.gd * SECTOR, value(image) if callable(value) else value, 4)


def text(old, new):
    def change(image):
        image.file.seek(SECTOR)
        image.bytes(SECTOR, image.file.read(20 * SECTOR).replace(old, new, 1)[:20 * SECTOR])
    return change


OPEN = {
    "version-0": field(4, 0, 4),
    "version-4": field(4, 4, 4),
    "line-ends": field(75, 10, 1),
    "compression-unknown": field(77, 2, 2),
    "compression-without-flag": field(77, 1, 2),
    "capacity-huge": field(12, 1 << 63),
    "capacity-overflows-bytes": field(12, 1 << 55),
    "capacity-many-tables": field(12, 1 << 53),
    "grain-zero": field(20, 0),
    "grain-no-power": field(20, 96),
    "grain-huge": field(20, 1 << 40),
    "grain-overflows": field(20, 1 << 63),
    "descriptor-none": field(28, 0),
    "descriptor-far": field(28, 1 << 62),
    "descriptor-empty": field(36, 0),
    "descriptor-absurd": field(36, 1 << 61),
    "descriptor-large": field(36, 1 << 20),
    "descriptor-rubbish": lambda image: image.bytes(SECTOR, b"\xff" * SECTOR),
    "entries-zero": field(44, 0, 4),
    "entries-many": field(44, 513, 4),
    "entries-huge": field(44, 1 << 31, 4),
    "rgd-far": field(48, 1 << 60),
    "rgd-behind-the-end": field(48, 1 << 20),
    "gd-zero": field(56, 0),
    "gd-far": field(56, 1 << 63),
    "gd-behind-the-end": field(56, 1 << 20),
    "gd-at-end-without-footer": field(56, (1 << 64) - 1),
    "cid-rubbish": text(b"CID=", b"CID=xyz"),
    "cid-long": text(b"CID=", b"CID=00"),
}

GRAIN_CASES = {
    "entry-behind-the-end": entry(1 << 24),
    "entry-far": entry((1 << 32) - 1),
    "table-behind-the-end": table(1 << 24),
    "table-far": table((1 << 32) - 1),
}

STREAM = {
    "marker-zero": lambda image: image.put(image.grain * SECTOR + 8, 0, 4),
    "marker-huge": lambda image: image.put(image.grain * SECTOR + 8, (1 << 32) - 1, 4),
    "marker-size-and-head-overflow": lambda image: image.put(image.grain * SECTOR + 8, (1 << 32) - 12, 4),
    "marker-more-than-a-grain": lambda image: image.payload(b"x" * 70000),
    "marker-behind-the-end": lambda image: image.payload(zlib.compress(b"x" * GRAIN), 60000),
    "marker-cut-off": lambda image: (entry(lambda i: i.file.seek(0, 2) // SECTOR)(image),
                                     image.bytes(image.file.seek(0, 2), b"abc")),
    "payload-rubbish": lambda image: image.payload(b"\xaa" * 5000),
    "payload-raw-deflate": lambda image: image.payload(zlib.compress(b"x" * GRAIN)[2:-4]),
    "payload-wrong-checksum": lambda image: image.payload(zlib.compress(b"x" * GRAIN)[:-1] + b"\x99"),
    "payload-short": lambda image: image.payload(zlib.compress(b"x" * (GRAIN - 1))),
    "payload-long": lambda image: image.payload(zlib.compress(b"x" * (GRAIN + 1))),
    "payload-bomb": lambda image: image.payload(zlib.compress(bytes(60 << 20))),
    "payload-cut": lambda image: image.payload(zlib.compress(bytes(range(256)) * 256)[:100]),
    "entry-behind-the-end": entry(1 << 24),
}

WRITE = {
    "entry-on-the-header": entry(1),
    "entry-on-the-directory": entry(lambda image: image.gd),
    "entry-on-its-table": entry(lambda image: image.gt),
    "entry-before-the-tables": entry(lambda image: image.gd - 100 if image.gd > 100 else 2),
    "tables-overlap": table(lambda image: image.gd),
    "table-on-the-header": table(1),
    "table-on-the-descriptor": table(5),
    "table-is-the-redundant-one": table(lambda image: image.rgt),
    "table-behind-the-end": table(1 << 24),
}

CHECK = {
    "grains-overlap": lambda image: image.put(image.gt * SECTOR, image.get(image.gt * SECTOR + 4, 4), 4),
    "redundant-differs": lambda image: image.put(image.rgt * SECTOR, 77, 4),
}

HEAD = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n"


def extents(*lines):
    return HEAD + "".join(line + "\n" for line in lines)


DESCRIPTOR = {
    "no-extents": extents(),
    "many-extents": extents(*['RW 1 FLAT "beside.img" 0'] * 10000),
    "type-unknown": extents('RW 10 BOGUS "beside.img"'),
    "sectors-negative": extents('RW -1 FLAT "beside.img" 0'),
    "sectors-huge": extents('RW 99999999999999999999 FLAT "beside.img" 0'),
    "sum-overflows": extents(*['RW 9007199254740992 FLAT "beside.img" 0'] * 3),
    "offset-negative": extents('RW 1 FLAT "beside.img" -1'),
    "offset-huge": extents('RW 1 FLAT "beside.img" 36028797018963968'),
    "name-unterminated": extents('RW 1 FLAT "beside.img 0'),
    "name-empty": extents('RW 1 FLAT "" 0'),
    "name-missing": extents('RW 1 FLAT'),
    "name-of-itself": extents('RW 1 FLAT "name-of-itself.descriptor.vmdk" 0'),
    "sparse-is-no-extent": extents('RW 1 SPARSE "beside.img"'),
    "sparse-is-itself": extents('RW 1 SPARSE "sparse-is-itself.descriptor.vmdk"'),
    "sesparse-is-no-extent": extents('RW 1 SESPARSE "beside.img"'),
    "vmfssparse-is-no-extent": extents('RW 1 VMFSSPARSE "beside.img"'),
    "file-missing": extents('RW 1 FLAT "nosuch.img" 0'),
    "capacity-differs": extents('RW 77 SPARSE "base.vmdk"'),
    "parent-is-itself": HEAD.replace("ffffffff", "12345678")
    + 'parentFileNameHint="parent-is-itself.descriptor.vmdk"\nRW 128 FLAT "beside.img" 0\n',
    "parent-missing": HEAD.replace("ffffffff", "12345678")
    + 'parentFileNameHint="nosuch"\nRW 128 FLAT "beside.img" 0\n',
    "too-large": HEAD + "#" * (1 << 20) + "\n",
    "cut-off": HEAD[:40],
    "nothing-but-comments": "#" * 5000 + "\n",
}

# Extents that name what is not beside the image.
NAMES = {
    "absolute": lambda up: up + "/host.img",
    "above": lambda up: "../host.img",
    "link": lambda up: "link",
    "json": lambda up: "json:{}",       # quotes end a name
    "pipe": lambda up: "../pipe",
    "device": lambda up: "/dev/zero",
    "nbd": lambda up: "nbd://localhost:1/",
    "file-prefix": lambda up: "file:../host.img",
}


def name_descriptor(kind, case):
    name = NAMES[case](os.path.abspath(".."))
    if kind == "parent":
        return HEAD.replace("ffffffff", "12345678") + 'parentFileNameHint="%s"\nRW 128 FLAT "beside.img" 0\n' % name
    return extents('RW 128 FLAT "%s" 0' % name)


# ---- images of old kinds ----

def grains(model, size):
    data = open(model, "rb").read()
    return len(data), [data[at:at + size] for at in range(0, len(data), size)]


def cowd(image, model, embedded):
    """ESX server sparse: grains of a sector; tables of 4096 entries."""
    size, pieces = grains(model, SECTOR)
    tables = (len(pieces) + 4095) // 4096
    at = 4 + (tables * 4 + SECTOR - 1) // SECTOR
    directory, body = [], b""
    for first in range(0, len(pieces), 4096):
        some = pieces[first:first + 4096]
        if not any(any(piece) for piece in some):
            directory.append(0)
            continue
        directory.append(at)
        entries, data, at = [], b"", at + 32
        for piece in some:
            entries.append(at if any(piece) else 0)
            if any(piece):
                data += piece.ljust(SECTOR, b"\0")
                at += 1
        body += struct.pack("<%dI" % len(entries), *entries).ljust(4096 * 4, b"\0") + data
    head = struct.pack("<4sIIIIIII", b"COWD", 1, 3, size // SECTOR, 1, 4, tables, at).ljust(4 * SECTOR, b"\0")
    name = image if embedded else image.replace(".vmdk", "-delta.vmdk")
    with open(name, "wb") as out:
        out.write(head + struct.pack("<%dI" % tables, *directory).ljust((tables * 4 + 511) // 512 * 512, b"\0") + body)
    if not embedded:
        descriptor(image, "vmfsSparse", 'RW %d VMFSSPARSE "%s"' % (size // SECTOR, name))


def sesparse(image, model, embedded):
    """Grains of 4 KiB, whose numbers are split; tables of 4096 entries; all kinds of entries."""
    size, pieces = grains(model, 4096)
    tables = (len(pieces) + 4095) // 4096
    gd, gt, grain = 16, 16 + 64, 16 + 64 + 64 * tables + 8
    directory, bodies, data = [], b"", b"\xee" * 4096 * 3      # grains that nobody refers to
    for first in range(0, len(pieces), 4096):
        some = pieces[first:first + 4096]
        directory.append((1 << 60 | len(directory)) if any(any(piece) for piece in some) else 0)
        entries = []
        for index, piece in enumerate(some):
            number = len(data) // 4096
            if any(piece):
                entries.append(3 << 60 | (number & 0xfff) << 48 | number >> 12)
                data += piece.ljust(4096, b"\0")
            else:
                entries.append((0, 1 << 60, 2 << 60)[index % 3])
        bodies += struct.pack("<%dQ" % len(entries), *entries).ljust(64 * SECTOR, b"\0")
    head = struct.pack("<QQQQQQ", 0xcafebabe, 0x200000001, size // SECTOR, 8, 64, 0) + bytes(32)
    head += struct.pack("<16Q", 1, 1, 2, 2, 4, 4, gd, 64, gt, 64 * tables, 0, 0, 0, 0, grain, len(data) // SECTOR)
    volatile = struct.pack("<QQQQ", 0xcafecafe, tables, 1, 0)
    name = image.replace(".vmdk", "-sesparse.vmdk")
    with open(name, "wb") as out:
        out.write(head.ljust(SECTOR, b"\0") + volatile.ljust(SECTOR, b"\0") + bytes(14 * SECTOR))
        out.write(struct.pack("<%dQ" % tables, *directory).ljust(64 * SECTOR, b"\0") + bodies)
        out.write(bytes(grain * SECTOR - out.tell()) + data)
    descriptor(image, "seSparse", 'RW %d SESPARSE "%s"' % (size // SECTOR, name))


def descriptor(image, kind, *lines):
    with open(image, "w") as out:
        out.write(HEAD.replace("twoGbMaxExtentFlat", kind) + "".join(line + "\n" for line in lines))


CHANGES = {"open": OPEN, "grain": GRAIN_CASES, "stream": STREAM, "write": WRITE, "check": CHECK}


def main(argv):
    if argv[1] != "make":
        globals()[argv[2]](argv[1], argv[3], len(argv) > 4)
        return
    group = argv[2]
    cases = CHANGES.get(group) or {"descriptor": DESCRIPTOR, "extent": NAMES, "parent": NAMES}[group]
    for case in cases:
        name = "%s.%s.vmdk" % (case, group)
        if group in CHANGES:
            shutil.copy(argv[3], name)
            image = Image(name)
            cases[case](image)
            image.file.close()
        else:
            with open(name, "w") as out:
                out.write(DESCRIPTOR[case] if group == "descriptor" else name_descriptor(group, case))
    print(*cases)


main(sys.argv)
