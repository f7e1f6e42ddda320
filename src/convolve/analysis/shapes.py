"""The results of common operators on the meta device, without torch's Python kernels for them.

Those kernels import torch's compiler and a computer algebra system, to check inequalities of sizes: more processor time than
everything else that `convolve inspect` does. An answer here is what they would give (shape, strides, type), for plain calls
only: dense tensors of one floating-point type, sizes that fit. Whatever else comes is left to torch, whose result or error
then stands. tests/analysis/test_shapes.py compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from convolve.geometry import Window

Answer = Tensor | tuple[Tensor, ...] | None


class Answering(TorchDispatchMode):
    """While this is on, plain operators on the meta device are answered here; all others run as they do."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would wrap this class against torch.compile, whose import takes a second."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(operator: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of an elementary operator: answered here, or else by torch."""
    kernel = None if kwargs else _TABLE.get(operator)
    result = None if kernel is None else kernel(*args)
    return operator(*args, **kwargs) if result is None else result


def _plain(*values: Tensor | None) -> bool:
    """Dense tensors with elements, of the meta device and one floating-point type."""
    tensors = [t for t in values if t is not None]
    return all(
        isinstance(t, Tensor)
        and t.device.type == "meta"
        and t.is_floating_point()
        and t.dtype == tensors[0].dtype
        and t.is_contiguous()
        and t.numel() > 0
        for t in tensors
    )


def _filled(x: Tensor, *_: Any) -> Answer:
    return x if x.device.type == "meta" else None


def _like(x: Tensor, *_: Any) -> Answer:
    return x.new_empty(x.shape) if _plain(x) else None


def _binary(x: Tensor, y: Any) -> Answer:
    """Of two tensors, the second as large as the first or repeated along it; or of a tensor and a real number."""
    if isinstance(y, Tensor):
        ahead = x.dim() - y.dim()
        if not _plain(x, y) or ahead < 0:
            return None
        if any(size not in (1, x.shape[ahead + d]) for d, size in enumerate(y.shape)):
            return None
    elif not isinstance(y, (int, float)) or not _plain(x):
        return None
    return x.new_empty(x.shape)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Answer:
    axes = x.dim() - 2
    if axes < 1 or weight.dim() != x.dim() or not _plain(x, weight, bias):
        return None
    lists = [_each(value, axes) for value in (stride, padding, dilation, output_padding)]
    s, p, d, extra = lists
    if any(len(value) != axes for value in lists) or groups < 1 or min(*s, *d) < 1 or min(p) < 0:
        return None
    window = Window.of(tuple(weight.shape[2:]), s, p, d, axes=axes)
    n, c, *size = x.shape
    inwards, outwards = weight.shape[:2] if transposed else (weight.shape[1] * groups, weight.shape[0])
    if c != inwards or inwards % groups or (not transposed and outwards % groups):
        return None
    if transposed:
        if any(not 0 <= extra[a] < max(s[a], d[a]) for a in range(axes)):
            return None
        window, outwards = window.transposed(extra), outwards * groups
    made = window.output_size(size)
    if min(made) < 1 or (bias is not None and tuple(bias.shape) != (outwards,)):
        return None
    return x.new_empty((n, outwards, *made))


def _pooled(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
            ceil: bool) -> Answer:  # fmt: skip
    axes = len(kernel)
    if not _plain(x) or x.dim() != axes + 2:
        return None
    s, p, d = _each(stride or kernel, axes), _each(padding, axes), _each(dilation, axes)
    if min(*s, *d, *kernel) < 1 or any(not 0 <= 2 * p[a] <= kernel[a] for a in range(axes)):
        return None
    made = Window.of(tuple(kernel), s, p, d, axes=axes).output_size(x.shape[2:], ceil)
    return x.new_empty((*x.shape[:2], *made)) if min(made) > 0 else None


def _max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0),
              dilation: Sequence[int] = (1, 1), ceil: bool = False) -> Answer:  # fmt: skip
    made = _pooled(x, _each(kernel, 2), stride, padding, dilation, ceil)
    return (made, made.new_empty(made.shape, dtype=torch.int64)) if isinstance(made, Tensor) else None


def _avg_pool(axes: int) -> Callable[..., Answer]:
    def pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,),
             ceil: bool = False, _include: bool = True, divisor: int | None = None) -> Answer:  # fmt: skip
        return None if divisor is not None else _pooled(x, _each(kernel, axes), stride, padding, (1,), ceil)

    return pool


def _batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None,
                training: bool, *_: float) -> Answer:  # fmt: skip
    """In evaluation only: training changes the running statistics, too."""
    given = [t for t in (weight, bias, mean, variance) if t is not None]
    if training or mean is None or variance is None or not _plain(x, *given) or x.dim() < 2:
        return None
    if any(tuple(t.shape) != (x.shape[1],) for t in given):
        return None
    if x.dtype not in (torch.float32, torch.float64):  # the statistics of others have a wider type
        return None
    return x.new_empty(x.shape), x.new_empty((x.shape[1],)), x.new_empty((x.shape[1],))


def _addmm(bias: Tensor, a: Tensor, b: Tensor) -> Answer:
    """`b` is a transposed weight: of any strides."""
    if bias.dim() != 1 or not _plain(bias, a) or not _plain(b.t() if b.dim() == 2 else b) or b.dtype != a.dtype:
        return None
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or bias.shape[0] != b.shape[1]:
        return None
    return a.new_empty((a.shape[0], b.shape[1]))


def _mean(x: Tensor, dims: Sequence[int] | None, keep: bool = False) -> Answer:
    if not dims or not _plain(x) or any(not -x.dim() <= d < x.dim() for d in dims):
        return None
    chosen = {d % x.dim() for d in dims}
    if len(chosen) != len(dims):
        return None
    return x.new_empty([1 if d in chosen else n for d, n in enumerate(x.shape) if keep or d not in chosen])


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Answer:
    first = tensors[0]
    rank = first.dim()
    if not _plain(*tensors) or not -rank <= dim < rank or any(t.dim() != rank for t in tensors):
        return None
    dim %= rank
    if any(t.shape[d] != first.shape[d] for t in tensors for d in range(rank) if d != dim):
        return None
    return first.new_empty([sum(t.shape[d] for t in tensors) if d == dim else n for d, n in enumerate(first.shape)])


def _scaled(x: Tensor, y: Any) -> Answer:
    return _binary(x, y) if isinstance(y, (int, float)) else None


def _each(value: Sequence[int], axes: int) -> tuple[int, ...]:
    return tuple(value) * (axes if len(value) == 1 else 1)


_aten = torch.ops.aten
_TABLE: dict[Any, Callable[..., Answer]] = {
    **dict.fromkeys((_aten.zero_.default, _aten.fill_.Scalar, _aten.uniform_.default, _aten.normal_.default), _filled),
    **dict.fromkeys((_aten.relu.default, _aten.sigmoid.default, _aten.tanh.default, _aten.hardtanh.default), _like),
    _aten.relu_.default: _filled,
    **dict.fromkeys((_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor), _binary),
    _aten.pow.Tensor_Scalar: _scaled,
    _aten.mean.dim: _mean,
    _aten.cat.default: _cat,
    _aten.convolution.default: _convolution,
    _aten.max_pool2d_with_indices.default: _max_pool,
    _aten.avg_pool2d.default: _avg_pool(2),
    _aten.avg_pool3d.default: _avg_pool(3),
    _aten.native_batch_norm.default: _batch_norm,
    _aten.addmm.default: _addmm,
}
