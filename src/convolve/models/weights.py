"""Weight files of others: the tensors that a release published, put into a network of ours with the same parameter names.

Read are .safetensors, and .pth or .pt files as torch writes them, these with `weights_only`: no code in a file is ever run. A file may be a
state dict, or hold one under "state_dict" or "model".

The names and shapes must be the network's own, with two exceptions. A classifier of another number of classes is left as it was
made, since its rows mean the classes of the release. What only counts batches (`num_batches_tracked`) may be missing: old
releases lack it. Heads for training that the network was built without are left out. Everything else is refused by name.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from convolve.errors import ModelFileError

TORCH_ENDINGS = (".pth", ".pt")
HEADS = ("aux1.", "aux2.")  # GoogLeNet's, which a network may be built without
COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Taken:
    """What became of a weight file: how many tensors were taken, and the names of those that start anew or were left out."""

    tensors: int
    anew: tuple[str, ...]
    left_out: tuple[str, ...]


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a weight file by name; raises ModelFileError for a file that is none, or that would run code."""
    place = Path(path)
    if not place.is_file():
        received = "it is a folder" if place.is_dir() else "there is no such file"
        raise ModelFileError(f"cannot read {place}", received, "name a .safetensors, .pth or .pt file of weights")
    ending = place.suffix.lower()
    if ending not in (".safetensors", *TORCH_ENDINGS):
        raise ModelFileError(
            "weights come as .safetensors, .pth or .pt", f"got {place.name!r}", "rename or convert the file"
        )
    try:
        content = load_file(place) if ending == ".safetensors" else _pickled(place)
    except ModelFileError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'nothing more is known'}"
        raise ModelFileError(f"cannot read {place}", reason, "it is damaged or no weight file: get it again") from error
    if not content or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()):
        raise ModelFileError(
            f"{place} holds no weights", "expected tensors by name: a state dict", "save model.state_dict()"
        )
    return content


def put(
    net: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str], same_classes: bool = True
) -> Taken:
    """Put `tensors`, read from `path`, into `net` in place, by the rules above; raises ModelFileError naming what does not fit.

    Without `same_classes` the classifier starts anew though its shape may fit: its rows mean other classes.

    >>> import convolve.models
    >>> net, other = (convolve.models.create("smallnet", num_classes=classes) for classes in (10, 3))
    >>> put(other, net.state_dict(), "smallnet.pth").anew
    ('fc.weight', 'fc.bias')
    """
    own = net.state_dict()
    classifiers = [f"{path}.{part}" for path in _last(net) for part in ("weight", "bias")]
    anew = tuple(
        name
        for name in classifiers
        if name in tensors and name in own and (not same_classes or _other_classes(tensors[name], own[name]))
    )
    left_out = tuple(name for name in tensors if name not in own and name.startswith(HEADS))
    wrong = [f"{name} is missing" for name in own if name not in tensors and not name.endswith(COUNTER)]
    wrong += [f"{name} is not in this network" for name in tensors if name not in own and name not in left_out]
    wrong += [
        f"{name} is {list(tensors[name].shape)}, here {list(own[name].shape)}"
        for name in own
        if name in tensors and name not in anew and tensors[name].shape != own[name].shape
    ]
    if wrong:
        shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise ModelFileError(f"the weights in {path} do not fit the network", shown, _remedy(own, tensors))
    taken = {name: tensors[name] for name in own if name in tensors and name not in anew}
    net.load_state_dict(taken, strict=False)
    return Taken(len(taken), anew, left_out)


def _pickled(path: Path) -> dict[str, Tensor]:
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "global" not in str(error).lower():
            raise
        raise ModelFileError(
            f"{path} holds more than weights",
            "reading it would run code of its author, which is not done",
            "load it where you trust it, and save its state dict with safetensors",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return dict(content) if isinstance(content, Mapping) else {}


def _check_archive(path: Path) -> None:
    """torch stores its archives uncompressed; entries that claim more bytes than the file has are a decompression bomb."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    claimed, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if claimed > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        received = f"it has {size:,} bytes and its entries claim {claimed:,}"
        raise ModelFileError(
            f"{path} is a decompression bomb", received, "torch stores weights uncompressed: get them again"
        )


def _last(net: nn.Module) -> list[str]:
    """The paths of the layers that give scores: the last fully connected one, or without any the last convolution; and the heads'."""
    linear = [path for path, layer in net.named_modules() if isinstance(layer, nn.Linear)]
    matrices = [path for path, layer in net.named_modules() if any(p.ndim > 1 for p in layer.parameters(recurse=False))]
    return [path for path in linear if path.startswith(HEADS) and path.endswith("fc2")] + (linear or matrices)[-1:]


def _other_classes(theirs: Tensor, ours: Tensor) -> bool:
    """Whether a classifier's weight or bias differs in the number of classes alone."""
    return theirs.ndim == ours.ndim and theirs.shape[1:] == ours.shape[1:] and theirs.shape != ours.shape


def _remedy(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    first = next(name for name, tensor in own.items() if tensor.ndim == 4)
    if first in tensors and tensors[first].ndim == 4 and tensors[first].shape[1] != own[first].shape[1]:
        channels = tensors[first].shape[1]
        return f"these weights take images of {channels} channel{'s' * (channels > 1)}: use channels={channels} (--channels {channels})"
    if set(own) == set(tensors):
        return "use the image size and options that the weights were made for"
    return "choose the model and variant that they belong to: convolve models --variants"
