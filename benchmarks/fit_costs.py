"""Fit the estimates that `auto` goes by: measure the rows over a family of problems, and write src/convolve/ops/costs.json.

    python -m benchmarks.fit_costs [--row planes …] [--seconds 0.05] [--limit 40] [--dry] [--timings FILE [--stop 14] [--field point …]]

Every row that can serve a problem is timed by the path of a call (`convolve.ops.measure`). For each bucket (row, role, kind of channels,
dtype, layout) with enough problems, coefficients >= 0 of the features in `ops/costs.py` are fitted by least squares of relative errors,
then refined on the logarithm of the time. Problems come from a seeded generator and from benchmarks/problems.py. `spread` is the
typical factor of error on problems held out. Unless it errs clearly less than the row's own formula, times one factor, it is that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize, nnls

import convolve
from benchmarks.problems import ROWS
from benchmarks.record import origin
from convolve.files import atomic_write
from convolve.ops import costs, wisdom
from convolve.ops.algorithms import ALGORITHMS
from convolve.ops.choose import served
from convolve.ops.machine import capability, processor
from convolve.ops.measure import time_rows
from convolve.problem import ConvProblem

LEAST = 8  # problems that coefficients are fitted to
CLEARLY = 1.1  # by how much a fit must err less than the row's own formula, which compares with other rows' beyond what was measured
LARGEST_MACS = 1.1e9
_MOST_ELEMENTS = 1 << 23  # of a map of the field `separable`
FIELDS = (
    *("dense", "point", "patch", "strided", "dilated", "few", "single", "batch"),
    *("depthwise", "multiplied", "wide", "picture", "grouped", "sequence", "volume", "separable"),
)
FLOAT64 = {"batch": 0.4}  # how many in float64, where more than elsewhere: some rows serve these alone, and need LEAST


def family(count: int, fields: Sequence[str] = FIELDS) -> Iterator[ConvProblem]:
    """`count` random problems of each field, in all roles and both layouts, and those of the benchmark that are not too large."""
    for row in ROWS:
        if not row.pooling:
            yield ConvProblem.parse(row.problem)
    for field in fields:
        chance = random.Random(field)  # a larger count adds problems and changes none
        for _ in range(count):
            yield from _variants(_random(field, chance), chance, FLOAT64.get(field, 0.15))


def _random(field: str, chance: random.Random) -> ConvProblem:
    n, size = chance.choice((1, 1, 4, 16, 64)), chance.choice((5, 7, 14, 28, 56, 112))
    k, s = chance.choice((1, 3, 3, 5, 7)), chance.choice((1, 1, 1, 2))
    c, m, g = (chance.choice((16, 32, 64, 128, 256)) for _ in range(3))
    g = 1
    axes = 2
    if field == "few":
        c, m = chance.choice((1, 2, 3, 3, 4)), chance.choice((4, 6, 16, 32, 64))
        k, s = chance.choice(((k, s), (k, s), (7, 2), (11, 4)))
    elif field == "single":
        c = m = 1
        n, (size, k) = 1, chance.choice(
            [(size, k) for size in (8, 64, 256, 512, 1024) for k in (3, 5, 7, 11, 15, 31)]
            + [(128, 63), (256, 63), (512, 63), (128, 127), (256, 127)]
        )  # fmt: skip
    elif field == "depthwise":
        m = g = c
        k = chance.choice((3, 3, 5, 7, 11))
    elif field == "multiplied":  # filters of single channels, some for each, or for a picture's few
        g = c = chance.choice((2, 3, 3, 4, 16, 32, 64, 128))
        m, size = c * (1 if c <= 4 else chance.choice((2, 2, 3, 4))), chance.choice((14, 28, 56, 64, 112, 224))
        k = chance.choice((3, 3, 5, 7, 11))
    elif field == "picture":  # filtered, in one channel or in three
        n, s, size = 1, 1, chance.choice((256, 512, 512, 720, 1024))
        c = m = g = chance.choice((1, 3))
        k = chance.choice((3, 5, 7, 9, 11, 13, 15))
    elif field == "wide":
        m = g = c = chance.choice((16, 32, 64, 128))
        n, size, k, s = 1, chance.choice((28, 32, 56)), chance.choice((13, 15, 21, 31)), 1
    elif field == "strided":
        k, s, size = chance.choice((3, 3, 4, 4, 5)), 2, chance.choice((8, 14, 28, 56, 56))
    elif field == "point":
        k, s, size = 1, 1, chance.choice((7, 14, 14, 28, 28, 56, 56, 112))
        c, m = (chance.choice((16, 24, 32, 64, 96, 128, 192, 256, 512, 832, 1024)) for _ in range(2))
    elif field == "patch":  # windows side by side
        k = s = chance.choice((1, 2, 2, 2, 4))
        s, size = max(2, s), chance.choice((8, 14, 28, 56, 56, 112))
        c, m = chance.choice((3, 16, 64, 64, 128, 256, 512)), chance.choice((16, 64, 128, 256))
    elif field == "dilated":
        k, s, size = 3, 1, chance.choice((14, 28, 33, 41, 65))
    elif field == "batch":  # of small pictures
        n, size, k, s = (
            chance.choice((32, 64, 128, 256)),
            chance.choice((8, 10, 14, 20, 28, 32)),
            chance.choice((3, 5)),
            1,
        )
        c, m = chance.choice((1, 3, 6, 8, 16)), chance.choice((6, 8, 16, 16, 32))
    elif field == "separable":  # a training batch of small maps: depthwise layers and the points between them
        n, size = chance.choice((16, 32, 64, 128)), chance.choice((7, 8, 14, 16, 28, 32))
        c, m = (chance.choice((16, 32, 64, 96, 128, 256, 512)) for _ in range(2))
        while n * max(c, m) * size**2 > _MOST_ELEMENTS:
            n //= 2
        k, s = (1, 1) if chance.random() < 0.5 else (3, chance.choice((1, 2)))
        if k == 3:
            m = g = c
    elif field == "grouped":
        g = chance.choice((2, 4, 8))
    elif field == "sequence":
        axes, size, k = 1, size * size, chance.choice((2, 3, 9, 31, 129))
        c, m = chance.choice(((1, 1), (16, 32), (64, 64)))
    elif field == "volume":
        axes, size, k = 3, chance.choice((8, 16, 32)), chance.choice((1, 3))
        c, m = chance.choice(((1, 1), (3, 16), (16, 16)))
    shape = "x".join(map(str, (n, c, *[size] * axes)))
    kernel = "x".join([str(k)] * axes)
    d = chance.choice((2, 4, 6, 12)) if field == "dilated" else 1
    p = 0 if field == "patch" else k // 2 * d
    return ConvProblem.parse(f"{shape} k{m} {kernel} s{s} p{p} d{d} g{g}")


def _variants(problem: ConvProblem, chance: random.Random, float64: float) -> Iterator[ConvProblem]:
    """The problem in the three roles; now and then channels last, or in float64."""
    for role in ("output", "input_gradient", "weight_gradient"):
        layout = "channels_last" if problem.axes > 1 and chance.random() < 0.35 else "channels_first"
        dtype = "float64" if chance.random() < float64 else "float32"
        yield replace(problem, role=role, layout=layout, dtype=dtype)


Sample = tuple[tuple[float, ...], float]
"""Features and seconds."""
Timings = dict[str, dict[str, float | None]]
"""By the problem as wisdom names it: seconds by row, or None where a row that was asked for was not timed."""


FROZEN = " frozen"  # as `wisdom.key` ends
_PREPARING = {row.name for row in ALGORITHMS if row.preparation is not None}


def measured(
    problems: Sequence[ConvProblem], seconds: float, wanted: Sequence[str], known: Timings, until: float
) -> bool:
    """Add to `known` the timings of the rows `wanted` that it lacks; whether there was enough time, to the monotonic clock's `until`."""
    for number, problem in enumerate(problems):
        for frozen in (False, True) if problem.role == "output" else (False,):
            name = wisdom.key(problem, frozen)
            have = known.get(name, {})
            lacking = [row for row in wanted if row not in have and (not frozen or row in _PREPARING)]
            if not lacking:
                continue
            if time.monotonic() > until:
                print()
                return False
            known[name] = have | dict.fromkeys(lacking) | time_rows(problem, seconds, frozen, lacking)
            print(f"\r{number + 1} of {len(problems)} {problem}"[:119].ljust(119), end="", flush=True)
    print()
    return True


def samples_of(timings: Timings) -> dict[str, list[Sample]]:
    """Samples by bucket, but no bucket that holds what the next wider one holds."""
    rows = {row.name: row for row in ALGORITHMS}
    samples: dict[str, list[Sample]] = {}
    wider: dict[str, str] = {}
    for text, seconds in timings.items():
        problem, frozen = ConvProblem.parse(text.removesuffix(FROZEN)), text.endswith(FROZEN)
        for name, taken in seconds.items():
            row = rows[name]
            if taken is None or (frozen and row.preparation is None):
                continue
            seen = served(row, problem)
            features = costs.features(seen, costs.own_estimate(row, seen, frozen).seconds)
            names = costs.buckets(row, seen, frozen)
            wider |= dict(itertools.pairwise(names))
            for bucket in names:
                samples.setdefault(bucket, []).append((features, taken))
    return {
        name: found for name, found in samples.items() if name not in wider or len(found) < len(samples[wider[name]])
    }


def fit(samples: Sequence[Sample]) -> tuple[float, ...]:
    """Coefficients >= 0 of the features."""
    features = np.array([features for features, _ in samples])
    seconds = np.array([taken for _, taken in samples])
    # Each feature in seconds of its own order of magnitude, so that the search is well scaled.
    scale = np.maximum(features.max(0), 1e-30) / seconds.max()
    relative = features / scale / seconds[:, None]
    start, _ = nnls(relative, np.ones(len(seconds)))

    def error(coefficients: Any) -> Any:
        predicted = np.maximum(relative @ coefficients, 1e-9)
        return float((np.log(predicted) ** 2).sum()), 2 * relative.T @ (np.log(predicted) / predicted)

    found = minimize(error, np.maximum(start, 1e-6), jac=True, bounds=[(0, None)] * len(scale), method="L-BFGS-B")
    best = min((found.x, start), key=lambda coefficients: error(coefficients)[0])
    return tuple(max(0.0, float(value)) for value in best / scale)  # the search may overstep its bounds by a rounding


def scaled(samples: Sequence[Sample]) -> tuple[float, ...]:
    """The row's own formula times one factor: better than `fit` where it knows more than the features do."""
    factor = math.exp(statistics.fmean(math.log(taken / max(features[-1], 1e-9)) for features, taken in samples))
    return (*[0.0] * (len(costs.FEATURES) - 1), factor)


def spread(coefficients: Sequence[float], samples: Sequence[Sample]) -> float:
    """By what factor the estimates are typically wrong: the geometric standard deviation."""
    logs = [math.log(taken / max(float(np.dot(coefficients, features)), 1e-9)) for features, taken in samples]
    return math.exp(math.sqrt(statistics.fmean(value * value for value in logs)))


def _held_out(how: Callable[[Sequence[Sample]], tuple[float, ...]], samples: Sequence[Sample]) -> float:
    """The spread on each fifth sample of what was fitted to the others, over the five ways to choose the fifth."""
    parts = [spread(how([s for i, s in enumerate(samples) if i % 5 != first]), samples[first::5]) for first in range(5)]
    return round(math.exp(math.sqrt(statistics.fmean(math.log(part) ** 2 for part in parts))), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--limit", type=int, default=40, help="random problems of each field")
    parser.add_argument("--field", nargs="*", default=FIELDS, choices=FIELDS, help="measure these only")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--timings", type=Path, help="a file to which timings are added, and from which they are taken")
    parser.add_argument(
        "--stop", type=float, default=math.inf, help="measure for so many seconds; the next call goes on"
    )
    given = parser.parse_args()
    unknown = set(given.row) - {row.name for row in ALGORITHMS}
    if unknown:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}")
    convolve.tune_memory()
    convolve.use_wisdom(enabled=False)
    problems = list(dict.fromkeys(p for p in family(given.limit, given.field) if 0 < p.macs <= LARGEST_MACS))
    random.Random(0).shuffle(problems)  # whatever was measured so far is a fair sample
    timings: Timings = json.loads(given.timings.read_text()) if given.timings and given.timings.exists() else {}
    wanted = given.row or [row.name for row in ALGORITHMS]
    complete = measured(problems, given.seconds, wanted, timings, time.monotonic() + given.stop)
    if given.timings:
        with atomic_write(given.timings) as file:
            json.dump(timings, file, indent=0)
    if complete:
        write_table(samples_of(timings), given.row, given.dry)
    else:
        print(f"{len(timings)} timed so far")


def write_table(samples: dict[str, list[Sample]], wanted: Sequence[str], dry: bool) -> None:
    """Fit the rows `wanted`, or all, and keep what the table says of the others."""
    table: dict[str, Any] = {}
    if costs.TABLE.exists():
        table = json.loads(costs.TABLE.read_text(encoding="utf-8"))
        same = (table["processor"], table["capability"], table["threads"]) == (
            processor(),
            capability(),
            torch.get_num_threads(),
        )
        if wanted and not same and not dry:
            raise SystemExit("costs.json was recorded elsewhere, or with other threads: fit all rows")
        table = table if wanted else {}
    old = table.get("coefficients", {})
    coefficients = {name: values for name, values in old.items() if name.split()[0] not in wanted}
    spreads = {name: value for name, value in table.get("spread", {}).items() if name in coefficients}
    for name, found in sorted(samples.items()):
        if len(found) < LEAST or (wanted and name.split()[0] not in wanted):
            continue
        fitted, plain = _held_out(fit, found), _held_out(scaled, found)
        spreads[name], how = (fitted, fit) if CLEARLY * fitted < plain else (plain, scaled)
        coefficients[name] = [float(f"{value:.4g}") for value in how(found)]
        print(f"{name:<70} {len(found):4} problems, wrong by x{spreads[name]:.2f} held out ({how.__name__})")
    content = {
        "processor": processor(),
        "capability": capability(),
        "threads": torch.get_num_threads(),
        "origin": origin(),
        "features": list(costs.FEATURES),
        "coefficients": coefficients,
        "spread": spreads,
    }
    if not dry:
        text = json.dumps(content, indent=1)
        lists_on_one_line = re.sub(r"\[[^][]*\]", lambda found: " ".join(found.group().split()), text)
        costs.TABLE.write_text(lists_on_one_line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
