"""Rules of element by element operators: each output element reads the elements at its own place, broadcasting.

The number beside a name is the floating-point operations per output element that `flops` counts beyond 2 macs. They are a
convention, not a measurement: one per addition, product, comparison or elementary function.
"""

from __future__ import annotations

from convolve.analysis.fields import Along, Dim, Every, Read, Wide
from convolve.analysis.maps import Map, table, taps
from convolve.analysis.rules.registry import Call, Facts, layer_rule

OPERATIONS: dict[int, str] = {
    0: "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout native_dropout identity "
    "clone contiguous detach to type float double half bfloat16 int long bool cpu alias copy _to_copy lift_fresh "
    "lift_fresh_copy requires_grad fill zero bernoulli "
    "_conj resolve_conj resolve_neg type_as masked_fill where clone_ detach_ "
    "normal uniform random exponential real",
    1: "add sub mul div neg abs relu relu6 hardtanh threshold clamp clamp_min clamp_max clip maximum minimum square "
    "sqrt rsqrt reciprocal exp log sign floor ceil round trunc pow sin cos tan tanh sigmoid eq ne lt le gt ge "
    "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not heaviside isnan isinf isfinite "
    "floor_divide true_divide remainder fmod rsub __and__ __or__ __xor__ __invert__ bitwise_xor erf log1p expm1 exp2 "
    "log2 log10 asin acos atan sinh cosh rrelu positive subtract multiply divide negative absolute float_power fmax fmin",
    2: "leaky_relu elu celu selu softplus logsigmoid log_sigmoid softsign hardshrink softshrink tanhshrink hardsigmoid "
    "prelu _prelu_kernel addcmul addcdiv lerp atan2 hypot",
    3: "silu hardswish mish",
    4: "gelu",
}


def _pointwise(operations: int) -> None:
    @layer_rule(OPERATIONS[operations])
    def pointwise(call: Call) -> Facts:
        reads = tuple(call.same(n) for n in range(len(call.step.tensors)))
        return Facts(extra=operations * call.output.numel, reads=reads)


for _operations in OPERATIONS:
    _pointwise(_operations)


@layer_rule(
    "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty", "input"
)
def made_anew(_: Call) -> Facts:
    """Only the shape is the argument's: no element is read."""
    return Facts(reads=())


@layer_rule("glu", "input dim")
def gated(call: Call) -> Facts:
    """a * sigmoid(b) of the two halves of a dimension."""
    shape = call.input.shape
    dim = call.get("dim", -1) % len(shape)
    half = shape[dim] // 2
    dims: list[Dim] = [Along(d) for d in range(len(shape))]
    dims[dim] = Along(dim, taps(shape[dim], half, [0, half]))
    return Facts(extra=2 * call.output.numel, reads=(call.read(dims),))


@layer_rule("softmax log_softmax softmin gumbel_softmax _softmax _log_softmax logsumexp", "input dim keepdim")
def softmax(call: Call) -> Facts:
    return Facts(
        extra=4 * call.input.numel, reads=(call.same(), _along(call)) if _same_shape(call) else (_along(call),)
    )


@layer_rule("cumsum cumprod cummax cummin logcumsumexp", "input dim")
def cumulative(call: Call) -> Facts:
    shape = call.input.shape
    dim = call.get("dim", -1) % max(1, len(shape))
    dims: list[Dim] = [Along(d) for d in range(len(shape))]
    if shape:
        dims[dim] = Along(dim, _prefix(shape[dim]))
    return Facts(extra=call.output.numel, reads=(call.read(dims),))


def _prefix(size: int) -> Map:
    return table(size, (range(j + 1) for j in range(size)))


def _same_shape(call: Call) -> bool:
    return call.output.shape == call.input.shape


def _along(call: Call) -> Read:
    """Everything along `dim`, pointwise elsewhere."""
    rank = len(call.input.shape)
    dim = call["dim"]
    chosen = (
        set(range(rank))
        if dim is None
        else {d % rank for d in ([dim] if isinstance(dim, int) else dim)}
        if rank
        else set()
    )
    kept = [d for d in range(rank) if d not in chosen]
    same = _same_shape(call) or bool(call["keepdim"])
    return call.read(
        [(Wide(d) if same else Every()) if d in chosen else Along(d if same else kept.index(d)) for d in range(rank)]
    )
