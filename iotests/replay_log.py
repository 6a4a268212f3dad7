#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads logs in the format of the Linux device-mapper target log-writes, written by anybody.

    replay_log.py list LOG                      prints one line for each entry
    replay_log.py replay LOG IMAGE [ENTRIES]    applies the first ENTRIES (default: all) to the raw file IMAGE
    replay_log.py replay LOG IMAGE ENTRIES SEED the same, but of those that no flush made stable only some, by chance
    replay_log.py replay LOG IMAGE ENTRIES last the same, but of those that no flush made stable only the last change
    replay_log.py points LOG                    prints the numbers of entries after which the image has changed or is stable
    replay_log.py borders LOG                   prints the numbers of entries after flushes
    replay_log.py mark LOG ENTRIES              prints the last mark among the first ENTRIES

The format, all numbers little-endian: sector 0 holds magic, version, number of entries (64 bits each) and the bytes of
a sector (32 bits). An entry is one sector with sector, number of sectors, flags and bytes of data (64 bits each); the
data of a mark is in the same sector, that of a write in the sectors behind.
"""
import os
import random
import struct
import sys

MAGIC, VERSION = 0x6A736677736872, 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


def entries(log):
    """Yields (name, offset, bytes, data): offset and bytes of the image; data of marks and writes."""
    magic, version, count, unit = struct.unpack("<QQQI", log.read(28))
    if magic != MAGIC or version != VERSION:
        sys.exit("this is no log of version 1")
    if unit < 512 or unit & (unit - 1):
        sys.exit("%d is no size of a sector" % unit)
    at, end = unit, os.fstat(log.fileno()).st_size
    for number in range(count):
        if at + unit > end:
            sys.exit("entry %d begins behind the end of the log" % number)
        log.seek(at)
        head = log.read(unit)
        sector, sectors, flags, data_bytes = struct.unpack("<QQQQ", head[:32])
        at += unit
        if flags & ~(FLUSH | FUA | DISCARD | MARK):
            sys.exit("entry %d has unknown flags %#x" % (number, flags))
        if flags & MARK:
            yield "mark", 0, 0, head[32:32 + data_bytes]
        elif flags & DISCARD:
            yield "discard", sector * unit, sectors * unit, b""
        elif flags & FLUSH and sectors == 0:
            yield "flush", 0, 0, b""
        else:
            data = log.read(sectors * unit)
            if len(data) < sectors * unit:
                sys.exit("the data of entry %d is cut off" % number)
            at += sectors * unit
            yield "write-fua" if flags & FUA else "write", sector * unit, sectors * unit, data


def list_log(log):
    for name, offset, size, data in entries(log):
        if name == "mark":
            print("mark", data.decode())
        elif name == "flush":
            print("flush")
        else:
            print(name, offset, size)


def replay(log, image, limit, seed):
    chosen = list(entries(log))[:limit]
    stable = max([i + 1 for i, entry in enumerate(chosen) if entry[0] == "flush"], default=0)
    last = max([i for i, entry in enumerate(chosen) if entry[0] not in ("flush", "mark")], default=0)
    rng = random.Random(seed)
    for number, (name, offset, size, data) in enumerate(chosen):
        if seed is not None and number >= stable and (number < last if seed == "last" else rng.random() < 0.5):
            continue
        if name.startswith("write"):
            image.seek(offset)
            image.write(data)
        elif name == "discard":
            image.seek(0, os.SEEK_END)
            size = min(size, max(0, image.tell() - offset))
            image.seek(offset)
            image.write(bytes(size))


def main(argv):
    if len(argv) < 3 or argv[1] not in ("list", "replay", "points", "borders", "mark"):
        sys.exit(__doc__)
    with open(argv[2], "rb") as log:
        if argv[1] == "list":
            list_log(log)
        elif argv[1] == "points":
            print(*[i + 1 for i, entry in enumerate(entries(log)) if entry[0] != "mark"])
        elif argv[1] == "borders":
            print(*[i + 1 for i, entry in enumerate(entries(log)) if entry[0] == "flush"])
        elif argv[1] == "mark":
            marks = [entry[3].decode() for entry in list(entries(log))[:int(argv[3])] if entry[0] == "mark"]
            print(marks[-1] if marks else "")
        else:
            with open(argv[3], "r+b") as image:
                replay(log, image, int(argv[4]) if len(argv) > 4 else sys.maxsize, argv[5] if len(argv) > 5 else None)


main(sys.argv)
