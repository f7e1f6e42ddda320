"""A network as SVG: boxes from the input down, lanes for branches, each box with its numbers and its share of the MACs.

Layout: a box stands one row below the lowest of its sources; it takes the lane of its first source if no other box has
taken that lane over, else the nearest lane that is free at its row. Lines run in the gaps between rows.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convolve.analysis.columns import Node, Sheet

WIDTH, GAP_X, GAP_Y, LINE, PAD = 280, 34, 26, 15, 7
_FONT = 'font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" font-size="11.5"'
COLOURS = {
    "convolution": "#0072b2", "dense": "#d55e00", "pooling": "#009e73", "join": "#6b7280", "other": "#9ca3af", "input": "#111827",
}  # fmt: skip


def svg(sheet: Sheet) -> str:
    """The diagram of a sheet, as one SVG element."""
    inputs = len(sheet.inputs)
    rank, lane = _layout(sheet.nodes, inputs)
    rows = max(rank.values()) + 1
    heights = [0] * rows
    for key, row in rank.items():
        heights[row] = max(heights[row], _height(sheet.nodes[key]) if key >= 0 else LINE + 2 * PAD)
    tops = [GAP_Y // 2]
    for height in heights:
        tops.append(tops[-1] + height + GAP_Y)
    lanes = max(lane.values()) + 1
    width, total = lanes * (WIDTH + GAP_X) + GAP_X, tops[-1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" viewBox="0 0 {width} {total}" {_FONT}>',
        f"<title>{escape(sheet.title)}</title>",
        f'<rect width="{width}" height="{total}" fill="#ffffff"/>',
    ]
    place = {
        key: (
            GAP_X + lane[key] * (WIDTH + GAP_X),
            tops[rank[key]],
            _height(sheet.nodes[key]) if key >= 0 else LINE + 2 * PAD,
        )
        for key in rank
    }
    for number, node in enumerate(sheet.nodes):
        for source in node.sources:
            parts.append(_edge(place[source], place[number], place, source, number))  # noqa: PERF401
    for number, name in enumerate(sheet.inputs):
        x, y, height = place[-1 - number]
        parts += _box(x, y, height, "input", name, (), 0.0, "")
    for number, node in enumerate(sheet.nodes):
        x, y, height = place[number]
        parts += _box(x, y, height, node.kind, node.title, node.lines, node.share, node.finding)
    return "\n".join([*parts, "</svg>"])


def _height(node: Node) -> int:
    return (1 + len(node.lines)) * LINE + 2 * PAD + (5 if node.share else 0)


def _layout(nodes: tuple[Node, ...], inputs: int) -> tuple[dict[int, int], dict[int, int]]:
    """The row and the lane of every box; inputs are -1, -2, …"""
    rank = {-1 - number: 0 for number in range(inputs)}
    lane = {-1 - number: number for number in range(inputs)}
    taken: dict[int, set[int]] = {0: set(lane.values())}
    heir: dict[int, int] = {}
    last = {source: number for number, node in enumerate(nodes) for source in node.sources}
    for number, node in enumerate(nodes):
        rank[number] = 1 + max((rank[source] for source in node.sources), default=0)
        wished = [
            lane[source] for source in sorted(node.sources, key=lambda s: lane[s]) if heir.get(source, number) == number
        ]
        start = wished[0] if wished else (lane[node.sources[0]] if node.sources else 0)
        top = min((rank[s] + 1 for s in node.sources), default=0)
        span = range(max(top, rank[number]), rank[number] + 1)
        choice = start
        while any(choice in taken.get(row, set()) for row in span):
            choice += 1
        lane[number] = choice
        taken.setdefault(rank[number], set()).add(choice)
        for source in node.sources:
            heir.setdefault(source, number)
            # A long edge occupies its source's lane down to here, so that no box is drawn over it.
            if last[source] == number:
                for row in range(rank[source] + 1, rank[number]):
                    taken.setdefault(row, set()).add(lane[source])
    return rank, lane


Place = tuple[int, int, int]


def _edge(source: Place, target: Place, place: dict[int, Place], start: int, end: int) -> str:
    """From the bottom of one box to the top of another; around the boxes between where there are any."""
    x1, y1 = source[0] + WIDTH // 2, source[1] + source[2]
    x2, y2 = target[0] + WIDTH // 2, target[1]
    between = [
        (x, y, h)
        for key, (x, y, h) in place.items()
        if key not in (start, end) and y + h > y1 and y < y2 and abs(x - source[0]) < WIDTH
    ]
    style = 'fill="none" stroke="#6b7280" stroke-width="1.4"'
    arrow = f'<path d="M{x2 - 4},{y2 - 6} L{x2},{y2} L{x2 + 4},{y2 - 6}" {style}/>'
    half = GAP_Y // 2
    if between:
        side = source[0] - GAP_X // 2 if x2 <= x1 else source[0] + WIDTH + GAP_X // 2
        path = f"M{x1},{y1} V{y1 + half - 3} H{side} V{y2 - half + 2} H{x2} V{y2}"
    elif x1 == x2:
        path = f"M{x1},{y1} V{y2}"
    else:
        path = f"M{x1},{y1} V{y2 - half} H{x2} V{y2}"
    return f'<path d="{path}" {style}/>{arrow}'


def _box(
    x: int, y: int, height: int, kind: str, title: str, lines: tuple[str, ...], share: float, finding: str
) -> list[str]:
    colour = COLOURS[kind]
    said = escape("\n".join((title, *lines, f"finding: {finding}" if finding else "")).rstrip())
    frame = "#b91c1c" if finding else "#cbd5e1"
    parts = [
        f"<g><title>{said}</title>",
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="5" fill="#ffffff" stroke="{frame}"/>',
        f'<rect x="{x}" y="{y}" width="5" height="{height}" rx="2" fill="{colour}"/>',
        f'<text x="{x + 14}" y="{y + PAD + 11}" font-weight="600" fill="#111827">{escape(_cut(title, 36))}</text>',
    ]
    if finding:
        parts.append(
            f'<text x="{x + WIDTH - 8}" y="{y + PAD + 11}" text-anchor="end" fill="#b91c1c">{escape(finding)}</text>'
        )
    for number, line in enumerate(lines, 1):
        parts.append(
            f'<text x="{x + 14}" y="{y + PAD + 11 + number * LINE}" fill="#374151">{escape(_cut(line, 42))}</text>'
        )
    if share:
        parts.append(
            f'<rect x="{x + 14}" y="{y + height - 7}" width="{WIDTH - 28}" height="3" fill="#e5e7eb"/>'
            f'<rect x="{x + 14}" y="{y + height - 7}" width="{max(1.0, (WIDTH - 28) * share):.1f}" height="3" fill="{colour}"/>'
        )
    return [*parts, "</g>"]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
