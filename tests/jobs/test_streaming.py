"""Pictures that do not fit into memory stay in their files: the same run to the bit, in several processes too, in little memory."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolve.models.file import read
from jobs_support import folder_of
from nursery import Child, Nursery

FILES = {"model.safetensors": "convolve.model/1", "last/state.safetensors": "convolve.state/1"}
RESIDENT, STREAMED = str(2**30), "100"  # bytes of memory for the pictures of a part


def _well(*children: Child) -> None:
    for child in children:
        assert child.wait() == 0, child.err


@pytest.fixture(scope="module")
def runs(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process with the pictures in memory and in their files, and of two processes with the latter."""
    place = tmp_path_factory.mktemp("streaming")
    data = str(
        folder_of(place / "pictures", per_class=18)
    )  # 54, of which 10 or so are held out: a last batch is uneven
    call = "processes_support:stream"
    _well(nursery.start(str(place), data, RESIDENT, "resident", cwd=place, call=call))
    _well(nursery.start(str(place), data, STREAMED, "streamed", cwd=place, call=call))
    _well(*nursery.launch(2, str(place), data, STREAMED, "two", cwd=place, call=call))
    return place


def test_a_run_whose_pictures_stay_in_their_files_is_the_same_to_the_bit(runs: Path) -> None:
    for file, kind in FILES.items():
        ours, theirs = (read(runs / name / file, kind)[0] for name in ("streamed", "resident"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()), file
    for file in ("split.csv", "predictions.csv"):
        assert (runs / "streamed" / file).read_bytes() == (runs / "resident" / file).read_bytes()


@pytest.mark.fault("kill -9 while a picture is decoded", outcome="resumes to the same bits")
def test_a_run_killed_while_it_decodes_resumes_to_the_same_bits(runs: Path, nursery: Nursery) -> None:
    words, call = (str(runs), str(runs / "pictures"), STREAMED, "killed"), "processes_support:stream"
    assert nursery.start(*words, "dies", cwd=runs, call=call).wait() == -signal.SIGKILL
    assert len((runs / "killed/metrics.csv").read_text().splitlines()) == 2  # its heading and one epoch
    _well(nursery.start(*words, "resumes", cwd=runs, call=call))
    for file, kind in FILES.items():
        ours, theirs = (read(runs / name / file, kind)[0] for name in ("killed", "streamed"))
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()), file


def test_two_processes_that_stream_do_what_one_does(runs: Path) -> None:
    two, one = (read(runs / name / "model.safetensors")[0] for name in ("two", "streamed"))
    for name, tensor in one.items():
        assert (two[name].double() - tensor.double()).norm() <= 1e-4 * tensor.double().norm(), name
    assert (runs / "two/split.csv").read_bytes() == (runs / "streamed/split.csv").read_bytes()
    tables = [
        list(csv.DictReader((runs / name / "metrics.csv").read_text().splitlines())) for name in ("two", "streamed")
    ]
    assert len(tables[0]) == 2
    for row, expected in zip(*tables, strict=True):
        for column in ("loss", "val_loss"):
            assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-4)
        assert (row["acc"], row["val_acc"]) == (expected["acc"], expected["val_acc"])


def test_streaming_takes_a_fraction_of_the_memory_that_the_pictures_would(nursery: Nursery, tmp_path: Path) -> None:
    for index in range(160):  # of 224x224: 24 MB in memory
        path = tmp_path / "pictures" / ("ab"[index % 2]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((224, 224, 3), index, np.uint8)).save(path, compress_level=1)
    call, data = "processes_support:remember", str(tmp_path / "pictures")
    for name, budget in (("streamed", STREAMED), ("resident", RESIDENT)):
        _well(nursery.start(str(tmp_path), data, budget, name, cwd=tmp_path, call=call))
    streamed, resident = (torch.load(tmp_path / f"{name}.pt") for name in ("streamed", "resident"))
    assert streamed["pixels"] == resident["pixels"] > 15_000_000
    assert resident["took"] > resident["pixels"]
    assert streamed["took"] < resident["took"] - streamed["pixels"] / 2
