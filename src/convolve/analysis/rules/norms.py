"""Rules of normalisation. With stored statistics it is pointwise; with its own statistics it looks at all it averages."""

from __future__ import annotations

from convolve.analysis.fields import Along, Dim, Read, Wide
from convolve.analysis.maps import taps
from convolve.analysis.rules.registry import Call, Facts, layer_rule, others


def _with_statistics(call: Call, over: set[int]) -> tuple[Read, ...]:
    """Each output reads its own element, and all of the dimensions `over` (for the mean and the variance)."""
    rank = len(call.input.shape)
    dims: list[Dim] = [Wide(d) if d in over else Along(d) for d in range(rank)]
    return call.same(), call.read(dims)


@layer_rule(
    "batch_norm",
    "input running_mean running_var weight bias training momentum eps",
)
def batch_norm(call: Call) -> Facts:
    """y = (x - mean) / sqrt(var + eps) * weight + bias; folded, one product and one sum per element."""
    if call["training"] or call["running_mean"] is None:
        over = {d for d in range(len(call.input.shape)) if d != 1}
        return Facts(
            extra=7 * call.output.numel,
            reads=_with_statistics(call, over),
            note="batch statistics: sees the whole batch and map",
        )
    return Facts(extra=2 * call.output.numel, reads=(call.same(),))


@layer_rule(
    "native_batch_norm cudnn_batch_norm _native_batch_norm_legit", "input weight bias running_mean running_var training"
)
def native_batch_norm(call: Call) -> Facts:
    return batch_norm(call) if call.which == 0 else Facts(reads=(call.every(),))


@layer_rule("_native_batch_norm_legit_no_training", "input weight bias running_mean running_var")
def stored_batch_norm(call: Call) -> Facts:
    return Facts(extra=2 * call.output.numel, reads=(call.same(),)) if call.which == 0 else Facts()


@layer_rule("instance_norm", "input running_mean running_var weight bias use_input_stats")
def instance_norm(call: Call) -> Facts:
    if call["use_input_stats"] is False:
        return Facts(extra=2 * call.output.numel, reads=(call.same(),))
    axes = set(range(2, len(call.input.shape)))
    return Facts(extra=7 * call.output.numel, reads=_with_statistics(call, axes), note="statistics over the whole map")


@layer_rule("group_norm native_group_norm", "input num_groups weight bias")
def group_norm(call: Call) -> Facts:
    if call.which:
        return Facts(reads=(call.every(),))
    axes = set(range(1, len(call.input.shape)))
    return Facts(extra=7 * call.output.numel, reads=_with_statistics(call, axes), note="statistics over the whole map")


@layer_rule("layer_norm native_layer_norm rms_norm", "input normalized_shape weight bias")
def layer_norm(call: Call) -> Facts:
    if call.which:
        return Facts(reads=(call.every(),))
    rank, last = len(call.input.shape), len(call["normalized_shape"])
    return Facts(extra=7 * call.output.numel, reads=_with_statistics(call, set(range(rank - last, rank))))


@layer_rule("normalize", "input p dim")
def normalize(call: Call) -> Facts:
    dim = call.get("dim", 1)
    over = {d % len(call.input.shape) for d in ([dim] if isinstance(dim, int) else dim)}
    return Facts(extra=4 * call.output.numel, reads=_with_statistics(call, over))


@layer_rule("local_response_norm", "input size alpha beta k")
def local_response_norm(call: Call) -> Facts:
    """x / (k + alpha/size * sum of squares over `size` neighbouring channels) ** beta."""
    shape, size = call.input.shape, int(call["size"])
    offsets = [t - size // 2 for t in range(size)]
    dims: list[Dim] = [Along(d) for d in range(len(shape))]
    dims[1] = Along(1, taps(shape[1], shape[1], offsets))
    return Facts(extra=(size + 5) * call.output.numel, reads=(call.read(dims), *others(call, 0)))
