"""The launcher itself: `torchrun -m convolve train` gives what one process gives; a process that dies ends the job."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import convolve
from convolve.models.file import read
from jobs_support import train_words
from nursery import Nursery, wait_for

WORDS = train_words(100)  # 1,258 images: the last batch has 58
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "convolve")


def _launch(place: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(convolve.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        (*TORCHRUN, *words), cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_torchrun_with_two_processes_does_what_one_process_does(nursery: Nursery, tmp_path: Path) -> None:
    with _launch(tmp_path, *WORDS, "--epochs", "2", "--out", "two") as launched:
        one = nursery.start(*WORDS, "--epochs", "2", "--out", "one", cwd=tmp_path)
        out, err = launched.communicate(timeout=280)
    assert launched.returncode == 0, err
    assert one.wait() == 0, one.err
    assert out == one.out.replace("one/", "two/")  # said once; the accuracy is the same
    assert err.count("epoch 2/2") == 1
    assert "2 processes divide each batch" in err
    ours, theirs = (
        list(csv.DictReader((tmp_path / name / "metrics.csv").read_text().splitlines())) for name in ("two", "one")
    )
    for row, expected in zip(ours, theirs, strict=True):
        for column in ("loss", "val_loss", "acc", "val_acc"):
            assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-3)
    two, expected_weights = (read(tmp_path / name / "model.safetensors")[0] for name in ("two", "one"))
    for name, tensor in expected_weights.items():
        # Batch normalisation takes the bias before it away: its gradient is nothing but rounding, and moves the mean along.
        if name not in ("conv1.bias", "bn1.running_mean"):
            assert (two[name].double() - tensor.double()).norm() <= 1e-3 * tensor.double().norm(), name


@pytest.mark.slow
def test_under_torchrun_a_killed_process_ends_the_job_which_then_resumes(tmp_path: Path) -> None:
    with _launch(tmp_path, *WORDS, "--epochs", "60", "--out", "run") as launched:
        wait_for((tmp_path / "run/last/state.safetensors").exists)
        children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        _, err = launched.communicate(timeout=120)
    assert launched.returncode != 0
    assert "convolve train --resume run" in err
    assert len(convolve.resume(tmp_path / "run").history) == 60
