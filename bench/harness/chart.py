# SPDX-License-Identifier: MIT
"""A bar chart as SVG: for each case a bar of ours and one of the peer, the faster of the two over the full width."""
import textwrap
from xml.sax.saxutils import escape

from harness.report import HEADINGS, number

LABEL, BAR, VALUE = 480, 480, 200           # pixels: the columns
WIDTH = LABEL + BAR + VALUE
LINE, HEADING, SMALL = 30, 34, 14           # pixels: height of a pair of bars, a heading, small text
STYLE = """text { font: 12px sans-serif; fill: #222 } .heading { font-weight: bold; font-size: 14px }
.small { font-size: 10px } .ours { fill: #2a78b8 } .peer { fill: #b5b5b5 }"""


def text(x, y, content, style="", anchor="start"):
    return f'<text x="{x}" y="{y}" class="{style}" text-anchor="{anchor}">{escape(content)}</text>'


def bar(y, width, style):
    return f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="10" class="{style}"/>'


def rates(results, case):
    """What a second of wall time does: MB, or the case as a whole where it moves no data."""
    walls = [results.median(case.name, side, "wall") for side in ("ours", "peer")]
    return [wall and (case.data_bytes / 1e6 or 1) / wall for wall in walls]


def pair(results, case, y):
    ours, peer = rates(results, case)
    longest = max(ours or 0, peer or 0)
    parts = [text(LABEL - 8, y + 15, case.title, anchor="end")]
    for value, style, top in ((ours, "ours", y + 2), (peer, "peer", y + 14)):
        if value:
            parts.append(bar(top, BAR * value / longest, style))
        elif results.error(case.name, style):
            parts.append(text(LABEL + 2, top + 9, "fails", "small"))
    label = f"{number(ours)} and {number(peer)} {'MB/s' if case.data_bytes else 'a second'}"
    if ours and peer:
        label += f", × {number(ours / peer)}"
    parts.append(text(LABEL + BAR + 8, y + 15, label, "small"))
    return parts


def head(about):
    """The legend and what was measured; and where they end."""
    parts = [bar(10, 12, "ours"), text(LABEL + 18, 19, "ours", "small"),
             f'<rect x="{LABEL + 60}" y="10" width="12" height="10" class="peer"/>',
             text(LABEL + 78, 19, "peer; longer is faster", "small")]
    y = 19
    for line in textwrap.wrap(about, WIDTH // 6):
        y += SMALL
        parts.append(text(10, y, line, "small"))
    return parts, y


def draw(results, about):
    parts, y = head(about)
    for group, heading in HEADINGS.items():
        cases = [case for case in results.cases.values() if case.group == group and results.of(case.name, "ours")]
        if cases:
            y += HEADING
            parts.append(text(10, y - 8, heading, "heading"))
        for case in cases:
            parts += pair(results, case, y)
            y += LINE
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 10}">',
                      f"<style>{STYLE}</style>", f'<rect width="{WIDTH}" height="{y + 10}" fill="#fff"/>', *parts,
                      "</svg>"]) + "\n"
