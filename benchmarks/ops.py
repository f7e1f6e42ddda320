"""Every operator against torch and the other libraries: one table, losses beside wins.

    python -m benchmarks.ops [--class pooling …] [--only V4 …] [--rounds 30] [--seconds 4] [--quick] [--list]
    python -m benchmarks.ops --write          also writes results/ops.json and docs/benchmarks.md; with --class or --only, these rows
    python -m benchmarks.ops --columns [...]  the recorded rows under the default allocator, for AVX2 and with cold caches, or these of
                                              them, each in a process of its own; with --write after the rows themselves

Rules. All contestants of a row run in one process, in turn, in random order, each after an untimed call of its own; every result is
compared with float64 before anything is timed. Reported are medians, and the median of the ratios pair by pair (round by round) with
its 95 % bootstrap interval. torch is given channels-first tensors as called ("called"), and the better of both layouts ("best")
stands against ours in our better layout. The peak of the machine is measured before and after each row; where the two differ, the row is
timed again, up to three times, and the try whose peaks differ least is kept. All processes keep freed memory (convolve.tune_memory)
unless the column says otherwise.

    limit     the time that the machine needs at least: direct multiply-adds at the measured peak, or input + weight + output once at the
              bandwidth of a working set of that size, whichever is longer, plus the time of an empty call
    of limit  limit / ours; for rows that multiply less than a direct sum (Winograd, FFT) this is effective, and may exceed 100 %
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

import convolve
from benchmarks import limits
from benchmarks.contestants import Field, field_of
from benchmarks.problems import GROUPS, ROWS, Row
from benchmarks.record import RESULTS, origin

SHORTEST = (
    1e-3  # seconds that one sample lasts at least: shorter calls are repeated within it, so that all of them are warm
)
LONG = 0.05  # contestants that take longer are warm without an untimed call
COLUMNS = {
    "default allocator": {"CONVOLVE_BENCH_ALLOCATOR": "default"},
    "avx2": {"NUMBA_CPU_NAME": "haswell"},
    "cold caches": {"CONVOLVE_BENCH_CACHES": "cold"},
}
COLD = os.environ.get("CONVOLVE_BENCH_CACHES") == "cold"
FLUSHED = 128 << 20  # bytes that go through the caches before every cold call
BORDER = 1.5  # a bound speaks of a result's neighbourhood; the rms of a whole map is smaller where many results lie at its border
NOISY = 0.03  # relative difference of the peaks before and after, above which a row is marked
TRIES = 3  # of a noisy row, of which the one with the steadiest peak is kept, whatever its ratios
STEADY = ("ours", "torch")  # what a column measures


class RejectedError(Exception):
    """A result that is not what it should be: nothing is timed."""


def measure(row: Row, rounds: int, seconds: float, wanted: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Verify and time one row: the steadiest of a few tries."""
    with torch.no_grad():
        field = field_of(row, wanted)
        errors = verified(row, field)
        kind = "double" if "float64" in row.problem.split() else "float"
        unsteady, before, after, times = math.inf, 0.0, 0.0, {}
        for _ in range(TRIES):
            first = limits.fma_per_second(torch.get_num_threads(), kind)
            tried = timed(field, rounds, seconds)
            last = limits.fma_per_second(torch.get_num_threads(), kind)
            difference = abs(first - last) / max(first, last)
            if difference < unsteady:
                unsteady, before, after, times = difference, first, last, tried
            if unsteady <= NOISY:
                break
    peak = max(before, after)
    limit = max(field.macs / peak, field.bytes / limits.bandwidth_at(bandwidth(), field.bytes))
    contestants = {
        name: {
            "median_s": statistics.median(samples.values()),
            "min_s": min(samples.values()),
            "p90_s": sorted(samples.values())[int(0.9 * (len(samples) - 1))],
            "n": len(samples),
            "max_error": errors[name][0],
            "rms_error": errors[name][1],
        }
        for name, samples in times.items()
    }
    found = {
        "name": row.name,
        "group": row.group,
        "problem": row.problem,
        "algorithm": field.algorithm,
        "macs": field.macs,
        "bytes": field.bytes,
        "bound": field.bound,
        "peak_macs_per_s": [before, after],
        "noisy": unsteady > NOISY,
        "limit_s": limit + empty_call(),
        "bound_by": "arithmetic" if field.macs / peak > limit * 0.999 else "memory",
        "contestants": contestants,
        "absent": field.absent,
    }
    return found | {"ratios": ratios(times)}


def verified(row: Row, field: Field) -> dict[str, tuple[float, float]]:
    """The largest and rms error of each contestant over the rms of the exact result. Rows of ours must hold their bound."""
    scale = max(float(field.exact.square().mean().sqrt()), 1e-300)
    errors = {}
    for name, contestant in field.contestants.items():
        with contestant.scope():
            value = contestant.value(contestant.run())
        if value.shape != field.exact.shape:
            raise RejectedError(f"{row.name}: {name} returned {tuple(value.shape)}, not {tuple(field.exact.shape)}")
        difference = value.double() - field.exact
        errors[name] = float(difference.abs().max()) / scale, float(difference.square().mean().sqrt()) / scale
        own = name in field.algorithm and not field.algorithm[name].startswith("torch")
        limit = BORDER * field.bound if own else 1e-3
        if not errors[name][0] <= limit:
            raise RejectedError(f"{row.name}: {name} is wrong by {errors[name][0]:.2e}, allowed {limit:.2e}")
    return errors


def timed(field: Field, rounds: int, seconds: float) -> dict[str, dict[int, float]]:
    """Seconds of one call by contestant and round. A contestant that has used up its share of the time sits out."""
    chance = random.Random(0)
    names = list(field.contestants)
    times: dict[str, dict[int, float]] = {name: {} for name in names}
    calls: dict[str, int] = {}
    spent = dict.fromkeys(names, 0.0)
    for name in names:
        once = _sample(field, name, 1, warm=True)
        calls[name] = 1 if COLD else max(1, math.ceil(SHORTEST / once))
    share = seconds / len(names)
    for number in range(rounds):
        chance.shuffle(names)
        for name in names:
            if number >= 3 and spent[name] > share:
                continue
            if number >= 1 and spent[name] > 4 * share:  # a call of seconds: once or twice is enough
                continue
            long = spent[name] > LONG * max(1, number)
            times[name][number] = _sample(field, name, calls[name], warm=not long)
            spent[name] += times[name][number] * calls[name]
    return times


def _sample(field: Field, name: str, calls: int, warm: bool) -> float:
    contestant = field.contestants[name]
    with contestant.scope():
        if COLD:
            _other_data().add_(1)
        elif warm:
            contestant.run()
        started = time.perf_counter()
        for _ in range(calls):
            contestant.run()
        return (time.perf_counter() - started) / calls


@cache
def _other_data() -> torch.Tensor:
    return torch.zeros(FLUSHED, dtype=torch.uint8)


def ratios(times: dict[str, dict[int, float]]) -> dict[str, dict[str, Any]]:
    """Peer time over our time: `called`, `best`, the same with exact rows only, and each library against our better layout."""
    medians = {name: statistics.median(samples.values()) for name, samples in times.items()}

    def better(stem: str) -> str | None:
        return min((name for name in (stem, f"{stem} last") if name in medians), key=medians.__getitem__, default=None)

    ours = better("ours")
    if ours is None:
        return {}
    exact_ours = min(
        (
            f"ours exact{s}" if f"ours exact{s}" in medians else f"ours{s}"
            for s in ("", " last")
            if f"ours{s}" in medians
        ),
        key=medians.__getitem__,
    )
    pairs = {"called": ("torch", "ours"), "best": (better("torch"), ours), "exact best": (better("torch"), exact_ours)}
    pairs["exact called"] = ("torch", "ours exact" if "ours exact" in medians else "ours")
    pairs |= {name: (name, ours) for name in medians if not name.startswith(("ours", "torch"))}
    return {
        key: {"of": theirs, "over": mine, **_ratio(times[theirs], times[mine])}
        for key, (theirs, mine) in pairs.items()
        if theirs in times and mine in times and theirs is not None
    }


def _ratio(theirs: dict[int, float], mine: dict[int, float]) -> dict[str, Any]:
    paired = [theirs[number] / mine[number] for number in theirs if number in mine]
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(paired, k=len(paired))) for _ in range(1000))
    return {"median": statistics.median(paired), "interval_95": [medians[25], medians[974]], "n": len(paired)}


_MEASURED: dict[str, Any] = {}


def bandwidth() -> dict[int, float]:
    """Bytes per second by working set, measured once."""
    if "bandwidth" not in _MEASURED:
        _MEASURED["bandwidth"] = limits.bandwidth()
    table: dict[int, float] = _MEASURED["bandwidth"]
    return table


def empty_call() -> float:
    """Seconds of a call that computes one product."""
    if "empty" not in _MEASURED:
        x, w = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        from benchmarks.record import best_seconds

        _MEASURED["empty"] = best_seconds(lambda: convolve.conv2d(x, w), 200)
    seconds: float = _MEASURED["empty"]
    return seconds


def line(found: dict[str, Any]) -> str:
    """One row for the terminal."""
    ours = min(c["median_s"] for name, c in found["contestants"].items() if name in ("ours", "ours last"))
    others = " ".join(
        f"{name} {ratio['median']:.2f}"
        for name, ratio in found["ratios"].items()
        if name not in ("called", "best", "exact called", "exact best")
    )
    ratio = {key: f"{value['median']:8.2f}" for key, value in found["ratios"].items()}
    error = found["contestants"].get("ours", found["contestants"].get("ours last"))["max_error"]
    return (
        f"{found['name']:<15}{found['algorithm'].get('ours', 'pooling'):<20}{ours * 1e3:10.3f} ms"
        f"{ratio.get('called', ''):>9}{ratio.get('best', ''):>9}{ratio.get('exact best', ''):>9}"
        f"{found['limit_s'] / ours:8.0%}{error:9.1e}{' ~' if found['noisy'] else '  '} {others}"
    )


def classes(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means by class and over everything, and the smallest ratio against torch's best layout."""
    summary: dict[str, Any] = {}
    for name in (*GROUPS, "all"):
        members = [row for row in rows if name in ("all", row["group"])]
        if not members:
            continue
        keys = sorted({key for row in members for key in row["ratios"]})
        means = {}
        for key in keys:
            values = [row["ratios"][key]["median"] for row in members if key in row["ratios"]]
            means[key] = {"mean": math.exp(statistics.fmean(map(math.log, values))), "n": len(values)}
        worst = min(members, key=lambda row: row["ratios"].get("best", {"median": math.inf})["median"])
        summary[name] = {"rows": len(members), "means": means, "worst": worst["name"]}
        summary[name]["worst_best"] = worst["ratios"]["best"]["median"]
    return summary


def column(name: str, rows: Sequence[Row], rounds: int, seconds: float) -> dict[str, Any]:
    """Our seconds and the ratio to torch, in a process with another environment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        words = ["--only", *[row.name for row in rows], "--rounds", str(rounds), "--seconds", str(seconds)]
        command = [sys.executable, "-m", "benchmarks.ops", *words, "--steady", str(path)]
        subprocess.run(command, check=True, env={**os.environ, **COLUMNS[name]}, cwd=RESULTS.parents[1])
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def add_columns(names: Sequence[str], rows: Sequence[Row], rounds: int, seconds: float) -> None:
    """Measure columns of rows that are recorded, whose own figures stay as they are."""
    from benchmarks import ops_page

    path = RESULTS / "ops.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in names:
        slim = column(name, rows, rounds, seconds)
        for row in content["figures"]["rows"]:
            if row["name"] in slim:
                row.setdefault("columns", {})[name] = slim[row["name"]]
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        ops_page.write()


def chosen(given: argparse.Namespace) -> list[Row]:
    unknown = set(given.only or ()) - {row.name for row in ROWS} | set(given.group or ()) - set(GROUPS)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; --list prints rows and classes")
    named = given.only or given.group
    return [row for row in ROWS if not named or row.name in (given.only or ()) or row.group in (given.group or ())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", dest="group", nargs="+", help=", ".join(GROUPS))
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long one row may take")
    parser.add_argument("--quick", action="store_true", help="7 rounds, 0.7 seconds, torch only")
    parser.add_argument("--peers", nargs="*", help="only these of ours, torch, onnxruntime, openvino, opencv, scipy")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--columns", nargs="*", choices=tuple(COLUMNS), help="none named: all")
    parser.add_argument("--steady", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    rows = chosen(given)
    if given.list:
        for row in rows:
            print(f"{row.name:<16}{row.group:<16}{row.problem}{' frozen' * row.frozen}")
        return
    if given.quick:
        given.rounds, given.seconds = 7, 0.7
    beside = list(COLUMNS) if given.columns == [] else given.columns or []
    slower = max(7, given.rounds // 3), given.seconds / 4  # of a column
    if beside and not given.write:
        add_columns(beside, rows, *slower)
        return
    tuned = os.environ.get("CONVOLVE_BENCH_ALLOCATOR") != "default" and convolve.tune_memory()
    wanted = None
    if given.quick or given.peers is not None:
        stems = given.peers if given.peers is not None else []
        stems = [*STEADY, *stems]
        wanted = tuple(f"{stem}{suffix}" for stem in stems for suffix in ("", " last", " exact", " exact last"))
    if given.steady is not None:
        wanted = ("ours", "ours last", "torch", "torch last")
    print(f"{'':<15}{'algorithm':<20}{'ours':>13}{'called':>9}{'best':>9}{'exact':>9}{'limit':>8}{'error':>9}")
    found, rejected = [], []
    for row in rows:
        try:
            found.append(measure(row, given.rounds, given.seconds, wanted))
            print(line(found[-1]), flush=True)
        except RejectedError as error:
            rejected.append(str(error))
            print(f"REJECTED  {error}", flush=True)
    if given.steady is not None:
        slim = {
            row["name"]: {"seconds": {n: c["median_s"] for n, c in row["contestants"].items()}, "ratios": row["ratios"]}
            for row in found
        }
        given.steady.write_text(json.dumps(slim), encoding="utf-8")
        return
    for name, group in classes(found).items():
        means = "  ".join(f"{key} {value['mean']:.2f}" for key, value in group["means"].items())
        print(f"{name:<16}{group['rows']:3} rows  {means}  worst {group['worst']} {group['worst_best']:.2f}")
    if not given.write:
        sys.exit(len(rejected))
    save(found, tuned, rejected)
    add_columns(beside, rows, *slower)
    sys.exit(len(rejected))


def save(found: Sequence[dict[str, Any]], tuned: bool, rejected: Sequence[str]) -> None:
    """Put the rows into results/ops.json, in the order of the table, and what was rejected; write the page."""
    from benchmarks import ops_page

    path = RESULTS / "ops.json"
    before = json.loads(path.read_text(encoding="utf-8"))["figures"]["rows"] if path.exists() else []
    measured, earlier = origin(), {row["name"]: row for row in before}
    for row in found:
        row["measured"] = {"date": measured["date"], "load_average": measured["load_average"]}
        old = earlier.get(row["name"], {})
        if "columns" in old and old["problem"] == row["problem"]:
            row.setdefault("columns", old["columns"])  # until they are measured again
    merged = earlier | {row["name"]: row for row in found}
    known = {row.name: row.problem for row in ROWS}
    rows = [merged[name] for name, text in known.items() if name in merged and merged[name]["problem"] == text]
    figures = {
        "allocator": "keeps freed memory (convolve.tune_memory)" if tuned else "default",
        "threads": torch.get_num_threads(),
        "bandwidth_bytes_per_s": {str(size): speed for size, speed in bandwidth().items()},
        "empty_call_s": empty_call(),
        "libraries": libraries(),
        "rows": rows,
        "classes": classes(rows),
        "rejected": list(rejected),
    }
    path.write_text(json.dumps({"figures": figures, "origin": measured}, indent=1) + "\n", encoding="utf-8")
    ops_page.write()


def libraries() -> dict[str, str]:
    """Versions of whatever takes part."""
    from importlib import metadata

    found = {}
    for name in ("torch", "llvmlite", "onnxruntime", "openvino", "opencv-python-headless", "scipy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
