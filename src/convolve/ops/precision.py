"""`convolve.precision`: a scoped switch that restricts which algorithms `auto` may choose.

    default        any row that holds the error bounds of its kind
    exact          only rows that sum plain products: no Winograd, FFT or factored kernels
    reproducible   only rows with the same bits for any batch and any number of threads; the vendor's row is not one of them

It is read once, at the public call, and travels in the window string: a backward pass that runs after the block still obeys it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Literal, get_args

from convolve.errors import UnknownNameError

Precision = Literal["default", "exact", "reproducible"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class _Current(threading.local):
    # A thread-local and not a context variable: torch.compile can trace and guard this, and not that; nor an attribute of the class.
    def __init__(self) -> None:
        self.name: Precision = "default"


_CURRENT = _Current()


def current_precision() -> Precision:
    """The precision of the innermost `precision` block of this thread."""
    return _CURRENT.name


@contextlib.contextmanager
def precision(name: Precision) -> Iterator[None]:
    """Within the block, convolutions of this thread choose among `default`, `exact` or `reproducible` algorithms only.

    >>> import torch, convolve
    >>> with convolve.precision("exact"):
    ...     float(convolve.conv1d(torch.ones(1, 1, 5), torch.ones(1, 1, 3))[0, 0, 0])
    3.0
    """
    if name not in PRECISIONS:
        raise UnknownNameError.of("precision", str(name), PRECISIONS)
    before = _CURRENT.name
    _CURRENT.name = name
    try:
        yield
    finally:
        _CURRENT.name = before
