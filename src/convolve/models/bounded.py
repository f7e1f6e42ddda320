"""A limit on what building a network may allocate: a file must not make a reader take more memory than its own weights need.

The architecture in a model file is only a few words, and `img_size` 1,000,000 in it would be a fully connected layer of terabytes. The
weights beside it say how large the network can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from convolve.errors import ModelFileError

SLACK = 8 * 2**20  # elements beyond twice the file's own: buffers that are not stored, first values that are drawn
ALLOCATING = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint}


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor], path: Any) -> Iterator[None]:
    """Within the block torch's factories raise ModelFileError, before they allocate, once twice the elements of `tensors` are used up."""
    with _Limit(2 * sum(tensor.numel() for tensor in tensors.values()) + SLACK, str(path)):
        yield


class _Limit(TorchFunctionMode):
    def __init__(self, elements: int, path: str) -> None:
        super().__init__()
        self._left, self._path = elements, path

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in ALLOCATING:
            self._left -= _elements(args, kwargs)
            if self._left < 0:
                received = "its description is of a network that is larger than its weights"
                raise ModelFileError(f"{self._path} describes another network", received, "it is damaged or hostile")
        return function(*args, **kwargs)


def _elements(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    sizes = [value for value in (*args, kwargs.get("size")) if isinstance(value, (tuple, list))]
    sides = sizes[0] if sizes else [value for value in args if isinstance(value, int)]
    return math.prod(side for side in sides if isinstance(side, int))
