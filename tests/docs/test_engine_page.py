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
