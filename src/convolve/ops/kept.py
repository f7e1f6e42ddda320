"""Choices that are kept: what `auto` once decided for a problem is decided again, whatever wisdom or estimates say by then.

So are the ways through the layers of a stage (stages.py). A training run stores all of them with its state, so that a changed wisdom
file, another table of costs or another version cannot change the rest of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from convolve.ops import conv, execute
from convolve.ops.choose import KEPT, Choices


@contextmanager
def kept_choices(known: Mapping[str, Sequence[str]] | None = None) -> Iterator[Choices]:
    """Within the block, of all threads, `auto` decides as in `known`; what is not in there is decided once. Yields all of it, JSON-safe.

    A row that cannot serve here any more is left out, and the next one takes its place.

    >>> import torch, convolve
    >>> with kept_choices({"auto default 1x1x8x8 k1 3x3 s1 p0": ["reference"]}) as choices:
    ...     _ = convolve.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 5, 5))
    >>> len(choices) > 1
    True
    """
    choices: Choices = {key: list(names) for key, names in (known or {}).items()}
    _forget()
    KEPT.append(choices)
    try:
        yield choices
    finally:
        KEPT[:] = [other for other in KEPT if other is not choices]
        _forget()


def _forget() -> None:
    conv.forget()
    execute.forget()
