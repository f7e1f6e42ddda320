"""What a claim is, and the facts that decide it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from convolve.data.records import Dataset

Verdict = Literal["holds", "holds as corrected", "false"]


@dataclass(frozen=True)
class Fact:
    """One value recomputed now, beside the one that was expected; `agrees` compares them."""

    what: str
    got: Any
    want: Any
    agrees: bool


@dataclass(frozen=True)
class Claim:
    """What the texts say, what is true, and how it is recomputed.

    `correct` is the right statement where the text errs or leaves something out. A `slow` claim is a measurement, recomputed on
    request. `facts` is None where only training decides: `trained` then measures it on a data set, which takes a minute or so.
    """

    id: str
    statement: str
    verdict: Verdict
    facts: Callable[[], Sequence[Fact]] | None
    correct: str = ""
    slow: bool = False
    trained: Callable[[Dataset], Sequence[Fact]] | None = None


def same(what: str, got: Any, want: Any) -> Fact:
    """A fact that holds when both values are equal exactly; tensors are compared and shown as nested lists."""
    plain_got, plain_want = plain(got), plain(want)
    return Fact(what, plain_got, plain_want, plain_got == plain_want)


def near(what: str, got: float, want: float, within: float) -> Fact:
    """A fact that holds when a measured number is within `within` of the expected one."""
    return Fact(what, float(f"{got:.6g}"), want, abs(got - want) <= within)


def true(what: str, holds: bool) -> Fact:
    """A fact that is a yes or a no; `what` says it in full."""
    return Fact(what, bool(holds), True, bool(holds))


def plain(value: Any) -> Any:
    """Tensors and tuples as lists of ints where whole, else floats."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value
