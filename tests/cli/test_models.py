"""`convolve models`: the table that people read, and the document that programs read."""

from __future__ import annotations

import json

import pytest

from convolve.cli import main
from convolve.models import MODELS


def test_the_table_shows_every_network_with_its_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.split() and line.split()[0] in MODELS] == list(MODELS)
    line = next(line for line in out.splitlines() if line.startswith("vgg16"))
    for part in ("3x224x224", "1,000", "138,357,544", "15,470,264,320", "212", "74.4 % ImageNet, paper", "Simonyan"):
        assert part in line


def test_variants_and_patterns_choose_what_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "alex*", "--variants", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["version"]) == ("convolve.models", 1)
    assert [model["name"] for model in document["models"]] == [
        "alexnet", "alexnet-2012-ungrouped", "alexnet-torchvision", "alexnet-d2l", "alexnet-shusentang",
    ]  # fmt: skip
    assert document["models"][0]["parameters"] == 60_965_224
    assert document["models"][0]["size"] == [227, 227]


def test_a_pattern_that_matches_nothing_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "lenet6"]) == 2
    error = capsys.readouterr().err
    assert "unknown model" in error
    assert "lenet5" in error
