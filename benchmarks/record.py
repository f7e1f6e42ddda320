"""Where a figure comes from: machine, versions, threads, date and command, written beside it."""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("CONVOLVE_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def origin() -> dict[str, Any]:
    """Machine, versions, threads, date and command of this run."""
    import torch

    from convolve.jobs.versions import processor, versions

    return {
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *map(_as_anywhere, sys.argv[1:])]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _as_anywhere(argument: str) -> str:
    """A path without the folders of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def write(name: str, figures: Mapping[str, Any]) -> None:
    """Write results/NAME.json and print the figures."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"figures": figures, "origin": origin()}, indent=1) + "\n", encoding="utf-8"
    )
    print(json.dumps(figures, indent=1))


def spread(values: Sequence[float]) -> dict[str, float]:
    """n, median, mean, smallest, largest and standard deviation."""
    return {
        "n": len(values),
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "min": min(values),
        "max": max(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
    }


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Seconds of two functions, interleaved in random order, and the ratio theirs / ours pair by pair with its 95 % interval."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    chance = random.Random(0)
    pair = [("ours", ours), ("theirs", theirs)]
    for round_number in range(rounds + 1):
        chance.shuffle(pair)
        for name, function in pair:
            started = time.perf_counter()
            function()
            if round_number:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return {
        "ours_s": spread(seconds["ours"]),
        "theirs_s": spread(seconds["theirs"]),
        "ratio": spread(ratios),
        "ratio_median_95": [medians[50], medians[1949]],
    }


def in_turn(runs: Mapping[str, Callable[[], Any]], rounds: int, least: float = 0.0) -> dict[str, list[float]]:
    """Seconds by name, round by round, in random order and after two untimed calls; a short run is repeated until about `least`
    seconds are full, at most 50 times."""
    chance, order, repeats = random.Random(0), list(runs), {}
    for name, run in runs.items():
        run()
        started = time.perf_counter()
        run()
        repeats[name] = max(1, min(50, int(least / (time.perf_counter() - started))))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        chance.shuffle(order)
        for name in order:
            started = time.perf_counter()
            for _ in range(repeats[name]):
                runs[name]()
            seconds[name].append((time.perf_counter() - started) / repeats[name])
    return seconds


def best_seconds(run: Callable[[], Any], times: int) -> float:
    """The shortest of a few runs, after one that warms up."""
    run()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
