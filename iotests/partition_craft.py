#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""partition_craft.py DISK TABLE [FLAW]: writes a partition table: "mbr", or a GPT with blocks of TABLE bytes.

Prints "NUMBER OFFSET BYTES" for each partition.
"""
import os
import struct
import sys
import zlib

SECTOR = 512


class Disk:
    def __init__(self, path):
        self.path = path
        self.bytes = os.path.getsize(path)

    def put(self, offset, data):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def get(self, offset, count):
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(count)


def mbr_sector(*entries):
    table = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
    return table.ljust(64, b"\0") + b"\x55\xaa"


def put_mbr(disk, flaw):
    """1: primary; 2: extended; 3: primary, of odd length; 5 to 7: logical.

    "gap": the chain goes back, and has a sector without a partition, which does not count.
    """
    extended, size, third = 4096, 6000, 12001
    entries = {"past-end": (0x83, 2048, 0xffffffff), "starts-past-end": (0x83, 0xffffff00, 1)}
    disk.put(446, mbr_sector(entries.get(flaw, (0x83, 2048, 2000)), (0x0f, extended, size), (0x83, third, 777)))
    last = 1500 if flaw == "gap" else 4000
    chain = [(0, 1000), (3000, 333), *([(2500, 0)] if flaw == "gap" else []), (last, 1)]
    links = {"loop": 0, "outside": size, "far": 0xffffffff}
    for i, (at, count) in enumerate(chain):
        following = chain[i + 1][0] if i + 1 < len(chain) else links.get(flaw)
        link = (0x05, following, 1000) if following is not None else (0, 0, 0)
        disk.put((extended + at) * SECTOR + 446, mbr_sector((0x83 if count else 0, 63, count), link))
    if flaw == "unsigned":
        disk.put((extended + 3000) * SECTOR + 510, b"\0\0")
    found = [(1, 2048, 2000), (3, third, 777), (5, extended + 63, 1000), (6, extended + 3063, 333),
             (7, extended + last + 63, 1)]
    return [(number, first * SECTOR, count * SECTOR) for number, first, count in found]


def gpt_header(own, other, array, block, blocks, count, entry_bytes, crc):
    fields = [b"EFI PART", 0x10000, 92, 0, 0, own, other, 40, blocks - 40, b"G" * 16, array, count, entry_bytes, crc]
    layout = "<8sIIIIQQQQ16sQIII"
    fields[3] = zlib.crc32(struct.pack(layout, *fields))
    return struct.pack(layout, *fields).ljust(block, b"\0")


def put_gpt(disk, flaw, block):
    """1, 2 and 128; between them nothing. A flaw is in both copies, unless its name says first."""
    blocks = disk.bytes // block
    disk.put(446, mbr_sector((0xee, 1, min(blocks - 1, 0xffffffff))))
    last = {"past-end": blocks, "far": 2 ** 64 - 1, "reversed": 99}.get(flaw, 120)
    parts = {1: (100, last), 2: (130, 150), 128: (200, 200)}
    count, entry_bytes = {"count": (2 ** 31, 128), "none": (0, 128), "odd": (128, 130), "small": (128, 64),
                          "huge": (128, 2 ** 31)}.get(flaw, (128, 128))
    array = bytearray(128 * 128)
    for number, (first, end) in parts.items():
        struct.pack_into("<16s16sQQ", array, (number - 1) * 128, b"T" * 16, bytes([number]) * 16, first, end)
    crc = zlib.crc32(array) if flaw != "crc" else 1
    array_blocks = len(array) // block
    for copy, (own, other, at) in enumerate([(1, blocks - 1, 2), (blocks - 1, 1, blocks - 1 - array_blocks)]):
        place = {"array-far": 2 ** 64 - 1, "array-past-end": blocks - 1}.get(flaw, at)
        disk.put(own * block, gpt_header(own, other, place, block, blocks, count, entry_bytes, crc))
        disk.put(at * block, bytes(array))
        if flaw in ("headers", "first-header") and copy <= (flaw == "headers"):
            disk.put(own * block + 60, b"x")
        if flaw in ("arrays", "first-array") and copy <= (flaw == "arrays"):
            disk.put(at * block + 41, b"x")
        if flaw == "elsewhere":         # a whole header, which belongs to another place
            disk.put(own * block, gpt_header(own + 1, other, place, block, blocks, count, entry_bytes, crc))
    return [(number, first * block, (end - first + 1) * block) for number, (first, end) in parts.items()]


def main():
    path, table, flaw = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
    disk = Disk(path)
    found = put_mbr(disk, flaw) if table == "mbr" else put_gpt(disk, flaw, int(table))
    for number, offset, count in found:
        print(number, offset, count)


main()
