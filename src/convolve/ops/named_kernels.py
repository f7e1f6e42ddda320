"""Kernels with a name: the filters that image processing knew before kernels were learned, one row each.

A row holds one kernel, or several whose responses are joined: the length of the gradient of two perpendicular ones ("magnitude"), or
the strongest of a bank ("strongest"). Kernels are given as cross-correlation applies them, so that sobel-x answers with a
positive number where it gets brighter to the right. Their numbers sum to 1 (pictures stay as bright) or to 0 (flat areas give 0).

Sources: Prewitt 1970; Sobel and Feldman 1968; Scharr 2000 (3, 10, 3 weights); the binomial approximation of a Gaussian; Gabor
functions as in Daugman 1985 with the mean removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from convolve.errors import UnknownNameError, UsageError

Join = Literal["one", "magnitude", "strongest"]


@dataclass(frozen=True, eq=False)
class NamedKernel:
    """One row: its kernels as (filters, r, s), how several are joined, and what it shows in a few words."""

    name: str
    kernels: Tensor
    shows: str
    join: Join = "one"

    @property
    def signed(self) -> bool:
        """Whether flat areas give zero, so that the response has a sign (or, joined, a strength) instead of a brightness."""
        return bool((self.kernels.sum(dim=(1, 2)).abs() <= 1e-3 * self.kernels.abs().sum(dim=(1, 2))).all())

    @property
    def symmetric(self) -> bool:
        """Whether turning the kernel around changes nothing: then convolution and cross-correlation agree."""
        return torch.equal(self.kernels, self.kernels.flip(1, 2))


def named_kernels() -> dict[str, NamedKernel]:
    """Every row by its name."""
    return {row.name: row for row in _rows()}


def named_kernel(name: str) -> NamedKernel:
    """The row called `name`. Raises UnknownNameError with the nearest names.

    >>> named_kernel("sobel-x").kernels[0].int().tolist()
    [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    """
    rows = named_kernels()
    if name not in rows:
        raise UnknownNameError.of("filter", name, rows)
    return rows[name]


def parse_kernel(text: str) -> NamedKernel:
    """A kernel written as rows: "0 1 2; 2 2 0; 0 1 2"; commas may separate numbers, and 1/9 is a number.

    Raises UsageError for anything that is not a full rectangle of finite numbers.
    """
    remedy = 'write rows separated by semicolons, such as "0 1 2; 2 2 0; 0 1 2"'
    try:
        rows = [[_number(word) for word in row.replace(",", " ").split()] for row in text.strip().strip(";").split(";")]
    except (ValueError, ZeroDivisionError):
        raise UsageError("a kernel holds numbers", f"got {text!r}", remedy) from None
    if not rows[0] or len({len(row) for row in rows}) != 1:
        raise UsageError(
            "the rows of a kernel are equally long", f"got {[len(row) for row in rows]} in {text!r}", remedy
        )
    kernel = torch.tensor(rows)
    if not kernel.isfinite().all():
        raise UsageError("a kernel holds finite numbers", f"got {text!r}", remedy)
    return NamedKernel("kernel", kernel[None], "the kernel that was given")


def gabor(angle: float, wavelength: float = 6.0, size: int = 13) -> Tensor:
    """A wave under a Gaussian, across `angle` degrees; even, of mean zero, its absolute values summing to 2."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = place[:, None], place[None, :]
    turn = math.radians(angle)
    along, across = x * math.cos(turn) + y * math.sin(turn), -x * math.sin(turn) + y * math.cos(turn)
    sigma = wavelength / 2
    envelope = torch.exp(-(along**2 + 0.5 * across**2) / (2 * sigma**2))
    wave = envelope * torch.cos(2 * math.pi * along / wavelength)
    wave = wave - envelope * (wave.sum() / envelope.sum())
    # Symmetric to the last bit, whatever the cosine rounds to.
    wave = (wave + wave.flip(0, 1)) / 2
    return (wave * 2 / wave.abs().sum()).float()


def _rows() -> tuple[NamedKernel, ...]:
    binomial = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    bank = torch.stack([gabor(angle) for angle in range(0, 180, 45)])
    edges = {
        "horizontal": ([[-1, -1, -1], [2, 2, 2], [-1, -1, -1]], "lines that run left to right"),
        "vertical": ([[-1, 2, -1], [-1, 2, -1], [-1, 2, -1]], "lines that run top to bottom"),
        "rising": ([[-1, -1, 2], [-1, 2, -1], [2, -1, -1]], "lines that rise to the right"),
        "falling": ([[2, -1, -1], [-1, 2, -1], [-1, -1, 2]], "lines that fall to the right"),
    }
    return (
        _row("identity", [[0, 0, 0], [0, 1, 0], [0, 0, 0]], "the picture itself"),
        NamedKernel("box", torch.full((1, 5, 5), 1 / 25), "the mean of 5 x 5 pixels: a hard blur"),
        NamedKernel("gaussian", (binomial[:, None] * binomial / 256)[None], "a weighted mean: a soft blur"),
        _row("sharpen", [[0, -1, 0], [-1, 5, -1], [0, -1, 0]], "each pixel against its neighbours, added on"),
        _row("emboss", [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], "light from the lower right"),
        _row("laplacian", [[0, 1, 0], [1, -4, 1], [0, 1, 0]], "where brightness bends: fine detail"),
        *(_pair(name, rows, shows) for name, rows, shows in _GRADIENTS),
        *(
            _row(f"{name}-{axis}", rows if axis == "x" else _transposed(rows), f"brighter {way}")
            for name, rows, _ in _GRADIENTS
            for axis, way in (("x", "to the right"), ("y", "downwards"))
        ),
        *(_row(f"edge-{name}", rows, shows) for name, (rows, shows) in edges.items()),
        *(
            NamedKernel(f"gabor-{angle}", kernel[None], f"stripes of 6 pixels across {angle} degrees")
            for angle, kernel in zip(range(0, 180, 45), bank, strict=True)
        ),
        NamedKernel("gabor", bank, "stripes of 6 pixels in any of four directions", "strongest"),
    )


_GRADIENTS = (
    ("sobel", [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], "how fast brightness changes"),
    ("prewitt", [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]], "how fast brightness changes, plain means"),
    ("scharr", [[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]], "how fast brightness changes, truest to direction"),
)


def _row(name: str, rows: list[list[int]], shows: str) -> NamedKernel:
    return NamedKernel(name, torch.tensor([rows], dtype=torch.float32), shows)


def _pair(name: str, rows: list[list[int]], shows: str) -> NamedKernel:
    return NamedKernel(name, torch.tensor([rows, _transposed(rows)], dtype=torch.float32), shows, "magnitude")


def _transposed(rows: list[list[int]]) -> list[list[int]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _number(word: str) -> float:
    above, _, below = word.partition("/")
    return float(above) / float(below) if below else float(above)
