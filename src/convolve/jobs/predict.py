"""Classify image files with a model file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from convolve.errors import InputError
from convolve.jobs.classifier import load
from convolve.jobs.results import Prediction

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif", ".ppm", ".pgm"}


def predict(
    model: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    *,
    invert: bool = False,
    network: str | None = None,
) -> tuple[list[Prediction], list[InputError]]:
    """One Prediction per image file, in order, and one error per file that could not be used; a folder means the images in it.

    Raises ModelFileError for an unusable model, and InputError when not one image could be used.
    """
    classifier = load(model, network=network)
    predictions, errors = [], []
    for path in image_files(images):
        try:
            predictions.append(classifier.predict(path, invert=invert))
        except InputError as error:
            errors.append(error)
    if not predictions:
        if len(errors) == 1:
            raise errors[0]
        received = (
            f"{len(errors)} files were tried; the first: {errors[0]}" if errors else "the folders hold no image files"
        )
        raise InputError("none of the images could be used", received, "name PNG, JPEG or other image files")
    return predictions, errors


def image_files(images: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """The files that are named, and those in folders that are images by the end of their name."""
    for image in images:
        path = Path(image)
        if path.is_dir():
            yield from sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in ENDINGS)
        else:
            yield path
