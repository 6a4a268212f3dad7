# SPDX-License-Identifier: MIT
"""Measures cases: prepares the image, runs the command line of one side, cleans up, and keeps what was measured."""
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness import inputs as files
from harness import process, served

SPARE_BYTES = 128 * files.MIB       # memory that is taken beyond what an output needs

# What io -C prints for one request: bytes, operations, time, bytes a second, operations a second.
STATISTICS = re.compile(r"^\d+,1,[\d:.]+,[\d.]+,([\d.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Side:
    """One program under test, or the codecs."""
    name: str
    programs: dict      # first word of a case's argv: path


class Results:
    """All runs: case name and side -> list of Run, in the order of the rounds."""

    def __init__(self, cases):
        self.cases = {case.name: case for case in cases}
        self.runs = {}

    def add(self, name, side, run):
        self.runs.setdefault((name, side), []).append(run)

    def of(self, name, side):
        return self.runs.get((name, side), [])

    def error(self, name, side):
        return next((run.error for run in self.of(name, side) if run.error), "")

    def median(self, name, side, what):
        """Median of "wall", "cpu", "peak" or "file_bytes"; None if it was not measured or failed."""
        runs = self.of(name, side)
        return median(getattr(run, what) for run in runs) if runs and not self.error(name, side) else None

    def ratio(self, name, what):
        """By how much ours is faster, in "wall" or "cpu": the median of what each round says, in which the peer ran just
        after ours; None if one of them was not measured or failed."""
        if any(self.error(name, side) or not self.of(name, side) for side in ("ours", "peer")):
            return None
        return median(getattr(peer, what) / max(getattr(ours, what), 1e-6)
                      for ours, peer in zip(self.of(name, "ours"), self.of(name, "peer")))

    def percentile(self, name, side, percent):
        """Of the latencies of all rounds, or the median of what each round said, in seconds; None if there is nothing."""
        said = [run.percentiles[percent] for run in self.of(name, side) if percent in run.percentiles]
        if said:
            return median(said)
        values = sorted(value for run in self.of(name, side) for value in run.latencies)
        return values[min(len(values) - 1, len(values) * percent // 100)] if values else None


class Measurer:
    def __init__(self, sides, inputs, work):
        self.sides = {side.name: side for side in sides}
        self.inputs = inputs
        self.work = Path(work)

    def measure(self, case, side):
        """One run of a case on the side of that name. The work directory is empty before and after."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        try:
            return self._measure(case, self.sides[side])
        finally:
            shutil.rmtree(self.work)

    def _measure(self, case, side):
        image = self._prepare(case, side)
        if case.group != "ceilings":
            files.take_memory(self.work / "memory", self.inputs.dense_bytes + SPARE_BYTES)
            self._read_again(case, image)
        if case.server:
            return served.measure(self._words(case.server, side, image), self._words(case.argv, side, image))
        argv = case.argv + (case.ours_only if side.name == "ours" else ())
        total = process.Run()
        if case.twice:
            total.add(self._run(argv, side, image))
        if not total.error:
            total = process.Run()
            for _ in range(case.repeat):
                total.add(self._run(argv, side, image))
        if case.group == "ceilings" and not total.error:
            printed = json.loads(total.output)
            total.wall, total.cpu, total.file_bytes = (printed[key] for key in ("wall", "cpu", "stored"))
        written = self._out() if self._out().exists() else image if case.create else None
        if written is not None:
            total.file_bytes = os.stat(written).st_blocks * 512
        if case.latency_argv and not total.error:
            self._measure_latencies(case, side, total)
        return total

    def _measure_latencies(self, case, side, total):
        run = self._run(case.latency_argv, side, self._prepare(case, side))
        total.latencies = [1 / float(rate) for rate in STATISTICS.findall(run.output)]
        failures = case.latency_argv.count("-c") - case.latency_argv.count("aio_flush") - len(total.latencies)
        total.error = run.error or (f"{failures} requests of io failed" if failures else "")

    def _out(self):
        return self.work / "out"

    def _prepare(self, case, side):
        """Returns the image that the case works on. What is written here is on the disk before anything is measured."""
        image = self.work / "image.qcow2"
        if case.create:
            image.unlink(missing_ok=True)
            process.must_run([side.programs["img"], "create", "-q", "-f", "qcow2", "-o", case.create, image,
                              str(self.inputs.dense_bytes)])
        elif case.copied:
            shutil.copyfile(self.inputs.path(case.image), image)
            files.sync(image)
        elif case.image:
            image = self.inputs.path(case.image)
        for path in self._read_by(case, image):
            self._fill_page_cache(case, path, case.in_place and path == image)
        return image

    def _read_by(self, case, image):
        """The files that the case works on and that exist before."""
        words = " ".join(case.argv + case.server)
        return [path for name, path in self._files(image).items() if f"{{{name}}}" in words and path.exists()]

    def _read_again(self, case, image):
        """Just before a run: the codecs alone find their blocks in the processor's caches, if these are large. They have lost
        a file that was read some seconds ago, and then reading it takes more than twice as long."""
        if not case.cold:
            for path in self._read_by(case, image):
                files.warm(path)

    def _fill_page_cache(self, case, path, written):
        """A file that programs write to itself is put on the disk and read anew each time, so that all find its pages
        in the state in which requests of the case's size leave them: small ones page by page, larger ones in larger
        pieces. A write of 4 KiB to a page that is part of a large piece takes up to 30 us longer, one of 64 KiB to 16
        pages of their own up to 20."""
        if case.cold or written:
            files.forget(path)
        if not case.cold:
            files.warm(path, scattered=written and case.data_bytes < case.requests * files.CLUSTER)

    def _files(self, image):
        """What words in braces stand for."""
        return {"raw": self.inputs.path("disk.raw"), "dense": self.inputs.path("dense.raw"), "image": image,
                "out": self._out()}

    def _words(self, argv, side, image):
        return [side.programs[argv[0]], *(word.format(socket="{socket}", **self._files(image)) for word in argv[1:])]

    def _run(self, argv, side, image):
        return process.run(self._words(argv, side, image))
