"""What docs/engine.md says of LeNet's training step is what its file of results says."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "engine.md").read_text(encoding="utf-8").split())
FIGURES = json.loads((ROOT / "benchmarks" / "results" / "lenet_step.json").read_text(encoding="utf-8"))["figures"]
ROWS = {
    "stage 1: 1 to 6 maps, 5x5, ReLU, maximum": "stage 1: C1, ReLU, max forward",
    "its gradients": "stage 1: C1, ReLU, max gradients",
    "stage 2: 6 to 16 maps, 5x5, ReLU, maximum": "stage 2: C2, ReLU, max forward",
}


def test_the_parts_of_a_step_are_those_of_the_file() -> None:
    step = FIGURES["parts, batch 256"]
    for words, name in ROWS.items():
        part = step["parts"][name]
        limit, theirs, ours = part["limit_ms"], part["ms"]["torch"], part["ms"]["ours"]
        cells = [f"{ms:.2f} ({100 * limit / ms:.0f} %)" for ms in (theirs, ours)]
        assert f"| {words} | {limit:.2f} | {cells[0]} | {cells[1]} |" in PAGE
    torch, ours = (step["step_ms"][who]["median"] for who in ("torch", "ours"))
    assert f"| the whole step | {step['limit_ms']:.2f} | {torch:.1f} | {ours:.1f} |" in PAGE
    assert f"The step is {step['torch_over_ours']['median']:.1f} times as fast" in PAGE
    assert f"could be {step['largest_ratio_at_the_limit']:.1f} times" in PAGE


def test_the_epochs_are_those_of_the_file() -> None:
    many, few = (FIGURES[f"epochs, batch {batch}"] for batch in (256, 64))
    seconds = {name: taken["median"] for name, taken in many["epoch_s"].items()}
    times = [[over["over_ours"][name]["median"] for over in (many, few)] for name in ("resident", "dataset, 0 workers")]
    assert f"({seconds['ours']:.1f} against {seconds['resident']:.1f} s; batch 64: {times[0][1]:.1f} times)" in PAGE
    assert f"is {times[0][0]:.1f} times as fast as a plain loop" in PAGE
    assert f"and {times[1][0]:.1f} times as fast as a Dataset" in PAGE
    assert f"({seconds['dataset, 0 workers']:.1f} s; batch 64: {times[1][1]:.1f} times)" in PAGE
