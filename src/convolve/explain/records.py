"""What an explanation consists of: frozen records, handed to `draw` and read by tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

Run = tuple[int, int]  # first and last pixel of a stretch without holes
Runs = tuple[Run, ...]
Place = tuple[int, int, int]  # channel, row, column


@dataclass(frozen=True)
class Axis:
    """Which pixels of one input axis are seen: by index of output axis `along` (0 rows, 1 columns), or by all alike (None)."""

    along: int | None
    seen: tuple[Runs, ...]

    def at(self, index: tuple[int, int]) -> Runs:
        return self.seen[0 if self.along is None else index[self.along]]


@dataclass(frozen=True)
class Sight:
    """The receptive field of every unit of a layer: a union of products of a set of rows and a set of columns.

    size, stride   of the hull on an endless image, per axis (rows, columns); None where it is not the same everywhere
    exact          False: at most this
    """

    terms: tuple[tuple[Axis, Axis], ...]
    size: tuple[int, int] | None
    stride: tuple[str, str] | None
    exact: bool


@dataclass(frozen=True)
class Layer:
    """A layer whose maps are shown. `name` is its row in `convolve.inspect`; `words` says what it is and what it ends with.

    channels   which maps are shown, strongest first     step   every step-th row and column is shown
    asked      the units that the user wants measured; their maps come first
    """

    name: str
    path: str
    call: int
    words: str
    shape: tuple[int, int, int]
    macs: int  # of everything up to here
    depth: int  # operators up to here
    sight: Sight
    channels: tuple[int, ...] = ()
    step: int = 1
    asked: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Unit:
    """One number of a feature map, and its place."""

    channel: int
    row: int
    column: int
    value: float


@dataclass(frozen=True, eq=False)
class Measured:
    """How far a unit's value follows each pixel on this image: the size of its gradient, summed over the colour channels.

    gradient   [h, w], of the part of the image from `top` and `left` on that is the hull of the theory; zero outside
    touched    pixels with a gradient that is not zero     outside   those of them outside the theory (0, or theory is wrong)
    block      the side of the blocks in which a page draws it
    """

    layer: str
    unit: Unit
    top: int
    left: int
    gradient: Tensor
    touched: int
    outside: int
    block: int = 1

    def on(self, size: tuple[int, int]) -> Tensor:
        """The gradient at its place on an image of `size` (h, w)."""
        whole = self.gradient.new_zeros(size)
        h, w = self.gradient.shape
        whole[self.top : self.top + h, self.left : self.left + w] = self.gradient
        return whole


@dataclass(frozen=True, eq=False)
class Maps:
    """The shown maps of one layer at one moment: values [len(channels), rows, columns], and its strongest units."""

    layer: str
    values: Tensor
    strongest: tuple[Unit, ...]


@dataclass(frozen=True, eq=False)
class Filters:
    """The weights of a convolution as they are, of the first filters and kernels: [filters, kernels, r, s]; `total` of both."""

    layer: str
    weight: Tensor
    total: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Which parts of the image speak for a class: `values` [h, w], on the image or on a layer's coarser grid."""

    method: str
    says: str
    target: str
    layer: str | None
    values: Tensor


@dataclass(frozen=True, eq=False)
class Moment:
    """The network with one set of weights."""

    label: str
    probabilities: tuple[tuple[str, float], ...]
    maps: tuple[Maps, ...]
    measured: tuple[Measured, ...]
    filters: tuple[Filters, ...]
    attributions: tuple[Attribution, ...]


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything about one image: the layers, and what they hold at each moment (the last one is the trained network)."""

    size: tuple[int, int]
    layers: tuple[Layer, ...]
    moments: tuple[Moment, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def last(self) -> Moment:
        return self.moments[-1]
