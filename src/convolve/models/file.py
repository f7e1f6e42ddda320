"""A model file that describes itself: safetensors with weights, and one JSON card in its metadata.

The card holds what is needed to use the weights without anything else: architecture (the arguments of `create`), classes,
preprocessing, training statistics, metrics and versions. The format alone notices neither a flipped bit in a tensor nor one
in its metadata; here every tensor (with its name, type and shape) and the card have a sha256, checked on loading.

Reading never runs code from the file: there is no pickle in it, and the architecture is built from our own table.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save

from convolve.errors import ModelFileError
from convolve.files import atomic_write

FORMAT = "convolve.model/1"
_CARD, _DIGEST = "convolve", "convolve.sha256"


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], card: Mapping[str, Any], kind: str = FORMAT
) -> None:
    """Write `tensors` and the JSON-safe `card` to one file, atomically; `kind` names what the file is.

    Raises ConvolveError, with the previous file intact, when the disk is full or the place may not be written.
    """
    stored = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    content = {
        **card,
        "format": kind,
        "tensors": {name: _tensor_digest(name, tensor) for name, tensor in stored.items()},
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=True)
    # Serialised in memory and written by us: the library's own writer hides the system's reason (disk full, no permission).
    content_bytes = save(stored, metadata={"format": "pt", _CARD: text, _DIGEST: _digest(text.encode())})
    with atomic_write(path, "wb") as file:
        file.write(content_bytes)


def read(path: str | os.PathLike[str], kind: str = FORMAT) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the card of a file that `write` wrote, every digest checked.

    Raises ModelFileError for a file that is missing, truncated, changed, or not of this `kind`.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        received = "it is a folder" if path.is_dir() else "there is no such file"
        raise ModelFileError(f"cannot read {path}", received, "name a file model.safetensors that convolve train wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            card = _checked_card(path, metadata, kind)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (not a mapping)
        _check_names(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(
            f"cannot read {path}", _reason(error), "the file is damaged or was not written by convolve"
        ) from error
    expected = card.pop("tensors")
    if {name: _tensor_digest(name, tensor) for name, tensor in tensors.items()} != expected:
        raise ModelFileError(
            f"{path} is damaged", "the weights differ from their sha256", "copy the file again, or train again"
        )
    return tensors, card


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether a file says of itself that it is a model of ours; of one that cannot be read, `read` says why."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return _CARD in (file.metadata() or {})
    except Exception:  # not a safetensors file, or none at all
        return False


def load_weights(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Put `tensors` into `model`, all of them and nothing else; raises ModelFileError listing what differs."""
    own = model.state_dict()
    differences = [f"{name} is missing" for name in own if name not in tensors]
    differences += [f"{name} is not in this architecture" for name in tensors if name not in own]
    differences += [
        f"{name} is {list(tensors[name].shape)}, expected {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if differences:
        shown = ", ".join(differences[:3]) + (f" and {len(differences) - 3} more" if len(differences) > 3 else "")
        raise ModelFileError(
            f"the weights in {path} do not fit the architecture it names", shown, "use the file of another run"
        )
    model.load_state_dict(dict(tensors))


def _checked_card(path: Path, metadata: Mapping[str, str], kind: str) -> dict[str, Any]:
    if _CARD not in metadata:
        raise ModelFileError(
            f"{path} was not written by convolve", "it has no description inside", "use a file of convolve train"
        )
    text = metadata[_CARD]
    if (
        set(metadata) != {"format", _CARD, _DIGEST}
        or metadata["format"] != "pt"
        or metadata[_DIGEST] != _digest(text.encode())
    ):
        raise ModelFileError(
            f"{path} is damaged", "its description differs from its sha256", "copy the file again, or train again"
        )
    card: dict[str, Any] = json.loads(text)
    if not isinstance(card, dict) or not isinstance(card.get("tensors"), dict):
        received = "its description names no tensors"
        raise ModelFileError(f"{path} was not written by convolve", received, "use a file of convolve train")
    if card["format"] != kind:
        remedy = f"expected {kind}; update convolve, or name another file"
        raise ModelFileError(f"{path} is another kind of file", f"it says {card['format']}", remedy)
    return card


def _check_names(path: Path) -> None:
    """The library takes the last of two entries of one name; two readers could then see two models. Raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("its header has a name twice")
        return dict(pairs)

    with path.open("rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=unique)


def _tensor_digest(name: str, tensor: torch.Tensor) -> str:
    """sha256 over the name, type, shape and bytes: a tensor renamed, reshaped or changed is noticed."""
    head = f"{name}|{tensor.dtype}|{list(tensor.shape)}|".encode()
    content = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)
    return _digest(head, memoryview(content.numpy().data))


def _digest(*parts: bytes | memoryview) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
