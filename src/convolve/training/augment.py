"""Small random changes of the training images, so that a network learns what does not matter.

Every draw is a function of (seed, epoch, image index) alone: the same image in the same epoch changes in the same way, in any
batch, order, process or resumed run. Each kind of change draws from a stream of its own, so that one more leaves the others as
they were. Sums over pixels and fused multiply-adds are avoided where an image's place in the batch could decide their rounding.

    place     mirrored, then cut out of the picture with its border repeated: whole pixels, one gather
    turn      rotated and scaled about the centre, bilinear
    colour    brightness, contrast about mid-grey, saturation (BT.601's grey), and AlexNet's shift along the principal components of the
              training pixels: together one matrix and one offset for each image
    noise     independent normal numbers

Krizhevsky et al. 2012, section 4.1, adds p_i alpha_i lambda_i, alpha_i normal with deviation 0.1. Taken at its word, with
eigenvalues of pixels in 0..255, that is hundreds of levels; here, as in the codes that followed, the deviation along p_i
(the root of lambda_i) stands for lambda_i: the shift's covariance is 0.1 squared times that of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from convolve.ops.resample import resample, shifted

_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64's constants
_WORD = 2**64 - 1
_TURN, _FLIP, _CROP, _COLOUR, _PCA, _NOISE = range(6)  # streams of draws
_GREY = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601
_NOISE_TABLE = 2**20  # normal numbers at least, of which every image reads some in a row


@dataclass(frozen=True)
class Movement:
    """How far an image is changed at most; not at all by default.

    `shift` and `scale` are fractions of its size, `turn` degrees, `flip` the probability of a mirror image, `crop` pixels; `noise` is
    a standard deviation in units of 0..1, `colour` the largest change of brightness, contrast and saturation as a fraction, `pca` a
    multiple of the pixels' own deviations. `mean` and `std` are those by which images were normalised, `axes` the principal
    components of the training pixels, each as long as its standard deviation, in units of 0..1.
    """

    shift: float = 0.0
    scale: float = 0.0
    turn: float = 0.0
    flip: float = 0.0
    crop: int = 0
    noise: float = 0.0
    colour: float = 0.0
    pca: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    axes: tuple[tuple[float, ...], ...] = ()

    def __bool__(self) -> bool:
        sizes = (self.shift, self.scale, self.turn, self.flip, self.crop, self.noise, self.colour, self.pca)
        return any(sizes)

    def apply(self, images: torch.Tensor, seed: int, epoch: int, indices: torch.Tensor) -> torch.Tensor:
        """Each of `images` [n, c, h, w], floating point, changed by its own draw; what comes in from outside repeats the border.

        A shift alone is in whole pixels; with a turn or a scale it is not.

        >>> images = torch.rand(2, 1, 5, 5)
        >>> torch.equal(Movement().apply(images, 0, 0, torch.arange(2)), images)
        True
        """

        def draw(stream: int, count: int) -> np.ndarray:
            return _uniform(seed, epoch + (stream << 32), indices, count)

        if self.flip or self.crop or (self.shift and not (self.turn or self.scale)):
            images = shifted(images, self._moves(images, draw))
        if self.turn or self.scale:
            images = resample(images, self._maps(images, draw(_TURN, 4)))
        if self.colour or self.pca:
            images = self._colour(images, draw(_COLOUR, 3), draw(_PCA, 3))
        if self.noise:
            images = self._noise(images, seed, draw(_NOISE, 1)[:, 0])
        return images

    def _moves(self, images: torch.Tensor, draw: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """(down, right, mirrored) of each image: whole pixels, all in float32."""
        n, _, h, w = images.shape
        moves = np.zeros((n, 3), np.int64)
        if self.flip:
            moves[:, 2] = draw(_FLIP, 1)[:, 0] < self.flip
        if self.crop:
            moves[:, :2] = np.floor(draw(_CROP, 2) * (2 * self.crop + 1)) - self.crop
        if self.shift and not (self.turn or self.scale):
            _, _, right, down = draw(_TURN, 4).T * 2 - 1
            moves[:, 0] += np.rint(down * (self.shift * h)).astype(np.int64)
            moves[:, 1] += np.rint(right * (self.shift * w)).astype(np.int64)
        return moves

    def _maps(self, images: torch.Tensor, draws: np.ndarray) -> np.ndarray:
        """The place in the source of each output pixel, in pixels from the centre: turned, scaled and shifted."""
        _, _, h, w = images.shape
        turn, scale, right, down = draws.T.astype(np.float64) * 2 - 1
        angle, size = turn * (self.turn * np.pi / 180), 1 + scale * self.scale
        cosine, sine = np.cos(angle) * size, np.sin(angle) * size
        maps = np.array([[cosine, -sine, right * (self.shift * w)], [sine, cosine, down * (self.shift * h)]])
        return np.ascontiguousarray(maps.transpose(2, 0, 1))

    def _colour(self, images: torch.Tensor, factors: np.ndarray, shifts: np.ndarray) -> torch.Tensor:
        """x' = M x + o of each image, in 0..1, written for images that are normalised; all of it in float64 but the last step."""
        n, c, _, _ = images.shape
        mean, std = self._normalised_by(c)
        offset = np.zeros((n, c))
        if self.pca:
            amounts = self.pca * _normal(shifts)[:, :c]
            offset = offset + (amounts[:, :, None] * np.array(self.axes)).sum(1)
        if not self.colour:
            return images + _per_channel(offset / std, images)
        brightness, contrast, saturation = 1 + self.colour * (factors.T.astype(np.float64) * 2 - 1)
        gain = (brightness * contrast)[:, None]
        offset = offset + (0.5 * (1 - contrast))[:, None]
        if c != 3:
            moved = images * _per_channel(gain, images)
            return moved.add_(_per_channel((gain * mean + offset - mean) / std, images))
        matrix = gain[:, None] * (_GREY + saturation[:, None, None] * (np.eye(3) - _GREY))
        offset = ((matrix * mean).sum(2) + offset - mean) / std
        matrix = matrix * std / std[:, None]
        mixed = images[:, :1] * _per_channel(matrix[:, :, 0], images)
        for channel in (1, 2):
            mixed += images[:, channel : channel + 1] * _per_channel(matrix[:, :, channel], images)
        return mixed.add_(_per_channel(offset, images))

    def _noise(self, images: torch.Tensor, seed: int, places: np.ndarray) -> torch.Tensor:
        n, c, h, w = images.shape
        size = c * h * w
        table = _normal_table(seed, max(_NOISE_TABLE, 4 * size), images.device)
        starts = torch.from_numpy((places.astype(np.float64) * (len(table) - size + 1)).astype(np.int64))
        noise = table.unfold(0, size, 1)[starts.to(images.device)].view(n, c, h, w)
        _, std = self._normalised_by(c)
        return images + noise * _per_channel(self.noise / std[None], images)

    def _normalised_by(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.mean or (0.0,) * channels), np.array(self.std or (1.0,) * channels)


def uniform(seed: int, epoch: int, indices: torch.Tensor, count: int) -> torch.Tensor:
    """`count` numbers in [0, 1) for each index: float32 [len(indices), count], a function of the arguments only."""
    return torch.from_numpy(_uniform(seed, epoch, indices, count))


def _uniform(seed: int, epoch: int, indices: torch.Tensor, count: int) -> np.ndarray:
    lanes = indices.to("cpu", torch.int64).numpy()[:, None] * count + np.arange(count)
    before = _mixed(_mixed(seed & _WORD) + epoch & _WORD)
    words: np.ndarray = _mixed(lanes.view(np.uint64) + before) >> 40
    return words.astype(np.float32) * np.float32(2**-24)


def _normal(draws: np.ndarray) -> np.ndarray:
    """Standard normal numbers from uniform ones of 24 bits, float64: the inverse of the distribution, at the middle of each step."""
    numbers: np.ndarray = torch.special.ndtri(torch.from_numpy(draws).double() + 2.0**-25).numpy()
    return numbers


@lru_cache(maxsize=2)
def _normal_table(seed: int, count: int, device: torch.device) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed & (2**63 - 1))).to(device)


def _per_channel(values: np.ndarray, images: torch.Tensor) -> torch.Tensor:
    """[n, c] as [n, c, 1, 1] of the images' type and device."""
    return torch.from_numpy(values).to(images.device, images.dtype)[:, :, None, None]


def _mixed(word: Any) -> Any:
    """One round of splitmix64 on a word of 64 bits, or on an array of them."""
    word = word + _ODD[0] & _WORD
    word = (word ^ word >> 30) * _ODD[1] & _WORD
    word = (word ^ word >> 27) * _ODD[2] & _WORD
    return word ^ word >> 31
