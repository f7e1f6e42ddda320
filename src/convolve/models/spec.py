"""Networks in one line: "conv 6 5 p2, sigmoid, avg 2, fc 10" is a network.

    spec   = item {"," item}            item   = [count "*"] (layer | "(" spec ")")
    layer  = word {number} {option}     option = a letter and a number (s2 p1 d2 g4), or a flag (ceil, nobias, same)

LAYERS is the table of words: what each takes and what it builds. The number of incoming channels is never written: it
follows from the layer before, whose output is found by running it on the meta device, so that no size formula stands here.
`classes` is the number of classes; `fc` flattens maps that are not flat yet. A kernel is one number or RxS ("conv 8 1x3").
Layers are named by word and count: conv1, sigmoid1, avg1, conv2, …
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

import convolve.nn as layers
from convolve.errors import ConvolveError, ShapeError, UnknownNameError, UsageError

Shape = tuple[int, ...]
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """A word of the language: how to build it from its input's shape (c, h, w) and values, and what values it takes."""

    build: Callable[[Shape, Values], nn.Module]
    numbers: tuple[str, ...] = ()
    letters: str = ""
    flags: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The values in the order of writing, as "OUT KERNEL [sN] [ceil]"."""
        optional = [f"{letter}N" for letter in self.letters] + list(self.flags)
        return " ".join([name.upper() for name in self.numbers] + [f"[{option}]" for option in optional])


@dataclass(frozen=True)
class Step:
    """One layer of a spec: its text as written, its name in the network, its word and its values."""

    text: str
    name: str
    word: str
    values: Values


def _convolution(shape: Shape, v: Values) -> nn.Module:
    return layers.Conv2d(
        shape[0],
        v["out"],
        v["kernel"],
        v.get("s", 1),
        "same" if "same" in v else v.get("p", 0),
        v.get("d", 1),
        v.get("g", 1),
        bias="nobias" not in v,
    )


def _depthwise(shape: Shape, v: Values) -> nn.Module:
    return _convolution(shape, {**v, "out": shape[0], "g": shape[0]})


def _max_pooling(_: Shape, v: Values) -> nn.Module:
    return layers.MaxPool2d(v["kernel"], v.get("s"), v.get("p", 0), v.get("d", 1), ceil_mode="ceil" in v)


def _average_pooling(_: Shape, v: Values) -> nn.Module:
    return layers.AvgPool2d(v["kernel"], v.get("s"), v.get("p", 0), ceil_mode="ceil" in v)


def _global_average(_: Shape, __: Values) -> nn.Module:
    return nn.Sequential(OrderedDict(pool=layers.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))


LAYERS: Mapping[str, Layer] = MappingProxyType(
    {
        "conv": Layer(_convolution, ("out", "kernel"), "spdg", ("same", "nobias")),
        "dw": Layer(_depthwise, ("kernel",), "spd", ("same", "nobias")),
        "max": Layer(_max_pooling, ("kernel",), "spd", ("ceil",)),
        "avg": Layer(_average_pooling, ("kernel",), "sp", ("ceil",)),
        "gap": Layer(_global_average),
        "adaptive": Layer(lambda _, v: layers.AdaptiveAvgPool2d(v["size"]), ("size",)),
        "flatten": Layer(lambda *_: nn.Flatten()),
        "fc": Layer(lambda shape, v: nn.Linear(shape[0], v["out"], bias="nobias" not in v), ("out",), "", ("nobias",)),
        "bn": Layer(lambda shape, _: nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])),
        "lrn": Layer(lambda *_: layers.LocalResponseNorm()),
        "dropout": Layer(lambda _, v: nn.Dropout(v["probability"]), ("probability",)),
        "shuffle": Layer(lambda _, v: layers.ChannelShuffle(v["groups"]), ("groups",)),
        "relu": Layer(lambda *_: nn.ReLU()),
        "relu6": Layer(lambda *_: nn.ReLU6()),
        "sigmoid": Layer(lambda *_: nn.Sigmoid()),
        "tanh": Layer(lambda *_: nn.Tanh()),
        "scaled_tanh": Layer(lambda *_: layers.ScaledTanh()),
        "gelu": Layer(lambda *_: nn.GELU()),
        "silu": Layer(lambda *_: nn.SiLU()),
    }
)


def build(
    spec: str, *, num_classes: int = 10, in_channels: int = 1, img_size: tuple[int, int] = (28, 28)
) -> nn.Sequential:
    """The network of a one-line `spec`, for images of shape (n, in_channels, *img_size).

    Raises UnknownNameError for an unknown word, UsageError for wrong values, and ShapeError for a layer that does not fit
    its input: it names the layer, what arrives there, and the smallest square image that would do.

    >>> net = build("conv 6 5 p2, sigmoid, avg 2, fc classes", in_channels=3, img_size=(8, 8))
    >>> list(dict(net.named_children())), net.fc1.in_features
    (['conv1', 'sigmoid1', 'avg1', 'flattened1', 'fc1'], 96)
    """
    image = (in_channels, *img_size)
    return layers.Sequential(OrderedDict(_layers(parse(spec, num_classes), image)))


def part(spec: str, shape: Shape, num_classes: int = 10) -> tuple[nn.Sequential, Shape]:
    """A piece of a larger network, for inputs of `shape` without n: its layers under the names 0, 1, 2, …; and its output's shape.

    >>> features, shape = part("conv 6 5, relu, max 2", (3, 10, 12))
    >>> list(features.state_dict()), shape
    (['0.weight', '0.bias'], (6, 3, 4))
    """
    steps = parse(spec, num_classes)
    return nn.Sequential(*(layer for _, layer in _layers(steps, shape))), _output(steps[-1], _shapes(steps, shape)[-1])


def parse(spec: str, num_classes: int = 10) -> list[Step]:
    """The steps of a spec, checked against LAYERS; repetitions are written out.

    >>> [step.name for step in parse("2*(conv 8 3 p1, relu), gap, fc classes")]
    ['conv1', 'relu1', 'conv2', 'relu2', 'gap1', 'fc1']
    """
    texts = list(_expand(spec))
    if not texts:
        raise UsageError(
            "a network spec needs at least one layer", f"got {spec!r}", 'write "conv 6 5, relu, fc classes"'
        )
    counts: Counter[str] = Counter()
    steps = []
    for text in texts:
        word, *tokens = text.split()
        if word not in LAYERS:
            raise UnknownNameError.of("layer", word, LAYERS)
        counts[word] += 1
        steps.append(Step(text, f"{word}{counts[word]}", word, _values(text, LAYERS[word], tokens, num_classes)))
    return steps


def _expand(spec: str) -> Iterator[str]:
    """The layers of a spec in order, one text each, with "3*layer" and "2*(layer, layer)" repeated."""
    for item in _split(spec):
        match = re.fullmatch(r"(?:(\d+)\s*\*\s*)?(?:\((.*)\)|([^()*]*))", item, re.DOTALL)
        if match is None:
            raise UsageError(
                "parentheses hold a repeated group, as in 2*(conv 8 3, relu)", f"got {item!r}", "write it so"
            )
        count, group, layer = match.groups()
        for _ in range(int(count or 1)):
            if layer is not None:
                yield layer
            else:
                yield from _expand(group)


def _split(spec: str) -> Iterator[str]:
    """The parts of a spec between commas that are not inside parentheses; empty parts are dropped."""
    depth, part = 0, ""
    for character in spec + ",":
        if character == "," and depth == 0:
            if part.strip():
                yield part.strip()
            part = ""
            continue
        depth += (character == "(") - (character == ")")
        part += character
        if depth < 0:
            break
    if depth != 0:
        raise UsageError("parentheses in a network spec must match", f"got {spec!r}", "add or remove one")


def _values(text: str, layer: Layer, tokens: list[str], num_classes: int) -> Values:
    def wrong(what: str) -> UsageError:
        usage = f"{text.split()[0]} {layer.usage}".strip()
        return UsageError(f"the layer is written {usage!r}", f"got {text!r}: {what}", "see docs/models.md")

    values: dict[str, Any] = {}
    positions = iter(layer.numbers)
    for token in tokens:
        option = re.fullmatch(r"([a-z])(\d+)", token)
        if token in layer.flags:
            values[token] = True
        elif option and option[1] in layer.letters:
            values[option[1]] = int(option[2])
        elif (number := _number(token, num_classes)) is not None:
            name = next(positions, None)
            if name is None:
                raise wrong(f"{token} is one number too many")
            values[name] = number
        else:
            raise wrong(f"{token!r} is not one of its options")
    if (missing := next(positions, None)) is not None:
        raise wrong(f"{missing} is missing")
    return MappingProxyType(values)


def _number(token: str, num_classes: int) -> int | float | tuple[int, int] | None:
    if token == "classes":
        return num_classes
    if re.fullmatch(r"\d+", token):
        return int(token)
    if re.fullmatch(r"\d*\.\d+", token):
        return float(token)
    if match := re.fullmatch(r"(\d+)x(\d+)", token):
        return int(match[1]), int(match[2])
    return None


def _layers(steps: list[Step], image: Shape) -> Iterator[tuple[str, nn.Module]]:
    """The layers by name; a flatten is put in front of a fully connected layer that receives maps."""
    flattened = 0
    for step, shape in zip(steps, _shapes(steps, image), strict=True):
        if step.word == "fc" and len(shape) > 1:
            flattened += 1
            yield f"flattened{flattened}", nn.Flatten()
            shape = (torch.Size(shape).numel(),)
        yield step.name, LAYERS[step.word].build(shape, step.values)


def _shapes(steps: list[Step], image: Shape) -> list[Shape]:
    """The shape (without n) that arrives at each step."""
    arriving: list[Shape] = []
    shape = image
    for step in steps:
        arriving.append(shape)
        try:
            shape = _output(step, shape)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise _misfit(steps, arriving, error) from error
    return arriving


def _output(step: Step, shape: Shape) -> Shape:
    flat = (torch.Size(shape).numel(),) if step.word == "fc" else shape
    with torch.device("meta"):
        layer = LAYERS[step.word].build(flat, step.values).eval()
        out: Tensor = layer(torch.empty(2, *flat))
    return tuple(out.shape[1:])


def _misfit(steps: list[Step], arriving: list[Shape], error: Exception) -> ConvolveError:
    step, image = steps[len(arriving) - 1], arriving[0]
    way = " -> ".join(
        f"{name} {'x'.join(map(str, shape))}"
        for name, shape in zip(["image", *(step.name for step in steps)], arriving, strict=False)
    )
    enough = _smallest(steps, image)
    reason = f"{error.rule}, {error.received}" if isinstance(error, ConvolveError) else str(error).splitlines()[0]
    remedy = f"use images of at least {enough} x {enough}, or more padding" if enough else "change this layer"
    return ShapeError(f"layer {step.name} ({step.text!r}) does not fit its input", f"{way}: {reason}", remedy)


def _smallest(steps: list[Step], image: Shape, largest: int = 512) -> int | None:
    """The side of the smallest square image through which every step fits, or None: then the size is not what is wrong."""

    def fits(side: int) -> bool:
        shape: Shape = (image[0], side, side)
        try:
            for step in steps:
                shape = _output(step, shape)
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
        return True

    low, high = 1, largest
    if not fits(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low
