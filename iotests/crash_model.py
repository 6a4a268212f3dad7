#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a guest does with a disk in generations, each of which ends with a flush, and what it may find after a crash.

    crash_model.py commands SEED GENERATION         prints io commands, one a line: those of this generation
    crash_model.py check SEED GENERATION RAW        is RAW what a crash may leave after this generation was flushed?

Each sector must be what it was at the end of the generation, or what the next one writes there. Generation 0 is empty.
CRASH_SECTORS in the environment is the length of the disk.
"""
import os
import random
import sys

SECTORS, OPS, LONGEST, SECTOR = int(os.environ.get("CRASH_SECTORS", 2048)), 10, 96, 512


def operations(seed, generation):
    """Yields (command, first sector, number of sectors, byte)."""
    rng = random.Random("%s-%s" % (seed, generation))
    for i in range(OPS if generation > 0 else 0):
        first = rng.randrange(SECTORS)
        count = rng.randint(1, min(LONGEST, SECTORS - first))
        pattern = (generation * OPS + i) % 255 + 1
        kind = rng.choice(["write", "write", "write", "zero", "discard"])
        if kind == "write":
            yield "write -P %d" % pattern, first, count, pattern
        else:
            yield {"zero": "write -z", "discard": "discard"}[kind], first, count, 0


def apply(disk, seed, generation, replaces):
    """A discard may leave what was there, in parts of clusters."""
    for command, first, count, value in operations(seed, generation):
        for sector in range(first, first + count):
            if replaces and command != "discard":
                disk[sector] = set()
            disk[sector].add(value)


def check(seed, generation, name):
    allowed = [{0} for _ in range(SECTORS)]
    for number in range(1, generation + 1):
        apply(allowed, seed, number, True)
    apply(allowed, seed, generation + 1, False)
    with open(name, "rb") as file:
        data = file.read()
    if len(data) != SECTORS * SECTOR:
        sys.exit("the disk has %d bytes" % len(data))
    for sector in range(SECTORS):
        content = data[sector * SECTOR:(sector + 1) * SECTOR]
        if content[0] not in allowed[sector] or content != content[:1] * SECTOR:
            sys.exit("sector %d begins with %d; allowed: %s" % (sector, content[0], sorted(allowed[sector])))


def main(argv):
    if len(argv) == 4 and argv[1] == "commands":
        for command, first, count, _ in operations(argv[2], int(argv[3])):
            print(command, first * SECTOR, count * SECTOR)
    elif len(argv) == 5 and argv[1] == "check":
        check(argv[2], int(argv[3]), argv[4])
    else:
        sys.exit(__doc__)


main(sys.argv)
