"""What every kind of data offers to `load`: one Source per kind (digits, IDX folder, CIFAR binary, image folder or zip)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from convolve.data.picture import fit, to_pixels
from convolve.data.records import ResidentImages, Split
from convolve.data.split import choose_validation, content_digest
from convolve.errors import InputError

Progress = Callable[[str, int, int], None]  # what is being done, how many are, of how many
VALIDATION = 0.2  # of the training images, where nothing else says


@dataclass(frozen=True)
class Want:
    """The pictures that a split is read into."""

    size: tuple[int, int]
    channels: int
    workers: int | None = None
    progress: Progress | None = None
    fit: str = "stretch"


@dataclass(frozen=True)
class Survey:
    """What the training pictures are by nature, and what was said about it; without `sizes`, all have the one `size`."""

    size: tuple[int, int]
    channels: int
    said: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()


class Source(Protocol):
    """Data that was found and listed, but not read."""

    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def counts(self) -> Mapping[str, int]:
        """How many images are listed in each part it brings: "train", "validation", "test"."""

    def names(self, part: str) -> list[str]:
        """The name of every listed image of a part, as `Split.ids` has them."""

    def survey(self, workers: int | None, progress: Progress | None) -> Survey:
        """Look at the training pictures, all of them, without keeping them."""

    def hold_out(self, val_split: float | None, seed: int) -> tuple[torch.Tensor, str]:
        """A bool per training image: is it validation; and the rule in words. After `survey`."""

    def read(self, part: str, want: Want, classes: tuple[str, ...], chosen: torch.Tensor | None = None) -> Split:
        """The images of a part (of "train", only those of the bool mask `chosen`), labelled by their place in `classes`."""


def hold_out_arrays(
    pixels: np.ndarray, labels: np.ndarray, val_split: float | None, seed: int
) -> tuple[torch.Tensor, str]:
    """`Source.hold_out` for pictures in memory, [n, ...]."""
    digests = [content_digest(np.ascontiguousarray(image).data) for image in pixels]
    return hold_out(labels.tolist(), digests, val_split, seed)


def hold_out(labels: list[int], digests: list[bytes], val_split: float | None, seed: int) -> tuple[torch.Tensor, str]:
    """`Source.hold_out` by content."""
    fraction = VALIDATION if val_split is None else val_split
    chosen = torch.tensor(choose_validation(labels, digests, fraction, seed), dtype=torch.bool)
    if not chosen.any() or chosen.all():
        received = f"{len(labels)} training images, {int(chosen.sum())} of them chosen with val_split={fraction}"
        raise InputError("training and validation need an image each", received, "add images, or a validation folder")
    return chosen, f"{fraction:.0%} of the training images, chosen by content, seed {seed}"


def relabel(found: np.ndarray, names: tuple[str, ...], classes: tuple[str, ...], where: str) -> torch.Tensor:
    """Labels that index `names`, as int64 labels that index `classes`. Raises InputError for a name that is no class."""
    place = {name: i for i, name in enumerate(classes)}
    strange = [names[i] for i in np.unique(found) if names[i] not in place]
    if strange:
        received = f"{where} has {', '.join(map(repr, strange[:3]))}; the classes are {', '.join(classes[:12])}"
        raise InputError("every label must be one of the classes learned", received, "rename or remove the others")
    table = torch.tensor([place.get(name, -1) for name in names])
    return table[torch.from_numpy(found.astype(np.int64))]


def fitted(pixels: torch.Tensor, want: Want) -> ResidentImages:
    """Pictures uint8 [n, c, h, w] in memory, in the size and the channels wanted, exactly as `Preprocessing` makes them."""
    n, c, h, w = pixels.shape
    if (h, w) == want.size and c == want.channels:
        return ResidentImages(pixels.contiguous())
    made = torch.empty(n, want.channels, *want.size, dtype=torch.uint8)
    for i, array in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        image = Image.fromarray(np.ascontiguousarray(array[:, :, 0] if c == 1 else array))
        made[i] = torch.from_numpy(to_pixels(fit(image, want.channels, want.size, how=want.fit)))
    return ResidentImages(made)


def same_sizes(n: int, h: int, w: int) -> torch.Tensor:
    """The `sizes` of a split whose pictures all have one."""
    return torch.tensor([h, w], dtype=torch.int32).expand(n, 2)
