"""ops/kept.py: what was chosen once is chosen again within the block, whatever was measured since, and nothing remains after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import convolve
from convolve.ops import stages, wisdom
from convolve.ops.choose import choose, ranked
from convolve.ops.kept import kept_choices
from convolve.problem import ConvProblem

PROBLEM = ConvProblem.parse("2x3x11x9 k4 3x3 s1 p1")


@pytest.fixture
def _own_wisdom(tmp_path: Path) -> Iterator[None]:
    convolve.use_wisdom(tmp_path / "wisdom.json")
    yield
    convolve.use_wisdom(enabled=False)


@pytest.mark.usefixtures("_own_wisdom")
def test_a_choice_outlives_new_wisdom_and_is_forgotten_after_the_block() -> None:
    with kept_choices() as choices:
        before = choose(PROBLEM, "auto", "default").name
        wisdom.learn(PROBLEM, {"reference": 1e-9})
        assert choose(PROBLEM, "auto", "default").name == before != "reference"
    assert choose(PROBLEM, "auto", "default").name == "reference"
    with kept_choices(choices):
        assert choose(PROBLEM, "auto", "default").name == before
    assert choose(PROBLEM, "auto", "default").name == "reference"


@pytest.mark.usefixtures("_own_wisdom")
def test_what_is_measured_within_the_block_counts() -> None:
    x, w = torch.ones(2, 3, 11, 9), torch.ones(4, 3, 3, 3)
    with kept_choices() as choices, convolve.measure(seconds=0.01) as found:
        convolve.conv2d(x, w, padding=1)
    (timing,) = [one for one in found.timings if one.problem.role == "output"]
    assert choices[f"auto default {timing.problem}"][0] == timing.now


def test_kept_names_decide_in_calls_too_and_unknown_ones_are_passed_over() -> None:
    kept = {f"auto default {PROBLEM}": ["gone in this version", "reference"]}
    x, w = torch.randn(2, 3, 11, 9), torch.randn(4, 3, 3, 3)
    with kept_choices(kept):
        assert [row.name for row in ranked(PROBLEM, "auto", "default")] == ["reference"]
        assert torch.equal(convolve.conv2d(x, w, padding=1), convolve.conv2d(x, w, padding=1, algorithm="reference"))
    with kept_choices({f"auto default {PROBLEM}": ["gone"]}) as choices:
        assert choose(PROBLEM, "auto", "default").name != "reference"
        assert "gone" not in choices[f"auto default {PROBLEM}"]


def test_an_algorithm_that_was_asked_for_is_not_a_choice() -> None:
    with kept_choices() as choices:
        assert choose(PROBLEM, "reference", "default").name == "reference"
    assert choices == {}


def test_the_way_through_a_stage_is_kept_whatever_lines_are_drawn_later(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")
    x, w, padding = torch.randn(64, 1, 8, 8), torch.randn(2, 1, 3, 3), ((1, 1), (1, 1))
    few = x[:1].contiguous()
    with kept_choices() as choices:
        assert stages.why_not(x, w, padding) is None
        assert stages.why_not(few, w, padding) == "too few images"
        assert choices == {"stage 64x1x8x8 k2 3x3 p1,1,1,1": ["stage"], "stage 1x1x8x8 k2 3x3 p1,1,1,1": ["layers"]}
        monkeypatch.setattr(stages, "MOST_FILTERS", 1)
        monkeypatch.setattr(stages, "LEAST_GROUPS", 0)
        assert stages.why_not(x, w, padding) is None
    assert stages.why_not(x, w, padding) == "too many maps"
    monkeypatch.setattr(stages, "MOST_FILTERS", 32)
    assert stages.why_not(few, w, padding) is None
    with kept_choices(choices):
        assert stages.why_not(few, w, padding) == "the run began with the layers"
        with convolve.precision("reproducible"):  # what a stage cannot do it does not do
            assert stages.why_not(x, w, padding) == "the layers are chosen one by one here"
