"""bfloat16 or float32: timed where it was asked for, said once, stored with the run, and never decided again."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import convolve
from convolve.errors import InterruptedRunError
from convolve.jobs import setup
from convolve.jobs import train as job
from convolve.models.file import read
from convolve.training.options import Options
from convolve.training.records import Silent

SMALL = {"model": "conv 4 3, relu, gap, fc classes", "img_size": 8, "epochs": 1, "batch_size": 200}
SAID = "bfloat16: 1.50 times as fast as float32, measured"


class Stop(Silent):
    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the two were timed; bfloat16 wins."""
    devices: list[str] = []

    def decide(_net: Any, _train: Any, _normalise: Any, options: Options) -> tuple[Options, str]:
        devices.append(options.device)
        return replace(options, amp="bf16"), SAID

    monkeypatch.setattr(setup, "decide_precision", decide)
    monkeypatch.setattr(job, "report_run", lambda *_: None)  # most of what such a short run takes
    return devices


def test_the_decision_is_said_and_stored_and_a_resumed_run_keeps_it(asked: list[str], tmp_path: Path) -> None:
    whole = convolve.train("digits", **SMALL, amp="auto", out=tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        convolve.train("digits", **SMALL, amp="auto", out=tmp_path / "stopped", observer=Stop())
    assert asked == ["cpu", "cpu"]
    resumed = convolve.resume(tmp_path / "stopped")
    assert asked == ["cpu", "cpu"]
    for run in (whole, resumed):
        log = (run.folder / "log.txt").read_text(encoding="utf-8")
        assert log.splitlines().count(f"          {SAID}") == 1
        config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
        assert config["options"]["amp"] == "bf16"
    ours, theirs = (read(Path(run.files["model"]))[0] for run in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_word_is_obeyed_and_unasked_a_cpu_is_not_timed(asked: list[str], tmp_path: Path) -> None:
    weights = {}
    for amp in ("bf16", "off", None):
        folder = tmp_path / str(amp)
        with pytest.raises(InterruptedRunError):
            convolve.train("digits", **SMALL, amp=amp, out=folder, observer=Stop())
        weights[amp], values = read(folder / "last/state.safetensors", "convolve.state/1")
        assert values["options"]["amp"] == (amp or "off")
    assert asked == []
    assert all(torch.equal(weights["off"][name], weights[None][name]) for name in weights["off"])
    assert not all(torch.equal(weights["off"][name], weights["bf16"][name]) for name in weights["off"])
