"""Where a run's first weights come from: nowhere, a file of others, an earlier run, or torchvision on that word.

An earlier run (its folder or model.safetensors) brings along what it was trained with: the network, the size and channels of the
pictures and their normalisation are taken over where nothing else is asked for. A file that is recognised as torchvision's by its
sha256 brings its normalisation. A classifier for other classes starts anew, also where their number is the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convolve.data.preprocess import Preprocessing
from convolve.errors import UsageError
from convolve.files import digest
from convolve.jobs.choices import Request
from convolve.models import find, weights
from convolve.models.file import is_ours
from convolve.models.file import read as read_model
from convolve.models.releases import RELEASES, fetch, recognised, release_of
from convolve.models.source import is_file, is_spec

TORCHVISION = "torchvision"
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class Beginning:
    """Weights to start from. `classes` are those of an earlier run, else None; so are `mean` and `std` where they are not known."""

    tensors: Mapping[str, Tensor]
    path: str
    said: tuple[str, ...]
    origin: str = ""  # whose normalisation it is
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def start(self, net: nn.Module, classes: Sequence[str]) -> str:
        """Put the weights into `net`, and say what was taken."""
        same = self.classes is None or tuple(classes) == self.classes
        taken = weights.put(net, self.tensors, self.path, same)
        anew = f", {' and '.join(taken.anew)} anew: the file has other classes" if taken.anew else ""
        return f"from {self.path} ({taken.tensors} tensors{anew})"

    def normalised(self, measured: Preprocessing) -> Preprocessing:
        """`measured`, with the mean and deviation that the weights were trained with, where they are known and fit."""
        if self.mean is None or self.std is None or len(self.mean) != measured.channels:
            return measured
        return replace(measured, mean=self.mean, std=self.std)

    def lines(self, preprocessing: Preprocessing) -> list[str]:
        """What to say of it: file, size, digest, and whose normalisation the pictures get."""
        if self.mean == preprocessing.mean:
            numbers = [
                " ".join(f"{value:.3f}" for value in values) for values in (preprocessing.mean, preprocessing.std)
            ]
            whose = f"normalised as {self.origin} was: mean {numbers[0]}, deviation {numbers[1]}"
        else:
            whose = "normalised by these pictures' own mean and deviation: the weights' are not known"
        return [*self.said, whose]


def begin(request: Request, say: Callable[[str], None]) -> tuple[Request, Beginning | None]:
    """The weights that `request` starts from, None for random ones, and the request with what an earlier run brings along."""
    if request.weights is None:
        return request, None
    if request.weights == TORCHVISION:
        return request, _published(request, say)
    path = Path(request.weights)
    if path.is_dir() and (path / MODEL_FILE).is_file():
        path = path / MODEL_FILE
    if path.is_dir():
        received = f"{path} holds no {MODEL_FILE}"
        raise UsageError("a folder of weights is that of an earlier run", received, "name a run's folder, or a file")
    if is_ours(path):
        return _earlier(request, path)
    tensors, (size, sha256) = weights.read(path), _size_and_digest(path)
    known = recognised(sha256)
    said = (f"weights   {path}: {_megabytes(size)}, sha256 {sha256}",)
    if known is None:
        return request, Beginning(tensors, str(path), said)
    return request, Beginning(tensors, str(path), said, f"torchvision's {known.file}", None, known.mean, known.std)


def _published(request: Request, say: Callable[[str], None]) -> Beginning:
    if request.model is None or is_spec(request.model) or is_file(request.model):
        names = ", ".join(sorted({release.model for release in RELEASES}))
        received = f"got {request.model!r}" if request.model else "no --model was given"
        raise UsageError(
            "torchvision's weights are for networks of the table", received, f"use --model with one of {names}"
        )
    row, variant = find(request.model)
    release = release_of(row.name, variant.name)
    path = fetch(release, say, os.environ.get("CONVOLVE_OFFLINE", "") not in ("", "0"))
    size, sha256 = _size_and_digest(path)
    said = (f"weights   torchvision's {release.file}: {_megabytes(size)}, sha256 {sha256}",)
    return Beginning(
        weights.read(path), str(path), said, f"torchvision's {release.file}", None, release.mean, release.std
    )


def _earlier(request: Request, path: Path) -> tuple[Request, Beginning]:
    """From a model file of ours, every digest checked."""
    tensors, card = read_model(path)
    architecture, rule = card["architecture"], Preprocessing.from_dict(card["preprocessing"])
    took: dict[str, Any] = {
        name: value
        for name, value in (
            ("model", _source(architecture)),
            ("img_size", rule.size),
            ("channels", rule.channels),
            ("stem", architecture.get("stem")),
        )
        if value is not None and getattr(request, name) is None and (name != "stem" or request.model is None)
    }
    if request.fit == "auto":
        took["fit"] = rule.fit
    size, sha256 = _size_and_digest(path)
    words = {"model": f"network {took.get('model')}", "img_size": f"size {rule.size[0]}x{rule.size[1]}"}
    words |= {"channels": f"{rule.channels} channel{'s' * (rule.channels > 1)}", "stem": f"stem {took.get('stem')}"}
    words["fit"] = f"fit {rule.fit}"
    taken = ", ".join(words[name] for name in took)
    said = [f"weights   {path}: {_megabytes(size)}, sha256 {sha256}"]
    if taken:
        said.append(f"          taken over from it: {taken}")
    begun = Beginning(tensors, str(path), tuple(said), str(path), tuple(card["classes"]), rule.mean, rule.std)
    return replace(request, **took), begun


def _source(architecture: Mapping[str, Any]) -> str | None:
    """What `--model` would have to say for this network; None for one of a file, whose code must be named again."""
    name, variant = architecture["name"], architecture.get("variant")
    if is_file(name):
        return None
    return name if variant is None or find(name)[0].default.name == variant else f"{name}-{variant}"


def _size_and_digest(path: Path) -> tuple[int, str]:
    return path.stat().st_size, digest(path)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
