"""From any picture to the numbers that a network eats, in two steps: `Preprocessing.apply` makes the uint8 picture of the
model's size (once, when the picture is read); `normalise` makes float32 of a batch (in every step).

A model file stores the Preprocessing, so that prediction sees what training saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from convolve.data.picture import FITS, fit, open_picture, quiet, to_pixels
from convolve.data.records import Dataset, Images, ResidentImages, sample
from convolve.errors import InputError, UsageError

RESAMPLES = {"bilinear": Image.Resampling.BILINEAR}
SAMPLE = 2_000  # pictures that mean and standard deviation are measured on, where each must be decoded for it

Picture = str | Path | Image.Image | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input: `channels` (1 grey, 3 RGB), `size` (h, w), then (x/255 - mean) / std.

    `mean` and `std` have one number per channel, in units of 0..1. `fit` says what happens to a picture of other
    proportions (see `picture.fit`); model files that were written without it were trained on stretched pictures.

    >>> rule = Preprocessing(channels=1, size=(2, 3), mean=(0.5,), std=(0.25,))
    >>> pixels = rule.apply(np.full((4, 6), 255, np.uint8))
    >>> pixels.shape, normalise(pixels[None], rule).unique().item()
    (torch.Size([1, 2, 3]), 2.0)
    >>> Preprocessing.from_dict(rule.to_dict()) == rule
    True
    """

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = "stretch"
    resample: str = "bilinear"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UsageError("pictures have 1 channel (grey) or 3 (RGB)", f"got {self.channels}", "use 1 or 3")
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            received = f"got mean={self.mean}, std={self.std} for {self.channels} channels"
            raise UsageError("mean and std have one number per channel, std above 0", received)
        if self.fit not in FITS or self.resample not in RESAMPLES:
            raise UsageError(
                f"fit is one of {FITS}, resample of {tuple(RESAMPLES)}", f"got {self.fit}, {self.resample}"
            )

    def apply(self, picture: Picture) -> torch.Tensor:
        """The picture as uint8 [channels, h, w].

        A path or PIL image of any mode is rotated as its EXIF says and laid on white where transparent; an array is
        uint8 [h, w] or [h, w, c]; a tensor is uint8 [h, w] or [c, h, w] (c is 1, 3 or 4).
        """
        image = upright(picture)
        return torch.from_numpy(to_pixels(fit(image, self.channels, self.size, RESAMPLES[self.resample], self.fit)))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists, numbers and strings, for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`."""
        try:
            known: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()
            }
            return cls(**known)
        except TypeError as error:
            raise InputError("a stored preprocessing has the fields of Preprocessing", str(error)) from error


def upright(picture: Picture) -> Image.Image:
    """The picture as a PIL image of its own size and mode, rotated as its EXIF says. Raises InputError when it is none."""
    if isinstance(picture, (str, Path)):
        with quiet():
            return open_picture(Path(picture))
    if isinstance(picture, (np.ndarray, torch.Tensor)):
        return _from_array(picture)
    if not isinstance(picture, Image.Image):
        raise InputError("a picture is a path, a PIL image, an array or a tensor", f"got {type(picture).__name__}")
    return ImageOps.exif_transpose(picture)


def measure(dataset: Dataset) -> Preprocessing:
    """The preprocessing of a dataset: its size and channels, and the mean and standard deviation of its training pictures.

    They are exact (of a histogram) over all pictures in memory, or over 2,000 drawn ones where they must be decoded.
    """
    mean, std = mean_and_std(dataset.train.images)
    return Preprocessing(dataset.channels, dataset.size, mean, std, dataset.fit, dataset.resample)


def mean_and_std(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, in units of 0..1; a constant channel has the standard deviation of one level, 1/255."""
    n = len(images)
    chosen = sample(n, n if isinstance(images, ResidentImages) else SAMPLE)
    c = images.shape[0]
    counts = torch.zeros(c, 256, dtype=torch.int64)
    for indices in torch.split(chosen, 512):
        batch = images.batch(indices)
        for channel in range(c):
            counts[channel] += torch.bincount(batch[:, channel].flatten(), minlength=256)
    levels = torch.arange(256, dtype=torch.float64) / 255
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ levels
    std = (weights * (levels - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def normalise(batch: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 [b, c, h, w] (or floating point in 0..1) to float32 (x/255 - mean) / std, on the batch's device."""
    scale, shift = _scale_and_shift(preprocessing, 1.0 if batch.is_floating_point() else 255.0, batch.device)
    return (batch * scale).add_(shift)


@lru_cache(maxsize=16)
def _scale_and_shift(rule: Preprocessing, top: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Per channel, float32 [1, c, 1, 1]: x scale + shift = (x/top - mean) / std."""
    scale = [1 / (top * std) for std in rule.std]
    shift = [-mean / std for mean, std in zip(rule.mean, rule.std, strict=True)]
    with torch.inference_mode(False):  # made once, used in training as well
        first, second = torch.tensor([scale, shift], device=device).view(2, 1, -1, 1, 1)
    return first, second


def _from_array(picture: np.ndarray | torch.Tensor) -> Image.Image:
    rule = "an array is uint8 [h, w] or [h, w, c], a tensor uint8 [h, w] or [c, h, w], with 1, 3 or 4 channels"
    received = f"got {type(picture).__name__} {tuple(picture.shape)} of {picture.dtype}"
    if isinstance(picture, torch.Tensor):
        picture = picture.detach().cpu()
        array = (picture.permute(1, 2, 0) if picture.ndim == 3 else picture).numpy()
    else:
        array = picture
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.size == 0:
        raise InputError(rule, received)
    if array.ndim == 3:
        if array.shape[2] not in (1, 3, 4):
            raise InputError(rule, received)
        array = array[:, :, 0] if array.shape[2] == 1 else array
    return Image.fromarray(np.ascontiguousarray(array))
