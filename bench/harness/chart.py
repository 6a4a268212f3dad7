# SPDX-License-Identifier: MIT
"""A bar chart as SVG: for each case a bar of ours and one of the peer, the faster of the two over the full width, by
how much ours is faster, and both speeds."""
import textwrap
from xml.sax.saxutils import escape

from harness.report import HEADINGS, number

LABEL, BAR, RATIO, VALUE = 440, 440, 70, 190        # pixels: the columns
WIDTH = LABEL + BAR + RATIO + VALUE
LINE, HEADING, SMALL = 32, 40, 16           # pixels: height of a pair of bars, a heading, small text
STYLE = """text { font: 12px sans-serif; fill: #222 } .title { font-weight: bold; font-size: 17px }
.heading { font-weight: bold; font-size: 14px } .ratio { font-weight: bold } .small { font-size: 11px; fill: #555 }
.ours { fill: #2a78b8 } .peer { fill: #b5b5b5 } .grid { stroke: #e4e4e4 }"""


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
    parts = [text(LABEL - 8, y + 17, case.title, anchor="end")]
    for value, style, top in ((ours, "ours", y + 3), (peer, "peer", y + 15)):
        if value:
            parts.append(bar(top, BAR * value / longest, style))
        elif results.error(case.name, style):
            parts.append(text(LABEL + 2, top + 9, "fails", "small"))
    if ours and peer:
        parts.append(text(LABEL + BAR + RATIO - 8, y + 17, f"× {number(ours / peer)}", "ratio", "end"))
    if ours or peer:
        speeds = " and ".join(number(value) for value in (ours, peer) if value)
        unit = "MB/s" if case.data_bytes else "a second"
        parts.append(text(LABEL + BAR + RATIO + 4, y + 17, f"{speeds} {unit}", "small"))
    return parts


def head(about):
    """Title, legend and what was measured; and where they end."""
    parts = [text(10, 26, "Speed by wall time", "title"),
             f'<rect x="{LABEL}" y="16" width="12" height="10" class="ours"/>', text(LABEL + 18, 25, "ours"),
             f'<rect x="{LABEL + 60}" y="16" width="12" height="10" class="peer"/>',
             text(LABEL + 78, 25, "peer; longer is faster, × says how much faster ours is")]
    y = 32
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
            parts.append(text(10, y - 10, heading, "heading"))
        for case in cases:
            parts.append(f'<line x1="10" y1="{y - 1}" x2="{WIDTH - 10}" y2="{y - 1}" class="grid"/>')
            parts += pair(results, case, y)
            y += LINE
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" '
                      f'viewBox="0 0 {WIDTH} {y + 10}">',
                      f"<style>{STYLE}</style>", f'<rect width="{WIDTH}" height="{y + 10}" fill="#fff"/>', *parts,
                      "</svg>"]) + "\n"
