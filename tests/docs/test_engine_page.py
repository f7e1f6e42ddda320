"""The examples of docs/engine.md run; docs/benchmarks.md is what its figures make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks import ops_page
from benchmarks.problems import GROUPS, ROWS

from convolve.problem import ConvProblem

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engine.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_of_the_engine_page_runs(number: int) -> None:
    exec(BLOCKS[number], {})


@pytest.mark.skipif(not (ops_page.RESULTS / "ops.json").exists(), reason="benchmarks.ops was not run with --write yet")
def test_the_page_of_the_benchmarks_is_made_of_its_figures() -> None:
    assert ops_page.PAGE.read_text(encoding="utf-8") == ops_page.page()


def test_the_rows_of_the_benchmark_have_names_classes_and_sizes_that_fit() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.group for row in ROWS} == set(GROUPS)
    for row in ROWS:
        if not row.pooling:
            ConvProblem.parse(row.problem)


def test_every_missed_aim_is_explained_whoever_was_to_be_met() -> None:
    seconds = {"ours": 2.0, "torch": 60.0, "opencv": 1.0}
    row = {
        "name": "F1",
        "group": "filters",
        "noisy": False,
        "limit_s": 0.5,
        "bound_by": "memory",
        "contestants": {name: {"median_s": taken} for name, taken in seconds.items()},
        "ratios": {
            key: {"of": of, "over": "ours", "median": seconds[of] / 2}
            for key, of in {"called": "torch", "best": "torch", "opencv": "opencv"}.items()
        },
    }
    means = {key: {"mean": ratio["median"]} for key, ratio in row["ratios"].items()}
    lines = list(ops_page._missed({"filters": {"means": means}}, [row]))
    # torch as called takes 30 times as long, more than was aimed at; OpenCV half as long as ours, and twice the limit.
    assert not any("called" in line for line in lines)
    assert any("OpenCV: 0.50, aim 1; at the limit 2.00." in line for line in lines)
    assert "| F1 | 0.50 | 2.00 | 4.00 | memory |" in lines
    assert lines[-1] == "* Rows bound by memory below 65% of the limit: F1 25%."
