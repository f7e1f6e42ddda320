"""What a user writes for an animation's input and kernel: a size, numbers, a name, an image; and the tensor that it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convolve.data.picture import GREY, fit, open_picture, to_pixels
from convolve.data.samples import SAMPLES, sample_photo
from convolve.errors import InputError, ShapeError, UsageError
from convolve.explain.animation import random_integers
from convolve.geometry import Pair
from convolve.ops.named_kernels import named_kernel, parse_kernel

SIZE = re.compile(r"\d+(x\d+)*")
NUMBERS = re.compile(r"[-+.\d\s,;|/e]+")
LONGEST = 16  # pixels of a picture's longer side, unless a size is asked for
THUMBNAIL = 320


@dataclass(frozen=True, eq=False)
class Given:
    """An input (c, *size), and for pictures their channels' names, a larger version to look at, and whose photo it is."""

    x: Tensor
    names: tuple[str, ...] = ()
    picture: np.ndarray | None = None
    credit: str | None = None
    name: str | None = None


def read_input(
    given: str | Tensor | None, size: tuple[int, ...], channels: int | None, default: int, resize: str | None, seed: int
) -> Given:
    """The input that `given` means: a tensor, "5x5", "3x5x5" (channels first), "1 2; 3 4" (channels apart by |), an image."""
    if isinstance(given, Tensor):
        x = given.detach().double().cpu()
        return Given(x if x.dim() > 2 else x[None])
    text = "x".join(map(str, size)) if given is None else str(given).strip()
    if resize is not None and (SIZE.fullmatch(text) or NUMBERS.fullmatch(text)):
        raise UsageError("only an image can be resized", f"got --input {text!r}", "write the size as the input: 7x9")
    if SIZE.fullmatch(text):
        numbers = [int(word) for word in text.split("x")]
        if len(numbers) == 3:
            if channels not in (None, numbers[0]):
                raise UsageError(
                    "the input's channels are named twice", f"got {text} and {channels} channels", "name them once"
                )
            channels, *numbers = numbers
        if len(numbers) > 2 or min(numbers) < 1 or (channels is not None and channels < 1):
            raise UsageError(
                "an input is LENGTH, HxW or CxHxW, all at least 1", f"got {text!r}", "write 7, 5x5 or 3x5x5"
            )
        if np.prod([float(n) for n in (channels or default, *numbers)]) > 1e6:
            raise UsageError("an animation needs a small input", f"got {text}", "use 5x5, or up to about 30x30")
        return Given(random_integers((channels or default, *numbers), seed, 0, 4))
    if NUMBERS.fullmatch(text):
        maps = torch.stack(_rectangles(text, "input")).double()
        if channels not in (None, len(maps)):
            raise UsageError(
                "as many maps as channels", f"got {len(maps)} maps, {channels} channels", "separate maps by |"
            )
        return Given(maps[:, 0] if maps.shape[1] == 1 else maps)
    return _picture(text, channels, resize)


def read_kernel(
    given: int | str | Sequence[int] | Tensor | None, axes: int, default: int
) -> tuple[tuple[int, ...], Tensor | None]:
    """(kernel size, kernels (m, *kernel) or the whole weight, or None): from a size, numbers, a filter's name, a tensor."""
    if given is None:
        return (default,) * axes, None
    if isinstance(given, Tensor):
        kernels = given.detach().double().cpu()
        kernels = kernels if kernels.dim() > axes else kernels[None]
        if kernels.dim() not in (axes + 1, axes + 2):
            raise ShapeError(
                f"a kernel for {axes} axes is (*kernel), (m, *kernel) or a whole weight",
                f"got {tuple(given.shape)}",
                "",
            )
        return tuple(kernels.shape[-axes:]), kernels
    if not isinstance(given, str):
        sizes = (given,) * axes if isinstance(given, int) else tuple(given)
        return _kernel_size(sizes, axes, repr(given)), None
    text = given.strip()
    if SIZE.fullmatch(text):
        numbers = tuple(int(word) for word in text.split("x"))
        return _kernel_size(numbers, axes, text), None
    if NUMBERS.fullmatch(text):
        kernels = torch.stack(_rectangles(text, "kernel"))
    else:
        kernels = named_kernel(text).kernels
        if len(kernels) != 1:
            raise UsageError(
                "an animation lays on one kernel", f"{text} joins {len(kernels)}", f"use {text}-x or a single kernel"
            )
    if axes == 1:
        if kernels.shape[1] != 1:
            raise ShapeError("a 1-D kernel is one row", f"got {kernels.shape[1]} rows", "give a 2-D input, such as 5x5")
        kernels = kernels[:, 0]
    return tuple(kernels.shape[1:]), kernels.double()


def read_padding(
    given: int | str | Sequence[int] | Sequence[Pair], axes: int
) -> int | str | Sequence[int] | Sequence[Pair]:
    """Padding from text: "1", "same", "1x2" (per axis) or "0:1x1:2" (before:after per axis)."""
    if not isinstance(given, str) or not re.fullmatch(r"-?\d+(:-?\d+)?(x-?\d+(:-?\d+)?)*", given):
        return given
    pairs = []
    for word in given.split("x"):
        before, _, after = word.partition(":")
        pairs.append((int(before), int(after or before)))
    return pairs * axes if len(pairs) == 1 else pairs


def read_sizes(given: int | str | Sequence[int] | None, name: str) -> int | Sequence[int] | None:
    """An int, or one per axis, from text such as "2" or "2x1"."""
    if not isinstance(given, str):
        return given
    if not SIZE.fullmatch(given):
        raise UsageError(f"{name} is a whole number, or one per axis", f"got {given!r}", "write 2 or 2x1")
    numbers = [int(word) for word in given.split("x")]
    return numbers[0] if len(numbers) == 1 else numbers


def _kernel_size(numbers: tuple[int, ...], axes: int, text: str) -> tuple[int, ...]:
    numbers = numbers * axes if len(numbers) == 1 else numbers
    if len(numbers) != axes or min(numbers) < 1:
        raise UsageError(f"a kernel has one size of at least 1 per axis ({axes})", f"got {text}", "write 3 or 3x2")
    if np.prod([float(n) for n in numbers]) > 1e4:
        raise UsageError("an animation needs a small kernel", f"got {text}", "use up to about 11x11")
    return numbers


def _rectangles(text: str, what: str) -> list[Tensor]:
    maps = [parse_kernel(part).kernels[0] for part in text.split("|")]
    if len({tuple(part.shape) for part in maps}) != 1:
        shapes = ", ".join("x".join(map(str, part.shape)) for part in maps)
        raise ShapeError(
            f"all maps of the {what} have one size", f"got {shapes}", "write maps of equal rows, apart by |"
        )
    return maps


def _picture(text: str, channels: int | None, resize: str | None) -> Given:
    sample = text.removeprefix("sample:") if text.startswith("sample:") else None
    if sample is None and not Path(text).exists() and not Path(text).suffix:
        raise InputError(
            "an input is a size, numbers, or an image file",
            f"got {text!r}",
            'write 5x5, "1 2 3; 4 5 6", PHOTO.jpg or sample:china',
        )
    source = open_picture(sample_photo(sample), name=text) if sample is not None else open_picture(Path(text))
    if channels is None:
        channels = 1 if source.mode in GREY else 3
    if channels not in (1, 3):
        raise UsageError("an image has 3 channels, or 1 (grey)", f"got {channels}", "use 1 or 3")
    h, w = source.height, source.width
    scale = LONGEST / max(h, w)
    size = (max(1, round(h * scale)), max(1, round(w * scale)))
    if resize is not None:
        wished = read_sizes(resize, "resize")
        size = (wished, wished) if isinstance(wished, int) else tuple(wished or ())  # type: ignore[assignment]
        if len(size) != 2 or min(size) < 1 or max(size) > 64:
            raise UsageError("an image is resized to HxW, each 1 to 64", f"got {resize!r}", "write 12x16")
    scale = min(1.0, THUMBNAIL / max(h, w))
    larger = to_pixels(fit(source, channels, (max(1, round(h * scale)), max(1, round(w * scale))))).transpose(1, 2, 0)
    pixels = torch.from_numpy(to_pixels(fit(source, channels, size))).double()
    names = ("R", "G", "B") if channels == 3 else ("grey",)
    credit = SAMPLES[sample] if sample is not None else None
    return Given(pixels, names, larger[:, :, 0] if channels == 1 else larger, credit, sample or Path(text).stem)
