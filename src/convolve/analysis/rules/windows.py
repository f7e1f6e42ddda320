"""Rules of convolution, transposed convolution, pooling, padding and unfolding: geometry.Window with numbers in it.

macs of a convolution      n k (c/g) prod(kernel) prod(output)
macs of a transposed one   n c (k/g) prod(kernel) prod(input)
macs_valid                 kernel x positions replaced, axis by axis, by Window.valid_taps
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convolve.analysis.fields import Along, Dim, Every, Read
from convolve.analysis.maps import Map, adaptive, padded, sliding
from convolve.analysis.rules.registry import Call, Facts, layer_rule
from convolve.geometry import Window, same_padding

_CONV = "input weight bias stride padding dilation groups"


@layer_rule("conv1d conv2d conv3d", _CONV)
def convolution(call: Call) -> Facts:
    axes = len(_weight(call)) - 2
    window = _window(call, _weight(call)[2:], axes, call.get("stride", 1), call.input.shape[-axes:])
    return _convolution(call, window, call.get("groups", 1))


@layer_rule(
    "conv_transpose1d conv_transpose2d conv_transpose3d",
    "input weight bias stride padding output_padding groups dilation",
)
def transposed_convolution(call: Call) -> Facts:
    axes = len(_weight(call)) - 2
    forward = _window(call, _weight(call)[2:], axes, call.get("stride", 1))
    return transposed_window(call, forward.transposed(call.get("output_padding", 0)), _weight(call)[1])


@layer_rule("convolution _convolution")
def either_convolution(call: Call) -> Facts:
    return transposed_convolution(call) if call["transposed"] else convolution(call)


def _weight(call: Call) -> tuple[int, ...]:
    return tuple(call["weight"].shape)


def _window(
    call: Call, kernel: Sequence[int], axes: int, stride: int | Sequence[int], sizes: Sequence[int] = ()
) -> Window:
    padding, dilation = call.get("padding", 0), call.get("dilation", 1)
    if padding == "valid":
        padding = 0
    if isinstance(padding, str):
        plain = Window.of(kernel, stride, 0, dilation, axes=axes)
        padding = [
            same_padding(size, k, s, d, lower=padding == "same_lower")
            for size, k, s, d in zip(sizes, plain.kernel, plain.stride, plain.dilation, strict=True)
        ]
    return Window.of(kernel, stride, padding, dilation, axes=axes)


def _convolution(call: Call, window: Window, groups: int) -> Facts:
    return dense_window(call, window, call.input.shape[-window.axes - 1] // groups)


def dense_window(call: Call, window: Window, channels: int) -> Facts:
    """A window whose every tap multiplies `channels` input channels, with one result per output element."""
    axes, output = window.axes, call.output.shape
    maps = math.prod(output[:-axes])
    inputs, outputs = call.input.shape[-axes:], output[-axes:]
    valid = math.prod(window.valid_taps(a, inputs[a], outputs[a]) for a in range(axes))
    return Facts(
        macs=maps * channels * math.prod(window.kernel) * math.prod(outputs),
        macs_valid=maps * channels * valid,
        extra=_bias(call),
        reads=(windowed(call, window, mixed=1),),
    )


def transposed_window(call: Call, window: Window, per_group: int) -> Facts:
    """A window with input dilation: every input element is multiplied by every tap, for `per_group` output channels."""
    axes, inputs, output = window.axes, call.input.shape, call.output.shape
    valid = math.prod(window.valid_taps(a, inputs[-axes + a], output[-axes + a]) for a in range(axes))
    return Facts(
        macs=math.prod(inputs) * per_group * math.prod(window.kernel),
        macs_valid=math.prod(inputs[:-axes]) * per_group * valid,
        extra=_bias(call),
        reads=(windowed(call, window, mixed=1),),
    )


def _bias(call: Call) -> int:
    return call.output.numel if call.tensor("bias") is not None else 0


def windowed(call: Call, window: Window, mixed: int = 0) -> Read:
    """The last axes slide; the `mixed` dimensions before them are summed over; the rest is pointwise."""
    inputs, outputs, axes = call.input.shape, call.output.shape, window.axes
    rules = [sliding(window, a, inputs[-axes + a], outputs[-axes + a]) for a in range(axes)]
    return over_last(call, rules, mixed)


def over_last(call: Call, rules: Sequence[Map], mixed: int = 0) -> Read:
    """The last dimensions go by `rules`, the `mixed` ones before them are read whole, the rest is pointwise."""
    rank, axes = len(call.input.shape), len(rules)
    dims: list[Dim] = []
    for dim in range(rank):
        if dim >= rank - axes:
            dims.append(Along(dim, rules[dim - rank + axes]))
        else:
            dims.append(Every() if dim >= rank - axes - mixed else Along(dim))
    return call.read(dims)


_MAX = "input kernel_size stride padding dilation ceil_mode return_indices"


@layer_rule(
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices "
    "avg_pool1d avg_pool2d avg_pool3d",
    _MAX,
)
def pooling(call: Call) -> Facts:
    axes = int(call.step.op[8])
    kernel = _per_axis(call["kernel_size"], axes)
    stride = call["stride"] if call["stride"] not in (None, (), []) else kernel
    window = _window(call, kernel, axes, stride, call.input.shape[-axes:])
    return Facts(extra=call.output.numel * math.prod(window.kernel), reads=(windowed(call, window),))


# avg_pool's positional arguments differ from max_pool's after the padding
layer_rule("avg_pool1d avg_pool2d avg_pool3d", "input kernel_size stride padding ceil_mode count_include_pad")(pooling)


@layer_rule("lp_pool1d lp_pool2d lp_pool3d", "input norm_type kernel_size stride ceil_mode")
def power_pooling(call: Call) -> Facts:
    axes = int(call.step.op[7])
    kernel = _per_axis(call["kernel_size"], axes)
    window = Window.of(kernel, call.get("stride", kernel), axes=axes)
    return Facts(extra=2 * call.output.numel * math.prod(kernel), reads=(windowed(call, window),))


@layer_rule(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    "input output_size return_indices",
)
def adaptive_pooling(call: Call) -> Facts:
    axes = int(call.step.op[-2])
    inputs, outputs = call.input.shape[-axes:], call.output.shape[-axes:]
    rules = [adaptive(n, m) for n, m in zip(inputs, outputs, strict=True)]
    work = math.prod(sum(len(rule.reads(j)) for j in range(rule.outputs)) for rule in rules)
    return Facts(extra=math.prod(call.input.shape[:-axes]) * work, reads=(over_last(call, rules),))


@layer_rule("fractional_max_pool2d fractional_max_pool3d max_unpool1d max_unpool2d max_unpool3d", "input")
def scattered_pooling(call: Call) -> Facts:
    return Facts(
        extra=call.output.numel, reads=(_whole_maps(call),), data=True, note="which pixels depends on the data"
    )


def _whole_maps(call: Call) -> Read:
    """Batch and channel pointwise, the rest whole."""
    return call.read([Along(d) if d < 2 else Every() for d in range(len(call.input.shape))])


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value) * (axes if len(value) == 1 else 1)


@layer_rule("pad constant_pad_nd", "input pad mode value")
def padding(call: Call) -> Facts:
    pairs = _pairs(call["pad"])
    return _padding(call, pairs, call.get("mode", "constant"))


@layer_rule(
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d",
    "input padding",
)
def named_padding(call: Call) -> Facts:
    return _padding(call, _pairs(call["padding"]), "reflect" if call.step.op.startswith("reflection") else "replicate")


def _pairs(flat: Sequence[int]) -> list[tuple[int, int]]:
    return [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]


def _padding(call: Call, pairs: Sequence[tuple[int, int]], mode: str) -> Facts:
    """`pairs` begin with the last dimension, as torch has it."""
    shape = call.input.shape
    rules = [padded(shape[-1 - a], *pair, mode) for a, pair in enumerate(pairs)]
    return Facts(reads=(over_last(call, rules[::-1]),))


@layer_rule("unfold im2col", "input kernel_size dilation padding stride")
def unfolding(call: Call) -> Facts:
    """Columns: (n, c, h, w) -> (n, c r s, p q). The positions are joined into one dimension, so each reads whole maps at most."""
    if call["dimension"] is not None or len(call.input.shape) != 4:
        return Facts(reads=(call.every(),))
    return Facts(reads=(call.read([Along(0), Every(), Every(), Every()], exact=False),))


@layer_rule("fold col2im", "input output_size kernel_size dilation padding stride")
def folding(call: Call) -> Facts:
    return Facts(extra=call.input.numel, reads=(call.read([Along(0), Every(), Every()], exact=False),))
