"""The accuracy column: only known networks, a named source each, and measured figures that are those of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convolve.jobs.models import models
from convolve.models.accuracy import ACCURACIES

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SOURCES = {"paper", "torchvision", "authors", "d2l", "shusentang", "measured"}
# Independent transcriptions: test error in percent, from the reference texts of the project.
PUBLISHED_ERRORS = {"nin": 10.41, "shufflenet_v1": 32.2, "shufflenet_v1-g8": 32.0, "alexnet": 37.5, "resnet18": 30.24}


def _measured(figures: dict[str, Any]) -> float:
    """The mean accuracy in percent of a results file of benchmarks.lenet5 or benchmarks.main_job."""
    return 100 - figures["mean"] if "test_error_percent" in figures else 100 * figures["test accuracy"]["mean"]


def test_every_figure_belongs_to_a_network_and_names_its_source() -> None:
    listed = {model.name: model.accuracy for model in models(variants=True).models}
    assert set(ACCURACIES) <= set(listed)
    for name, accuracy in ACCURACIES.items():
        assert listed[name] == accuracy
        assert accuracy.source in SOURCES
        assert (accuracy.source == "measured") == (accuracy.file is not None)
        assert 0 < accuracy.percent < 100


@pytest.mark.parametrize("name", [name for name, accuracy in ACCURACIES.items() if accuracy.file])
def test_a_measured_figure_is_the_one_of_its_file(name: str) -> None:
    accuracy = ACCURACIES[name]
    assert accuracy.file is not None
    figures = json.loads((RESULTS / accuracy.file).read_text(encoding="utf-8"))["figures"]
    assert accuracy.percent == round(_measured(figures), 2)


@pytest.mark.parametrize("name", PUBLISHED_ERRORS)
def test_published_figures_are_those_of_their_sources(name: str) -> None:
    assert ACCURACIES[name].percent == round(100 - PUBLISHED_ERRORS[name], 1)
