"""Estimate, measure, wisdom: what is measured is chosen, what is remembered is used, and nothing that is wrong does harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import convolve
from convolve.errors import UsageError
from convolve.ops import algorithms, choose, costs, wisdom
from convolve.ops import measure as measuring
from convolve.ops import why as why_file
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.choose import ranked
from convolve.ops.measure import measure_problems, time_rows
from convolve.problem import ConvProblem

TEXT = "1x2x9x9 k3 3x3 s1 p1"
PROBLEM = ConvProblem.parse(TEXT)
TORCH = next(row for row in algorithms.ALGORITHMS if row.name == "torch")


def slow(name: str, seconds: float, estimate: float, **changes: Any) -> Algorithm:
    """A row that computes as torch does, takes `seconds` on the clock of these tests, and promises `estimate`."""

    def run(problem: ConvProblem, a: Any, b: Any, bias: Any) -> Any:
        RUNS[name] = RUNS.get(name, 0) + 1
        CLOCK[0] += seconds + 1e-6
        return TORCH.run(problem, a, b, bias)

    return replace(TORCH, name=name, run=run, cost=lambda _: Cost(estimate, 0), **changes)


RUNS: dict[str, int] = {}
CLOCK = [0.0]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set the table of algorithms for one test, and the clock."""
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: CLOCK[0]))

    def use(*rows: Algorithm) -> None:
        for module in (choose, measuring, why_file, wisdom):
            monkeypatch.setattr(module, "ALGORITHMS", rows)
        monkeypatch.setattr(choose, "_TABLE", {row.name: row for row in (*rows, TORCH)})
        convolve.use_wisdom()

    monkeypatch.setattr(costs, "fitted", lambda: costs.Fitted("", "", {}, {}))  # the rows' own formulas
    RUNS.clear()
    yield use
    monkeypatch.undo()
    convolve.use_wisdom(enabled=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache for wisdom alone (compiled kernels stay where they are); the file of this machine in it."""
    monkeypatch.setattr(wisdom, "cache_folder", lambda: tmp_path)
    convolve.use_wisdom()
    yield wisdom.default_place()
    monkeypatch.undo()
    convolve.use_wisdom(enabled=False)


def operands() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 2, 9, 9), torch.randn(3, 2, 3, 3)


def call() -> torch.Tensor:
    x, w = operands()
    return convolve.conv2d(x, w, padding=1)


def last_run() -> str:
    """The row that one more call runs."""
    before = dict(RUNS)
    call()
    # The row "torch" has a short way that does not pass by its function.
    (name,) = [name for name in RUNS if RUNS[name] != before.get(name, 0)] or ["torch"]
    return name


def test_the_fastest_is_measured_though_it_promises_the_least(table: Any, place: Path) -> None:
    table(slow("torch", 0.004, 1e-6), slow("middle", 0.002, 1e-5), slow("quick", 0.0, 1e-3))
    assert last_run() == "torch"
    with convolve.measure(seconds=0.05) as found:
        call()
    (timing,) = found.timings
    assert str(timing.problem) == TEXT
    assert list(timing.seconds) == ["quick", "middle", "torch"]
    assert (timing.before, timing.now, found.changed) == ("torch", "quick", 1)
    assert list(timing.seconds.values()) == pytest.approx([1e-6, 0.002001, 0.004001])
    assert last_run() == "quick", "remembered plans were not dropped"


def test_torch_is_left_only_for_a_lead_that_is_sure(table: Any, place: Path) -> None:
    table(slow("torch", 0, 1.0), slow("other", 0, 1.0))
    wisdom.learn(PROBLEM, {"torch": 1.04, "other": 1.0})
    assert ranked(PROBLEM, "auto", "default")[0].name == "torch"
    wisdom.learn(PROBLEM, {"torch": 1.06, "other": 1.0})
    assert ranked(PROBLEM, "auto", "default")[0].name == "other"


def test_a_gain_that_is_lost_on_the_way_to_a_row_is_none(table: Any, place: Path) -> None:
    table(slow("torch", 0, 1.0), slow("other", 0, 1.0))
    for problem, chosen in ((PROBLEM, "torch"), (replace(PROBLEM, role="weight_gradient"), "other")):
        wisdom.learn(problem, {"torch": 8e-6, "other": 4e-6})
        assert ranked(problem, "auto", "default")[0].name == chosen


def test_without_measurements_a_predicted_lead_must_be_one_and_a_half(
    table: Any, place: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(costs, "fitted", lambda: costs.Fitted("another CPU", "AVX512", {}, {}))
    table(slow("torch", 0, 1.49), slow("other", 0, 1.0))
    assert ranked(PROBLEM, "auto", "default")[0].name == "torch"
    table(slow("torch", 0, 1.51), slow("other", 0, 1.0))
    assert ranked(PROBLEM, "auto", "default")[0].name == "other"


def times_own(factor: float) -> tuple[float, ...]:
    """Coefficients by which an estimate is the row's own formula times `factor`."""
    return (0.0,) * (len(costs.FEATURES) - 1) + (factor,)


def fitted_as(monkeypatch: Any, spread: dict[Algorithm, float]) -> None:
    """This CPU's table: the rows' own formulas, wrong by these factors."""
    names = {costs.buckets(row, PROBLEM)[0]: wrong for row, wrong in spread.items()}
    own = dict.fromkeys(names, times_own(1.0))
    monkeypatch.setattr(costs, "fitted", lambda: costs.Fitted(costs.processor(), costs.capability(), own, names))


def test_on_the_cpu_of_the_table_a_smaller_lead_is_enough(table: Any, place: Path, monkeypatch: Any) -> None:
    rows = slow("torch", 0, 1.2), slow("other", 0, 1.0)
    fitted_as(monkeypatch, dict.fromkeys(rows, 1.0))
    table(*rows)
    assert ranked(PROBLEM, "auto", "default")[0].name == "other"
    table(slow("torch", 0, 1.1), slow("other", 0, 1.0))
    assert ranked(PROBLEM, "auto", "default")[0].name == "torch"


def test_the_lead_must_be_larger_than_the_estimates_are_wrong(table: Any, place: Path, monkeypatch: Any) -> None:
    rows = slow("torch", 0, 1.4), slow("other", 0, 1.0)
    fitted_as(monkeypatch, dict(zip(rows, (2.25, 3.24), strict=True)))
    table(*rows)
    # logarithms 0.811 and 1.176, together 1.428, a quarter of it a factor of 1.43
    assert ranked(PROBLEM, "auto", "default")[0].name == "torch"
    table(slow("torch", 0, 1.45), slow("other", 0, 1.0))
    assert ranked(PROBLEM, "auto", "default")[0].name == "other"


def test_wisdom_never_overrules_precision_or_what_a_row_says_of_itself(table: Any, place: Path) -> None:
    table(
        slow("torch", 0.003, 1e-6),
        slow("rough", 0.0, 1e-6, exact=False),
        slow("shy", 0.0, 1e-6, not_automatic=lambda _: "it is shy"),
        slow("choosy", 0.0, 1e-6, not_these=lambda *_: "not these values"),
    )
    with convolve.measure(seconds=0.03):
        assert RUNS == {}
        call()
    assert "shy" not in RUNS
    assert "choosy" not in RUNS
    assert last_run() == "rough"
    with convolve.precision("exact"):
        assert last_run() == "torch"
    wisdom.learn(PROBLEM, {"shy": 1e-9, "torch": 1.0})
    assert ranked(PROBLEM, "auto", "default")[0].name != "shy"


def test_a_row_that_depends_on_values_keeps_its_turn(table: Any, place: Path) -> None:
    refuses = [True]
    reason = lambda *_: "not yet" if refuses[0] else None  # noqa: E731
    table(slow("torch", 0.002, 1e-3), slow("choosy", 0.0, 1e-6, not_these=reason), slow("other", 0.001, 1e-3))
    with convolve.measure(seconds=0.02):
        call()
    assert last_run() == "other"
    refuses[0] = False
    assert last_run() == "choosy"


def test_reproducible_choices_depend_neither_on_wisdom_nor_on_the_batch(place: Path) -> None:
    def names(text: str) -> list[str]:
        return [row.name for row in ranked(ConvProblem.parse(text), "auto", "reproducible")]

    before = names("1x2x9x9 k3 3x3")
    assert all(names(f"{n}x2x9x9 k3 3x3") == before for n in (2, 7, 64, 1000))
    wisdom.learn(ConvProblem.parse("2x2x9x9 k3 3x3"), {"reference": 1e-9})
    assert names("2x2x9x9 k3 3x3") == before


def test_a_failing_row_is_left_out_and_the_call_works(table: Any, place: Path) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    table(slow("torch", 0.0, 1e-6), replace(TORCH, name="broken", run=fails, cost=lambda _: Cost(1e-9, 0)))
    assert set(time_rows(PROBLEM, 0.01)) == {"torch"}


def test_gradients_are_measured_where_they_occur(place: Path) -> None:
    x, w = operands()
    w.requires_grad_()
    convolve.conv2d(x, w, padding=1)  # remembered before the block, on the short way to torch
    with convolve.measure(seconds=0.01) as found:
        convolve.conv2d(x, w, padding=1).sum().backward()
    assert [timing.problem.role for timing in found.timings] == ["output", "weight_gradient"]
    with convolve.measure(seconds=0.01) as again:
        convolve.conv2d(x, w, padding=1).sum().backward()
    assert again.timings == []


def test_results_within_the_block_are_right_and_nothing_of_the_caller_changes(place: Path) -> None:
    x, w = operands()
    exact = torch.conv2d(x.double(), w.double(), padding=1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with convolve.measure(seconds=0.01):
        y = convolve.conv2d(x, w, padding=1)
    torch.testing.assert_close(y.double(), exact, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


# -- the file


def test_the_file_lies_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path))
    assert wisdom.default_place().parent == tmp_path
    monkeypatch.delenv("CONVOLVE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert wisdom.default_place().parent == tmp_path / "convolve"


def test_another_process_uses_what_this_one_learned(place: Path) -> None:
    with convolve.measure(seconds=0.01) as found:
        call()
    assert place.exists()
    code = f"import convolve; convolve.use_wisdom({str(place)!r}); print(convolve.why({TEXT!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert "* measured on this machine" in done.stdout
    assert f"> {found.timings[0].now}" in done.stdout


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }


def good() -> dict[str, Any]:
    return {"format": wisdom.FORMAT, "machine": wisdom.machine(), "seconds": {TEXT: {"torch": 2e-5, "im2col": 1e-5}}}


def damaged() -> dict[str, Any]:
    """Contents that must be ignored, by what is wrong with them."""
    ok = good()
    return {
        "empty": "",
        "no JSON": "{" * 50,
        "deep": "[" * 100_000,
        "binary": "\x00\xff\x00",
        "a list": "[]",
        "null": "null",
        "another format": json.dumps(ok | {"format": 0}),
        "no machine": json.dumps({key: ok[key] for key in ("format", "seconds")}),
        "machine is text": json.dumps(ok | {"machine": "here"}),
        "another CPU": json.dumps(ok | {"machine": ok["machine"] | {"cpu": "Z80"}}),
        "other threads": json.dumps(ok | {"machine": ok["machine"] | {"threads": 99}}),
        "another torch": json.dumps(ok | {"machine": ok["machine"] | {"torch": "1.0"}}),
        "another table": json.dumps(ok | {"machine": ok["machine"] | {"table": "0"}}),
        "seconds are a list": json.dumps(ok | {"seconds": [1]}),
        "a time is text": json.dumps(ok | {"seconds": {TEXT: {"torch": "1"}}}),
        "a time is zero": json.dumps(ok | {"seconds": {TEXT: {"torch": 0}}}),
        "a time is NaN": json.dumps(ok | {"seconds": {TEXT: {"torch": float("nan")}}}),
        "a time is true": json.dumps(ok | {"seconds": {TEXT: {"torch": True}}}),
        "cut off": json.dumps(ok)[:-5],
    }


@pytest.mark.parametrize("wrong", damaged())
@pytest.mark.fault("wisdom that is damaged, or of another machine (19 kinds)", outcome="ignored with one warning")
def test_a_file_that_cannot_be_trusted_is_ignored_with_one_warning_and_replaced(wrong: str, place: Path) -> None:
    place.write_text(damaged()[wrong], encoding="latin-1")
    with pytest.warns(wisdom.WisdomWarning, match="is ignored") as seen:
        assert wisdom.lookup(PROBLEM) == {}
    assert len(seen) == 1
    call()  # says nothing more
    if wrong in ("another CPU", "other threads"):
        with pytest.raises(UsageError, match="one machine"), convolve.measure(place):
            pass
        return
    measure_problems([TEXT], seconds=0.01)
    convolve.use_wisdom()
    assert "torch" in wisdom.lookup(PROBLEM)


def test_a_good_file_is_believed(place: Path) -> None:
    place.write_text(json.dumps(good()), encoding="utf-8")
    assert ranked(PROBLEM, "auto", "default")[0].name == "im2col"
    convolve.use_wisdom(enabled=False)
    assert wisdom.lookup(PROBLEM) == {}
    convolve.use_wisdom()
    assert wisdom.lookup(PROBLEM) == {"torch": 2e-5, "im2col": 1e-5}


def test_a_file_of_ones_own_is_used_until_told_otherwise(place: Path, tmp_path: Path) -> None:
    mine = tmp_path / "sub" / "mine.json"
    with convolve.measure(mine, seconds=0.01):
        call()
    assert mine.exists()
    assert not place.exists()
    assert wisdom.lookup(PROBLEM)
    convolve.use_wisdom()
    assert wisdom.lookup(PROBLEM) == {}
    convolve.use_wisdom(mine)
    assert wisdom.lookup(PROBLEM)


def test_a_folder_that_cannot_be_written_costs_a_warning(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.warns(wisdom.WisdomWarning, match="was not kept"),
        convolve.measure(tmp_path / "file" / "w.json", seconds=0.01),
    ):
        call()
    assert wisdom.lookup(PROBLEM), "this process still knows it"


def test_sixteen_threads_measure_each_problem_once(place: Path) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(16)

    def work(number: int) -> None:
        try:
            start.wait()
            for size in (5, 6, 7):
                x, w = torch.randn(1, 2, size, size), torch.randn(3, 2, 3, 3)
                y = convolve.conv2d(x, w, padding=1)
                torch.testing.assert_close(y, torch.conv2d(x, w, padding=1), atol=1e-4, rtol=1e-4)
        except BaseException as error:
            errors.append(error)

    with convolve.measure(seconds=0.01) as found:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(found.timings) == 3
    assert len(json.loads(place.read_text())["seconds"]) == 3


def test_two_processes_at_once_lose_nothing(place: Path) -> None:
    code = (
        f"import sys; from convolve.ops.measure import measure_problems, use_wisdom; use_wisdom({str(place)!r})\n"
        "for n in range(6): measure_problems([f'1x2x{5 + n}x{sys.argv[1]} k3 3x3'], seconds=0.001)"
    )
    running = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, size], env=environment()) for size in ("8", "9")
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert len(json.loads(place.read_text())["seconds"]) == 12


# -- estimates


@pytest.mark.parametrize(
    "text",
    [
        "256x512x56x56 k512 3x3 p1",
        "1x1x1048576 k1 1023 p511",
        "1x128x56x56 k128 31x31 p15 g128",
        "8x3x16x64x64 k8 3x3x3",
    ],
)
def test_an_estimate_takes_less_than_a_tenth_of_a_second(text: str, place: Path) -> None:
    started = time.perf_counter()
    for role in ("output", "input_gradient", "weight_gradient"):
        ranked(replace(ConvProblem.parse(text), role=role), "auto", "default")
    assert time.perf_counter() - started < 0.3


def test_the_coefficients_of_a_row_replace_its_own_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(TORCH, cost=lambda _: Cost(7.0, 11))
    bucket = costs.buckets(row, PROBLEM)[0]
    coefficients = (0.5, 1e-3, 1e-4, 10.0, 100.0, 1000.0, 0.0, 0.0, 0.0, 2.0)
    monkeypatch.setattr(costs, "fitted", lambda: costs.Fitted("", "", {bucket: coefficients}, {}))
    # By hand: multiply-adds (an edge of 9 outputs meets 25 of 27 taps inside), bytes of the three tensors, its own formula.
    macs = 1e-3 * (3 * 2 * 27 * 27) + 1e-4 * (3 * 2 * 25 * 25)
    bytes_ = 4 * (10.0 * 2 * 81 + 100.0 * 3 * 2 * 9 + 1000.0 * 3 * 81)
    assert costs.estimate(row, PROBLEM) == Cost(pytest.approx(0.5 + macs + bytes_ + 14.0), 11)
    other = replace(PROBLEM, dtype="float64")
    assert costs.estimate(row, other) == Cost(7.0, 11)


def test_what_was_measured_seldom_is_estimated_by_the_wider_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(TORCH, name="other", cost=lambda _: Cost(7.0, 11))
    _, wider, _, widest = costs.buckets(row, PROBLEM)
    half, twice = times_own(0.5), times_own(2.0)
    monkeypatch.setattr(
        costs, "fitted", lambda: costs.Fitted("", "", {wider: half, widest: twice}, {wider: 1.7, widest: 1.9})
    )
    assert costs.estimate(row, PROBLEM).seconds == 3.5
    assert costs.spread(row, PROBLEM) == 1.7
    assert costs.estimate(row, replace(PROBLEM, layout="channels_last")).seconds == 3.5
    grouped = ConvProblem.parse("1x8x9x9 k8 3x3 g4")
    assert costs.estimate(row, grouped).seconds == 14.0


def test_with_channels_innermost_the_two_rows_of_torch_are_one_operator() -> None:
    row, other = TORCH, next(row for row in algorithms.ALGORITHMS if row.name == "torch_channels_last")
    last = replace(PROBLEM, layout="channels_last")
    assert costs.buckets(row, last) == costs.buckets(other, last)
    assert not {*costs.buckets(row, PROBLEM)} & {*costs.buckets(other, PROBLEM)}


def test_a_call_that_is_measured_by_name_is_not_measured(place: Path) -> None:
    x, w = operands()
    with convolve.measure(seconds=0.01) as found:
        convolve.conv2d(x, w, padding=1, algorithm="im2col")
    assert found.timings == []


def test_time_per_problem_must_be_positive(place: Path) -> None:
    with pytest.raises(UsageError, match="must be positive"), convolve.measure(seconds=0):
        pass


def test_what_is_printed_names_problem_choice_and_counts(table: Any, place: Path) -> None:
    table(slow("torch", 0.002, 1e-6), slow("quick", 0.0, 1e-3))
    with warnings.catch_warnings(), convolve.measure(seconds=0.01) as found:
        call()
    lines = str(found).splitlines()
    assert lines[1].split()[2:] == ["quick", *TEXT.split()]
    assert lines[-1] == "1 problems measured, 1 with another choice than before"
