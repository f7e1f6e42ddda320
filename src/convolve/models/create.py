"""From a name to a network: `create` builds a row of MODELS, `find` looks it up, `available` lists the names.

A name is a row ("alexnet") or a row and one of its variants ("alexnet-d2l").
"""

from __future__ import annotations

import fnmatch
import inspect
import os
from typing import Any

from torch import nn

from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.models.table import MODELS, Model, Variant
from convolve.models.weights import put, read


def available(pattern: str = "*") -> list[str]:
    """The names of the models, in the order of the table, that match a shell `pattern`.

    >>> available("lenet*")
    ['lenet', 'lenet_relu', 'lenet5']
    """
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def find(name: str, variant: str | None = None) -> tuple[Model, Variant]:
    """The row and variant of a model's `name`, which may carry the variant ("alexnet-d2l"); UnknownNameError for no such.

    >>> model, variant = find("lenet-shusentang")
    >>> model.name, variant.smallest
    ('lenet', (16, 16))
    """
    row, _, suffix = name.partition("-")
    if row not in MODELS:
        raise UnknownNameError.of("model", name, _all_names())
    model = MODELS[row]
    wanted = suffix or variant or model.default.name
    if suffix and variant and suffix != variant:
        raise UsageError("a model has one variant", f"got {name!r} and variant={variant!r}", "name it once")
    for row_variant in model.variants:
        if row_variant.name == wanted:
            return model, row_variant
    raise UnknownNameError.of(f"variant of {model.name}", wanted, [each.name for each in model.variants])


def create(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    variant: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> nn.Module:
    """A new network of the table: images (n, in_channels, h, w) in, scores (n, num_classes) out.

    What is left out is the variant's own. `img_size` is a side or (h, w). `options` are the model's own keywords (its building
    function lists them). `weights` is a .safetensors or .pth file whose tensors are put in, as weights.py says. Raises
    UnknownNameError for a name or variant that the table does not hold, ShapeError for images that are too small,
    ModelFileError for weights that do not fit.

    >>> net = create("lenet", num_classes=3, img_size=20)
    >>> sum(parameter.numel() for parameter in net.parameters())
    30391
    """
    model, chosen = find(name, variant)
    size = chosen.size if img_size is None else (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(size) != 2 or size[0] < chosen.smallest[0] or size[1] < chosen.smallest[1]:
        h, w = chosen.smallest
        raise ShapeError(
            f"{model.name} ({chosen.name}) needs images of at least {h} x {w}",
            f"got {' x '.join(map(str, size))}",
            f"enlarge the images (img_size={max(h, w)} or more), or choose a smaller network",
        )
    for value, argument in ((num_classes, "num_classes"), (in_channels, "in_channels")):
        if value is not None and value < 1:
            raise UsageError(f"{argument} must be at least 1", f"got {value}", "use 1 or more")
    build = model.build
    known = [key for key in inspect.signature(build).parameters if key not in _COMMON]
    for option in options:
        if option not in known:
            if known:
                raise UnknownNameError.of(f"option of {model.name}", option, known)
            raise UsageError(f"{model.name} has no options", f"got {option!r}", "leave it out")
    net = build(
        num_classes=chosen.num_classes if num_classes is None else num_classes,
        in_channels=chosen.channels if in_channels is None else in_channels,
        img_size=size,
        variant=chosen.name,
        **options,
    )
    if weights is not None:
        put(net, read(weights), weights)
    return net


_COMMON = ("num_classes", "in_channels", "img_size", "variant")


def _all_names() -> list[str]:
    return [*MODELS, *(f"{model.name}-{each.name}" for model in MODELS.values() for each in model.variants[1:])]
