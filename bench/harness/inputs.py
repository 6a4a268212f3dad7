# SPDX-License-Identifier: MIT
"""The disks that are measured: real data, and images of it, kept in a directory and made anew when they would differ.

    disk.raw        a file system with files of the machine (scripts/disk-of-files.sh)
    dense.raw       its blocks of 64 KiB that are not zeroes, so that every cluster of a copy holds data
    zstd.qcow2, zlib.qcow2, plain.qcow2
                    copies of dense.raw as the peer writes them, clusters of 64 KiB
    scratch.qcow2   the same as plain.qcow2 at first; plain writes go there
    huge.qcow2      a very long disk with pieces of 1 MiB far apart
    clusters.qcow2  a disk of which all clusters have a place in the file, and no data

All are written by the peer's qemu-img, so that what is measured does not depend on the program that is measured.
"""
import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import process

MIB = 1 << 20
CLUSTER = 65536
COMPRESSION_TYPES = ("zstd", "zlib")


@dataclass(frozen=True)
class Size:
    """How large the disks are, and how many requests are sent (a factor of the usual number)."""
    disk_mib: int
    content_mib: int
    trees: tuple
    huge_bytes: int
    huge_pieces: int
    clusters: int
    requests: float


FULL = Size(512, 470, ("/usr/share", "/usr/lib", "/usr/include"), 64 << 40, 1024, 1000000, 1)
QUICK = Size(32, 24, ("/usr/include", "/usr/share/perl"), 1 << 40, 16, 20000, 1 / 128)
VERSION = 2     # of the way in which the files are made


class Inputs:
    """The files in directory, all there once make() has returned."""

    def __init__(self, directory, size):
        self.directory = Path(directory)
        self.size = size
        self.about = ""                     # what the disk holds
        self.data_bytes = {}                # cluster size: bytes of the clusters of disk.raw that are not zero

    @property
    def dense_bytes(self):
        """Length of dense.raw and its copies."""
        return self.data_bytes[CLUSTER]

    def path(self, name):
        return self.directory / name

    def make(self, make_disk, qemu_img, qemu_io, say):
        """Makes what is missing. make_disk: the program; say: called with a line about what takes time."""
        state = self.directory / "state.json"
        wanted = {"version": VERSION, **asdict(self.size), "trees": list(self.size.trees)}
        found = json.loads(state.read_text()) if state.exists() else {}
        if found.get("size") != wanted:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir(parents=True)
            found = {"size": wanted}
            say(f"making a disk of {self.size.disk_mib} MiB and images of it")
            found["about"] = self._make_disk(make_disk)
            self._make_copies(qemu_img)
            self._make_huge(qemu_img, qemu_io)
            process.must_run([qemu_img, "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata",
                              self.path("clusters.qcow2"), str(self.size.clusters * CLUSTER)])
            found["data_bytes"] = {cluster: sum(map(len, data_blocks(self.path("disk.raw"), cluster)))
                                   for cluster in (CLUSTER, 2 * MIB)}
            state.write_text(json.dumps(found))
        self.about = found["about"]
        self.data_bytes = {int(cluster): bytes for cluster, bytes in found["data_bytes"].items()}

    def _make_disk(self, make_disk):
        return process.must_run([make_disk, self.path("disk.raw"), str(self.size.disk_mib), str(self.size.content_mib),
                                 *map(os.path.abspath, self.size.trees)]).strip()

    def _make_copies(self, qemu_img):
        dense = self.path("dense.raw")
        with open(dense, "wb") as file:
            for block in data_blocks(self.path("disk.raw"), CLUSTER):
                file.write(block)
        convert = [qemu_img, "convert", "-S", "0", "-f", "raw", "-O", "qcow2"]
        for name in COMPRESSION_TYPES:
            process.must_run([*convert, "-c", "-o", f"compression_type={name}", dense, self.path(f"{name}.qcow2")])
        for name in ("plain.qcow2", "scratch.qcow2"):
            process.must_run([*convert, dense, self.path(name)])

    def _make_huge(self, qemu_img, qemu_io):
        huge = self.path("huge.qcow2")
        step = self.size.huge_bytes // self.size.huge_pieces
        process.must_run([qemu_img, "create", "-q", "-f", "qcow2", huge, str(self.size.huge_bytes)])
        commands = [f"write -q -P {i % 255 + 1} {i * step} 1M" for i in range(self.size.huge_pieces)]
        process.must_run([qemu_io, "-f", "qcow2", *(arg for command in commands for arg in ("-c", command)), huge])


def data_blocks(path, size):
    """The blocks of a file, whose length is a multiple of size, that are not only zeroes."""
    with open(path, "rb") as file:
        while block := file.read(size):
            if block.count(0) != len(block):
                yield block


def scattered_step(disk_bytes, request):
    """A step by which requests, each that far behind the last and from the start again at the end, reach every place of
    the disk once before any again, neighbours in time being far apart in space: near the golden section of the disk, in
    requests, without a common divisor. It is less than 2 GiB, the most that bench takes."""
    places = disk_bytes // request
    step = min(int(places * 0.6180339887), (2 << 30) // request - 1)
    while math.gcd(step, places) != 1:
        step -= 1
    return step * request


def warm(path, scattered=False):
    """Reads a file but its holes, so that it is in the page cache; scattered: as requests without an order leave it,
    page by page, and not in the large pieces that a reader in order gets."""
    with open(path, "rb", buffering=0) as file:
        if scattered:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        hole, end = 0, os.fstat(file.fileno()).st_size
        while hole < end:
            try:
                data = os.lseek(file.fileno(), hole, os.SEEK_DATA)
            except OSError:         # no data behind it
                return
            hole = os.lseek(file.fileno(), data, os.SEEK_HOLE)
            for offset in range(data, hole, MIB):
                os.pread(file.fileno(), min(MIB, hole - offset), offset)


def take_memory(path, size):
    """Writes a file of that size into the page cache and removes it, so that there is memory for as much that a virtual
    machine's host has backed. Memory that lay idle for a few seconds may have gone back to the host (free page reporting),
    and each first touch of it costs a program up to four times what writing to it does."""
    piece = b"\1" * MIB
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(piece)
    os.unlink(path)


def sync(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def forget(path):
    """Drops a file from the page cache."""
    sync(path)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
