"""What a tree of file names means: which folders are parts (train, val, test), which are classes. A function of strings.

    DATA/class/*                      classes; validation is chosen by content
    DATA/{train,val,test}/class/*     parts, by the names in PARTS, in any case; a root of such names only is never classes
    DATA/class/{train,val,test}/*     the same, the other way round
    DATA/anything/…                   one folder around any of these is looked through

Below a class, folders may be as deep as they like. Files that are no images by their name, and images that lie in no
class folder, are set aside and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convolve.data.picture import image_ends
from convolve.errors import InputError

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LAYOUT = "put the images of each class into a folder of its name: DATA/cat/1.jpg, DATA/dog/2.jpg"


@dataclass(frozen=True)
class Layout:
    """`parts`: of each part, every class and its files. `classes` are those of the training part (or of the only one)."""

    parts: dict[str, dict[str, list[str]]]
    classes: tuple[str, ...]
    aside: tuple[tuple[str, str], ...]  # (file, reason)
    inside: str  # the folder around it all that was looked through, or ""


def arrange(names: Sequence[str], folders: Iterable[str], origin: str) -> Layout:
    """The layout of files `names` and `folders` (relative, with `/`). Raises InputError saying what to put where.

    >>> layout = arrange(["train/b10/1.png", "train/b9/2.png", "val/b9/3.png"], [], "DATA")
    >>> layout.classes, layout.parts["validation"]
    (('b9', 'b10'), {'b9': ['val/b9/3.png'], 'b10': []})
    """
    images = [name for name in names if is_image_name(name)]
    aside = [(name, "not an image, by its name") for name in names if not is_image_name(name)]
    if not images:
        received = f"{origin} holds {f'{len(names):,} files, none an image by its name' if names else 'no files'}"
        raise InputError("the data must hold images", received, LAYOUT)

    files = {tuple(name.split("/")): name for name in images}
    every = {tuple(name.split("/")) for name in folders} | {path[:i] for path in files for i in range(1, len(path))}
    around = _around(files, every)
    depth = len(around)
    tops = sorted({path[depth] for path in every if len(path) > depth})
    which = {top: PARTS[top.lower()] for top in tops if top.lower() in PARTS}
    if which and len(which) < len(tops) and _ambiguous(which, files, depth):
        received = f"{origin} holds {', '.join(tops[:8])}"
        remedy = "keep train, val and test folders only, or class folders only"
        raise InputError("the folders of the root are parts or classes, not both", received, remedy)
    if not (which and len(which) == len(tops)):
        which = _inner_parts(files, every, depth)
        if which:  # DATA/class/train/*: read as DATA/train/class/*
            files = {_swapped(path, depth): name for path, name in files.items()}
            every = {_swapped(path, depth) for path in every if len(path) > depth + 1}

    parts = _of_parts(files, every, around, which, origin) if which else {"train": _classes(files, every, depth)}
    level = depth + (2 if which else 1)
    aside += [(name, "in no class folder") for path, name in files.items() if len(path) <= level]
    classes = _common_classes(parts, origin)
    complete = {part: {name: found.get(name, []) for name in classes} for part, found in parts.items()}
    return Layout(complete, classes, tuple(sorted(aside)), "/".join(around))


def guess(names: Sequence[str], folders: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Of each part, every class and its files, as they were probably meant where `arrange` refuses: nothing is refused.

    >>> guess(["cat/1.png", "2.png", "val/dog/3.png"], ["owl"])
    {'train': {'cat': ['cat/1.png'], 'owl': []}, 'validation': {'dog': ['val/dog/3.png']}}
    """
    files = {tuple(name.split("/")): name for name in names if is_image_name(name)}
    every = {tuple(name.split("/")) for name in folders} | {path[:i] for path in files for i in range(1, len(path))}
    depth = len(_around(files, every))
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(every | files.keys()):
        above = path[depth:-1] if path in files else path[depth:]
        part = next((PARTS[name.lower()] for name in above if name.lower() in PARTS), "train")
        label = next((name for name in above if name.lower() not in PARTS), None)
        if label is not None:
            found.setdefault(part, {}).setdefault(label, []).extend([files[path]] if path in files else [])
    return found


def is_image_name(name: str) -> bool:
    """Whether a file may be an image, by the end of its name; names without an end are given the benefit of the doubt."""
    end = re.search(r"\.([^./]+)$", name)
    return end is None or f".{end[1].lower()}" in image_ends()


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key that puts "b9" before "b10"."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple((0, int(part)) if part.isascii() and part.isdigit() else (1, part) for part in parts if part)


_Paths = dict[tuple[str, ...], str]  # the parts of a file's path, and its name as the place knows it


def _around(files: _Paths, every: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The single folders around the data, from the top: each holds no image itself, is no part, and has two levels below."""
    around: tuple[str, ...] = ()
    while True:
        depth = len(around)
        tops = {path[depth] for path in every if len(path) > depth}
        if len(tops) != 1 or any(len(path) <= depth + 2 for path in files):
            return around
        (top,) = tops
        if top.lower() in PARTS:
            return around
        around = (*around, top)


def _ambiguous(which: dict[str, str], files: _Paths, depth: int) -> bool:
    """Parts beside other folders: two parts, or one that holds folders and no image, cannot just be classes' names."""
    flat = {path[depth] for path in files if len(path) == depth + 2}
    return len(set(which.values())) > 1 or not set(which) & flat


def _inner_parts(files: _Paths, every: set[tuple[str, ...]], depth: int) -> dict[str, str]:
    """The part names below every class, when nothing else lies there."""
    below = {path[depth + 1] for path in every if len(path) > depth + 1}
    if any(len(path) == depth + 2 for path in files) or not all(name.lower() in PARTS for name in below):
        return {}
    return {name: PARTS[name.lower()] for name in below}


def _swapped(path: tuple[str, ...], depth: int) -> tuple[str, ...]:
    if len(path) < depth + 2:
        return path
    return (*path[:depth], path[depth + 1], path[depth], *path[depth + 2 :])


def _of_parts(
    files: _Paths, every: set[tuple[str, ...]], around: tuple[str, ...], which: dict[str, str], origin: str
) -> dict[str, dict[str, list[str]]]:
    depth = len(around)
    parts: dict[str, dict[str, list[str]]] = {}
    for top, part in sorted(which.items()):
        own = {path: name for path, name in files.items() if path[: depth + 1] == (*around, top)}
        if not own:
            continue  # an empty val/ folder is as good as none
        if part in parts:
            received = f"{origin} has {' and '.join(sorted(t for t in which if which[t] == part))}"
            raise InputError("a part has one folder", received, "merge them")
        parts[part] = _classes(own, {p for p in every if p[: depth + 1] == (*around, top)}, depth + 1)
        if not parts[part]:
            received = f"the images of {origin} lie in {top}/ itself"
            raise InputError("images need labels", received, f"{LAYOUT} (inside {top}/)")
    return parts


def _classes(files: _Paths, every: set[tuple[str, ...]], depth: int) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {path[depth]: [] for path in every if len(path) > depth}
    for path, name in files.items():
        if len(path) > depth + 1:
            classes[path[depth]].append(name)
    return {name: sorted(classes[name], key=natural) for name in sorted(classes, key=natural)}


def _common_classes(parts: dict[str, dict[str, list[str]]], origin: str) -> tuple[str, ...]:
    """The classes of the training part (or of the only one); the others may lack some, but not bring new ones."""
    first = "train" if "train" in parts else next(iter(parts))
    learned = parts[first]
    if not learned:
        raise InputError("images need labels", f"the images of {origin} lie in no class folder", LAYOUT)
    empty = [name for name, files in learned.items() if not files]
    if empty:
        received = f"{', '.join(map(repr, empty[:5]))} of {origin} has none"
        raise InputError("every class needs images", received, "add images, or remove the folder")
    strange = sorted({name for classes in parts.values() for name, files in classes.items() if files} - set(learned))
    if strange:
        received = f"{', '.join(map(repr, strange[:5]))} of {origin} occurs in another part only"
        raise InputError(f"every class must be in the {first} part", received, "add it there, or remove it")
    return tuple(learned)
