"""Small random movements of the training images, so that a network learns what does not matter.

Every draw is a function of (seed, epoch, image index) alone: the same image in the same epoch moves in the same way, in any
batch, order, process or resumed run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64's constants


@dataclass(frozen=True)
class Movement:
    """The largest movement of an image: `shift` and `scale` as fractions of its size, `turn` in degrees; none by default."""

    shift: float = 0.0
    scale: float = 0.0
    turn: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.shift or self.scale or self.turn)

    def apply(self, images: torch.Tensor, seed: int, epoch: int, indices: torch.Tensor) -> torch.Tensor:
        """Each of `images` [n, c, h, w], floating point, moved by its own draw; what comes in from outside repeats the border.

        >>> images = torch.rand(2, 1, 5, 5)
        >>> torch.equal(Movement().apply(images, 0, 0, torch.arange(2)), images)
        True
        """
        if not self:
            return images
        _, _, h, w = images.shape
        draws = uniform(seed, epoch, indices, 4).to(images.device) * 2 - 1
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


def uniform(seed: int, epoch: int, indices: torch.Tensor, count: int) -> torch.Tensor:
    """`count` numbers in [0, 1) for each index: float32 [len(indices), count], a function of the arguments only."""
    lanes = indices.to("cpu", torch.int64)[:, None] * count + torch.arange(count)
    state = _mixed(_mixed(_mixed(torch.zeros_like(lanes), seed), epoch), lanes)
    return (state >> 40 & 0xFFFFFF).to(torch.float32) / 2**24


def _mixed(state: torch.Tensor, part: int | torch.Tensor) -> torch.Tensor:
    """One round of splitmix64 on int64 lanes, which wrap as 64-bit words do; shifts are made logical by masks."""
    state = state + part + _signed(_ODD[0])
    state = (state ^ (state >> 30 & (1 << 34) - 1)) * _signed(_ODD[1])
    state = (state ^ (state >> 27 & (1 << 37) - 1)) * _signed(_ODD[2])
    return state ^ (state >> 31 & (1 << 33) - 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
