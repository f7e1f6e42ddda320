"""What the training pictures look like, in a few numbers that a model file keeps, so that prediction can say in words when
a picture does not look like them: another size, hardly any contrast, or dark on light where training was light on dark.

All values are grey levels in 0..1. Contrast is the standard deviation within a picture. A picture's ground is its
border (a sixteenth of the side, at least one pixel); its figure is what differs from it: light on dark when the mean lies
above the ground's median. A data set has a polarity only when 95 % of its pictures agree and their ground is plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from convolve.data.records import Split, sample
from convolve.errors import InputError

SAMPLE = 2_000  # pictures
AGREE = 0.95  # of the pictures share a polarity
PLAIN = 0.15  # the ground is plain when its median absolute deviation is below this, on the whole
LIGHT_ON_DARK, DARK_ON_LIGHT, NO_POLARITY = "light on dark", "dark on light", "none"
OTHER_PROPORTIONS = {
    "stretch": "it is stretched out of its proportions",
    "crop": "only its middle is looked at",
    "pad": "it is small between wide borders",
}
SIZE_FACTOR = 4.0  # a picture so much larger or smaller than the 1st or 99th percentile is another kind of picture


@dataclass(frozen=True)
class Range:
    """The 1st percentile, the median and the 99th percentile."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: torch.Tensor) -> Range:
        low, middle, high = torch.quantile(
            values.double(), torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64)
        ).tolist()
        return cls(low, middle, high)


@dataclass(frozen=True)
class PictureStatistics:
    """The numbers of one picture: `size` (h, w) before it was fitted; the others after."""

    size: tuple[int, int]
    mean: float
    contrast: float
    polarity: str
    channels: int


@dataclass(frozen=True)
class Statistics:
    """The numbers of the training pictures.

    >>> pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    >>> pixels[:, :, 3:5, 2:6] = 255
    >>> from convolve.data.records import ResidentImages
    >>> sizes = torch.tensor([[8, 8]] * 4)
    >>> learned = measure(Split("train", ResidentImages(pixels), torch.zeros(4), list("abcd"), sizes))
    >>> learned.polarity, Statistics.from_dict(learned.to_dict()) == learned
    ('light on dark', True)
    >>> learned.differences(describe(255 - pixels[0], (8, 8)))
    ('it is dark on light, the training pictures are light on dark: try --invert',)
    """

    pictures: int
    channels: int
    height: Range
    width: Range
    mean: Range
    contrast: Range
    polarity: str

    def differences(self, picture: PictureStatistics, fit: str = "stretch") -> tuple[str, ...]:
        """In words, what sets a picture apart from the training pictures; empty when it looks like them. `fit` is how it was fitted."""
        said = []
        h, w = picture.size
        seen = f"the training pictures are about {self.height.middle:.0f}x{self.width.middle:.0f}"
        if h > SIZE_FACTOR * self.height.high or w > SIZE_FACTOR * self.width.high:
            said.append(f"it is {h}x{w}, {seen}: fine detail is lost; cut out the object, or scale it as they were")
        elif h * SIZE_FACTOR < self.height.low or w * SIZE_FACTOR < self.width.low:
            said.append(f"it is {h}x{w}, {seen}: it is enlarged and blurred; use a larger picture")
        proportion, (low, high) = h / w, (self.height.low / self.width.high, self.height.high / self.width.low)
        if proportion > 1.5 * high or proportion < low / 1.5:
            said.append(f"it is {h}x{w}, {seen}: {OTHER_PROPORTIONS[fit]}; crop it")
        if picture.contrast < 0.5 * self.contrast.low:
            level = f"{picture.contrast:.3f} where they have {self.contrast.low:.3f} to {self.contrast.high:.3f}"
            said.append(f"it has hardly any contrast ({level}): is it blank or badly lit?")
        if {self.polarity, picture.polarity} == {LIGHT_ON_DARK, DARK_ON_LIGHT}:
            said.append(f"it is {picture.polarity}, the training pictures are {self.polarity}: try --invert")
        elif self.polarity == NO_POLARITY and not self._near(picture.mean, self.mean):
            level = f"{picture.mean:.2f} where they have {self.mean.low:.2f} to {self.mean.high:.2f}"
            said.append(f"it is {'brighter' if picture.mean > self.mean.high else 'darker'} than they are ({level})")
        return tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers and strings, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Statistics:
        """The inverse of `to_dict`."""
        try:
            ranges = {key: Range(**value) for key, value in stored.items() if isinstance(value, Mapping)}
            return cls(**{**stored, **ranges})
        except TypeError as error:
            raise InputError("stored statistics have the fields of Statistics", str(error)) from error

    @staticmethod
    def _near(value: float, seen: Range) -> bool:
        margin = 0.5 * (seen.high - seen.low)
        return seen.low - margin <= value <= seen.high + margin


def measure(train: Split) -> Statistics:
    """The statistics of the training pictures: of all, or of 2,000 drawn ones."""
    n = len(train.images)
    if n == 0:
        raise InputError("statistics need pictures", f"the {train.name} split has none")
    chosen = sample(n, SAMPLE)
    parts = [_of_batch(train.images.batch(indices)) for indices in torch.split(chosen, 256)]
    means, contrasts, lighter, plain = (torch.cat(column) for column in zip(*parts, strict=True))

    share = lighter.double().mean().item()
    agreed = LIGHT_ON_DARK if share >= AGREE else DARK_ON_LIGHT if share <= 1 - AGREE else NO_POLARITY
    polarity = NO_POLARITY if plain.median() > PLAIN else agreed
    height, width = (Range.of(train.sizes[chosen, axis]) for axis in (0, 1))
    return Statistics(n, train.images.shape[0], height, width, Range.of(means), Range.of(contrasts), polarity)


def describe(pixels: torch.Tensor, size: tuple[int, int]) -> PictureStatistics:
    """The statistics of one fitted picture uint8 [c, h, w] that was `size` (h, w) before."""
    mean, contrast, lighter, plain = _of_batch(pixels[None])
    polarity = NO_POLARITY if plain > 2 * PLAIN else LIGHT_ON_DARK if lighter else DARK_ON_LIGHT
    return PictureStatistics(size, mean.item(), contrast.item(), polarity, len(pixels))


def _of_batch(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of uint8 [b, c, h, w]: mean, contrast, whether the figure is lighter than the ground, unevenness of the ground; [b]."""
    grey = batch.float().mean(1) / 255
    _, h, w = grey.shape
    rows, columns = max(1, h // 16), max(1, w // 16)
    sides = (grey[:, :rows], grey[:, -rows:], grey[:, :, :columns], grey[:, :, -columns:])
    border = torch.cat([side.flatten(1) for side in sides], 1)
    ground = border.median(1).values
    mean = grey.mean((1, 2))
    return mean, grey.std((1, 2), correction=0), mean > ground, (border - ground[:, None]).abs().mean(1)
