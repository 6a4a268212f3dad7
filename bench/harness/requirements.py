# SPDX-License-Identifier: MIT
"""What the measurements must show: rows of checks, each a ratio that is wanted and the one that was measured.

Ratios are of speeds, in bytes per second of wall time and per second of CPU time; the second is for a machine that is
noisy. A ceiling "on 2 threads" is the wall time of two threads; by CPU time both of its threads count. Machines change
by the minute; therefore the ratio to the peer is the median of what each round says, and what is compared with the
codecs, with fewer connections or with cached writes is compared with a run of these just before.
"""
from dataclasses import dataclass
from statistics import median

from harness.cases import ENGINES, REQUEST
from harness.inputs import CLUSTER, COMPRESSION_TYPES, MIB

CACHES = 32 * MIB               # write buffer and decompressed clusters, as they are by default
MEMORY = 64 * MIB               # above the caches


@dataclass
class Check:
    text: str
    wanted: float
    wall: float = None          # measured; None: it was not
    cpu: float = None           # None: there is no such thing
    at_most: bool = False       # wanted is an upper bound
    unit: str = ""              # of the three; "": a ratio
    note: str = ""

    def holds(self, value):
        return value <= self.wanted if self.at_most else value >= self.wanted

    def reached(self):
        """By wall time and by CPU time; None for what was not measured."""
        return tuple(None if value is None else self.holds(value) for value in (self.wall, self.cpu))


@dataclass
class Row:
    title: str
    checks: list


class Judge:
    """Turns results into checks. Speeds are pairs: by wall time and by CPU time; None where nothing was measured."""

    def __init__(self, results, cases):
        self.results = results
        self.cases = {case.name: case for case in cases}        # all that exist

    def speed(self, name):
        """Ours."""
        assert name in self.cases, name
        times = [self.results.median(name, "ours", what) for what in ("wall", "cpu")]
        if None in times:
            return None
        return tuple(self.results.cases[name].data_bytes / max(time, 1e-6) for time in times)

    def against_beside(self, name, wanted, text, part=1):
        """Against what stands beside the case, if the same bytes went through all of that, one after the other.
        part: of the bytes that count for those beside, only so many are the case's own."""
        case, results = self.cases[name], self.results
        ours = results.of(name, "ours")
        others = [(self.cases[other].data_bytes, results.of(name, other)) for other in case.beside]
        note = self.failure(name)
        if not ours or results.error(name, "ours") or any(results.error(name, other) for other in case.beside):
            return Check(text, wanted, note=note)

        def ratio(what):
            return median(sum(getattr(runs[i], what) / size for size, runs in others) * case.data_bytes / part /
                          max(getattr(run, what), 1e-6) for i, run in enumerate(ours))

        return Check(text, wanted, ratio("wall"), ratio("cpu"), note=note)

    def against_best(self, names, wanted, text):
        """Ours against the peer in that of the cases in which the peer is fastest, by wall and by CPU each. They differ
        in options that mean something to the peer only, so that ours takes as long in all of them, but for what else the
        machine does; and that both programs of a case meet."""
        assert self.cases.keys() >= set(names), names
        names = [name for name in names if self.results.ratio(name, "wall")]
        if not names:
            return Check(text, wanted)
        return Check(text, wanted, *(
            self.results.ratio(min(names, key=lambda name: self.results.median(name, "peer", what)), what)
            for what in ("wall", "cpu")))

    def check(self, text, wanted, ours, other, note=""):
        if ours is None or other is None:
            return Check(text, wanted, note=note)
        return Check(text, wanted, ours[0] / other[0], ours[1] / other[1], note=note)

    def against_peer(self, name, wanted, text=None):
        assert name in self.cases, name
        return Check(text or f"{name} against the peer", wanted, self.results.ratio(name, "wall"),
                     self.results.ratio(name, "cpu"), note=self.failure(name))

    def failure(self, name):
        """Who fails at a case, and why; "": nobody."""
        errors = [(who, self.results.error(name, side))
                  for who, side in (("ours fails", "ours"), ("the peer fails", "peer"))]
        return "; ".join(f"{who}: {error}" for who, error in errors if error)


def size_check(judge, name):
    ours, peer = (judge.results.median(name, side, "file_bytes") for side in ("ours", "peer"))
    return Check(f"{name}: size of the file against the peer's", 1.0, ours / peer if ours and peer else None,
                 at_most=True)


def memory_check(results):
    peaks = [(results.median(name, "ours", "peak") or 0, name) for name in results.cases]
    peak, name = max(peaks, default=(0, ""))
    return Check("peak of any case", (CACHES + MEMORY) / MIB, peak / MIB if peak else None, at_most=True, unit=" MiB",
                 note=f"{name}; {CACHES // MIB} MiB of caches and {MEMORY // MIB} MiB" if peak else "")


def plain_rows(judge):
    cached, direct, by_direct = [], [], ("direct", "direct-native", "direct-uring")
    assert set(by_direct) < set(ENGINES)
    for operation in ("read", "write"):
        for depth in (1, 16):
            name = f"{operation}-random-plain-qd{depth}"
            cached += [judge.against_peer(name, 1.5, f"{name} against the peer's default"),
                       judge.against_best([name, f"{name}-uring"], 1.1, f"{name} against the peer's best")]
            direct.append(judge.against_best([f"{name}-{engine}" for engine in by_direct], 1.0,
                                             f"{name}-direct against the peer's best with O_DIRECT"))
    for codec in COMPRESSION_TYPES:
        name = f"fill-{codec}-qd16"
        direct += [judge.against_peer(f"{name}-direct", 1.0),
                   judge.against_beside(f"{name}-direct", 0.9, f"{name}-direct against the cached fill")]
    return cached, direct


def served_rows(judge):
    return [
        Row("served over NBD: 4 KiB random read and write of a plain image",
            [judge.against_peer(f"served-{operation}-random-4k-plain-qd{depth}", 2.0)
             for operation in ("read", "write") for depth in (1, 16)]),
        Row("served over NBD: 4 KiB sequential read of a compressed image, queue depth 1",
            [judge.against_peer(f"served-read-sequential-4k-{codec}-qd1", 4.0) for codec in COMPRESSION_TYPES]),
        Row("served over NBD: 64 KiB sequential read and write, plain and compressed",
            [judge.against_peer(f"served-{operation}-sequential-64k-{disk}-qd{depth}", 1.3)
             for operation in ("read", "write") for disk in ("plain", *COMPRESSION_TYPES) for depth in (1, 16)]),
        Row("served over NBD: 16 connections cost no throughput",
            [judge.against_beside(f"served-{operation}-random-4k-plain-qd{depth}-16conns", 1.0,
                                  f"served-{operation}-random-4k-plain-qd{depth}-16conns against one of depth 16")
             for operation in ("read", "write") for depth in (1, 16)]),
    ]


def rows(results, cases):
    judge = Judge(results, cases)
    speed, cached, direct = judge.speed, *plain_rows(judge)
    return [
        Row("convert -c, zlib format, default level", [
            judge.against_peer("convert-zlib-64k", 4.0), size_check(judge, "convert-zlib-64k"),
            judge.against_beside("convert-zlib-64k", 0.9, "convert-zlib-64k against the libdeflate ceiling on 2 threads")]),
        Row("convert -c, zstd, the peer's level", [
            judge.against_peer("convert-zstd-64k-peer-level", 1.3),
            judge.against_beside("convert-zstd-64k-peer-level", 0.9,
                                 "convert-zstd-64k-peer-level against the zstd ceiling on 2 threads")]),
        Row("convert compressed to raw, both codecs",
            [judge.against_peer(f"to-raw-{codec}", 1.8) for codec in COMPRESSION_TYPES]),
        Row("fill through the filter, 64 KiB, queue depth 1", [
            judge.against_beside(f"fill-{codec}-qd1", 0.85, f"fill-{codec}-qd1 against the ceiling on 2 threads")
            for codec in COMPRESSION_TYPES]),
        Row("fill through the filter, 64 KiB, queue depth 16, zstd at the peer's level",
            [judge.against_peer("fill-zstd-qd16", 1.3)]),
        Row("rewrite of everything through the filter", [
            judge.check(f"rewrite-{codec}-qd16 against the fill", 0.8, speed(f"rewrite-{codec}-qd16"),
                        speed(f"fill-{codec}-qd16"), judge.failure(f"rewrite-{codec}-qd16"))
            for codec in COMPRESSION_TYPES]),
        Row("4 KiB sequential write through the filter, queue depth 1", [
            judge.check(f"fill-4k-{codec}-qd1 against the fill with 64 KiB", 0.5, speed(f"fill-4k-{codec}-qd1"),
                        speed(f"fill-{codec}-qd1")) for codec in COMPRESSION_TYPES]),
        Row("4 KiB random write, queue depth 16, working set 20 times the write buffer", [
            judge.against_beside(
                f"write-random-{codec}-filter-qd16", 0.7,
                f"write-random-{codec}-filter-qd16, a cluster each, against decompress + compress on 2 threads",
                part=REQUEST / CLUSTER) for codec in COMPRESSION_TYPES]),
        Row("4 KiB sequential read of a compressed image, queue depth 1, in process",
            [judge.against_peer(f"read-sequential-{codec}-qd1", 8.0) for codec in COMPRESSION_TYPES]),
        Row("4 KiB random read of a compressed image, queue depth 16, cold cache",
            [judge.against_peer(f"read-random-{codec}-qd16-cold", 1.5) for codec in COMPRESSION_TYPES]),
        Row("4 KiB random read and write of a plain image, queue depth 1 and 16, in process", cached),
        Row("the same with O_DIRECT, and a compressed fill with O_DIRECT", direct),
        *served_rows(judge),
        Row("memory", [memory_check(results)]),
    ]
