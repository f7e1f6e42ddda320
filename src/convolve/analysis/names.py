"""The one short name of an operator, however it was called: `x + y`, torch.add, Tensor.add_ and aten::add.Tensor are `add`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

_SPECIAL = {
    "__rsub__": "rsub",
    "__rpow__": "pow",
    "__rdiv__": "div",
    "__rtruediv__": "div",
    "__truediv__": "div",
    "__itruediv__": "div",
    "__floordiv__": "floor_divide",
    "__rmatmul__": "matmul",
    "__contains__": "contains",
}


@lru_cache(maxsize=1)
def _of_functional() -> dict[int, str]:
    """torch.nn.functional's dispatchers are nameless closures: their name is the attribute that holds them."""
    return {id(value): name for name, value in vars(functional).items() if callable(value) and not name.startswith("_")}


def function_name(function: Callable[..., Any]) -> str | None:
    """The name of a function that __torch_function__ was given; None for attribute access (x.shape, x.T)."""
    name: str = _of_functional().get(id(function)) or str(getattr(function, "__name__", ""))
    if name in ("__get__", "__set__", "__delete__") or not name:
        return None
    if name in _SPECIAL:
        return _SPECIAL[name]
    if name.startswith("__") and name.endswith("__"):
        inner = name.strip("_")
        plain = inner[1:] if inner[:1] in "ir" and inner[1:] in _ARITHMETIC else inner
        return plain if plain in _ARITHMETIC or plain in ("getitem", "setitem") else name
    return name.rstrip("_") if name != "_" else name


_ARITHMETIC = {"add", "sub", "mul", "div", "pow", "matmul", "neg", "abs", "eq", "ne", "lt", "le", "gt", "ge"}


def operator_name(overload: torch._ops.OpOverload) -> str:
    """The name of an operator at torch's lowest level: aten's without its namespace, others with it."""
    namespace, _, name = str(overload.name()).partition("::")  # type: ignore[no-untyped-call]
    name = name.partition(".")[0]
    return name.rstrip("_") if namespace == "aten" else f"{namespace}::{name}"


def in_place(name: str) -> bool:
    """Whether torch's spelling says that the first argument is overwritten."""
    return (name.endswith("_") and not name.endswith("__")) or (
        name.startswith("__i") and name not in ("__invert__", "__index__")
    )
