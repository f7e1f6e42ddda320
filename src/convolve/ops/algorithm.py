"""What an algorithm is: a row of functions that can say what it needs, what it costs, and why it declines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from convolve.problem import ConvProblem, Role


@dataclass(frozen=True)
class Cost:
    """An estimate: seconds on this machine, and bytes of memory besides the operands and the result."""

    seconds: float
    workspace_bytes: int


class NotFinite(Exception):  # noqa: N818 - it is no error
    """Raised by a row that looks for NaN and Inf itself (`Algorithm.looks`) where its result holds any."""


@dataclass(frozen=True)
class Preparation:
    """What a row can do once for a weight that will not change (`convolve.accelerate(model, freeze=True)`): the role `output` only.

    What `prepare` makes of a weight serves every problem with the same window, channels, groups and dtype, whatever its batch, size and
    layout. It must not share memory with the weight.
    """

    prepare: Callable[[ConvProblem, Tensor], Tensor]
    run: Callable[[ConvProblem, Tensor, Tensor, Tensor | None], Tensor]
    """As `Algorithm.run`, with what `prepare` returned in the place of the weight; the result is the same, bit for bit."""
    cost: Callable[[ConvProblem], Cost]
    """The estimate without the preparation."""


@dataclass(frozen=True)
class Algorithm:
    """One way to compute a convolution.

    `run(problem, a, b, bias)` gets the operands of `problem.role` and returns the role's result. Roles that a row does not list
    reach it as plain convolutions (ConvProblem.as_convolution), so a new row needs to know `output` only.
    """

    name: str
    summary: str
    run: Callable[[ConvProblem, Tensor, Tensor, Tensor | None], Tensor]
    """The result; `bias`, one number per channel of the result, may be None."""
    why_not: Callable[[ConvProblem], str | None]
    """The reason, in words, why the problem cannot be served, or None."""
    cost: Callable[[ConvProblem], Cost]
    bound: Callable[[ConvProblem], float]
    """The largest error of a result element over the rms of the exact results of random operands in its neighbourhood."""
    roles: tuple[Role, ...] = ("output",)
    local: bool = True
    """NaN and Inf reach exactly the results that the definition says. Where False, a non-finite result is recomputed directly."""
    looks: Callable[[ConvProblem], bool] = lambda _: False
    """A row that is not local looks for NaN and Inf itself, and raises NotFinite, which is cheaper than to sum the result."""
    reproducible: bool = False
    """The same bits for an image alone or in a batch, and for any number of threads."""
    exact: bool = True
    """Each product is one product of two operands: integers in floating point come out exact."""
    not_automatic: Callable[[ConvProblem], str | None] = lambda _: None
    """The reason, in words, why `auto` leaves it to an explicit request, or None."""
    not_these: Callable[[ConvProblem, Tensor, Tensor], str | None] | None = None
    """The reason why these values cannot be served, where that depends on values; `auto` then takes its next choice."""
    preparation: Preparation | None = None
    """What can be done in advance for a frozen weight."""
