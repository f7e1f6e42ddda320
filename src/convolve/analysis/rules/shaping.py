"""Rules of operators that move, select, join or reduce elements."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

from convolve.analysis.fields import Along, Dim, Every, Only, Read, Reshape, Wide
from convolve.analysis.maps import Map, table, taps
from convolve.analysis.records import Tensor
from convolve.analysis.rules.registry import Call, Facts, layer_rule


@layer_rule(
    "view reshape flatten unflatten squeeze unsqueeze _unsafe_view _reshape_alias view_as reshape_as ravel", "input"
)
def reshape(_: Call) -> Facts:
    return Facts(reads=(Reshape(0),))


@layer_rule("permute", "input dims")
def permute(call: Call) -> Facts:
    rank = len(call.input.shape)
    order = call["dims"]
    if isinstance(order, int):  # Tensor.permute(0, 2, 1)
        order = [order, *call.get("rest", ())]
    order = [d % rank for d in order]
    return Facts(reads=(call.read([Along(order.index(d)) for d in range(rank)]),))


@layer_rule("transpose swapaxes swapdims", "input dim0 dim1")
def transpose(call: Call) -> Facts:
    rank = len(call.input.shape)
    order = list(range(rank))
    first, second = call["dim0"] % rank, call["dim1"] % rank
    order[first], order[second] = second, first
    return Facts(reads=(call.read([Along(order[d]) for d in range(rank)]),))


@layer_rule("t numpy_T matrix_H mT adjoint", "input")
def matrix_transpose(call: Call) -> Facts:
    rank = len(call.input.shape)
    order = [*range(rank - 2), rank - 1, rank - 2] if rank > 1 else list(range(rank))
    return Facts(reads=(call.read([Along(order[d]) for d in range(rank)]),))


@layer_rule("movedim moveaxis", "input source destination")
def movedim(call: Call) -> Facts:
    rank = len(call.input.shape)
    sources = [d % rank for d in _listed(call["source"])]
    targets = [d % rank for d in _listed(call["destination"])]
    rest = iter([d for d in range(rank) if d not in sources])
    order = [sources[targets.index(d)] if d in targets else next(rest) for d in range(rank)]
    return Facts(reads=(call.read([Along(order.index(d)) for d in range(rank)]),))


def _listed(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


@layer_rule("expand expand_as broadcast_to", "input")
def expand(call: Call) -> Facts:
    return Facts(reads=(call.same(),))


@layer_rule("broadcast_tensors meshgrid", "input")
def broadcast(call: Call) -> Facts:
    return Facts(reads=(call.same(min(call.which, len(call.step.tensors) - 1)),))


@layer_rule("cat concat concatenate", "tensors dim")
def join(call: Call) -> Facts:
    """Along the channels: side by side. Along a spatial axis: index ranges, without an endless rule."""
    rank = len(call.output.shape)
    dim = (call.get("dim", call.get("axis", 0))) % rank
    total, start, reads = call.output.shape[dim], 0, []
    for number, tensor in enumerate(call.step.tensors):
        if len(tensor.shape) != rank:  # torch lets an empty 1-d tensor pass
            continue
        size = tensor.shape[dim]
        dims: list[Dim] = [Along(d) for d in range(rank)]
        dims[dim] = Along(dim, _piece(size, start, total)) if size != total else Along(dim)
        reads.append(call.read(dims, number))
        start += size
    return Facts(reads=tuple(reads))


def _piece(size: int, start: int, total: int) -> Map:
    return table(size, ([j - start] if start <= j < start + size else [] for j in range(total)))


@layer_rule("stack", "tensors dim")
def stack(call: Call) -> Facts:
    rank = len(call.output.shape)
    dim = call.get("dim", 0) % rank
    dims = [Along(d if d < dim else d + 1) for d in range(rank - 1)]
    return Facts(reads=tuple(call.read(dims, n) for n in range(len(call.step.tensors))))


@layer_rule("split chunk tensor_split split_with_sizes unsafe_split unsafe_chunk", "input sections dim")
def split(call: Call) -> Facts:
    shape = call.input.shape
    dim = call.get("dim", 0) % len(shape)
    start = sum(output.shape[dim] for output in call.step.outputs[: call.which])
    return Facts(reads=(_narrowed(call, dim, start, 1, call.output.shape[dim]),))


@layer_rule("unbind", "input dim")
def unbind(call: Call) -> Facts:
    return Facts(reads=(_selected(call, call.get("dim", 0), call.which),))


@layer_rule("narrow", "input dim start length")
def narrow(call: Call) -> Facts:
    dim = call["dim"] % len(call.input.shape)
    return Facts(reads=(_narrowed(call, dim, int(call["start"]) % call.input.shape[dim], 1, call["length"]),))


@layer_rule("slice", "input dim start end step")
def slicing(call: Call) -> Facts:
    dim = call.get("dim", 0) % len(call.input.shape)
    cut = slice(call["start"], call["end"], call.get("step", 1)).indices(call.input.shape[dim])
    return Facts(reads=(_narrowed(call, dim, cut[0], cut[2], call.output.shape[dim]),))


@layer_rule("select", "input dim index")
def select(call: Call) -> Facts:
    return Facts(reads=(_selected(call, call["dim"], call["index"]),))


def _narrowed(call: Call, dim: int, start: int, step: int, size: int) -> Read:
    dims: list[Dim] = [Along(d) for d in range(len(call.input.shape))]
    if (start, step, size) != (0, 1, call.input.shape[dim]):
        dims[dim] = Along(dim, taps(call.input.shape[dim], size, [start], step))
    return call.read(dims)


def _selected(call: Call, dim: int, index: int) -> Read:
    shape = call.input.shape
    dim %= len(shape)
    only = Only(table(shape[dim], [[index % shape[dim]]]))
    return call.read([only if d == dim else Along(d if d < dim else d - 1) for d in range(len(shape))])


@layer_rule("getitem", "input index")
def getitem(call: Call) -> Facts:
    """Basic indexing exactly; indexing by a tensor or list reads the indexed dimension whole, since the data decides."""
    shape, index = call.input.shape, call["index"]
    keys = list(index) if isinstance(index, tuple) else [index]
    if any(not isinstance(key, (int, slice, EllipsisType, type(None))) or isinstance(key, bool) for key in keys):
        return Facts(reads=(call.every(),), data=True, note="indexed by data")
    taken = sum(key is not None and key is not Ellipsis for key in keys)
    fill = [slice(None)] * (len(shape) - taken)
    at = next((n for n, key in enumerate(keys) if key is Ellipsis), None)
    keys = [*keys, *fill] if at is None else [*keys[:at], *fill, *keys[at + 1 :]]
    dims: list[Dim] = []
    place = 0
    for key in keys:
        if key is None:
            place += 1
            continue
        size = shape[len(dims)]
        if isinstance(key, int):
            dims.append(Only(table(size, [[key % size]])))
            continue
        start, stop, step = key.indices(size)
        count = len(range(start, stop, step))
        dims.append(Along(place) if count == size and step == 1 else Along(place, taps(size, count, [start], step)))
        place += 1
    return Facts(reads=(call.read(dims),))


@layer_rule("setitem", "input index value")
def setitem(call: Call) -> Facts:
    """Part of the tensor is written: an element holds what it held, or some element of the value."""
    values = range(1, len(call.step.tensors))
    return Facts(reads=(call.same(0), *(call.every(n) for n in values)), data=bool(values), note="partly overwritten")


@layer_rule(
    "mean sum prod amax amin max min var std norm argmax argmin all any count_nonzero nansum nanmean median logsumexp "
    "linalg_vector_norm aminmax var_mean std_mean",
    "input dim keepdim",
)
def reduction(call: Call) -> Facts:
    """Reads everything along the reduced dimensions. max(x, y) and min(x, y) of two tensors are element by element."""
    name = call.step.op
    if name in ("max", "min") and len(call.step.tensors) == 2:
        return Facts(extra=call.output.numel, reads=(call.same(0), call.same(1)))
    given = call["dim"] if call["dim"] is not None else call["axis"]
    if name in ("norm", "linalg_vector_norm") and isinstance(call["p"], (tuple, list)):
        given = call["p"]
    return Facts(extra=call.input.numel, reads=(_reduced(call, given),))


def _reduced(call: Call, given: Any) -> Read:
    rank = len(call.input.shape)
    chosen = set(range(rank)) if given is None or given == [] else {int(d) % rank for d in _listed(given)}
    kept = [d for d in range(rank) if d not in chosen]
    keep = len(call.output.shape) == rank
    return call.read(
        [(Wide(d) if keep else Every()) if d in chosen else Along(d if keep else kept.index(d)) for d in range(rank)]
    )


@layer_rule("topk sort argsort kthvalue mode", "input k dim")
def sorting(call: Call) -> Facts:
    rank = len(call.input.shape)
    given = call["dim"] if call["dim"] is not None else (call["k"] if call.step.op in ("sort", "argsort") else -1)
    dim = (given if isinstance(given, int) else -1) % max(1, rank)
    return Facts(
        extra=call.input.numel, reads=(call.read([Every() if d == dim else Along(d) for d in range(rank)]),), data=True
    )


@layer_rule(
    "gather index_select take_along_dim index masked_select take scatter scatter_add index_add index_put", "input dim"
)
def by_data(call: Call) -> Facts:
    reads = tuple(call.every(n) for n in range(len(call.step.tensors)))
    return Facts(reads=reads, data=True, note="indexed by data")


@layer_rule("roll", "input shifts dims")
def roll(call: Call) -> Facts:
    shape = call.input.shape
    dims: list[Dim] = [Along(d) for d in range(len(shape))]
    if call["dims"] in (None, (), []):
        return Facts(reads=(call.every(),))
    for shift, dim in zip(_listed(call["shifts"]), _listed(call["dims"]), strict=True):
        size, d = shape[dim % len(shape)], dim % len(shape)
        if shift % max(1, size):
            dims[d] = Along(d, table(size, [[(j - shift) % size] for j in range(size)]))
    return Facts(reads=(call.read(dims),))


@layer_rule("flip", "input dims")
def flip(call: Call) -> Facts:
    shape = call.input.shape
    flipped = {d % len(shape) for d in _listed(call["dims"])}
    return Facts(
        reads=(call.read([Along(d, _mirrored(n)) if d in flipped else Along(d) for d, n in enumerate(shape)]),)
    )


def _mirrored(size: int) -> Map:
    return table(size, ([size - 1 - j] for j in range(size)))


@layer_rule("repeat tile", "input sizes")
def repeat(call: Call) -> Facts:
    shape, output = call.input.shape, call.output.shape
    ahead = len(output) - len(shape)
    dims: list[Dim] = [
        Along(d + ahead)
        if output[d + ahead] == n
        else Along(d + ahead, table(n, ([j % n] for j in range(output[d + ahead]))))
        for d, n in enumerate(shape)
    ]
    return Facts(reads=(call.read(dims),))


@layer_rule("repeat_interleave", "input repeats dim")
def interleave(call: Call) -> Facts:
    dim, times = call["dim"], call["repeats"]
    if dim is None or isinstance(times, Tensor):
        return Facts(reads=(call.every(),), data=True)
    dim %= len(call.input.shape)
    dims: list[Dim] = [Along(d) for d in range(len(call.input.shape))]
    dims[dim] = Along(dim, _repeated_each(call.input.shape[dim], int(times)))
    return Facts(reads=(call.read(dims),))


def _repeated_each(size: int, times: int) -> Map:
    return table(size, ([j // times] for j in range(size * times)))


@layer_rule("tril triu", "input diagonal")
def triangle(call: Call) -> Facts:
    return Facts(reads=(call.same(),))
