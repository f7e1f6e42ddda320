"""Measure the algorithms on this machine: of problems written as text, of every convolution of a network, or of everyday ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convolve.analysis.inspecting import inputs_of
from convolve.errors import UsageError
from convolve.jobs.networks import network
from convolve.jobs.timing import random_input, with_weights
from convolve.nn.accelerate import accelerate
from convolve.ops import wisdom
from convolve.ops.measure import SECONDS, Measured, measure, measure_problems, use_wisdom

EVERYDAY = (
    # LeNet, and what its training computes
    "64x1x28x28 k6 5x5 p2",
    "64x1x28x28 k6 5x5 p2 weight_gradient",
    "64x6x14x14 k16 5x5",
    "64x6x14x14 k16 5x5 input_gradient",
    "64x6x14x14 k16 5x5 weight_gradient",
    # first layers
    "1x3x224x224 k64 3x3 p1",
    "1x3x224x224 k64 7x7 s2 p3",
    "1x3x224x224 k64 11x11 s4 p2",
    # the bodies of networks
    "1x64x56x56 k64 3x3 p1",
    "1x128x28x28 k128 3x3 p1",
    "1x256x14x14 k256 3x3 p1",
    "8x64x28x28 k64 3x3 p1",
    "1x64x56x56 k256 1x1",
    "1x32x112x112 k32 3x3 p1 g32",
    "1x512x14x14 k512 3x3 p1 g512",
    "1x96x56x56 k96 7x7 p3 g96",
    "8x64x14x14 k32 4x4 s2 p1 transposed",
    # images, and one axis
    "1x1x512x512 k1 3x3 p1",
    "1x1x512x512 k1 31x31 p15",
    "1x3x512x512 k3 5x5 p2 g3",
    "1x1x65536 k1 401 p200",
)
"""What is measured where nothing is named."""


@dataclass(frozen=True)
class MeasuredHere:
    """What was measured, and the file that remembers it."""

    found: Measured
    file: str

    def to_json(self) -> dict[str, Any]:
        return {**self.found.to_json(), "file": self.file}

    def __str__(self) -> str:
        return f"{self.found}\nremembered in {self.file}"


def measure_here(
    words: Sequence[str] = (),
    *,
    input: str | None = None,  # noqa: A002  (what users call it)
    batch: int = 1,
    train: bool = False,
    freeze: bool = False,
    seconds: float = SECONDS,
    path: Path | None = None,
) -> MeasuredHere:
    """Measure the problems that `words` write, or the convolutions of the one network that they name, else EVERYDAY ones.

    A network runs once on a random input of its own size or `input`, with torch's layers replaced by ours; with `train` its
    backward pass too, with `freeze` as by `accelerate(model, freeze=True)`.
    """
    problems = [word for word in words if re.match(r"\d+x", word)]
    if problems and len(problems) < len(words):
        other = next(word for word in words if word not in problems)
        raise UsageError(
            "measure takes problems or one network", f"got both, {other!r} among them", "measure them in turn"
        )
    if len(words) > 1 and not problems:
        raise UsageError("measure takes one network at a time", f"got {len(words)}", "measure them in turn")
    if train and freeze:
        raise UsageError("a frozen network cannot be trained", "got both", "leave out one of them")
    if path is not None:
        wisdom.check_writable_by_us(path)
        use_wisdom(path)
    if words and not problems:
        found = _network(words[0], input, batch, train, freeze, seconds)
    else:
        found = measure_problems(problems or EVERYDAY, seconds=seconds)
    return MeasuredHere(found, str(wisdom.place()))


def _network(word: str, shape: str | None, batch: int, train: bool, freeze: bool, seconds: float) -> Measured:
    given = network(word, None if shape is None else inputs_of(shape)[0].shape[1:])
    if shape is None and given.input is None:
        raise UsageError("a network from a file needs an input", "none was given", "give its shape: --input 3x224x224")
    inputs = inputs_of(given.input if shape is None else shape, batch)  # type: ignore[arg-type]
    model = accelerate(with_weights(given.module), freeze=freeze).train(train)
    tensors = [random_input(item) for item in inputs]
    with measure(seconds=seconds, again=True) as found:
        if train:
            model(*tensors).sum().backward()
        else:
            with torch.no_grad():
                model(*tensors)
    return found
