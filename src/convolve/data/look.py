"""Look at every picture of a data set, once, and keep the few facts that `check` reasons about.

Image folders and zips are looked at file by file, also where training would refuse the tree: what is meant is then guessed,
and the refusal becomes a finding. Other data comes as arrays: they are looked at as the splits that training reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from convolve.data.image_folder import THREADED_FROM, available_cores, each, printable, reason
from convolve.data.layout import PARTS as NAMED_PARTS
from convolve.data.layout import arrange, guess, is_image_name
from convolve.data.likeness import SIDE
from convolve.data.picture import ONE_COLOUR, Examined, examine, open_picture, quiet, read_header
from convolve.data.places import Place, open_place
from convolve.data.records import ResidentImages, Split
from convolve.data.source import Progress, hold_out
from convolve.data.split import content_digest
from convolve.errors import InputError

PARTS = ("train", "validation", "test")
TRIED = 16  # headers that are read to decide whether threads pay


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture. `format` and `mode` are Pillow's names; pictures that came as numbers have no format."""

    name: str
    part: str
    label: str
    digest: bytes
    h: int
    w: int
    format: str
    mode: str
    turned: bool
    one_colour: bool
    miniature: np.ndarray  # uint8 [16, 16, 3]


@dataclass(frozen=True)
class Unreadable:
    """A file that is listed as a picture and cannot be read as one. `label` is empty where it is not known any more."""

    name: str
    part: str
    label: str
    reason: str


@dataclass(frozen=True, eq=False)
class Facts:
    """What was seen. `planned` names the pictures that training would hold out for validation, where it would split."""

    origin: str
    kind: str
    classes: tuple[str, ...]
    seen: Sequence[Seen]
    picture: Callable[[str], Image.Image]  # of a name
    unreadable: Sequence[Unreadable] = ()
    aside: Sequence[tuple[str, str]] = ()  # (file, reason)
    hidden: Sequence[str] = ()
    folders: Sequence[tuple[str, str]] = ()  # (class, folder below it)
    empty: Sequence[tuple[str, str]] = ()  # (part, class)
    refused: tuple[str, str, str] | None = None  # rule, received, remedy
    planned: frozenset[str] = frozenset()
    compared: bool = True  # false where the pictures were not decoded, so that no duplicate could be found


@quiet()
def look_at_files(path: Path, workers: int | None = None, progress: Progress | None = None) -> Facts:
    """The facts of a folder or .zip of images. Raises InputError when it cannot be listed, or holds no image at all."""
    place = open_place(path)
    refused: tuple[str, str, str] | None = None
    try:
        layout = arrange(place.names, place.folders, str(path))
        parts, aside = layout.parts, list(layout.aside)
    except InputError as error:
        if not any(map(is_image_name, place.names)):
            raise
        refused = (error.rule, error.received, error.remedy)
        parts = guess(place.names, place.folders)
        listed = {name for found in parts.values() for files in found.values() for name in files}
        aside = [
            (name, "in no class folder" if is_image_name(name) else "not an image, by its name")
            for name in place.names
            if name not in listed
        ]
    order = [part for part in PARTS if part in parts]
    listing = [(name, part, label) for part in order for label, files in parts[part].items() for name in files]
    names = [name for name, _, _ in listing]
    seen: list[Seen] = []
    unreadable: list[Unreadable] = []
    found = each(_looker(place), names, _threads(place, names, workers), progress, "pictures")
    for (name, part, label), what in zip(listing, found, strict=True):
        shown, called = printable(name), printable(label)
        if isinstance(what, str):
            unreadable.append(Unreadable(shown, part, called, what))
        else:
            digest, picture = what
            header = picture.header
            seen.append(
                Seen(
                    shown,
                    part,
                    called,
                    digest,
                    header.h,
                    header.w,
                    picture.format,
                    picture.mode,
                    header.turned,
                    picture.one_colour,
                    picture.miniature,
                )
            )
    raw = {printable(name): name for name in names}
    first = parts[order[0]] if order else {}
    return Facts(
        origin=str(path),
        kind="image folder" if path.is_dir() else "zip file",
        classes=tuple(map(printable, first)),
        seen=seen,
        unreadable=unreadable,
        aside=sorted((printable(name), why) for name, why in aside),
        hidden=[printable(name) for name in sorted(place.hidden)],
        folders=_folders_below(listing),
        empty=[(part, printable(label)) for part in order for label, files in parts[part].items() if not files],
        refused=refused,
        planned=_planned(seen) if refused is None and "train" in parts and "validation" not in parts else frozenset(),
        picture=lambda name: open_picture(place.read(raw[name]), name=name),
    )


def look_at_splits(
    splits: Sequence[Split], classes: Sequence[str], origin: str, kind: str, planned: frozenset[str] = frozenset()
) -> Facts:
    """The facts of splits that were read: of all their pictures where they are in memory, else of their sizes and labels only."""
    seen: list[Seen] = []
    unreadable: list[Unreadable] = []
    where: dict[str, tuple[Split, int]] = {}
    compared = all(isinstance(split.images, ResidentImages) for split in splits)
    for split in splits:
        mode = "L" if split.images.shape[0] == 1 else "RGB"
        pixels = split.images.pixels if isinstance(split.images, ResidentImages) and compared else None
        n = len(split)
        if pixels is None:
            small, plain = np.zeros((n, SIDE, SIDE, 3), np.uint8), np.zeros(n, bool)
            digests = [name.encode("utf-8", "surrogateescape") for name in split.ids]
        else:
            small, plain = _miniatures(pixels)
            digests = [content_digest(image.tobytes()) for image in pixels.numpy()]
        rows = zip(split.ids, split.labels.tolist(), split.sizes.tolist(), strict=True)
        for i, (name, label, (h, w)) in enumerate(rows):
            where[name] = (split, i)
            flat = bool(plain[i])
            seen.append(Seen(name, split.name, classes[label], digests[i], h, w, "", mode, False, flat, small[i]))
        unreadable += [Unreadable(bad.path, split.name, "", bad.reason) for bad in split.quarantined]

    def picture(name: str) -> Image.Image:
        split, i = where[name]
        array = split.images.batch(torch.tensor([i]))[0].permute(1, 2, 0).numpy()
        return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))

    return Facts(origin, kind, tuple(classes), seen, picture, unreadable, planned=planned, compared=compared)


def _looker(place: Place) -> Callable[[str], tuple[bytes, Examined] | str]:
    def look(name: str) -> tuple[bytes, Examined] | str:
        try:
            content = place.read(name)
            return content_digest(content), examine(content, name, SIDE)
        except InputError as error:
            hint = " (convert it to JPEG, or `pip install pillow-heif`)" if heic(name) else ""
            return reason(error, name) + hint

    return look


def heic(name: str) -> bool:
    """Whether a file is one of those that Pillow reads with a plug-in only."""
    return name.lower().endswith((".heic", ".heif"))


def _threads(place: Place, names: Sequence[str], workers: int | None) -> int:
    """All cores where pictures are large; decoding small ones is all interpreter, and threads only get in its way."""
    pixels = []
    for name in names[:: max(1, len(names) // TRIED)]:
        try:
            header = read_header(place.read(name), name)
            pixels.append(header.h * header.w)
        except InputError:
            continue
    if workers is not None:
        return max(1, workers)
    return 1 if sum(pixels) < THREADED_FROM * len(pixels) else available_cores()


def _planned(seen: Sequence[Seen]) -> frozenset[str]:
    """The pictures that training would hold out with its defaults."""
    train = [picture for picture in seen if picture.part == "train"]
    place = {name: i for i, name in enumerate(sorted({picture.label for picture in train}))}
    try:
        chosen, _ = hold_out([place[p.label] for p in train], [p.digest for p in train], None, 0)
    except InputError:
        return frozenset()
    return frozenset(picture.name for picture, held in zip(train, chosen.tolist(), strict=True) if held)


def _folders_below(listing: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """(class, folder) of every folder that lies directly below a class folder and holds pictures."""
    below = [
        (label, path[path.index(label) + 1 : -1] if label in path else [])
        for name, _, label in listing
        for path in [name.split("/")]
    ]
    if all(path and path[0].lower() in NAMED_PARTS for _, path in below):  # DATA/class/train/*: the parts, and no more
        below = [(label, path[1:]) for label, path in below]
    return sorted({(printable(label), printable(path[0])) for label, path in below if path})


def _miniatures(pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of uint8 [n, c, h, w]: miniatures uint8 [n, 16, 16, 3], and whether each has one colour."""
    small, plain = [], []
    for part in torch.split(pixels, 4096):
        shrunk = F.interpolate(part.float(), (SIDE, SIDE), mode="area").round().to(torch.uint8)
        small.append(shrunk.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())
        plain.append((part.amax((2, 3)) - part.amin((2, 3)) <= ONE_COLOUR).all(1).numpy())
    if not small:
        return np.empty((0, SIDE, SIDE, 3), np.uint8), np.empty(0, bool)
    return np.concatenate(small), np.concatenate(plain)
