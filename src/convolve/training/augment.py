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

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64's constants
_TURN, _FLIP, _CROP, _COLOUR, _PCA, _NOISE = range(6)  # streams of draws
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
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

        def draw(stream: int, count: int) -> torch.Tensor:
            return uniform(seed, epoch + (stream << 32), indices, count)

        if self.flip or self.crop or (self.shift and not (self.turn or self.scale)):
            images = self._place(images, draw(_FLIP, 1)[:, 0], draw(_CROP, 2), draw(_TURN, 4))
        if self.turn or self.scale:
            images = self._turn(images, draw(_TURN, 4).to(images.device) * 2 - 1)
        if self.colour or self.pca:
            images = self._colour(images, draw(_COLOUR, 3).double(), draw(_PCA, 3).double())
        if self.noise:
            images = self._noise(images, seed, draw(_NOISE, 1)[:, 0])
        return images

    def _place(
        self, images: torch.Tensor, mirror: torch.Tensor, window: torch.Tensor, move: torch.Tensor
    ) -> torch.Tensor:
        n, c, h, w = images.shape
        down, right = ((window * (2 * self.crop + 1)).floor() - self.crop).unbind(1)
        if not (self.turn or self.scale):
            down = down + ((move[:, 3] * 2 - 1) * (self.shift * h)).round()
            right = right + ((move[:, 2] * 2 - 1) * (self.shift * w)).round()
        rows = (torch.arange(h) + down.long()[:, None]).clamp(0, h - 1)
        columns = (torch.arange(w) + right.long()[:, None]).clamp(0, w - 1)
        columns = torch.where((mirror < self.flip)[:, None], w - 1 - columns, columns)
        source = (rows[:, :, None] * w + columns[:, None, :]).view(n, 1, h * w).to(images.device)
        return images.reshape(n, c, h * w).gather(2, source.expand(n, c, h * w)).view(n, c, h, w)

    def _turn(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        _, _, h, w = images.shape
        angle = draws[:, 0] * (self.turn * torch.pi / 180)
        size = 1 + draws[:, 1] * self.scale
        cosine, sine = torch.cos(angle) * size, torch.sin(angle) * size
        # Output pixel to input pixel, in units of half the image; h/w and w/h keep the turn a turn where the sides differ.
        rows = [
            torch.stack((cosine, -sine * (h / w), draws[:, 2] * (2 * self.shift)), 1),
            torch.stack((sine * (w / h), cosine, draws[:, 3] * (2 * self.shift)), 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1).to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _colour(self, images: torch.Tensor, factors: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
        """x' = M x + o of each image, in 0..1, written for images that are normalised; all of it in float64 but the last step."""
        n, c, _, _ = images.shape
        mean = torch.tensor(self.mean or (0.0,) * c, dtype=torch.float64)
        std = torch.tensor(self.std or (1.0,) * c, dtype=torch.float64)
        offset = torch.zeros(n, c, dtype=torch.float64)
        if self.pca:
            amounts = self.pca * _normal(shifts)[:, :c]
            offset = offset + (amounts[:, :, None] * torch.tensor(self.axes, dtype=torch.float64)).sum(1)
        if not self.colour:
            return images + _per_channel(offset / std, images)
        brightness, contrast, saturation = (1 + self.colour * (factors * 2 - 1)).unbind(1)
        gain = (brightness * contrast)[:, None]
        offset = offset + (0.5 * (1 - contrast))[:, None]
        if c != 3:
            return images * _per_channel(gain.expand(n, c), images) + _per_channel(
                (gain * mean + offset - mean) / std, images
            )
        same = torch.eye(3, dtype=torch.float64)
        grey = torch.tensor(_GREY, dtype=torch.float64).expand(3, 3)
        matrix = gain[:, None] * (grey + saturation[:, None, None] * (same - grey))
        offset = ((matrix * mean).sum(2) + offset - mean) / std
        matrix = matrix * std / std[:, None]
        mixed = images[:, :1] * _per_channel(matrix[:, :, 0], images)
        for channel in (1, 2):
            mixed += images[:, channel : channel + 1] * _per_channel(matrix[:, :, channel], images)
        return mixed.add_(_per_channel(offset, images))

    def _noise(self, images: torch.Tensor, seed: int, places: torch.Tensor) -> torch.Tensor:
        n, c, h, w = images.shape
        table = _normal_table(seed, max(_NOISE_TABLE, 4 * c * h * w), images.device)
        starts = (places.double() * (len(table) - c * h * w + 1)).long()
        noise = torch.stack([table[start : start + c * h * w] for start in starts.tolist()]).view(n, c, h, w)
        std = torch.tensor(self.std or (1.0,) * c, dtype=torch.float64)
        return images + noise * _per_channel((self.noise / std).expand(n, c), images)


def uniform(seed: int, epoch: int, indices: torch.Tensor, count: int) -> torch.Tensor:
    """`count` numbers in [0, 1) for each index: float32 [len(indices), count], a function of the arguments only."""
    lanes = indices.to("cpu", torch.int64)[:, None] * count + torch.arange(count)
    state = _mixed(_mixed(_mixed(torch.zeros_like(lanes), seed), epoch), lanes)
    return (state >> 40 & 0xFFFFFF).to(torch.float32) / 2**24


def _normal(draws: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers from uniform ones of 24 bits, float64: the inverse of the distribution, at the middle of each step."""
    numbers: torch.Tensor = torch.special.ndtri(draws + 2.0**-25)
    return numbers


@lru_cache(maxsize=2)
def _normal_table(seed: int, count: int, device: torch.device) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed & (2**63 - 1))).to(device)


def _per_channel(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """[n, c] as [n, c, 1, 1] of the images' type and device."""
    return values.to(images.device, images.dtype)[:, :, None, None]


def _mixed(state: torch.Tensor, part: int | torch.Tensor) -> torch.Tensor:
    """One round of splitmix64 on int64 lanes, which wrap as 64-bit words do; shifts are made logical by masks."""
    state = state + part + _signed(_ODD[0])
    state = (state ^ (state >> 30 & (1 << 34) - 1)) * _signed(_ODD[1])
    state = (state ^ (state >> 27 & (1 << 37) - 1)) * _signed(_ODD[2])
    return state ^ (state >> 31 & (1 << 33) - 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
