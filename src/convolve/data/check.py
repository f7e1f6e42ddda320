"""A `Check`: what a data set holds, and what is wrong with it, before training finds out.

look.py       every picture once       ->  Facts
likeness.py   who looks like whom      ->  groups of near duplicates
findings.py   one rule per fault       ->  Findings, the worst first
"""

from __future__ import annotations

import html
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convolve.data.findings import NOTE, Finding, Likenesses, find, likenesses
from convolve.data.load import array_source
from convolve.data.look import Facts, Unreadable, look_at_files, look_at_splits
from convolve.data.records import Dataset, Split
from convolve.data.source import Progress, Want, hold_out
from convolve.errors import InputError


@dataclass(frozen=True)
class ClassCount:
    """How many readable pictures of a class each part has."""

    name: str
    images: Mapping[str, int]


@dataclass(frozen=True)
class Spread:
    """Of the heights, or of the widths: the smallest, the median and the largest, in pixels."""

    smallest: int
    middle: float
    largest: int


@dataclass(frozen=True)
class Check:
    """A data set, counted and examined. `findings` come with the worst first; `formats` and `modes` are Pillow's names.

    `compared` is False where the pictures were not decoded, so that no duplicates could be looked for.
    """

    data: str
    kind: str
    images: int
    parts: Mapping[str, int]
    classes: tuple[ClassCount, ...]
    unreadable: tuple[Unreadable, ...]
    heights: Spread | None
    widths: Spread | None
    formats: Mapping[str, int]
    modes: Mapping[str, int]
    findings: tuple[Finding, ...]
    compared: bool
    seconds: float

    @property
    def worse(self) -> tuple[Finding, ...]:
        """The findings that stop or harm training."""
        return tuple(finding for finding in self.findings if finding.severity != NOTE)

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        content = asdict(self)
        content["findings"] = [
            {**asdict(row), "groups": [list(group) for group in row.groups]} for row in self.findings
        ]
        content["unreadable"] = [asdict(row) for row in self.unreadable]
        content["classes"] = [asdict(row) for row in self.classes]
        return content

    def _repr_html_(self) -> str:
        head = f"<p><b>{html.escape(self.data)}</b>: {self.images:,} pictures, {len(self.classes)} classes</p>"
        rows = [
            f"<tr><td>{row.severity}</td><td>{html.escape(row.what)}</td><td>{html.escape(row.remedy)}</td></tr>"
            for row in self.findings
        ]
        return head + "<table><tr><th></th><th>finding</th><th>what to do</th></tr>" + "".join(rows) + "</table>"


def findings_of(dataset: Dataset, test: Split | None = None) -> Check:
    """The Check of what training has read already: nothing is read again, so files left out are known by their reasons, and
    duplicates only where the pictures are in memory (they are then compared as the network sees them)."""
    started = time.perf_counter()
    splits = [split for split in (dataset.train, dataset.validation, test) if split is not None]
    facts = look_at_splits(splits, dataset.classes, dataset.origin, "what training read")
    return summed(facts, likenesses(facts), started)


def look(source: str | Path | None, *, workers: int | None = None, progress: Progress | None = None) -> Facts:
    """The Facts of a data set, whatever `load` takes or an image folder that it would refuse; they also open each picture by name.

    Every picture is decoded once (JPEGs at a fraction of their size), `workers` threads at a time. Raises InputError when
    there is nothing to examine.
    """
    found = array_source(source)
    if isinstance(found, Path):
        return look_at_files(found, workers, progress)
    survey = found.survey(workers, progress)
    want = Want(survey.size, survey.channels, workers, progress)
    splits = [found.read(part, want, found.classes) for part in found.counts]
    planned: frozenset[str] = frozenset()
    if "validation" not in found.counts and "train" in found.counts:
        try:
            held, _ = found.hold_out(None, 0)
        except InputError:
            held = None
        if held is not None:
            names = next(split.ids for split in splits if split.name == "train")
            planned = frozenset(name for name, out in zip(names, held.tolist(), strict=True) if out)
    return look_at_splits(splits, found.classes, found.origin, found.name, planned)


def kept_together(facts: Facts, alike: Likenesses) -> list[tuple[str, str, str]]:
    """(image, class, part) of a split like training's own, with near duplicates on one side as copies are.

    Raises InputError where the data brings its own validation images, or cannot be split.
    """
    train = [picture for picture in facts.seen if picture.part == "train"]
    if len(train) < len(facts.seen) and any(picture.part == "validation" for picture in facts.seen):
        remedy = "remove its validation folder first, or leave --split out"
        raise InputError("a split is written where the data has none", f"{facts.origin} brings its own", remedy)
    stands_for = {picture.digest: min(p.digest for p in group) for group in alike.near for picture in group}
    digests = [stands_for.get(picture.digest, picture.digest) for picture in train]
    place = {name: i for i, name in enumerate(facts.classes)}
    held, _ = hold_out([place[picture.label] for picture in train], digests, None, 0)
    parts = ("train", "validation")
    return [(p.name, p.label, parts[out]) for p, out in zip(train, held.tolist(), strict=True)]


def summed(facts: Facts, alike: Likenesses, started: float) -> Check:
    """The Check of what was seen, since `started` (time.perf_counter)."""
    parts = Counter(picture.part for picture in facts.seen)
    by_class = Counter((picture.label, picture.part) for picture in facts.seen)
    names = dict.fromkeys([*facts.classes, *sorted({picture.label for picture in facts.seen} - set(facts.classes))])
    findings = find(facts, alike)
    return Check(
        data=facts.origin,
        kind=facts.kind,
        images=len(facts.seen),
        parts=dict(parts),
        classes=tuple(ClassCount(name, {part: by_class[name, part] for part in parts}) for name in names),
        unreadable=tuple(facts.unreadable),
        heights=_spread([picture.h for picture in facts.seen]),
        widths=_spread([picture.w for picture in facts.seen]),
        formats=dict(Counter(picture.format for picture in facts.seen if picture.format).most_common()),
        modes=dict(Counter(picture.mode for picture in facts.seen).most_common()),
        findings=findings,
        compared=facts.compared,
        seconds=time.perf_counter() - started,
    )


def _spread(values: list[int]) -> Spread | None:
    return Spread(min(values), float(statistics.median(values)), max(values)) if values else None
