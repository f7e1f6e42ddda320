"""Explain what a network makes of one image, as a page and pictures: `convolve.explain_image` and `convolve explain`."""

from __future__ import annotations

import html
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from convolve.data.picture import open_picture
from convolve.data.preprocess import Preprocessing, normalise, upright
from convolve.data.samples import sample_photo
from convolve.draw import explain as draw
from convolve.draw import page
from convolve.draw.style import write
from convolve.errors import ConvolveError, UsageError
from convolve.explain.explaining import Wishes, explain
from convolve.explain.records import Findings, Place
from convolve.files import new_folder, safe_name
from convolve.jobs.classifier import Classifier, load
from convolve.jobs.networks import network
from convolve.models.file import load_weights, read
from convolve.models.source import build

MOST_MOMENTS = 12
PLAIN_MEAN, PLAIN_STD = 0.5, 0.25  # what an untrained network is fed: 0..1 moved to -2..2
USUAL_SIDE, ROUND_TO = 224, 32  # the size for a network that takes any: the image's own, at most this, in steps of this


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a network makes of one image: `findings` hold the numbers, `files` are the page and the pictures that show them.

    pixels: uint8 [c, h, w], the image as the network sees it, before the normalisation.
    """

    model: str
    image: str
    pixels: torch.Tensor
    findings: Findings
    notes: tuple[str, ...]
    folder: Path
    files: dict[str, str]
    seconds: float
    content: dict[str, Any] = field(repr=False)

    @property
    def label(self) -> str | None:
        """The most likely class; None when the network has no classes."""
        shares = self.findings.last.probabilities
        return shares[0][0] if shares else None

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        last = self.findings.last
        units = {row.layer: row.strongest for row in last.maps}
        measured = Counter(row.layer for row in last.measured)
        return {
            "model": self.model,
            "image": self.image,
            "input": list(self.pixels.shape),
            "probabilities": dict(last.probabilities),
            "layers": [
                {
                    "layer": layer.name,
                    "words": layer.words,
                    "output": list(layer.shape),
                    "shown": list(layer.channels),
                    "receptive_field": layer.sight.size,
                    "strongest": [vars(unit) for unit in units[layer.name]],
                    "measured": measured[layer.name],
                }
                for layer in self.findings.layers
            ],
            "attributions": [{"method": a.method, "class": a.target, "layer": a.layer} for a in last.attributions],
            "moments": [moment.label for moment in self.findings.moments],
            "notes": list(self.notes),
            "folder": str(self.folder),
            "files": self.files,
            "seconds": self.seconds,
        }

    @cached_property
    def html(self) -> str:
        """The page."""
        return draw.page_of(self.content)

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{html.escape(self.html)}" style="width:100%;height:860px;border:0"></iframe>'


def explain_image(
    model: str | os.PathLike[str] | nn.Module,
    image: Any,
    *,
    layers: Sequence[str] = (),
    units: Sequence[str] = (),
    target: str | None = None,
    attribution: Sequence[str] = (),
    cam_layer: str | None = None,
    input: str | None = None,  # noqa: A002  (what `inspect` calls it)
    invert: bool = False,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
) -> Explanation:
    """Show what a network makes of an image: one page to click through, and PNGs of it, in one new folder.

    model: a run's model.safetensors (with its snapshots/, where it has them), a name, spec or file.py:Class as in
    `convolve.inspect` (then the weights are random, from `seed`), or a module. image: a path, "sample:china", "sample:flower",
    a PIL image, an array or a tensor. layers: which to show, all (up to 24) by default. units: whose gradient must be
    measured, each as "layer:map,row,column". target: the class to attribute,
    by name or number; the most likely one by default. attribution: methods by name, "none" for none. input: channels x h x w,
    for a network that takes several sizes. out: a folder that must not exist; without it runs/IMAGE-explained, or -2, -3, …

    Raises InputError for an image that cannot be read, ShapeError for one that is too small for the network, UsageError for a
    model without a convolution and for wrong names.

    >>> import convolve, tempfile
    >>> shown = convolve.explain_image("conv 4 3, relu, max 2, fc 10", "sample:china", out=tempfile.mkdtemp() + "/china")
    >>> [layer.shape for layer in shown.findings.layers], sorted(shown.files)[-2:]
    ([(4, 26, 26), (4, 13, 13)], ['page', 'receptive-field'])
    """
    started = time.perf_counter()
    name, picture = _picture(image)
    subject = _subject(model, picture, input, seed)
    pixels = subject.rule.apply(picture)
    if invert:
        pixels = 255 - pixels
    wishes = Wishes(tuple(layers), target, tuple(attribution), cam_layer, tuple(_unit(word) for word in units))
    place = _checked(out)
    device = next(iter(subject.module.parameters()), torch.empty(0)).device
    found = explain(
        subject.module, normalise(pixels[None].to(device), subject.rule), subject.weights, subject.classes, wishes
    )
    notes = (*subject.notes, *found.notes)
    shape = "x".join(map(str, pixels.shape))
    content = draw.content(
        model=subject.name,
        code=subject.code,
        image=name,
        input_shape=shape,
        pixels=pixels.numpy(),
        findings=found,
        notes=notes,
    )
    folder = (
        new_folder("runs", f"{safe_name(name, 'image')}-explained")
        if place is None
        else new_folder(place.parent, place.name)
    )
    files = {"page": folder / "page.html"}
    page.write(draw.page_of(content), files["page"])
    for kind, drawing in draw.pictures(content, pixels.numpy(), found).items():
        files[kind] = folder / f"{kind}.png"
        write(drawing, files[kind])
    seconds = time.perf_counter() - started
    return Explanation(
        subject.name,
        name,
        pixels,
        found,
        notes,
        folder,
        {key: str(path) for key, path in files.items()},
        seconds,
        content,
    )


def _unit(word: str) -> tuple[str, Place]:
    layer, colon, numbers = word.rpartition(":")
    parts = [part.strip() for part in numbers.split(",")]
    if not (colon and layer and len(parts) == 3 and all(part.isdecimal() for part in parts)):
        raise UsageError("a unit is LAYER:MAP,ROW,COLUMN, counted from 0", f"got {word!r}", "write conv1:3,10,12")
    channel, row, column = map(int, parts)
    return layer, (channel, row, column)


@dataclass(frozen=True)
class _Subject:
    """The network to explain, and how to feed it; `code` is how to name it in Python."""

    module: nn.Module
    name: str
    code: str
    rule: Preprocessing
    classes: tuple[str, ...] | None
    weights: list[tuple[str, Callable[[], None]]]
    notes: tuple[str, ...]


def _subject(model: Any, picture: Image.Image, shape: str | None, seed: int) -> _Subject:
    if isinstance(model, Classifier):
        return _trained(model, None, shape)
    if isinstance(model, nn.Module):
        rule, notes = _rule(model, None, picture, shape)
        name = type(model).__name__
        return _Subject(model, name, "model", rule, None, [("as it is", lambda: None)], notes)
    if not isinstance(model, (str, os.PathLike)):
        raise UsageError(
            "explain takes a model's file or name, or a module", f"got {type(model).__name__}", "name model.safetensors"
        )
    word = os.fspath(model)
    if word.endswith(".safetensors"):
        return _trained(load(word), Path(word), shape)
    from convolve.analysis.inspecting import inputs_of

    wished = None if shape is None else inputs_of(shape)[0].shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = network(word, wished)
        module = found.module
        if any(parameter.is_meta for parameter in module.parameters()):
            assert found.input is not None
            c, h, w = found.input
            module = build(word, in_channels=c, img_size=(h, w))
    rule, notes = _rule(module, found.input, picture, shape)
    random = f"the weights are random (seed {seed}): these are the maps of the architecture, not of a trained network"
    return _Subject(
        module,
        word,
        json.dumps(word, ensure_ascii=False),
        rule,
        None,
        [("random weights", lambda: None)],
        (random, *notes),
    )


def _trained(classifier: Classifier, path: Path | None, shape: str | None) -> _Subject:
    if shape is not None:
        own = "x".join(map(str, (classifier.preprocessing.channels, *classifier.preprocessing.size)))
        raise UsageError(
            "a trained model has its own input", f"got --input {shape}; it takes {own}", "leave --input away"
        )
    net = classifier.net
    name = str(classifier.card["architecture"]["name"])
    best = classifier.card["metrics"].get("best_epoch")
    final = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    label = f"trained (epoch {best})" if best else "trained"
    weights: list[tuple[str, Callable[[], None]]] = []
    notes: tuple[str, ...] = ()
    files = sorted((path.parent / "snapshots").glob("*.safetensors")) if path is not None else []
    if len(files) > MOST_MOMENTS - 1:
        places = [round(n * (len(files) - 1) / (MOST_MOMENTS - 2)) for n in range(MOST_MOMENTS - 1)]
        notes = (f"{MOST_MOMENTS - 1} of {len(files)} snapshots are shown",)
        files = [files[n] for n in places]
    for file in files:
        tensors, card = read(file)
        taken = card["snapshot"]
        when = f"step {taken['step']:,} (epoch {taken['epoch']:.3g})" if taken["step"] else "step 0 (random weights)"
        weights.append((when, lambda tensors=tensors, file=file: load_weights(net, tensors, file)))  # type: ignore[misc]
    weights.append((label, lambda: net.load_state_dict(final)))
    code = json.dumps(os.fspath(path), ensure_ascii=False) if path is not None else "model"
    return _Subject(net, name, code, classifier.preprocessing, classifier.classes, weights, notes)


def _rule(
    module: nn.Module, native: tuple[int, ...] | None, picture: Image.Image, shape: str | None
) -> tuple[Preprocessing, tuple[str, ...]]:
    """How an untrained network is fed: as wished, as it was made for, or in the image's own size."""
    from convolve.analysis.inspecting import inputs_of

    notes = [f"it is fed (x/255 - {PLAIN_MEAN:g}) / {PLAIN_STD:g}"]
    if shape is not None:
        native = inputs_of(shape)[0].shape[1:]
    if native is None:
        first = next((m for m in module.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d))), None)
        channels = 3 if first is None else first.in_channels
        shrink = min(1.0, USUAL_SIDE / max(picture.size))
        sides = [max(ROUND_TO, round(side * shrink / ROUND_TO) * ROUND_TO) for side in (picture.height, picture.width)]
        native = (channels, *sides)
        notes.append(f"its input was taken to be {'x'.join(map(str, native))}; change it with --input CHANNELSxHxW")
    if len(native) != 3:
        raise UsageError("explain shows images: channels x height x width", f"got {native}", "write --input 3x224x224")
    c, h, w = native
    return Preprocessing(c, (h, w), (PLAIN_MEAN,) * c, (PLAIN_STD,) * c), tuple(notes)


def _picture(image: Any) -> tuple[str, Image.Image]:
    if isinstance(image, str) and image.startswith("sample:"):
        name = image.removeprefix("sample:")
        return name, open_picture(sample_photo(name), name=image)
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        if path.is_dir():
            raise UsageError("explain takes one image", f"got the folder {path}", "name a file in it")
        return path.stem, open_picture(path)
    return type(image).__name__.lower(), upright(image)


def _checked(out: str | os.PathLike[str] | None) -> Path | None:
    """The folder to write, refused before anything is computed when it exists or cannot be."""
    if out is None:
        return None
    path = Path(out)
    if path.exists():
        raise UsageError(
            "results are not written over others", f"{path} exists", "name a new folder, or leave --out away"
        )
    parent = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        what = "is not writable" if parent.is_dir() else "is a file"
        raise ConvolveError(f"cannot write {path}", f"{parent} {what}", "choose a place that you may write to")
    return path
