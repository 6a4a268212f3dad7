# SPDX-License-Identifier: MIT
"""What was measured as tables (text and Markdown) and as JSON."""
from harness.inputs import MIB
from harness.requirements import Check

GIB = 1 << 30
HEADINGS = {"ceilings": "The codecs alone", "copies": "Whole images", "requests": "Requests of 4 KiB",
            "served": "Served over NBD; CPU time and memory are the server's",
            "others": "Open and check"}
ABSENT = "-"
INDENT = "- "
REQUIREMENT_COLUMNS = ["row, and its checks", "wanted", "by wall", "by CPU", "reached by wall", "by CPU", "remark"]


def number(value, digits=3):
    """With about as many significant digits; "-" for None."""
    if value is None:
        return ABSENT
    magnitude = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(digits - magnitude, 0)}f}"


def per_gib(results, case, side, what):
    time = results.median(case.name, side, what)
    return time if time is None or not case.data_bytes else time * GIB / case.data_bytes


def fails(results, case, side):
    return "fails" if results.error(case.name, side) else ABSENT


def times(results, case):
    """Wall and CPU time of ours and of the peer, and by how much ours is faster."""
    cells, ratios = [], []
    for what in ("wall", "cpu"):
        ours, peer = (per_gib(results, case, side, what) for side in ("ours", "peer"))
        cells += [number(ours) if ours is not None else fails(results, case, "ours"),
                  number(peer) if peer is not None else fails(results, case, "peer")]
        ratios.append(number(results.ratio(case.name, what)))
    return cells + ratios


def memory(results, case):
    values = (results.median(case.name, side, "peak") for side in ("ours", "peer"))
    return [number(value and value / MIB, 1) for value in values]


def ceiling_row(results, case):
    wall, cpu = (results.median(case.name, "codec", what) for what in ("wall", "cpu"))
    stored = results.median(case.name, "codec", "file_bytes")
    return [case.title, *(number(value and case.data_bytes / value / 1e6) for value in (wall, cpu)),
            number(stored and case.data_bytes / stored)]


def copy_row(results, case):
    sizes = (results.median(case.name, side, "file_bytes") for side in ("ours", "peer"))
    return [case.title, *times(results, case), *(number(size and size / MIB) for size in sizes), *memory(results, case)]


def request_row(results, case):
    def rate(side):
        wall = results.median(case.name, side, "wall")
        return wall and case.requests / wall

    def latency(side):
        values = (results.percentile(case.name, side, percent) for percent in (50, 99))
        return " / ".join(number(value and value * 1e6) for value in values) if results.percentile(
            case.name, side, 50) else ABSENT

    return [case.title, *times(results, case), *(number(rate(side)) for side in ("ours", "peer")),
            *(latency(side) for side in ("ours", "peer")), *memory(results, case)]


def other_row(results, case):
    return [case.title, *times(results, case), *memory(results, case)]


TIMES = ["wall, ours", "peer", "CPU, ours", "peer", "wall ratio", "CPU ratio"]
MEMORY = ["MiB, ours", "peer"]
COLUMNS = {
    "ceilings": (["case", "MB/s", "MB per CPU second", "compression"], ceiling_row),
    "copies": (["seconds per GiB", *TIMES, "file MiB, ours", "peer", *MEMORY], copy_row),
    "requests": (["seconds per GiB", *TIMES, "requests/s, ours", "peer", "p50 / p99 µs, ours", "peer", *MEMORY],
                 request_row),
    "served": (["seconds per GiB", *TIMES, "requests/s, ours", "peer", "p50 / p99 µs, ours", "peer", *MEMORY],
               request_row),
    "others": (["seconds", *TIMES, *MEMORY], other_row),
}


def shown(check: Check, value):
    return number(value) + check.unit if value is not None else ABSENT


def verdict(check):
    return ["" if reached is None else "yes" if reached else "no" for reached in check.reached()]


def requirement_lines(rows):
    """Of what was measured, or failed."""
    lines = []
    for row in rows:
        checks = [check for check in row.checks if check.wall is not None or check.note]
        if checks:
            lines.append([row.title, *[""] * (len(REQUIREMENT_COLUMNS) - 1)])
        for check in checks:
            wanted = ("at most " if check.at_most else "") + number(check.wanted) + check.unit
            lines.append([INDENT + check.text, wanted, shown(check, check.wall), shown(check, check.cpu),
                          *verdict(check), check.note])
    return lines


def tables(results, rows):
    """Pairs of a heading and a table, which is a list of lines of cells, the first with the titles of its columns."""
    for group, heading in HEADINGS.items():
        titles, make_row = COLUMNS[group]
        lines = [make_row(results, case) for case in results.cases.values()
                 if case.group == group and any(results.of(case.name, side) for side in case.sides)]
        if lines:
            yield heading, [titles, *lines]
    yield "What must be shown", [REQUIREMENT_COLUMNS, *requirement_lines(rows)]


def text(tables_of_report):
    parts = []
    for heading, lines in tables_of_report:
        widths = [max(map(len, column)) for column in zip(*lines)]
        parts.append(f"\n== {heading}")
        for line in lines:
            cells = [cell.rjust(width) for cell, width in zip(line, widths)]
            cells[0] = line[0].ljust(widths[0])
            if lines[0] == REQUIREMENT_COLUMNS:
                cells[-1] = line[-1]
            parts.append("  ".join(cells).rstrip())
    return "\n".join(parts) + "\n"


def markdown(about, tables_of_report):
    parts = [about]
    for heading, lines in tables_of_report:
        parts.append(f"\n### {heading}\n")
        for number_of_line, line in enumerate(lines):
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")
            if number_of_line == 0:
                parts.append("| --- |" + " ---: |" * (len(line) - 1))
    return "\n".join(parts) + "\n"


def json_of(results, rows, environment):
    def side(case, name):
        runs = results.of(case.name, name)
        return {
            "wall": [run.wall for run in runs], "cpu": [run.cpu for run in runs], "peak": [run.peak for run in runs],
            "error": results.error(case.name, name),
            "median": {what: results.median(case.name, name, what) for what in ("wall", "cpu", "peak", "file_bytes")},
            "latency": {f"p{percent}": results.percentile(case.name, name, percent) for percent in (50, 99)}}

    return {
        **environment,
        "cases": [{"name": case.name, "group": case.group, "title": case.title,
                   "command": list(case.argv), "ours_only": list(case.ours_only), "server": list(case.server),
                   "data_bytes": case.data_bytes, "requests": case.requests,
                   "sides": {name: side(case, name) for name in (*case.sides, *case.beside)}}
                  for case in results.cases.values()],
        "requirements": [{"row": row.title, "check": check.text, "wanted": check.wanted, "at_most": check.at_most,
                          "wall": check.wall, "cpu": check.cpu, "note": check.note,
                          **dict(zip(("reached_wall", "reached_cpu"), check.reached()))}
                         for row in rows for check in row.checks],
    }
