"""A folder or .zip of images as a Source: listed by layout.py, surveyed by headers, decoded by several threads.

Where the decoded pictures of a part fit into BUDGET they become one tensor; where they do not, they are decoded once as a
check and then again, batch by batch, when training asks. A file that cannot be used is named and set aside; when more
than half of a part cannot be used, that is an error.
"""

from __future__ import annotations

import os
import statistics
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from convolve.data.layout import arrange
from convolve.data.picture import Header, fit, open_picture, read_header, to_pixels
from convolve.data.places import Place, open_place
from convolve.data.records import Images, Quarantined, ResidentImages, Split
from convolve.data.source import Progress, Survey, Want, hold_out, relabel
from convolve.data.split import content_digest
from convolve.errors import InputError

BUDGET = 2**30  # bytes of decoded pictures of one part that may stay in memory
LARGEST_SIDE = 224  # of the size that is chosen from the data
THREADED_FROM = 128 * 128  # pixels: decoding smaller pictures is all interpreter, and threads only get in its way
CHUNK = 64  # pictures between two words about progress
HANDFUL = 8  # pictures that a thread is given at once

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Seen:
    """What the survey learned of one file."""

    digest: bytes
    header: Header


class ImageFolder:
    """The Source of images in class folders."""

    def __init__(self, path: Path) -> None:
        self._place = open_place(path)
        self._layout = arrange(self._place.names, self._place.folders, str(path))
        self.name = path.resolve().stem if path.is_file() else path.resolve().name
        self.origin = str(path)
        self.classes = tuple(map(printable, self._layout.classes))
        if len(set(self.classes)) < len(self.classes):
            received = f"two of {path} are written {next(c for c in self.classes if self.classes.count(c) > 1)!r}"
            raise InputError("classes need different names", received, "rename a folder")
        self._files = {part: _flat(classes) for part, classes in self._layout.parts.items()}
        self.counts = {part: len(names) for part, (names, _) in self._files.items()}
        self.aside = tuple(Quarantined(printable(name), reason) for name, reason in self._layout.aside)
        self._seen: dict[str, _Seen | str] = {}

    def names(self, part: str) -> list[str]:
        return [printable(name) for name in self._files[part][0]]

    def survey(self, workers: int | None, progress: Progress | None) -> Survey:  # noqa: ARG002
        part = "train" if "train" in self._files else next(iter(self._files))
        seen = self._look(part, progress)
        headers = [found.header for found in seen if isinstance(found, _Seen)]
        sizes = [(header.h, header.w) for header in headers]
        h, w = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
        grey = sum(header.grey for header in headers)
        channels = 1 if grey == len(headers) else 3

        kind = "folder" if isinstance(self.origin, str) and Path(self.origin).is_dir() else "zip file"
        inside = f", inside {self._layout.inside}/" if self._layout.inside else ""
        said = [f"image {kind} {self.origin}{inside}: {len(headers):,} {part} pictures, {len(self.classes)} classes"]
        colours = {0: "RGB", len(headers): "grey"}.get(
            grey, f"{grey:,} grey and {len(headers) - grey:,} colour, read as RGB"
        )
        same = "all" if len(set(sizes)) == 1 else "median of the sizes"
        said.append(f"pictures of {h}x{w} ({same}), {colours}")
        if max(h, w) > LARGEST_SIDE:
            scale = LARGEST_SIDE / max(h, w)
            h, w = max(1, round(h * scale)), max(1, round(w * scale))
        turned = sum(header.turned for header in headers)
        if turned:
            said.append(f"{turned:,} are rotated as their EXIF says")
        if self.aside:
            said.append(
                f"{len(self.aside):,} files left out: {self.aside[0].path} ({self.aside[0].reason})"
                + ", …" * (len(self.aside) > 1)
            )
        return Survey((h, w), channels, tuple(said), tuple(sizes))

    def hold_out(self, val_split: float | None, seed: int) -> tuple[torch.Tensor, str]:
        names, labels = self._files["train"]
        seen = [self._seen[name] for name in names]
        usable = [i for i, found in enumerate(seen) if isinstance(found, _Seen)]
        digests = [found.digest for found in seen if isinstance(found, _Seen)]
        chosen, how = hold_out([labels[i] for i in usable], digests, val_split, seed)
        held = torch.zeros(len(names), dtype=torch.bool)
        held[torch.tensor(usable)] = chosen
        return held, how

    def read(self, part: str, want: Want, classes: tuple[str, ...], chosen: torch.Tensor | None = None) -> Split:
        names, labels = self._files[part]
        self._look(part, want.progress)
        kept = range(len(names)) if chosen is None else chosen.nonzero()[:, 0].tolist()
        failed = [
            Quarantined(printable(names[i]), found) for i in kept if isinstance(found := self._seen[names[i]], str)
        ]
        usable = [i for i in kept if isinstance(self._seen[names[i]], _Seen)]
        bytes_needed = len(usable) * want.channels * want.size[0] * want.size[1]
        digests = [seen.digest for i in usable if isinstance(seen := self._seen[names[i]], _Seen)]
        files = FileImages(self._place, [names[i] for i in usable], want, self._threads(usable, names), digests)
        pixels, broken = files.decode_all(f"decoding {part} pictures", keep=bytes_needed <= BUDGET)

        failed += [Quarantined(printable(names[usable[i]]), why) for i, why in broken.items()]
        check_usable(failed, len(kept), part)
        good = [i for place, i in enumerate(usable) if place not in broken]
        images: Images = files.only([place for place in range(len(usable)) if place not in broken])
        if pixels is not None:
            images = ResidentImages(pixels)
        indices = relabel(np.array([labels[i] for i in good]), self.classes, classes, self.origin)
        headers = self._headers(names[i] for i in good)
        sizes = torch.tensor([(header.h, header.w) for header in headers], dtype=torch.int32)
        return Split(part, images, indices, [printable(names[i]) for i in good], sizes, tuple(failed))

    def _headers(self, names: Iterable[str]) -> list[Header]:
        return [seen.header for name in names if isinstance(seen := self._seen[name], _Seen)]

    def _threads(self, usable: list[int], names: list[str]) -> int:
        headers = self._headers(names[i] for i in usable)
        pixels = sum(header.h * header.w for header in headers) / max(1, len(headers))
        return 1 if pixels < THREADED_FROM else available_cores()

    def _look(self, part: str, progress: Progress | None) -> list[_Seen | str]:
        """Read the bytes and the header of every file of a part, once."""
        names, _ = self._files[part]
        missing = [name for name in names if name not in self._seen]
        if missing:

            def look(name: str) -> _Seen | str:
                try:
                    content = self._place.read(name)
                    return _Seen(content_digest(content), read_header(content, name))
                except InputError as error:
                    return reason(error, name)

            found = each(look, missing, 1, progress, f"looking at {part} pictures")
            self._seen.update(zip(missing, found, strict=True))
        seen = [self._seen[name] for name in names]
        check_usable(
            [Quarantined(n, s) for n, s in zip(names, seen, strict=True) if isinstance(s, str)], len(names), part
        )
        return seen


class FileImages:
    """Pictures that stay in their files and are decoded, by several threads, when a batch asks for them."""

    def __init__(
        self, place: Place, names: Sequence[str], want: Want, threads: int, digests: Sequence[bytes] = ()
    ) -> None:
        self._place, self._names, self._want, self._digests = place, list(names), want, list(digests)
        self._threads = min(threads, want.workers) if want.workers else threads

    def __len__(self) -> int:
        return len(self._names)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._want.channels, *self._want.size

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """Raises InputError naming a file that is gone or has changed since it was checked."""
        names = [self._names[i] for i in indices.tolist()]
        decoded = list(each(self._decode, names, self._threads))
        return torch.from_numpy(np.stack(decoded)) if decoded else torch.empty(0, *self.shape, dtype=torch.uint8)

    def only(self, kept: Sequence[int]) -> FileImages:
        """The same, without the others."""
        digests = [self._digests[i] for i in kept] if self._digests else ()
        return FileImages(self._place, [self._names[i] for i in kept], self._want, self._threads, digests)

    def content(self) -> str:
        """Of the files as they were when they were looked at."""
        return content_digest(b"".join(self._digests)).hex()

    def decode_all(self, what: str, keep: bool) -> tuple[torch.Tensor | None, dict[int, str]]:
        """All pictures as one tensor, if they are to be kept, and the reason of each (by its index) that cannot be decoded."""
        pixels = torch.empty(len(self) if keep else 0, *self.shape, dtype=torch.uint8)
        kept, broken = 0, {}

        def attempt(name: str) -> np.ndarray | str:
            try:
                return self._decode(name)
            except InputError as error:
                return reason(error, name)

        for i, found in enumerate(each(attempt, self._names, self._threads, self._want.progress, what)):
            if isinstance(found, str):
                broken[i] = found
            elif keep:
                pixels[kept] = torch.from_numpy(found)
                kept += 1
        return (pixels[:kept] if keep else None), broken

    def _decode(self, name: str) -> np.ndarray:
        image = open_picture(self._place.read(name), self._want.size, name)
        return to_pixels(fit(image, self._want.channels, self._want.size, how=self._want.fit))


def prefetched(images: Images, batches: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The uint8 pictures of each batch of indices, in order; those in files are decoded one batch ahead of the caller.

    >>> images = ResidentImages(torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2))
    >>> [batch[:, 0, 0, 0].tolist() for batch in prefetched(images, [torch.tensor([2, 0]), torch.tensor([1])])]
    [[8, 0], [4]]
    """
    if isinstance(images, ResidentImages):
        yield from map(images.batch, batches)
        return
    with ThreadPoolExecutor(1, "convolve-ahead") as ahead:
        waiting = None
        for indices in batches:
            coming = ahead.submit(images.batch, indices)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_usable(failed: Sequence[Quarantined], total: int, part: str) -> None:
    """Raise InputError when more than half of a part's files cannot be used."""
    if 2 * len(failed) > total:
        examples = "; ".join(f"{one.path} ({one.reason})" for one in failed[:3])
        received = f"{len(failed):,} of {total:,} {part} images cannot: {examples}"
        raise InputError("at least half of the images must be readable", received, "check the folder")


def reason(error: InputError, name: str) -> str:
    """What is wrong with a file, without its name."""
    text = error.received.split(f"{name}: ", 1)[-1]
    return text if text != error.received else f"{error.rule}; {error.received}"


def printable(name: str) -> str:
    """A file name as text that every file and terminal can hold: bytes that are no UTF-8, and control characters (a line end, or
    what would command a terminal), are written as \\xNN."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(f"\\x{ord(letter):02x}" if unicodedata.category(letter) == "Cc" else letter for letter in text)


def _flat(classes: dict[str, list[str]]) -> tuple[list[str], list[int]]:
    names = [name for files in classes.values() for name in files]
    return names, [label for label, files in enumerate(classes.values()) for _ in files]


def each(
    run: Callable[[str], _T], names: Sequence[str], threads: int, progress: Progress | None = None, what: str = ""
) -> Iterator[_T]:
    """`run` of every name, in order, by so many threads, telling how far it is. Few results wait at a time."""
    if threads == 1:
        for done, name in enumerate(names, 1):
            yield run(name)
            if progress and (done % CHUNK == 0 or done == len(names)):
                progress(what, done, len(names))
        return
    # Pillow decodes without the interpreter's lock, but handing a picture to a thread needs it: several at a time.
    size = max(1, min(HANDFUL, len(names) // (2 * threads)))
    handfuls = [names[start : start + size] for start in range(0, len(names), size)]
    coming: deque[Future[list[_T]]] = deque()
    done = 0
    with ThreadPoolExecutor(threads, "convolve-decode") as pool:
        try:
            for turn in range(len(handfuls) + 2 * threads):
                if turn < len(handfuls):
                    coming.append(pool.submit(lambda some: [run(name) for name in some], handfuls[turn]))
                if turn >= 2 * threads:
                    found = coming.popleft().result()
                    yield from found
                    done += len(found)
                    if progress and (done % CHUNK < len(found) or done == len(names)):
                        progress(what, done, len(names))
        finally:
            for waiting in coming:
                waiting.cancel()
