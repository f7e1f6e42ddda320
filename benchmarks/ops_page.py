"""docs/benchmarks.md, written from results/ops.json: `python -m benchmarks.ops_page`. Nothing in it is typed by hand."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.ops import FLUSHED
from benchmarks.problems import ALL, GROUPS
from benchmarks.record import RESULTS

PAGE = RESULTS.parents[1] / "docs" / "benchmarks.md"
PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "opencv": "OpenCV", "scipy": "SciPy"}


def page() -> str:
    """The page's text."""
    content = json.loads((RESULTS / "ops.json").read_text(encoding="utf-8"))
    figures, origin = content["figures"], content["origin"]
    rows, summary = figures["rows"], figures["classes"]
    parts = [
        "# Benchmarks of the operators",
        "",
        *_words(figures, origin),
        "## By class",
        "",
        *_classes(summary, rows),
        "",
    ]
    for name, group in GROUPS.items():
        members = [row for row in rows if row["group"] == name]
        if members:
            parts += [f"## {group.title[:1].upper()}{group.title[1:]}", "", *_rows(members), ""]
    parts += ["## Losses", "", *_losses(rows), ""]
    parts += ["## Aims that are not reached, and what is missing", "", *_missed(summary, rows), ""]
    if figures.get("rejected"):
        parts += ["## Rejected, and not timed", "", *(f"* {reason}" for reason in figures["rejected"]), ""]
    return "\n".join(parts)


WORDS = """\
Generated from [benchmarks/results/ops.json](../benchmarks/results/ops.json) by `python -m benchmarks.ops_page`; the rules are in
`benchmarks/ops.py`, the problems in `benchmarks/problems.py`.

{machine}, {cores} cores, {threads} threads, {date}; {libraries}. Allocator: {allocator}. Arithmetic peak
{lowest:.0f} to {highest:.0f} GFLOP/s (float32, measured beside each row); bandwidth {speeds}.
{warning}
A ratio is the other's time over ours: above 1 we are faster. *Called*: torch with channels-first tensors against ours with the same.
*Best*: the better layout of each. *Exact*: ours restricted by `convolve.precision("exact")`. Libraries that pack weights beforehand
(ONNX Runtime, OpenVINO) are timed without packing. *At the limit*: what *called* would be if we ran at the
machine's limit for direct sums; where it is below the aim, torch as called is not slow enough here for the aim to be reached by them.
*Of limit*: see `benchmarks/ops.py`; above 100 % the algorithm multiplies less
than a direct sum. *Default allocator* and *avx2*: the ratio *best* of a process with that setting, torch's included. *Cold caches*: of
single calls, before each of which {flushed} MiB of other data have gone through the caches.
"""
WARNING = """
**The machine was not quiet**: its peak before and after differed by more than 3 % in {noisy} of {rows} rows, which are marked ~.
"""


def _words(figures: dict[str, Any], origin: dict[str, Any]) -> list[str]:
    rows = figures["rows"]
    levels = {int(size) / 2**20: speed / 1e9 for size, speed in figures["bandwidth_bytes_per_s"].items()}
    peaks = [max(row["peak_macs_per_s"]) * 2e-9 for row in rows if "float64" not in row["problem"].split()] or [0.0]
    noisy = sum(row["noisy"] for row in rows)
    text = WORDS.format(
        machine=origin["processor"],
        cores=origin["cores"],
        threads=figures["threads"],
        date=origin["date"],
        libraries=", ".join(f"{name} {version}" for name, version in figures["libraries"].items()),
        allocator=figures["allocator"],
        lowest=min(peaks),
        highest=max(peaks),
        speeds=", ".join(f"{speed:.0f} GB/s at {size:g} MiB" for size, speed in levels.items()),
        flushed=FLUSHED >> 20,
        warning=WARNING.format(noisy=noisy, rows=len(rows)) if noisy else "",
    )
    return [*text.splitlines(), ""]


def _classes(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    head = ["class", "rows", "called", "aim", "at the limit", "best", "aim", *PEERS.values(), "worst row (best)"]
    lines = []
    for name, found in summary.items():
        group = GROUPS.get(name, ALL)
        means = {key: f"{value['mean']:.2f}" for key, value in found["means"].items()}
        peers = []
        for peer in PEERS:
            aim = group.peers.get(peer)
            peers.append(means.get(peer, "") + (f" (aim {aim})" if aim and peer in means else ""))
        at_limit = f"{statistics.geometric_mean(_at_limit(row, 'called') for row in _members(name, rows)):.2f}"
        ratios = [means.get("called", ""), _aim(group.called), at_limit, means.get("best", ""), _aim(group.best)]
        title = f"**{group.title}**" if group is ALL else group.title
        lines.append([title, str(found["rows"]), *ratios, *peers, f"{found['worst']} {found['worst_best']:.2f}"])
    return _table(head, lines)


def _rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    peers = [peer for peer in PEERS if any(peer in row["ratios"] for row in rows)]
    columns = sorted({name for row in rows for name in row.get("columns", {})})
    head = ["row", "problem", "algorithm", "ours, ms", "called", "best (95 %)", "exact", *[PEERS[p] for p in peers]]
    head += [*columns, "of limit", "error", "torch's error"]
    lines = []
    for row in rows:
        ratios, contestants = row["ratios"], row["contestants"]
        mine = contestants[ratios["best"]["over"]]
        low, high = ratios["best"]["interval_95"]
        cells = [row["name"] + " ~" * row["noisy"], f"`{row['problem']}`", row["algorithm"].get("ours", "")]
        cells += [_milliseconds(mine["median_s"]), f"{ratios['called']['median']:.2f}"]
        cells += [f"{ratios['best']['median']:.2f} ({low:.2f} to {high:.2f})", f"{ratios['exact best']['median']:.2f}"]
        cells += [f"{ratios[peer]['median']:.2f}" if peer in ratios else "" for peer in peers]
        for name in columns:
            other = row.get("columns", {}).get(name, {}).get("ratios", {}).get("best")
            cells.append("" if other is None else f"{other['median']:.2f}")
        cells += [f"{row['limit_s'] / mine['median_s']:.0%}", f"{mine['max_error']:.0e}"]
        cells.append(f"{contestants[ratios['best']['of']]['max_error']:.0e}")
        lines.append(cells)
    return _table(head, lines)


def _losses(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every ratio below 0.95, the worst first."""
    lost = [
        (ratio["median"], row["name"], key)
        for row in rows
        for key, ratio in row["ratios"].items()
        if key in ("best", *PEERS) and ratio["median"] < 0.95
    ]
    if not lost:
        return ["None below 0.95."]
    names = {"best": "torch's best layout", **PEERS}
    return [f"* {name}: {ratio:.2f} against {names[key]}" for ratio, name, key in sorted(lost)]


DENSE, STREAMED = 0.8, 0.65
"""Shares of the limit that rows bound by arithmetic in the class of dense layers, and rows bound by memory, should reach."""


def _missed(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Every aim that a class misses: by how much, and in which rows the machine or the time beyond its limit keeps it."""
    for group_name, found in summary.items():
        group, members = GROUPS.get(group_name, ALL), _members(group_name, rows)
        for key, aim in {"called": group.called, "best": group.best, **group.peers}.items():
            mean = found["means"].get(key, {}).get("mean", math.inf)
            if aim is None or mean >= aim:
                continue
            taking_part = [row for row in members if key in row["ratios"]]
            limits = statistics.geometric_mean(_at_limit(row, key) for row in taking_part)
            title, name = f"{group.title[:1].upper()}{group.title[1:]}", PEERS.get(key, f"*{key}*")
            yield f"**{title}**, {name}: {mean:.2f}, aim {aim:g}; at the limit {limits:.2f}."
            yield ""
            if group is not ALL:
                yield from _table(MISSED, [_shares(row, key) for row in taking_part])
                yield ""
    far = [row for row in rows if _of_limit(row) < (DENSE if row["group"] == "dense" else STREAMED)]
    for title, bound, share in (("dense", "arithmetic", DENSE), ("bound by memory", "memory", STREAMED)):
        below = [row for row in far if row["bound_by"] == bound and (bound == "memory" or row["group"] == "dense")]
        listed = ", ".join(f"{row['name']} {_of_limit(row):.0%}" for row in sorted(below, key=_of_limit)) or "none"
        yield f"* Rows {title} below {share:.0%} of the limit: {listed}."


MISSED = ("row", "reached", "at the limit", "ours over the limit", "bound by")


def _shares(row: dict[str, Any], key: str) -> list[str]:
    """A ratio as the product of what the machine leaves and what we leave: reached = at the limit / ours over the limit."""
    ratio = row["ratios"][key]
    over = row["contestants"][ratio["over"]]["median_s"] / row["limit_s"]
    cells = [f"{number:.2f}" for number in (ratio["median"], _at_limit(row, key), over)]
    return [row["name"] + " ~" * row["noisy"], *cells, row["bound_by"]]


def _at_limit(row: dict[str, Any], key: str) -> float:
    """What a ratio would be if we ran at the limit for direct sums."""
    seconds: float = row["contestants"][row["ratios"][key]["of"]]["median_s"]
    return seconds / float(row["limit_s"])


def _of_limit(row: dict[str, Any]) -> float:
    return float(row["limit_s"]) / float(row["contestants"][row["ratios"]["best"]["over"]]["median_s"])


def _members(name: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if name not in GROUPS or row["group"] == name]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _aim(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:g}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
