"""A trained network with everything that it needs: classes, preprocessing, and what its training pictures looked like."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from convolve.data.preprocess import Preprocessing, normalise, upright
from convolve.data.statistics import Statistics, describe
from convolve.errors import ConvolveError, ModelFileError
from convolve.jobs.results import Prediction, html_table
from convolve.models.bounded import no_larger_than
from convolve.models.file import load_weights, read
from convolve.models.source import rebuild

GREY = ("1", "L", "LA", "La", "I", "I;16", "F")  # Pillow's modes without colour


class Classifier(nn.Module):
    """An image classifier in evaluation mode: call it for scores, or `predict` for names.

    `forward` takes pictures of the size and channels in `preprocessing`: uint8 [n, c, h, w], or float in 0..1; it returns
    scores [n, classes]. `predict` takes paths, PIL images, arrays and tensors of any size.
    """

    def __init__(self, net: nn.Module, card: dict[str, Any]) -> None:
        super().__init__()
        self.net = net
        self.card = card
        self.classes: tuple[str, ...] = tuple(card["classes"])
        self.preprocessing = Preprocessing.from_dict(card["preprocessing"])
        self.statistics = Statistics.from_dict(card["statistics"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(normalise(images, self.preprocessing))
        return scores

    def predict(self, image: Any, *, invert: bool = False) -> Prediction:
        """The classes of one image, most likely first: a path, a PIL image, an array [h, w(, c)] or a tensor [c, h, w] of uint8.

        `notes` of what returns says when it does not look like the training images; `invert` turns light into dark first.
        Raises InputError for an image that cannot be read or has other channels.

        >>> import convolve, tempfile, torch
        >>> run = convolve.train("digits", epochs=1, out=tempfile.mkdtemp() + "/run")
        >>> len(run.load().predict(torch.zeros(1, 8, 8, dtype=torch.uint8)).probabilities)
        10
        """
        picture = upright(image)
        pixels = self.preprocessing.apply(picture)
        if invert:
            pixels = 255 - pixels
        device = next(self.net.parameters()).device
        with torch.inference_mode():
            shares = self(pixels[None].to(device)).softmax(1)[0].tolist()
        order = sorted(range(len(shares)), key=lambda index: -shares[index])
        notes = self.statistics.differences(describe(pixels, (picture.height, picture.width)), self.preprocessing.fit)
        if self.preprocessing.channels == 1 and picture.mode not in GREY:
            notes = ("it is in colour, and the model was trained on grey images: it was made grey", *notes)
        ranked = tuple((self.classes[index], shares[index]) for index in order)
        return Prediction(str(image) if isinstance(image, (str, os.PathLike)) else type(image).__name__, ranked, notes)

    def _repr_html_(self) -> str:
        size = " x ".join(map(str, self.preprocessing.size))
        rows = [
            ("architecture", str(self.card["architecture"]["name"])),
            ("input", f"{self.preprocessing.channels} x {size}"),
        ]
        rows += [("classes", ", ".join(self.classes[:12]) + (", …" if len(self.classes) > 12 else ""))]
        for split in ("validation", "test"):
            score = self.card["metrics"].get(split)
            if score:
                rows.append((f"{split} accuracy", f"{score['accuracy']:.2%}"))
        return html_table(("", "classifier"), rows)


def load(path: str | os.PathLike[str], *, network: str | nn.Module | None = None) -> Classifier:
    """A trained network from its file, ready to predict; nothing but the file is needed.

    Only a network of your own Python file has to be named once more, as `network` ("net.py:Net", or a module): no code that a
    model file names is ever run. Raises ModelFileError for a file that is corrupt, truncated or not ours.

    >>> import convolve, tempfile
    >>> run = convolve.train("digits", epochs=1, out=tempfile.mkdtemp() + "/run")
    >>> net = convolve.load(run.files["model"])
    >>> net.classes[:3], net.training
    (('0', '1', '2'), False)
    """
    tensors, card = read(path)
    try:
        with nullcontext() if network is not None else no_larger_than(tensors, path):
            classifier = Classifier(rebuild(card["architecture"], network), card)
        if len(classifier.classes) != card["architecture"]["num_classes"]:
            raise ValueError(f"{len(classifier.classes)} classes for {card['architecture']['num_classes']} scores")
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if network is not None and isinstance(error, ConvolveError):
            raise  # what the caller named is wrong, not the file
        received = f"{type(error).__name__}: {error}"
        remedy = "it was written by another version: see `convolve doctor`"
        raise ModelFileError(f"the description in {path} cannot be used", received, remedy) from error
    load_weights(classifier.net, tensors, path)
    return classifier.eval()
