"""A network from a word: what `convolve.models.source` builds, or a saved model; with the input that it is made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from convolve.analysis.shapes import Answering
from convolve.errors import ConvolveError
from convolve.models import find
from convolve.models.source import build, is_file, is_spec


@dataclass(frozen=True)
class Network:
    """A module, what to call it, and the input it is made for (channels, h, w) where that is known."""

    module: nn.Module
    name: str
    input: tuple[int, ...] | None


def network(word: str, image: tuple[int, ...] | None = None) -> Network:
    """The network that `word` means; nothing is allocated for its weights where that can be avoided.

    `image` (channels, h, w) is what a spec or a name is built for; files build their own. Raises UnknownNameError for an
    unknown name, InputError for a file that cannot be used.
    """
    if word.endswith(".safetensors"):
        from convolve.jobs.classifier import load

        classifier = load(word)
        rule = classifier.preprocessing
        return Network(classifier.net, Path(word).name, (rule.channels, *rule.size))
    if is_file(word):
        return Network(build(word), word, None)
    given = image if image is not None and len(image) == 3 else None
    size = given or ((1, 28, 28) if is_spec(word) else _native(word))
    made = _without_weights(lambda: build(word, in_channels=size[0], img_size=(size[1], size[2])))
    return Network(made, "spec" if is_spec(word) else word, size)


def _native(word: str) -> tuple[int, ...]:
    _, variant = find(word)
    return (variant.channels, *variant.size)


def _without_weights(make: Callable[[], nn.Module]) -> nn.Module:
    """Build on the meta device; a network whose construction reads values is built for real."""
    try:
        with torch.device("meta"), Answering():
            return make()
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, ConvolveError):
            raise
        return make()
