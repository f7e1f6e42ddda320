"""A network from a word: a name of our table, `file.py:Class`, `file.py:function()`, a one-line spec, or a saved model."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convolve.errors import ConvolveError, InputError, UnknownNameError
from convolve.models import create as create_model
from convolve.models import find


@dataclass(frozen=True)
class Network:
    """A module, what to call it, and the input it is made for (channels, h, w) where that is known."""

    module: nn.Module
    name: str
    input: tuple[int, ...] | None


def network(word: str, image: tuple[int, ...] | None = None) -> Network:
    """The network that `word` means; nothing is allocated for its weights where that can be avoided.

    `image` (channels, h, w) is what a spec or a name is built for. Raises UnknownNameError for an unknown name, InputError
    for a file that cannot be used.
    """
    if word.endswith(".safetensors"):
        from convolve.jobs.classifier import load

        classifier = load(word)
        rule = classifier.preprocessing
        return Network(classifier.net, Path(word).name, (rule.channels, *rule.size))
    if re.search(r"\.py(:|$)", word):
        return Network(_from_file(word), word, None)
    if " " in word.strip() or "," in word:
        from convolve.models.spec import build

        size = image if image is not None and len(image) == 3 else (1, 28, 28)
        return Network(_without_weights(lambda: build(word, in_channels=size[0], img_size=size[1:])), "spec", size)
    return _named(word, image)


def _named(word: str, image: tuple[int, ...] | None) -> Network:
    try:
        _, variant = find(word)
    except UnknownNameError as error:
        raise UnknownNameError(
            error.rule, error.received, f'{error.remedy}; or file.py:Class, or a spec as "conv 6 5, relu, fc 10"'
        ) from None
    native = (variant.channels, *variant.size)
    given = image if image is not None and len(image) == 3 else native
    build = lambda: create_model(word, in_channels=given[0], img_size=(given[1], given[2]))  # noqa: E731
    return Network(_without_weights(build), word, given)


def _without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    """Build on the meta device; a network whose construction reads values is built for real."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, ConvolveError):
            raise
        return build()


def _from_file(word: str) -> nn.Module:
    path, _, name = word.partition(":")
    file = Path(path)
    if not file.is_file():
        raise InputError(f"cannot read {path}", "there is no such file", "name a Python file, as net.py:Net")
    spec = importlib.util.spec_from_file_location(f"_convolve_{file.stem}", file.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"{path} cannot be imported", f"{type(error).__name__}: {error}", "run it with python to see where"
        ) from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    found = _classes(module)
    if not name:
        if len(found) != 1:
            rule = f"{path} has {len(found)} networks"
            remedy = f"name one, as {path}:{next(iter(found), 'Net')}"
            raise InputError(rule, f"found {', '.join(found) or 'none'}", remedy)
        name = next(iter(found))
    target = getattr(module, name.removesuffix("()"), None)
    if target is None:
        known = [*found, *(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))]
        raise UnknownNameError.of(f"name in {path}", name.removesuffix("()"), known)
    if isinstance(target, nn.Module):
        return target
    if not callable(target):
        raise InputError(f"{word} must give a torch.nn.Module", f"got {type(target).__name__}", _NAME_ONE)
    try:
        made = target()
    except TypeError as error:
        remedy = "write a function without arguments that returns it, and name that as file.py:function()"
        raise InputError(f"{word} cannot be built without arguments", str(error), remedy) from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{word} must give a torch.nn.Module", f"got {type(made).__name__}", _NAME_ONE)
    return made


_NAME_ONE = "name a class or a function that makes one"


def _classes(module: Any) -> dict[str, type[nn.Module]]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }
