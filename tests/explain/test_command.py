"""`convolve explain` from the command line: one document, its exit codes, and where its words go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convolve.cli import main


def test_the_document_names_the_files_and_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [
        "explain",
        "conv 4 3, relu, max 2, conv 6 3, relu, fc 10",
        "sample:flower",
        "--input",
        "3x20x24",
        "--out",
        str(out),
    ]
    assert main([*words, "--layer", "max1", "--attribution", "saliency", "--class", "3", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["schema"], found["input"]) == ("convolve.explain", [3, 20, 24])
    assert [row["output"] for row in found["layers"]] == [[4, 9, 11]]
    assert found["attributions"] == [{"method": "saliency", "class": "class 3", "layer": None}]
    assert abs(sum(found["probabilities"].values()) - 1) < 1e-5  # ten classes, all shown
    assert sorted(path.name for path in out.iterdir()) == sorted(Path(path).name for path in found["files"].values())
    assert "the weights are random (seed 0)" in told.err


@pytest.mark.parametrize(
    ("words", "code", "fix"),
    [
        (["lenet", "nothing.png"], 3, "check the file"),
        (["lenet", "sample:china", "--layer", "cnv1"], 2, "conv1"),
        (["fc 10", "sample:china"], 2, "name a model with a convolution"),
        (["missing.safetensors", "sample:china"], 3, "model.safetensors"),
        (["alexnet", "sample:china", "--input", "3x20x20"], 2, "67"),
    ],
)
def test_wrong_words_get_one_error_with_its_fix(
    words: list[str],
    code: int,
    fix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *words]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("error:") == 1
    assert fix in told.err.partition("fix:")[2]
    assert list(tmp_path.iterdir()) == []
