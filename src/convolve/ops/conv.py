"""The public convolutions: `convolve.conv1d`, `conv2d`, `conv3d` and `conv_transpose1d`, `2d`, `3d`.

    y[n, k, j] = bias[k] + sum over c, t of  x[n, c, j s - p + t d] w[k, c, t]

As everywhere in deep learning this is a cross-correlation; `flip_kernel=True` gives the convolution of mathematics.
A transposed convolution is the adjoint (the transposed matrix) of the convolution with the same arguments, padding modes
included. This file checks and normalises the loose arguments into one call; `rule.py` takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn import Parameter

from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.geometry import Pair, Window, checked, per_axis
from convolve.ops import wisdom
from convolve.ops.algorithm import Algorithm
from convolve.ops.algorithms import torch_row
from convolve.ops.arguments import window_for
from convolve.ops.call import ConvCall, remembered_call
from convolve.ops.choose import algorithm_name, choose
from convolve.ops.execute import AUTOCAST_DEVICES, FrozenWeight, execute_frozen, is_learning
from convolve.ops.precision import _CURRENT, current_precision
from convolve.ops.rule import convolve
from convolve.ops.windows import PADDING_MODES, PaddingMode, format_of, mode_pad, mode_pad_adjoint, with_bias
from convolve.problem import ROLES, check_fits, check_groups, transposed_size

_is_grad_enabled, _is_any_autocast_enabled = torch.is_grad_enabled, torch._C._is_any_autocast_enabled
Ints = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Pair]
GroupOrder = Literal["contiguous", "interleaved"]
GROUP_ORDERS = ("contiguous", "interleaved")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def conv1d(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    flip_kernel: bool = False,
    group_order: GroupOrder = "contiguous",
    partial_maps: bool = False,
    accumulate: torch.dtype | None = None,
    algorithm: str | Algorithm = "auto",
) -> Tensor:
    """1-D convolution of (n, c, length) with (k, c / groups, kernel); everything else as in `conv2d`.

    >>> import torch, convolve
    >>> convolve.conv1d(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, -1.0]))
    tensor([-1., -2., -4.])
    """
    settings = (
        stride, padding, dilation, groups, partial_maps, padding_mode, flip_kernel, group_order, accumulate, algorithm,
    )  # fmt: skip
    return _start(_conv, 1, input, weight, bias, settings)


def conv2d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    flip_kernel: bool = False,
    group_order: GroupOrder = "contiguous",
    partial_maps: bool = False,
    accumulate: torch.dtype | None = None,
    algorithm: str | Algorithm = "auto",
) -> Tensor:
    """2-D convolution: (n, c, h, w) with weight (k, c / groups, r, s) gives (n, k, p, q).

    p = (h + both paddings - extent) // stride + 1, where the extent is dilation * (r - 1) + 1.

    Also one image (c, h, w), and one plain array (h, w) with one plain kernel (r, s).

    padding: an int, one int or one (before, after) pair per axis, or "valid", "same" (the output is the input's size over the
        stride, rounded up; an odd total puts the extra zero after), "same_lower" (before).
    flip_kernel: turn the kernel around first: the convolution of mathematics.
    group_order: group i reads the i-th block of channels ("contiguous"), or every groups-th channel from i ("interleaved").
    partial_maps: return (n, k, c / groups, p, q), the map of each channel before they are summed; without bias.
    accumulate: for integer tensors, the dtype of the sums and of the result; int64 unless stated. Integers may be mixed.
    algorithm: a name of `convolve.why`'s table, or an Algorithm of your own.

    Raises ShapeError for sizes that do not fit, DeclinedError where the named algorithm cannot serve, UsageError for the rest.

    >>> import torch, convolve
    >>> image = torch.arange(25.0).reshape(1, 1, 5, 5)
    >>> convolve.conv2d(image, torch.ones(1, 1, 3, 3), stride=2, padding="same").shape
    torch.Size([1, 1, 3, 3])
    """
    settings = (
        stride, padding, dilation, groups, partial_maps, padding_mode, flip_kernel, group_order, accumulate, algorithm,
    )  # fmt: skip
    return _start(_conv, 2, input, weight, bias, settings)


def conv3d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    flip_kernel: bool = False,
    group_order: GroupOrder = "contiguous",
    partial_maps: bool = False,
    accumulate: torch.dtype | None = None,
    algorithm: str | Algorithm = "auto",
) -> Tensor:
    """3-D convolution of (n, c, depth, h, w) with (k, c / groups, t, r, s); everything else as in `conv2d`.

    >>> import torch, convolve
    >>> convolve.conv3d(torch.ones(1, 2, 4, 4, 4), torch.ones(1, 2, 3, 3, 3))[0, 0, 0]
    tensor([[54., 54.],
            [54., 54.]])
    """
    settings = (
        stride, padding, dilation, groups, partial_maps, padding_mode, flip_kernel, group_order, accumulate, algorithm,
    )  # fmt: skip
    return _start(_conv, 3, input, weight, bias, settings)


def conv_transpose1d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    padding_mode: PaddingMode = "zeros",
    flip_kernel: bool = False,
    group_order: GroupOrder = "contiguous",
    accumulate: torch.dtype | None = None,
    algorithm: str | Algorithm = "auto",
) -> Tensor:
    """1-D transposed convolution of (n, k, length) with (k, c / groups, kernel); everything else as in `conv_transpose2d`.

    >>> import torch, convolve
    >>> convolve.conv_transpose1d(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0]), stride=2)
    tensor([ 1., 10.,  2., 20.])
    """
    settings = (
        stride, padding, output_padding, groups, dilation, output_size, padding_mode, flip_kernel, group_order, accumulate, algorithm,
    )  # fmt: skip
    return _start(_transposed, 1, input, weight, bias, settings)


def conv_transpose2d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    padding_mode: PaddingMode = "zeros",
    flip_kernel: bool = False,
    group_order: GroupOrder = "contiguous",
    accumulate: torch.dtype | None = None,
    algorithm: str | Algorithm = "auto",
) -> Tensor:
    """The adjoint of `conv2d` with the same arguments: (n, k, p, q) with weight (k, c / groups, r, s) gives (n, c, h, w).

    With a stride above 1 several sizes of h and w fit: `output_padding` adds to the smallest, or `output_size` names (h, w).
    padding="same" gives h = p times the stride. With a `padding_mode`, what falls on the padding is added back to the elements
    that the convolution's padding repeats. The other keywords are those of `conv2d`.

    Raises ShapeError for an output_size out of reach, and as `conv2d` does.

    >>> import torch, convolve
    >>> convolve.conv_transpose2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), stride=2, output_size=(5, 4)).shape
    torch.Size([1, 1, 5, 4])
    """
    settings = (
        stride, padding, output_padding, groups, dilation, output_size, padding_mode, flip_kernel, group_order, accumulate, algorithm,
    )  # fmt: skip
    return _start(_transposed, 2, input, weight, bias, settings)


def conv_transpose3d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    padding_mode: PaddingMode = "zeros",
    flip_kernel: bool = False,
    group_order: GroupOrder = "contiguous",
    accumulate: torch.dtype | None = None,
    algorithm: str | Algorithm = "auto",
) -> Tensor:
    """3-D transposed convolution of (n, k, depth, h, w) with (k, c / groups, t, r, s); otherwise as `conv_transpose2d`.

    >>> import torch, convolve
    >>> convolve.conv_transpose3d(torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)).sum()
    tensor(64.)
    """
    settings = (
        stride, padding, output_padding, groups, dilation, output_size, padding_mode, flip_kernel, group_order, accumulate, algorithm,
    )  # fmt: skip
    return _start(_transposed, 3, input, weight, bias, settings)


def _start(
    general: Callable[..., Tensor],
    axes: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: tuple[Any, ...],
) -> Tensor:
    """The short way for a call that was checked before, else the `general` way, which checks and prepares it.

    Whatever it looks at costs most after a kernel that has emptied the caches, so it looks at little, and only here.
    """
    if is_compiling() or _is_any_autocast_enabled() or (type(x) is not Tensor and type(x) is not Parameter):
        return general(axes, x, weight, bias, *arguments)
    try:
        layouts, where = (x.stride(), weight.stride()), (x.is_cpu and weight.is_cpu) or (x.device, weight.device)
        key = (arguments, x.shape, weight.shape, layouts, x.dtype, where, _CURRENT.name, axes, general)
        ready = _READY.get(key)
    except (AttributeError, TypeError, RuntimeError):  # lists, symbolic sizes, no strides: nothing to remember them by
        return general(axes, x, weight, bias, *arguments)
    if ready is not None:
        native, every_role, text, channels = ready
        if native is not None and (every_role or not _is_grad_enabled() or not _needs_gradient(x, weight, bias)):
            try:
                return native(x, weight, bias)
            except RuntimeError:  # the general way finds the words for what torch refuses
                pass
        elif weight.dtype == x.dtype and (
            bias is None or (bias.dtype == x.dtype and bias.device == x.device and bias.shape == (channels,))
        ):
            return convolve(x, weight, bias, text)
    return general(axes, x, weight, bias, *arguments, key=key)


def conv_frozen(
    frozen: FrozenWeight, axes: int, x: Tensor, weight: Tensor, bias: Tensor | None, arguments: tuple[Any, ...]
) -> Tensor | None:
    """A convolution by `conv1d`, `2d` or `3d` with these `arguments`, whose weight was declared not to change.

    None where it must be called in the usual way: where a gradient, a transform or a compiler is involved.
    """
    plain = type(x) in _PLAIN and type(weight) in _PLAIN and not is_compiling()
    if not plain or _needs_gradient(x, weight, bias) or torch._C._are_functorch_transforms_active():
        return None
    if forward_ad._current_level >= 0:
        return None
    frozen.check(weight)
    if _is_any_autocast_enabled():
        return _conv(axes, x, weight, bias, *arguments, None, frozen)  # type: ignore[call-arg]  # it counts the tuple
    adds = None if bias is None else (bias.shape, bias.dtype)
    key = (axes, arguments, x.shape, x.dtype, x.device, adds, current_precision())
    text = frozen.texts.get(key)
    if text is None:
        return _conv(axes, x, weight, bias, *arguments, key, frozen)  # type: ignore[call-arg]
    return execute_frozen(x, weight, bias, text, frozen)


class _Ready(NamedTuple):
    """What is remembered of a checked call whose tensors need no preparation."""

    native: torch_row.Operator | None
    """The one operator of torch that computes it, if the row `torch` is chosen; its own derivative is right too."""
    every_role: bool
    """Whether the row `torch` is also chosen for both gradients."""
    text: str
    channels: int


_READY: dict[tuple[object, ...], _Ready] = {}
_MOST_READY = 4096
_PLAIN = (Tensor, Parameter)


def _prepare(key: tuple[object, ...] | None, x: Tensor, w: Tensor, text: str) -> _Ready | None:
    """What this call and those like it need; None where that is not worth the while or cannot be known.

    Fake tensors and other subclasses hold no numbers of ours: they get torch's operator where it can express the call, which is
    what tools that watch a model expect.
    """
    plain = type(x) in _PLAIN
    if (plain and (key is None or is_learning())) or is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    if not x.is_floating_point() or any(type(n) is not int for n in (*x.shape, *w.shape)):
        return None
    known = wisdom.changes()
    call = remembered_call(text)
    problem = call.problem(x, w)
    chosen = choose(problem, call.algorithm, call.precision).name
    gradients = {
        choose(replace(problem, role=role), call.as_role(role).algorithm, call.precision).name for role in ROLES
    }
    same = {"torch", "torch_channels_last"} if problem.layout == "channels_last" else {"torch"}  # one operator
    torchs = problem.macs > 0 and (chosen in same or (not plain and torch_row.why_not(problem) is None))
    stays = x.is_contiguous() and w.is_contiguous()
    native = torch_row.native(problem, None if stays else format_of(problem.layout, problem.axes)) if torchs else None
    channels = problem.filters if call.role == "output" else problem.channels
    ready = _Ready(native, not plain or gradients <= same, text, channels)
    if key is not None and known == wisdom.changes() and not is_learning():
        if len(_READY) >= _MOST_READY:
            _READY.clear()
        _READY[key] = ready
    return ready


def forget() -> None:
    """Choose anew from now on."""
    _READY.clear()


def _apply(ready: _Ready | None, x: Tensor, w: Tensor, bias: Tensor | None, text: str) -> Tensor:
    if ready is None or ready.native is None or not (ready.every_role or not _needs_gradient(x, w, bias)):
        return convolve(x, w, bias, text)
    return ready.native(x, w, bias)


def _needs_gradient(x: Tensor, w: Tensor, bias: Tensor | None) -> bool:
    return _is_grad_enabled() and (x.requires_grad or w.requires_grad or (bias is not None and bias.requires_grad))


def _conv(
    axes: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
    partial_maps: bool,
    mode: PaddingMode,
    flip_kernel: bool,
    group_order: GroupOrder,
    accumulate: torch.dtype | None,
    algorithm: str | Algorithm,
    key: tuple[object, ...] | None = None,
    frozen: FrozenWeight | None = None,
) -> Tensor:
    _check_names(mode, group_order)
    plain = _ranks(axes, x, weight)
    if plain:
        x, weight = x[None], weight[None, None]
    x, w, bias = _dtypes(x, weight, bias, accumulate)
    single = x.dim() == axes + 1
    if single:
        x = x[None]
    groups = checked(groups, "groups", at_least=1)
    if x.shape[1] != w.shape[1] * groups:
        raise ShapeError(
            "the input's channels must be the weight's second size times groups",
            f"got {x.shape[1]} channels, weight {tuple(w.shape)}, groups={groups}",
            _channel_remedy(x.shape[1], w.shape[1], groups),
        )
    check_groups(x.shape[1], w.shape[0], groups)
    _check_bias(bias, w.shape[0])
    window = _window(w, x.shape[2:], stride, padding, dilation)
    check_fits(window, x.shape[2:])
    if mode != "zeros":
        x = mode_pad(x, window.padding, mode)
        window = Window(window.kernel, window.stride, ((0, 0),) * axes, window.dilation, window.input_dilation)
    if flip_kernel:
        w = w.flip(tuple(range(2, axes + 2)))
    if group_order == "interleaved":
        x = x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2)  # type: ignore[no-untyped-call]
    maps = w.shape[1]
    if partial_maps:
        if bias is not None:
            raise UsageError("partial maps have no bias", "got one", "add it after summing them: maps.sum(2)")
        w = w.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 2).unsqueeze(1)  # type: ignore[no-untyped-call]
        groups *= maps
    text = _text(window, groups, "output", (0,) * axes, algorithm)
    as_given = (mode, flip_kernel, group_order, partial_maps, single) == ("zeros", False, "contiguous", False, False)
    if frozen is not None and w is weight:
        if as_given and key is not None:
            frozen.texts[key] = text
        y = execute_frozen(x, w, bias, text, frozen)
    else:
        y = _apply(_prepare(key if as_given else None, x, w, text), x, w, bias, text)
    if partial_maps:
        y = y.unflatten(1, (groups // maps, maps, -1)).transpose(2, 3).flatten(1, 2)  # type: ignore[no-untyped-call]
    y = y[0] if single else y
    return y[0] if plain else y


def _transposed(
    axes: int,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Padding,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    output_size: Ints | None,
    mode: PaddingMode,
    flip_kernel: bool,
    group_order: GroupOrder,
    accumulate: torch.dtype | None,
    algorithm: str | Algorithm,
    key: tuple[object, ...] | None = None,
) -> Tensor:
    _check_names(mode, group_order)
    plain = _ranks(axes, y, weight)
    if plain:
        y, weight = y[None], weight[None, None]
    y, w, bias = _dtypes(y, weight, bias, accumulate)
    single = y.dim() == axes + 1
    if single:
        y = y[None]
    groups = checked(groups, "groups", at_least=1)
    if y.shape[1] != w.shape[0]:
        raise ShapeError(
            "the input's channels must be the first size of a transposed convolution's weight",
            f"got {y.shape[1]} channels, weight {tuple(w.shape)}",
            f"use a weight of ({y.shape[1]}, out-channels / groups, kernel...)",
        )
    check_groups(w.shape[0], w.shape[0], groups)
    _check_bias(bias, w.shape[1] * groups)
    extra = per_axis(output_padding, axes, "output_padding", at_least=0)
    full = [n * s for n, s in zip(y.shape[2:], per_axis(stride, axes, "stride", at_least=1), strict=True)]
    window = _window(w, full, stride, padding, dilation)
    if isinstance(padding, str) and padding != "valid" and output_size is None:
        output_size = full
    if output_size is not None:
        extra = _output_padding(window, y.shape[2:], per_axis(output_size, axes, "output_size", at_least=0), extra)
    for axis, (o, s, d) in enumerate(zip(extra, window.stride, window.dilation, strict=True)):
        if o >= max(s, d):
            raise ShapeError(
                "output_padding must be smaller than the stride or the dilation",
                f"got {o} with stride {s}, dilation {d} along spatial axis {axis}",
                f"use at most {max(s, d) - 1}",
            )
    transposed_size(window, y.shape[2:], extra)
    if flip_kernel:
        w = w.flip(tuple(range(2, axes + 2)))
    pairs = window.padding
    if mode != "zeros":
        window = Window(window.kernel, window.stride, ((0, 0),) * axes, window.dilation, window.input_dilation)
    # output_padding beyond the stride is padding given back: the convolution then has the outputs of y's size, no more.
    inside = tuple(min(o, s - 1) for o, s in zip(extra, window.stride, strict=True))
    after = [(p, q - (o - i)) for (p, q), o, i in zip(window.padding, extra, inside, strict=True)]
    window = Window(window.kernel, window.stride, tuple(after), window.dilation, window.input_dilation)
    late = mode != "zeros" or group_order == "interleaved"
    text = _text(window, groups, "input_gradient", inside, algorithm)
    as_given = not (late or flip_kernel or single)
    x = _apply(_prepare(key if as_given else None, y, w, text), y, w, None if late else bias, text)
    if mode != "zeros":
        x = mode_pad_adjoint(x, pairs, mode)
    if group_order == "interleaved":
        x = x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)  # type: ignore[no-untyped-call]
    if late:
        x = with_bias(x, bias)
    x = x[0] if single else x
    return x[0] if plain else x


def _text(window: Window, groups: int, role: Any, output_padding: tuple[int, ...], algorithm: str | Algorithm) -> str:
    name = algorithm if algorithm == "auto" else algorithm_name(algorithm)
    return str(ConvCall(window, groups, role, output_padding, str(name), current_precision()))


def _window(w: Tensor, size: Sequence[int], stride: Ints, padding: Padding, dilation: Ints) -> Window:
    window = window_for(w.dim() - 2, size, tuple(w.shape[2:]), stride, padding, dilation)
    if any(side < 0 for pair in window.padding for side in pair):
        raise UsageError("padding must be at least 0", f"got {padding}", "crop the input instead")
    return window


def _output_padding(
    window: Window, size: Sequence[int], wanted: tuple[int, ...], extra: tuple[int, ...]
) -> tuple[int, ...]:
    """The output_padding that leads to the `wanted` size."""
    if any(extra):
        raise UsageError("output_size and output_padding exclude each other", "got both", "give one of them")
    least = transposed_size(window, size, (0,) * window.axes)
    for axis, (n, low, s, d) in enumerate(zip(wanted, least, window.stride, window.dilation, strict=True)):
        high = low + max(s, d) - 1
        if not low <= n <= high:
            raise ShapeError(
                "output_size must be one that the convolution could have started from",
                f"got {n} along spatial axis {axis}",
                f"use {low} to {high}" if high > low else f"use {low}",
            )
    return tuple(n - low for n, low in zip(wanted, least, strict=True))


def _check_names(mode: str, group_order: str) -> None:
    if mode not in PADDING_MODES:
        raise UnknownNameError.of("padding_mode", str(mode), PADDING_MODES)
    if group_order not in GROUP_ORDERS:
        raise UnknownNameError.of("group_order", str(group_order), GROUP_ORDERS)


def _ranks(axes: int, x: Tensor, w: Tensor) -> bool:
    """Check both ranks; whether they are plain arrays, without batch and channels."""
    for name, value in (("input", x), ("weight", w)):
        if not isinstance(value, Tensor):
            raise UsageError(f"{name} must be a tensor", f"got {type(value).__name__}", "use torch.as_tensor")
    if x.dim() == axes and w.dim() == axes:
        return True
    sizes = ("length", "height, width", "depth, height, width")[axes - 1]
    if x.dim() not in (axes + 1, axes + 2):
        raise ShapeError(
            f"a {axes}-D convolution takes ([batch,] channels, {sizes})", f"got an input {tuple(x.shape)}", "reshape it"
        )
    if w.dim() != axes + 2:
        raise ShapeError(
            f"a {axes}-D convolution's weight has {axes + 2} axes, two for channels and then {sizes}",
            f"got a weight {tuple(w.shape)}",
            "reshape it",
        )
    return False


def _dtypes(
    x: Tensor, w: Tensor, bias: Tensor | None, accumulate: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands in the one dtype in which they are multiplied."""
    if x.dtype in INTEGERS and w.dtype in INTEGERS:
        wide = torch.int64 if accumulate is None else accumulate
        if wide not in INTEGERS:
            raise UsageError("accumulate must be an integer dtype", f"got {wide}", "use torch.int64 or torch.int32")
        if bias is not None and bias.dtype not in INTEGERS:
            raise UsageError("bias must be an integer tensor as the others are", f"got {bias.dtype}", "convert it")
        return x.to(wide), w.to(wide), None if bias is None else bias.to(wide)
    if accumulate is not None:
        raise UsageError("accumulate is for integer tensors", f"got {x.dtype} and {w.dtype}", "leave it out")
    if x.device.type in AUTOCAST_DEVICES and torch.is_autocast_enabled(x.device.type):
        narrow = torch.get_autocast_dtype(x.device.type)
        x, w = _autocast(x, narrow), _autocast(w, narrow)
        bias = None if bias is None else _autocast(bias, narrow)
    for name, tensor in (("input", x), ("weight", w), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.dtype not in FLOATS and tensor.dtype not in INTEGERS:
            raise UsageError(
                "a convolution takes float64, float32, bfloat16, float16 or integers of 8 to 64 bits",
                f"got {name} {tensor.dtype}",
                "convert it",
            )
        if tensor.dtype != x.dtype:
            raise UsageError(
                "input, weight and bias must have one dtype",
                f"got {x.dtype} input and {tensor.dtype} {name}",
                f"convert one, for example {name}.to({x.dtype})",
            )
        if tensor.device != x.device:
            raise UsageError(
                "input, weight and bias must be on one device",
                f"got input on {x.device} and {name} on {tensor.device}",
                f"move one, for example {name}.to({str(x.device)!r})",
            )
    return x, w, bias


def _autocast(t: Tensor, narrow: torch.dtype) -> Tensor:
    return t.to(narrow) if t.is_floating_point() and t.dtype != torch.float64 else t


def _check_bias(bias: Tensor | None, channels: int) -> None:
    if bias is not None and tuple(bias.shape) != (channels,):
        raise ShapeError(
            "bias must hold one number per out-channel", f"got {tuple(bias.shape)} for {channels}", f"use ({channels},)"
        )


def _channel_remedy(channels: int, per_group: int, groups: int) -> str:
    if per_group and channels % per_group == 0 and channels != per_group:
        return f"use groups={channels // per_group}, or a weight with {channels // groups} in its second place"
    return f"use a weight with {channels // groups} in its second place"
