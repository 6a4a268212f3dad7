#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""VHDX images that lie, made of a sound one; after [MS-VHDX].

    vhdx_craft.py BASE DIRECTORY    writes all images of CASES to the directory, and prints "name|what is said when it is opened"
    vhdx_craft.py guids IMAGE       prints FileWriteGuid, DataWriteGuid and LogGuid of the header that holds

BASE has one log of 1 MiB at 1 MiB, blocks of 2 MiB and data in its blocks 1 and 3. A case without words is sound: its blocks read as
those of BASE.
"""
import os
import struct
import sys

HEADERS, REGIONS, LOG, BAT, META, BLOCKS = (65536, 131072), (196608, 262144), 1 << 20, 2 << 20, 3 << 20, 4 << 20
SECTOR = 4096
ITEMS = META + 65536
GUID = bytes(range(1, 17))


def crc_table():
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        yield n


TABLE = list(crc_table())


def after_zeroes(matrix, crc):
    """What becomes of a remainder, which is linear in its bits."""
    out = 0
    for bit in range(32):
        out ^= matrix[bit] if crc >> bit & 1 else 0
    return out


ZEROES = [[1 << bit >> 8 ^ TABLE[1 << bit & 255] for bit in range(32)]]     # [n]: by 2**n bytes of zeroes
for _ in range(22):
    ZEROES.append([after_zeroes(ZEROES[-1], column) for column in ZEROES[-1]])


def crc32c(data):
    crc, some = 0xFFFFFFFF, data.rstrip(b"\0")
    for byte in some:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    for n in range(len(ZEROES)):
        if (len(data) - len(some)) >> n & 1:
            crc = after_zeroes(ZEROES[n], crc)
    return crc ^ 0xFFFFFFFF


def sign(data, at, size):
    data[at + 4:at + 8] = bytes(4)
    data[at + 4:at + 8] = struct.pack("<I", crc32c(bytes(data[at:at + size])))


def pieces(data, first=0):
    """What is not zeroes."""
    parts = ((at, bytes(data[at:at + 65536])) for at in range(first, len(data), 65536))
    return [(at, part) for at, part in parts if part.strip(b"\0")]


class Image:
    """All before the blocks, and how long the file is."""

    def __init__(self, base):
        self.data, self.length = bytearray(base[:BLOCKS]), len(base)

    def put(self, at, kind, *numbers):
        struct.pack_into("<" + kind, self.data, at, *numbers)
        return self

    def headers(self, offset, kind, *numbers):
        """A field of both headers."""
        for at in HEADERS:
            self.put(at + offset, kind, *numbers)
            sign(self.data, at, 4096)
        return self

    def regions(self, offset, kind, *numbers):
        """A field of both region tables."""
        self.put(REGIONS[0] + offset, kind, *numbers)
        sign(self.data, REGIONS[0], 65536)
        self.data[REGIONS[1]:REGIONS[1] + 65536] = self.data[REGIONS[0]:REGIONS[0] + 65536]
        return self

    def sequence_numbers(self, first, second):
        for at, number in zip(HEADERS, (first, second)):
            self.put(at + 8, "Q", number)
            sign(self.data, at, 4096)
        return self

    def log(self, *entries):
        """Entries, each at its place in the ring, in a log that is to be replayed."""
        for at, entry in entries:
            room = (1 << 20) - at
            self.data[LOG + at:LOG + at + len(entry[:room])] = entry[:room]
            self.data[LOG:LOG + len(entry[room:])] = entry[room:]
        return self.headers(48, "16s", GUID)

    def cut(self, length):
        self.length = length
        return self

    def write(self, name, blocks):
        with open(name, "wb") as file:
            for at, piece in pieces(self.data) + blocks:
                file.seek(at)
                file.write(piece)
            file.truncate(self.length)


def entry(sequence, tail, *descriptors, **fields):
    """Descriptors: (offset, 4096 bytes) or (offset, number of zeroes)."""
    length = fields.get("length", 9 << 20)
    heads, sectors = b"", b""
    for offset, what in descriptors:
        if isinstance(what, int):
            heads += struct.pack("<4sIQQQ", b"zero", 0, what, offset, sequence)
        else:
            heads += struct.pack("<4s4s8sQQ", b"desc", what[-4:], what[:8], offset, fields.get("data_sequence", sequence))
            sectors += struct.pack("<4sI4084sI", b"data", sequence >> 32, what[8:-4], sequence & 0xFFFFFFFF)
    head_bytes = (64 + len(heads) + SECTOR - 1) // SECTOR * SECTOR
    size = head_bytes + len(sectors)
    out = bytearray(size)
    struct.pack_into("<4sIIIQII16sQQ", out, 0, b"loge", 0, fields.get("bytes", size), tail, sequence,
                     fields.get("count", len(descriptors)), 0, fields.get("guid", GUID), fields.get("flushed", 0),
                     fields.get("last", length))
    out[64:64 + len(heads)] = heads
    out[head_bytes:] = sectors
    sign(out, 0, size)
    if "spoil" in fields:
        out[fields["spoil"]] ^= 1
    return bytes(out)


def cases(base):
    """Yields (name, words, image)."""
    def new():
        return Image(base)

    bat = bytes(base[BAT:BAT + SECTOR])
    lost = bytes(SECTOR)                            # a BAT without blocks
    rubbish = b"\xa5" * SECTOR
    cannot, lies = "cannot be at offset", "which no log may"

    yield "identifier", "not in VHDX format", new().put(0, "B", 5)
    yield "no-header", "neither of its two headers", new().put(HEADERS[0] + 100, "B", 1).put(HEADERS[1] + 100, "B", 1)
    yield "torn-header-1", "", new().sequence_numbers(9, 8).put(HEADERS[0] + 100, "B", 1)
    yield "torn-header-2", "", new().sequence_numbers(8, 9).put(HEADERS[1] + 100, "B", 1)
    yield "same-number", "sequence numbers do not", new().headers(16, "Q", 1).put(HEADERS[0] + 16, "Q", 2).sequence_numbers(7, 7)
    yield "version", "Unsupported VHDX version 2", new().headers(66, "H", 2)
    yield "log-version", "its log has version 1", new().headers(64, "H", 1)
    yield "log-nowhere", cannot, new().headers(72, "Q", 0)
    yield "log-unaligned", cannot, new().headers(72, "Q", (1 << 20) + 4096)
    yield "log-far", cannot, new().headers(72, "Q", 0xFFFFFFFFFFF00000)
    yield "log-empty", cannot, new().headers(68, "I", 0)
    yield "log-odd", cannot, new().headers(68, "I", 4096)
    yield "log-over-bat", "overlaps", new().headers(72, "Q", BAT)
    yield "log-too-long", "overlaps", new().headers(68, "I", 2 << 20)
    yield "log-behind-end", "ends within its log", new().headers(72, "Q", 1 << 40).headers(48, "16s", GUID)

    yield "no-regions", "neither of its two region tables", new().put(REGIONS[0], "B", 1).put(REGIONS[1], "B", 1)
    yield "region-table-1", "", new().put(REGIONS[0] + 5000, "B", 1)
    yield "region-table-2", "", new().put(REGIONS[1] + 5000, "B", 1)
    yield "many-regions", "neither of its two region tables", new().regions(8, "I", 2048)
    yield "no-bat", "does not name the BAT", new().regions(16, "I", 5).regions(44, "I", 0)
    yield "no-metadata", "does not name the metadata", new().regions(8, "I", 1)
    yield "two-bats", "names the BAT twice", new().regions(48, "16s", base[REGIONS[0] + 16:REGIONS[0] + 32])
    unknown = struct.pack("<16sQI", GUID, 64 << 20, 1 << 20)
    yield "region-required", "unknown kind", new().regions(8, "I", 3).regions(80, "28sI", unknown, 1)
    yield "region-unknown", "", new().regions(8, "I", 3).regions(80, "28sI", unknown, 0)
    yield "region-in-headers", cannot, new().regions(32, "Q", 0)
    yield "region-unaligned", cannot, new().regions(32, "Q", BAT + 4096)
    yield "region-empty", cannot, new().regions(40, "I", 0)
    yield "region-odd", cannot, new().regions(40, "I", 1000)
    yield "region-far", cannot, new().regions(32, "Q", 0x7FFFFFFFFFF00000 + (1 << 20))
    yield "region-behind-end", "ends within its BAT", new().regions(32, "Q", 1 << 40)
    yield "regions-overlap", "overlaps", new().regions(64, "Q", BAT)
    yield "region-over-log", "overlaps", new().regions(32, "Q", LOG)

    yield "metadata", "table of its metadata is damaged", new().put(META, "B", 5)
    yield "many-items", "table of its metadata is damaged", new().put(META + 10, "H", 2048)
    yield "item-unknown", "metadata of unknown kind", new().put(META + 10, "H", 6).put(META + 192, "16sIII", GUID, 65536, 8, 4)
    yield "item-of-user", "metadata of unknown kind", new().put(META + 56, "I", 5)
    yield "item-optional", "", new().put(META + 10, "H", 6).put(META + 192, "16sIII", GUID, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    yield "item-missing", "has no physical sector size", new().put(META + 10, "H", 4)
    yield "item-twice", "more than one", new().put(META + 64, "16s", base[META + 32:META + 48])
    yield "item-in-table", "cannot be", new().put(META + 48, "I", 32)
    yield "item-behind-region", "cannot be", new().put(META + 48, "I", (1 << 20) - 4)
    yield "item-far", "cannot be", new().put(META + 48, "I", 0xFFFFFFFC)
    yield "item-short", "cannot be", new().put(META + 52, "I", 7)
    yield "parent", "Differencing", new().put(ITEMS + 4, "I", 2)
    for name, size in ("0", 0), ("512k", 1 << 19), ("3m", 3 << 20), ("512m", 512 << 20):
        yield "block-" + name, "power of two from 1 MiB", new().put(ITEMS, "I", size)
    yield "sector-4096", "", new().put(ITEMS + 32, "II", 4096, 4096)
    for size in 0, 1024, 8192:
        yield "sector-%d" % size, "must be 512 or 4096", new().put(ITEMS + 32, "I", size)
    yield "disk-huge", "larger than 64 TiB", new().put(ITEMS + 8, "Q", (64 << 40) + 512)
    yield "disk-odd", "no whole number of sectors", new().put(ITEMS + 8, "Q", 16 << 20 | 100)
    yield "disk-larger-than-bat", "too short for", new().put(ITEMS + 8, "Q", 1 << 40)

    for name, number in (("reserved-4", 4), ("reserved-5", 5), ("partial", 7), ("header", 6), ("in-log", LOG | 6), ("in-bat", BAT | 6),
                         ("in-metadata", META | 6), ("over-log", 6), ("behind-end", 1 << 40 | 6), ("far", 0xFFFFFFFFFFF00006)):
        yield "entry-" + name, "place of block 0 cannot be", new().put(BAT, "Q", number)
    first = struct.unpack("<Q", bat[8:16])[0]
    yield "entry-twice", "lie at the same place", new().put(BAT, "Q", first)
    yield "entry-overlaps", "lie at the same place", new().put(BAT, "Q", first + (1 << 20))

    yield "log-without-entries", "", new().log()
    yield "log-torn", "", new().log((0, entry(1, 0, (BAT, rubbish), spoil=5000)))
    yield "log-of-another", "", new().log((0, entry(1, 0, (BAT, rubbish), guid=bytes(reversed(GUID)))))
    yield "log-tail-elsewhere", "", new().log((0, entry(1, 65536, (BAT, rubbish))))
    yield "log-tail-far", "", new().log((0, entry(1, 1 << 30, (BAT, rubbish))))
    yield "log-number-0", "", new().log((0, entry(0, 0, (BAT, rubbish))))
    yield "log-many-descriptors", "", new().log((0, entry(1, 0, (BAT, rubbish), count=0xFFFFFFFF)))
    yield "log-entry-too-long", "", new().log((0, entry(1, 0, (BAT, rubbish), bytes=0xFFFFF000)))
    yield "log-entry-too-short", "", new().log((0, entry(1, 0, (BAT, rubbish), bytes=0)))
    yield "log-more-sectors-than-there-are", "", new().log((0, entry(1, 0, (BAT, rubbish), bytes=4096)))
    yield "log-sector-of-another", "", new().log((0, entry(1, 0, (BAT, rubbish), data_sequence=2)))
    yield "log-headers", lies, new().log((0, entry(1, 0, (BAT, lost), (HEADERS[0], rubbish))))
    yield "log-identifier", lies, new().log((0, entry(1, 0, (0, rubbish))))
    yield "log-itself", lies, new().log((0, entry(1, 0, (LOG + 65536, rubbish))))
    yield "log-unaligned-target", lies, new().log((0, entry(1, 0, (BAT + 512, rubbish))))
    yield "log-behind-the-file", lies, new().log((0, entry(1, 0, (1 << 40, rubbish))))
    yield "log-overflow", lies, new().log((0, entry(1, 0, (0xFFFFFFFFFFFFF000, rubbish))))
    yield "log-zeroes-over-headers", lies, new().log((0, entry(1, 0, (0, 1 << 20))))
    yield "log-zeroes-over-log", lies, new().log((0, entry(1, 0, (256 << 10, 1 << 20))))
    yield "log-zeroes-far", lies, new().log((0, entry(1, 0, (BAT, 0xFFFFFFFFFFFFF000))))
    yield "log-zeroes-odd", lies, new().log((0, entry(1, 0, (BAT, 100))))
    yield "log-cut-off", "file was cut off", new().log((0, entry(1, 0, (BAT, bat), flushed=1 << 40, last=1 << 40)))
    yield "log-huge-file", "log tells of a file", new().log((0, entry(1, 0, (BAT, bat), last=1 << 60)))
    yield "log-second-lies", lies, new().log((0, entry(1, 0, (BAT, lost))), (8192, entry(2, 0, (HEADERS[0], rubbish))))
    ring = [(at, entry(at // 4096 + 1, 0)) for at in range(0, 1 << 20, 4096)]
    yield "log-full", "", new().log(*ring)
    yield "log-largest-number", "", new().log((0, entry(2**64 - 1, 0, (BAT, bat))), (8192, entry(1, 0, (BAT, rubbish))))
    yield "log-replayed", "", new().put(BAT, "QQ", 7, 7).log((0, entry(5, 0, (BAT, bat))))
    yield "log-newest-holds", "", new().put(BAT, "QQ", 7, 7).log(
        (0, entry(5, 0, (BAT, lost))), (524288, entry(6, 524288, (BAT, bat))), (65536, entry(4, 65536, (BAT, rubbish))))
    yield "log-from-tail-on", "", new().put(BAT, "QQ", 7, 7).log(
        (0, entry(5, 0, (BAT, rubbish))), (8192, entry(6, 0, (BAT, lost))), (16384, entry(7, 8192, (BAT, bat))))
    yield "log-last-torn", "", new().put(BAT, "QQ", 7, 7).log(
        (0, entry(5, 0, (BAT, bat))), (8192, entry(6, 0, (BAT, rubbish), spoil=5000)))
    yield "log-around-the-end", "", new().put(BAT, "QQ", 7, 7).log(
        ((1 << 20) - 8192, entry(5, (1 << 20) - 8192, (BAT, lost))), (0, entry(6, (1 << 20) - 8192, (BAT, bat))))
    yield "log-entry-around-the-end", "", new().put(BAT, "QQ", 7, 7).log(
        ((1 << 20) - 4096, entry(5, (1 << 20) - 4096, (BAT, bat))))
    yield "log-zeroes", "", new().put(BAT + SECTOR, "Q", 7).log((0, entry(5, 0, (BAT + SECTOR, 8192))))
    yield "log-many-sectors", "", new().log(
        (0, entry(5, 0, *[(BAT + SECTOR * i, bat if i == 0 else lost) for i in range(150)])))
    yield "log-lengthens", "", new().cut(7405568).log((0, entry(5, 0, (BAT, bat), flushed=7405568)))


def guids(data):
    headers = [data[at:at + 4096] for at in HEADERS]
    last = max(headers, key=lambda h: struct.unpack("<Q", h[8:16])[0])
    return [last[at:at + 16].hex() for at in (16, 32, 48)]


def main(argv):
    if len(argv) != 3:
        sys.exit(__doc__)
    if argv[1] == "guids":
        with open(argv[2], "rb") as file:
            print(*guids(file.read(196608)))
        return
    with open(argv[1], "rb") as file:
        base = file.read()
    blocks = pieces(base, BLOCKS)
    for name, words, image in cases(base):
        image.write(os.path.join(argv[2], name), blocks)
        print("%s|%s" % (name, words))


main(sys.argv)
