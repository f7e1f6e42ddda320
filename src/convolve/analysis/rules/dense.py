"""Rules of matrix products: linear, matmul, einsum, attention, bilinear, embedding."""

from __future__ import annotations

import math

from convolve.analysis.fields import Along, Dim, Every, Read, Wide
from convolve.analysis.rules.registry import Call, Facts, layer_rule, others


@layer_rule("linear", "input weight bias")
def linear(call: Call) -> Facts:
    features = call.input.shape[-1]
    dims: list[Dim] = [Along(d) for d in range(len(call.input.shape) - 1)]
    bias = call.output.numel if call.tensor("bias") is not None else 0
    # The weight of a hypernetwork is a tensor of the graph too: each output reads a row of it.
    weight = () if call["weight"].constant else (call.every(1),)
    return Facts(call.output.numel * features, extra=bias, reads=(call.read([*dims, Wide(len(dims))]), *weight))


@layer_rule("matmul mm bmm mv dot inner", "input other")
def product(call: Call) -> Facts:
    return Facts(call.output.numel * call.input.shape[-1], reads=_factors(call, 0, 1))


@layer_rule("addmm baddbmm addmv addbmm", "input batch1 batch2")
def added_product(call: Call) -> Facts:
    summed = call.step.tensors[1].shape[-1]
    return Facts(call.output.numel * summed, extra=call.output.numel, reads=(call.same(0), *_factors(call, 1, 2)))


def _factors(call: Call, left: int, right: int) -> tuple[Read, Read]:
    """The reads of a product (…, a, b) @ (…, b, c): the left one's rows, the right one's columns."""
    rank = len(call.output.shape)
    first, second = call.step.tensors[left].shape, call.step.tensors[right].shape
    vector, column = len(first) == 1, len(second) == 1

    def batch(shape: tuple[int, ...], size: int) -> list[Dim]:
        ahead = rank - (2 - vector - column) - size
        return [
            Every() if shape[d] == 1 and call.output.shape[d + ahead] != 1 else Along(d + ahead) for d in range(size)
        ]

    last: Dim = Every() if column else Wide(rank - 1)
    rows: list[Dim] = [last] if vector else [*batch(first, len(first) - 2), Along(rank - 2 + column), last]
    columns: list[Dim] = [Every()] if column else [*batch(second, len(second) - 2), Every(), Along(rank - 1)]
    return call.read(rows, left), call.read(columns, right)


@layer_rule("einsum", "equation")
def einsum(call: Call) -> Facts:
    equation = str(call["equation"]).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or len(terms) != len(call.step.tensors):
        return Facts(
            None, reads=tuple(call.every(n) for n in range(len(call.step.tensors))), note="einsum not understood"
        )
    sizes = {
        letter: size
        for term, tensor in zip(terms, call.step.tensors, strict=True)
        for letter, size in zip(term, tensor.shape, strict=True)
    }
    reads = tuple(
        call.read([Along(right.index(letter)) if letter in right else Every() for letter in term], n)
        for n, term in enumerate(terms)
    )
    macs = math.prod(sizes.values()) if len(terms) == 2 else (0 if len(terms) == 1 else None)
    note = "more than two factors: the order of products decides the count" if macs is None else ""
    return Facts(macs, reads=reads, note=note)


@layer_rule("scaled_dot_product_attention", "query key value attn_mask dropout_p is_causal scale")
def attention(call: Call) -> Facts:
    """softmax(q k' / sqrt(e)) v: l s e + l s v multiply-adds per head; a query reads every key and value."""
    query, key, value = (tensor.shape for tensor in call.step.tensors[:3])
    heads = math.prod(call.output.shape[:-2])
    macs = heads * query[-2] * key[-2] * (query[-1] + value[-1])
    rank = len(call.output.shape)
    whole: list[Dim] = [*(Along(d) for d in range(rank - 2)), Every(), Every()]
    reads = [call.read([*(Along(d) for d in range(rank - 1)), Every()]), call.read(whole, 1), call.read(whole, 2)]
    return Facts(macs, extra=4 * heads * query[-2] * key[-2], reads=tuple(reads))


@layer_rule(
    "multi_head_attention_forward",
    "query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn dropout_p "
    "out_proj_weight out_proj_bias",
)
def multi_head_attention(call: Call) -> Facts:
    """Four projections and the two products; the sequence is dimension 0 (torch's functional form), the batch 1."""
    query, key, value = (call[name].shape for name in ("query", "key", "value"))
    width = int(call["embed_dim_to_check"])
    batch = query[1] if len(query) == 3 else 1
    projections = batch * width * (query[0] * (query[-1] + width) + key[0] * key[-1] + value[0] * value[-1])
    macs = projections + 2 * batch * query[0] * key[0] * width
    reads = []
    for name in ("query", "key", "value"):
        number = call.tensor(name)
        if number is not None:
            if call.which == 1:
                reads.append(call.every(number))
            else:
                here = name == "query"
                dims: list[Dim] = [Along(0) if here else Every()]
                reads.append(call.read([*dims, *([Along(1)] if len(query) == 3 else []), Every()], number))
    return Facts(macs, extra=4 * batch * query[0] * key[0] * int(call["num_heads"]), reads=tuple(reads))


@layer_rule("bilinear", "input1 input2 weight bias")
def bilinear(call: Call) -> Facts:
    weight = call["weight"].shape
    dims: list[Dim] = [Along(d) for d in range(len(call.input.shape) - 1)]
    rows = math.prod(call.output.shape[:-1])
    macs = rows * weight[0] * weight[1] * weight[2] + rows * weight[0] * weight[2]
    return Facts(macs, reads=(call.read([*dims, Every()]), call.read([*dims, Every()], 1)))


@layer_rule("embedding", "input weight")
def embedding(call: Call) -> Facts:
    number = call.tensor("input") or 0
    return Facts(reads=(Read(number, tuple(Along(d) for d in range(len(call.step.tensors[number].shape)))),))


@layer_rule("embedding_bag", "input weight offsets")
def embedding_bag(call: Call) -> Facts:
    return Facts(extra=call.input.numel, reads=(call.every(), *others(call, 0)), data=True)
