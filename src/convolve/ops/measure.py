"""`convolve.measure`: time the algorithms of every problem that is met, and remember the winners on this machine.

The rows that `auto` may choose from run on random operands of the problem's shapes, layout and dtype, by the same path as a call,
in turn and in random order; medians are kept. Rows that are hopeless after one run, or by their estimate, are left out.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convolve.errors import DeclinedError, UsageError
from convolve.ops import conv, costs, execute, wisdom
from convolve.ops.algorithms import ALGORITHMS
from convolve.ops.choose import ranked_now, served, why_not_automatic
from convolve.ops.windows import format_of
from convolve.problem import ConvProblem

SECONDS = 0.3
"""How long the measurement of one problem may take, beyond one run of each row that is not hopeless."""
_HOPELESS = 10.0  # times the fastest so far, by estimate: not even run once
_SLOW = 3.0  # times the fastest, after two runs: not run again
_SHORT = 1e-3  # seconds of a run that is timed right after another of its own, as benchmarks do
_LONG = 0.02  # seconds of a run that once is enough
_LEAST, _MOST = 3, 31  # rounds
_LARGEST_WORKSPACE = 2**32
_ONE = threading.RLock()


@dataclass(frozen=True)
class Timing:
    """What was measured of one problem: seconds by algorithm, the fastest first, and what `auto` chose before and chooses now."""

    problem: ConvProblem
    frozen: bool
    seconds: dict[str, float]
    before: str
    now: str

    def to_json(self) -> dict[str, Any]:
        return {
            "problem": str(self.problem),
            "frozen": self.frozen,
            "seconds": self.seconds,
            "before": self.before,
            "now": self.now,
        }


@dataclass
class Measured:
    """What a `measure` block found; it grows while the block runs. `str` prints it."""

    timings: list[Timing] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """Problems for which `auto` now chooses another algorithm."""
        return sum(timing.before != timing.now for timing in self.timings)

    def to_json(self) -> dict[str, Any]:
        return {"problems": [timing.to_json() for timing in self.timings], "changed": self.changed}

    def __str__(self) -> str:
        lines = [f"{'ms':>10}  {'by estimate':>10}  {'algorithm':<20}  problem"]
        for timing in self.timings:
            now, before = timing.seconds.get(timing.now), timing.seconds.get(timing.before)
            mine = "" if now is None else f"{now * 1e3:.4g}"
            other = "" if before is None or timing.before == timing.now else f"{before * 1e3:.4g}"
            lines.append(f"{mine:>10}  {other:>10}  {timing.now:<20}  {timing.problem}{' frozen' * timing.frozen}")
        return "\n".join(
            (*lines, f"{len(self.timings)} problems measured, {self.changed} with another choice than before")
        )


@contextlib.contextmanager
def measure(
    path: str | os.PathLike[str] | None = None, *, seconds: float = SECONDS, again: bool = False
) -> Iterator[Measured]:
    """Within the block, every convolution that `auto` meets for the first time is measured; the results are kept in a file.

    That goes for all threads, for forward passes and gradients, each for the sizes, layout and dtype that occur; convolutions
    run as they would otherwise, only later. Problems that the file knows are not measured `again` unless asked. At the
    end the choices of this process are made anew, and other processes follow when they start. The file is that of this machine and
    number of threads in the cache ($CONVOLVE_CACHE), or `path`, which stays in use in this process; see `use_wisdom`.

    Only problems on a CPU are measured, about `seconds` each. Yields a record of what was found.
    Raises UsageError where `path` holds the wisdom of another machine.

    >>> import tempfile, torch, convolve
    >>> with convolve.measure(tempfile.mkdtemp() + "/wisdom.json", seconds=0.01) as found:
    ...     _ = convolve.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3))
    >>> [str(timing.problem) for timing in found.timings]
    ['1x1x8x8 k1 3x3 s1 p0']
    >>> convolve.use_wisdom()
    """
    if not seconds > 0:
        raise UsageError("the time per problem must be positive", f"got {seconds}", f"use {SECONDS}")
    if path is not None:
        wisdom.check_writable_by_us(Path(path))
        use_wisdom(path)
    found = Measured()
    try:
        conv.forget()
        with execute.learning(lambda problem, frozen: _learn(problem, frozen, found, seconds, again)):
            yield found
    finally:
        if found.timings:
            wisdom.save()
        _forget()


def measure_problems(
    problems: Iterable[str | ConvProblem], *, seconds: float = SECONDS, again: bool = True
) -> Measured:
    """Measure these problems, none of which need be met, and keep the results as `measure` does.

    >>> import tempfile, convolve
    >>> convolve.use_wisdom(tempfile.mkdtemp() + "/wisdom.json")
    >>> found = measure_problems(["1x1x8x8 k1 3x3"], seconds=0.01)
    >>> "torch" in found.timings[0].seconds
    True
    >>> convolve.use_wisdom()
    """
    records = [ConvProblem.parse(text) if isinstance(text, str) else text.validate() for text in problems]
    found = Measured()
    for record in records:
        _learn(record, False, found, seconds, again)
    if found.timings:
        wisdom.save()
    _forget()
    return found


def _learn(problem: ConvProblem, frozen: bool, found: Measured, seconds: float, again: bool) -> None:
    """Measure a problem unless it is known, or empty, or not on a CPU."""
    with _ONE:  # one at a time: rows that run at once would slow each other
        known = any((timing.problem, timing.frozen) == (problem, frozen) for timing in found.timings)
        if known or problem.device != "cpu" or problem.macs == 0 or (wisdom.lookup(problem, frozen) and not again):
            return
        before = ranked_now(problem, "auto", "default", frozen)
        times = time_rows(problem, seconds, frozen)
        if times:
            wisdom.learn(problem, times, frozen)
            after = ranked_now(problem, "auto", "default", frozen)
            choices = (next((row.name for row in rows if row.name in times), rows[0].name) for rows in (before, after))
            found.timings.append(Timing(problem, frozen, times, *choices))


def use_wisdom(path: str | os.PathLike[str] | None = None, *, enabled: bool = True) -> None:
    """Take measured times from this file from now on; without `path` from the machine's own, as at the start of a process.

    With `enabled=False` from none: `auto` then goes by estimates, the same on every machine. A file that is damaged, of
    another machine or of another version is ignored with a warning.

    >>> import convolve
    >>> convolve.use_wisdom(enabled=False)
    >>> convolve.use_wisdom()
    """
    wisdom.use(None if path is None else Path(path).absolute(), enabled)
    _forget()


def _forget() -> None:
    conv.forget()
    execute.forget()


def time_rows(
    problem: ConvProblem, seconds: float = SECONDS, frozen: bool = False, wanted: Collection[str] = ()
) -> dict[str, float]:
    """Median seconds by the name of the row, the fastest first, of all rows that `auto` may choose for some precision.

    wanted: only these, if any are named.
    """
    rows = sorted(
        (
            row
            for row in ALGORITHMS
            if (not wanted or row.name in wanted) and why_not_automatic(row, problem, "default") is None
        ),
        key=lambda row: costs.estimate(row, served(row, problem), frozen).seconds,
    )
    a, b = operands(problem)
    weight = execute.FrozenWeight() if frozen else None
    once: dict[str, float] = {}
    runs: dict[str, Callable[[], Tensor]] = {}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            plan = execute.plan_of(row, problem)
            run = partial(execute.run_plan, plan, a, b, weight)
            cost = costs.estimate(row, served(row, problem), frozen)
            fastest = min(once.values(), default=None)
            if fastest is not None and cost.seconds > _HOPELESS * max(fastest, 1e-4):
                continue
            if cost.workspace_bytes > _LARGEST_WORKSPACE and once:
                continue
            taken = _first(run)
            if taken is not None:
                once[row.name] = taken
                runs[row.name] = run
        if not once:
            return {}
        fastest = min(once.values())
        running = [name for name in runs if once[name] <= _SLOW * max(fastest, 2e-5)]
        times: dict[str, list[float]] = {name: [] for name in running}
        chance, until = random.Random(0), time.perf_counter() + seconds
        for number in range(_MOST):
            if number >= _LEAST and time.perf_counter() > until:
                break
            chance.shuffle(running)
            for name in running:
                if once[name] < _SHORT:
                    runs[name]()  # or it would pay for threads and caches that the row before it left asleep and empty
                times[name].append(_seconds(runs[name]))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    return dict(sorted((once | medians).items(), key=lambda item: item[1]))


def operands(problem: ConvProblem) -> tuple[Tensor, Tensor]:
    """Random operands of the problem's shapes, dtype and layout; the caller's random state stays as it is."""
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, problem.dtype)
    memory = format_of(problem.layout, problem.axes)

    def random_tensor(shape: tuple[int, ...]) -> Tensor:
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=memory)
        return torch.randint(0, 100, shape, generator=generator).to(dtype).contiguous(memory_format=memory)

    first, second = problem.operand_shapes
    return random_tensor(first), random_tensor(second)


def _first(run: Callable[[], Tensor]) -> float | None:
    """Seconds of a second run (the first may compile and allocate), or the best of a few short ones, which anything may disturb.

    None where the row cannot serve these operands.
    """
    try:
        run()
        taken = _seconds(run)
        return taken if taken > _LONG else min(taken, *(_seconds(run) for _ in range(3)))
    except (
        DeclinedError,
        RuntimeError,
        MemoryError,
    ):  # these values; a limit of the library that its row did not foresee
        return None


def _seconds(run: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
