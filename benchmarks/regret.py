"""How much `auto`'s choice loses to the fastest row: over the benchmark's problems in both layouts, and layers drawn at random.

    python -m benchmarks.regret FILE [--stop 14] [--seconds 0.15] [--layers 40] [--write]

Rows are timed as by benchmarks.fit_costs, into FILE, so that one set of timings judges any table of estimates. Regret is the time of the
row that `auto` takes by its estimates over that of the fastest one that it may take; 1.00 is none. The layers come from lists of sizes as
networks have them and another seed than the fit's.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import convolve
from benchmarks import record
from benchmarks.fit_costs import Timings, measured
from benchmarks.problems import ROWS
from convolve.files import atomic_write
from convolve.ops import wisdom
from convolve.ops.algorithms import ALGORITHMS
from convolve.ops.choose import ranked_now
from convolve.problem import LAYOUTS, ROLES, ConvProblem

SEED = 15
LARGEST_MACS = 1.5e9


@dataclass(frozen=True)
class Regret:
    problem: str
    chosen: str
    best: str
    factor: float
    of_library: float
    """The library's row's time, as called, over the choice's."""


def suite() -> list[ConvProblem]:
    """The benchmark's convolutions, in both layouts."""
    plain = [ConvProblem.parse(row.problem) for row in ROWS if not row.pooling]
    return [replace(one, layout=layout) for one in plain for layout in LAYOUTS if one.axes > 1 or layout == LAYOUTS[0]]


def layers(count: int) -> Iterator[ConvProblem]:
    """Layers as networks have them: any role, a third of them with channels last."""
    chance = random.Random(SEED)
    while count:
        n, size = chance.choice((1, 1, 2, 8, 16, 32)), chance.choice((7, 10, 14, 20, 28, 40, 56, 80))
        c, m = (chance.choice((3, 16, 24, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512)) for _ in range(2))
        k, s = chance.choice((1, 1, 1, 2, 3, 3, 3, 5, 7)), chance.choice((1, 1, 1, 2))
        g = c if k > 1 and chance.random() < 0.15 else 1
        s, p = (2, 0) if k == 2 else (s, k // 2)
        text = f"{n}x{c}x{size}x{size} k{c if g > 1 else m} {k}x{k} s{s} p{p} g{g}"
        layout = LAYOUTS[chance.random() < 1 / 3]
        problem = replace(ConvProblem.parse(text), role=chance.choice(ROLES), layout=layout)
        if problem.macs <= LARGEST_MACS:
            yield problem
            count -= 1


def regret(problem: ConvProblem, timings: Timings) -> Regret | None:
    """None where nothing was timed."""
    seconds = {row: taken for row, taken in timings[wisdom.key(problem)].items() if taken is not None}
    chosen = next((row.name for row in ranked_now(problem, "auto", "default", False) if row.name in seconds), None)
    if chosen is None:
        return None
    best = min(seconds, key=lambda row: seconds[row])
    ours = seconds[chosen]
    return Regret(str(problem), chosen, best, ours / seconds[best], seconds.get("torch", ours) / ours)


def summary(title: str, found: list[Regret]) -> dict[str, float]:
    factors = [one.factor for one in found]
    mean = math.exp(statistics.fmean(map(math.log, factors)))
    over = sum(factor > 1.1 for factor in factors)
    print(f"{title}: {len(found)} problems, geometric mean x{mean:.3f}, worst x{max(factors):.2f}, {over} above x1.10")
    return {"problems": len(found), "mean": mean, "worst": max(factors), "above_1.1": over}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("timings", type=Path)
    parser.add_argument(
        "--stop", type=float, default=math.inf, help="measure for so many seconds; the next call goes on"
    )
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="keep the summary in benchmarks/results/regret.json")
    given = parser.parse_args()
    convolve.tune_memory()
    convolve.use_wisdom(enabled=False)
    groups = {"suite": suite(), "layers": list(layers(given.layers))}
    problems = [problem for group in groups.values() for problem in group]
    timings: Timings = json.loads(given.timings.read_text()) if given.timings.exists() else {}
    names = [row.name for row in ALGORITHMS]
    complete = measured(problems, given.seconds, names, timings, time.monotonic() + given.stop)
    with atomic_write(given.timings) as file:
        json.dump(timings, file, indent=0)
    if not complete:
        print(f"{len(timings)} timed so far")
        return
    figures = {}
    for title, group in groups.items():
        found = [one for problem in group if (one := regret(problem, timings)) is not None]
        for one in sorted(found, key=lambda one: -one.factor):
            if one.factor > 1.03:
                print(
                    f"x{one.factor:.2f}  {one.chosen:20} best {one.best:20} torch x{one.of_library:.2f}  {one.problem}"
                )
        figures[title] = summary(title, found)
    if given.write:
        record.write("regret", figures)


if __name__ == "__main__":
    main()
