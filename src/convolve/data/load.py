"""`load`: from what a person names (nothing, "digits", a folder, a .zip, a data set that was got) to a Dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convolve.data import cifar, idx
from convolve.data.digits import Digits
from convolve.data.fitting import choose_fit
from convolve.data.get import KNOWN, data_folder, is_complete
from convolve.data.idx_folder import IdxFolder
from convolve.data.image_folder import ImageFolder
from convolve.data.picture import quiet
from convolve.data.records import Dataset, Split
from convolve.data.source import Progress, Source, Survey, Want
from convolve.data.split_file import masks
from convolve.data.split_file import read_split as read_split_file
from convolve.errors import InputError, UsageError

Size = int | tuple[int, int]  # a side, or (h, w)


@quiet()
def load(
    source: str | Path | None = None,
    *,
    img_size: Size | Callable[[tuple[int, int]], Size] | None = None,
    channels: int | None = None,
    fit: str = "auto",
    val_split: float | None = None,
    split: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read a data set: nothing or "digits", a folder of IDX files, a folder or .zip of images in class folders, or the
    name of a data set that `convolve data get` got.

    `img_size` is a side or (h, w), or a function that makes it of the pictures' own (h, w); `channels` is 1 or 3; both are
    chosen from the data when absent, and so is `fit`: what happens to pictures of other proportions ("crop", "pad" or "stretch").
    `val_split` is the part of the training images that is held out, decided by (seed, content), where the data brings no
    validation of its own; `split` is a CSV file (image, part) that says it image by image, and may name test images.
    `workers` limits the decoding threads; `progress(what, done, total)` is told how far the reading is.
    Raises InputError when the data cannot be used, UsageError when an argument is wrong.

    >>> data = load("digits")
    >>> len(data.train), len(data.validation), data.test_count, data.size, data.classes[:3]
    (1258, 180, 359, (8, 8), ('0', '1', '2'))
    """
    if not callable(img_size):
        _size(img_size)  # a wrong one is reported before anything is read
    if channels not in (None, 1, 3):
        raise UsageError("pictures have 1 channel (grey) or 3 (RGB)", f"got channels={channels}", "use 1 or 3")
    if val_split is not None and not 0 < val_split < 1:
        raise UsageError("val_split is a part between 0 and 1", f"got {val_split}", "use 0.2 for a fifth")
    if workers is not None and workers < 0:
        raise UsageError("workers is a number of threads", f"got {workers}", "use 0 or more")

    found = open_source(source)
    counts = found.counts
    if "train" not in counts:
        received = f"{found.origin} has only: {', '.join(counts)}"
        raise InputError("training needs training images", received, "add a train folder, or evaluate on it instead")
    if len(found.classes) < 2:
        received = f"{found.origin} has one: {found.classes[0]!r}"
        raise InputError("training needs at least two classes", received, "add a folder of images of something else")
    if "validation" in counts and val_split is not None:
        received = f"val_split={val_split}, but {found.origin} brings its own validation images"
        raise UsageError("validation is brought by the data or split off, not both", received, "leave val_split out")
    if split is not None and ("validation" in counts or val_split is not None):
        received = (
            f"split={split}, and {'val_split' if val_split is not None else f'validation images of {found.origin}'}"
        )
        raise UsageError("a split is given once", received, "leave one of them out")
    given = None if split is None else masks(found.names("train"), read_split_file(Path(split)), str(split))

    survey = found.survey(workers, progress)
    size = _size(img_size(survey.size) if callable(img_size) else img_size)
    threads = None if workers is None else max(1, workers)
    how_fitted, said_fit = choose_fit(survey.sizes or (survey.size,), size or survey.size, fit)
    want = Want(size or survey.size, channels or survey.channels, threads, progress, how_fitted)
    if "validation" in counts:
        how = "its own"
        train, validation = found.read("train", want, found.classes), found.read("validation", want, found.classes)
    else:
        if given is not None:
            held, learned, how = given["validation"], given["train"], f"as {split} says"
        else:
            held, how = found.hold_out(val_split, seed)
            learned = ~held
        train = found.read("train", want, found.classes, learned)
        validation = _renamed(found.read("train", want, found.classes, held), "validation")
    _check_classes(train, found)

    read_test: Callable[[], Split] | None = None
    tested = counts.get("test", 0)
    if given is not None and given["test"].any():
        if tested:
            received = f"{split} has some, and {found.origin} brings its own"
            raise UsageError("test images are brought by the data or named in the split, not both", received)
        apart = given["test"]
        tested = int(apart.sum())
        read_test = lambda: _renamed(found.read("train", want, found.classes, apart), "test")  # noqa: E731
    elif tested:
        read_test = lambda: found.read("test", want, found.classes)  # noqa: E731
    said = [*survey.said, *_said_size(survey, want), *said_fit]
    said.append(
        f"{len(train):,} train / {len(validation):,} validation ({how}) / {f'{tested:,}' if tested else 'no'} test"
    )
    return Dataset(
        name=found.name,
        origin=found.origin,
        classes=found.classes,
        channels=want.channels,
        size=want.size,
        found=survey.size,
        train=train,
        validation=validation,
        read_test=read_test,
        test_count=tested,
        said=tuple(said),
        fit=want.fit,
    )


@quiet()
def read_split(
    source: str | Path | None,
    *,
    size: tuple[int, int],
    channels: int,
    classes: tuple[str, ...],
    fit: str = "stretch",
    part: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Split:
    """One part of a data set, as a trained model wants it: its size, channels and fit, labels that index its `classes`.

    `part` is "train", "validation" or "test"; without it, the test part where there is one, else the validation part,
    else all images (the split is then called "all"). Raises InputError for a class that the model does not know.

    >>> split = read_split("digits", size=(8, 8), channels=1, classes=tuple("0123456789"))
    >>> split.name, len(split)
    ('test', 359)
    """
    found = open_source(source)
    if part is not None and part not in found.counts:
        known = ", ".join(found.counts)
        raise UsageError(f"{found.origin} has the parts: {known}", f"got {part!r}", "name one of them")
    chosen = part or next(name for name in ("test", "validation", "train") if name in found.counts)
    split = found.read(chosen, Want(size, channels, workers, progress, fit), classes)
    return _renamed(split, "all") if part is None and chosen == "train" else split


def open_source(source: str | Path | None) -> Source:
    """Find out what a name or path is, and list it without reading it."""
    found = array_source(source)
    return ImageFolder(found) if isinstance(found, Path) else found


def array_source(source: str | Path | None) -> Source | Path:
    """The source of a name or path whose pictures are stored as numbers; else the path, which is for images to lie in."""
    if source is None or (str(source) == "digits" and not Path(source).is_dir()):
        return Digits()
    path = Path(source)
    name = str(source).lower()
    if name in KNOWN and not path.exists():
        path = data_folder() / name
        if not is_complete(name, path):
            remedy = f"run: convolve data get {name} (or give the folder that holds it)"
            raise InputError(f"the data set {name} must be got first", f"it is not in {path.parent}", remedy)
    try:
        if name == "cifar10" or path.name == cifar.ARCHIVE or (path / cifar.FILES["test"][0]).is_file():
            archive = path / cifar.ARCHIVE
            return cifar.Cifar10(archive if archive.is_file() else path, KNOWN["cifar10"].classes)
        parts = idx.find(path) if path.is_dir() else {}
    except OSError as error:
        raise InputError("cannot list a folder", f"{path}: {error.strerror or error}", "check its rights") from error
    if parts:
        return IdxFolder(path, parts, KNOWN["fashion-mnist"].classes if path.name == "fashion-mnist" else None)
    return path


def _check_classes(train: Split, found: Source) -> None:
    """After the unusable files are gone, every class must still have an image to learn from."""
    counts = train.labels.bincount(minlength=len(found.classes)).tolist()
    without = [name for name, count in zip(found.classes, counts, strict=True) if count == 0]
    if without:
        received = f"{', '.join(map(repr, without[:5]))} of {found.origin} has none that can be read for training"
        raise InputError("every class needs images", received, "add images, or remove the class")


def _renamed(split: Split, name: str) -> Split:
    return Split(name, split.images, split.labels, split.ids, split.sizes, split.quarantined)


def _said_size(survey: Survey, want: Want) -> list[str]:
    said = []
    if want.size != survey.size:
        said.append(f"resized to {want.size[0]}x{want.size[1]}")
    if want.channels != survey.channels:
        said.append("grey made RGB, as asked" if want.channels == 3 else "RGB made grey, as asked")
    return said


def _size(img_size: Size | None) -> tuple[int, int] | None:
    if img_size is None:
        return None
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(size) != 2 or min(size) < 1:
        raise UsageError("img_size is a side or (height, width) in pixels", f"got {img_size}", "use 28 or (28, 28)")
    return size
