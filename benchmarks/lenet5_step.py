# ruff: noqa: ARG001, ARG005 - Numba calls what generates code with arguments that not every one needs
"""One training step of LeNet-5 (1998) as one serial kernel: sixteen images side by side, one in each lane of a SIMD vector.

The network is `convolve.models`' own and so are its weights; this is the same function of them, and its loss and gradients are
tested against autograd's. Why: with 6 and 16 maps, torch's convolutions, poolings and tanh reach a few percent of a core.
With the image as the innermost axis every loop is a vector loop, whatever the layer's width:

    convolution     one row of one output map in registers; per weight one broadcast and one fma per pixel
    its weights     the 25 taps of one pair of maps in registers; per pixel one load of the gradient and 25 fma
    its input       one row of one input map in registers, scattered into from every connected output map
    tanh            Lambert's fraction at x / 4, doubled twice before the only division
    C5 and F6       weight gradients are products over the whole batch: torch's

Traffic: the maps of sixteen images are about 1 MB and stay in the second-level cache from the first layer to the last and back.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from torch import Tensor, nn

L = 16  # lanes: one register of AVX-512; LLVM splits it where registers are narrower
A, S = 1.7159, 2 / 3
_KIND = ir.VectorType(ir.FloatType(), L)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"lenet5_float32x{L}")


_lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _KIND)


def _place(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


@intrinsic
def load(typing: Any, array: Any, i: Any) -> Any:
    """array[i] … array[i + 15]"""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(_place(context, builder, signature.args[0], *args), _KIND.as_pointer())
        value = builder.load(place)
        value.align = 4
        return value

    return _lanes(array, types.intp), code


@intrinsic
def store(typing: Any, array: Any, i: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(_place(context, builder, signature.args[0], *args[:2]), _KIND.as_pointer())
        builder.store(args[2], place).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@intrinsic
def spread(typing: Any, array: Any, i: Any) -> Any:
    """array[i] in every lane"""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar = builder.load(_place(context, builder, signature.args[0], *args))
        first = builder.insert_element(ir.Constant(_KIND, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), L), [0] * L)
        return builder.shuffle_vector(first, ir.Constant(_KIND, ir.Undefined), mask)

    return _lanes(array, types.intp), code


@intrinsic
def zero(typing: Any) -> Any:
    return _lanes(), lambda context, builder, signature, args: ir.Constant(_KIND, [0.0] * L)


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_KIND, [_KIND] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{L}f32"), args)

    return _lanes(a, b, c), code


def _arithmetic(instruction: Any) -> Any:
    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        return _lanes(a, b), lambda context, builder, signature, args: instruction(builder, *args)

    return operation


add, sub = _arithmetic(lambda builder, a, b: builder.fadd(a, b)), _arithmetic(lambda builder, a, b: builder.fsub(a, b))
mul, div = _arithmetic(lambda builder, a, b: builder.fmul(a, b)), _arithmetic(lambda builder, a, b: builder.fdiv(a, b))
smaller = _arithmetic(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
larger = _arithmetic(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


def _written(name: str, arguments: str, lines: list[str]) -> Any:
    """A function whose register tile is written out: Numba keeps no array in registers."""
    names: dict[str, Any] = {"load": load, "store": store, "spread": spread, "zero": zero, "fma": fma}
    exec("\n".join([f"def {name}({arguments}):", *(f"    {line}" for line in lines)]), names)
    return njit(names[name], nogil=True)


def _convolution(width: int) -> Any:
    """One row of an output map += one 5x5 kernel over an input map: `out`, `x`, `w` from the offsets o, i, j; rows of `size` pixels."""
    q = range(width)
    return _written(
        f"convolution{width}",
        "out, o, x, i, size, w, j",
        [f"c{n} = load(out, o + {n * L})" for n in q]
        + ["for r in range(5):", "    row = i + r * size * 16"]
        + [
            line
            for s in range(5)
            for line in [f"    k = spread(w, j + r * 5 + {s})"]
            + [f"    c{n} = fma(k, load(x, row + {(n + s) * L}), c{n})" for n in q]
        ]
        + [f"store(out, o + {n * L}, c{n})" for n in q],
    )


def _weight_gradient() -> Any:
    """The 25 taps (per lane) of one pair of maps += gradient map times windows of the input map."""
    taps = [(r, s) for r in range(5) for s in range(5)]
    return _written(
        "weight_gradient",
        "dw, j, g, o, side, x, i, size",
        [f"c{r}{s} = load(dw, j + {(r * 5 + s) * L})" for r, s in taps]
        + ["for p in range(side):", "    for q in range(side):"]
        + ["        v = load(g, o + (p * side + q) * 16)", "        at = i + (p * size + q) * 16"]
        + [f"        c{r}{s} = fma(v, load(x, at + ({r} * size + {s}) * 16), c{r}{s})" for r, s in taps]
        + [f"store(dw, j + {(r * 5 + s) * L}, c{r}{s})" for r, s in taps],
    )


def _input_gradient() -> Any:
    """One row of 14 of an input map += one row of the 5x5 kernel times one row of 10 of an output map's gradient."""
    return _written(
        "input_gradient",
        "dx, i, g, o, w, j",
        [f"c{n} = load(dx, i + {n * L})" for n in range(14)]
        + [
            line
            for s in range(5)
            for line in [f"k = spread(w, j + {s})"]
            + [f"c{n + s} = fma(k, load(g, o + {n * L}), c{n + s})" for n in range(10)]
        ]
        + [f"store(dx, i + {n * L}, c{n})" for n in range(14)],
    )


def _product(tile: int) -> Any:
    """out[k] += sum_j w[k a + j b] x[j], `tile` rows at a time; `rows` is a multiple of it."""
    return _written(
        f"product{tile}",
        "out, x, w, rows, columns, a, b",
        [f"for k in range(0, rows, {tile}):"]
        + [f"    c{n} = load(out, (k + {n}) * 16)" for n in range(tile)]
        + ["    for j in range(columns):", "        v = load(x, j * 16)"]
        + [f"        c{n} = fma(spread(w, (k + {n}) * a + j * b), v, c{n})" for n in range(tile)]
        + [f"    store(out, (k + {n}) * 16, c{n})" for n in range(tile)],
    )


convolution28, convolution10 = _convolution(28), _convolution(10)
weight_gradient, input_gradient = _weight_gradient(), _input_gradient()
product20, product12 = _product(20), _product(12)


# x = S z / 4; then the fraction's numerator and denominator, and 2 A
_FRACTION = np.array(
    [S / 4, 2.3, -2.3, 5 / 39, 2 / 715, 1 / 135135, 1, 6 / 13, 10 / 429, 4 / 19305, 2, 2 * A], np.float32
)
_SLOPE = np.array([S * A, -S / A], np.float32)  # of `squash` where it gives a: S A - S/A a²


@njit(nogil=True)
def squash(z):
    """A tanh(S z), in place."""
    f = _FRACTION
    one, two = spread(f, 6), spread(f, 10)
    for i in range(0, z.size, L):
        u = larger(smaller(mul(load(z, i), spread(f, 0)), spread(f, 1)), spread(f, 2))
        v = mul(u, u)
        p = mul(u, fma(v, fma(v, fma(v, spread(f, 5), spread(f, 4)), spread(f, 3)), one))
        q = fma(v, fma(v, fma(v, spread(f, 9), spread(f, 8)), spread(f, 7)), one)
        p, q = mul(two, mul(p, q)), fma(p, p, mul(q, q))
        store(z, i, div(mul(spread(f, 11), mul(p, q)), fma(p, p, mul(q, q))))


@njit(nogil=True)
def through(g, a):
    """g times the slope of `squash` where it gives a, in place."""
    for i in range(0, g.size, L):
        v = load(a, i)
        store(g, i, mul(load(g, i), fma(mul(v, v), spread(_SLOPE, 1), spread(_SLOPE, 0))))


@njit(nogil=True)
def fill(z, bias, size):
    """Map k of z, `size` pixels, becomes bias[k]."""
    for k in range(bias.size):
        value = spread(bias, k)
        for i in range(k * size, (k + 1) * size):
            store(z, i * L, value)


@njit(nogil=True)
def subsample(x, sums, out, w, b, half):
    """Sums of 2x2 windows of maps of side 2 half, and w · sum + b."""
    for c in range(w.size):
        weight, bias = spread(w, c), spread(b, c)
        for p in range(half):
            for q in range(half):
                i, o = ((c * 2 * half + 2 * p) * 2 * half + 2 * q) * L, ((c * half + p) * half + q) * L
                below = i + 2 * half * L
                total = add(add(load(x, i), load(x, i + L)), add(load(x, below), load(x, below + L)))
                store(sums, o, total)
                store(out, o, fma(weight, total, bias))


@njit(nogil=True)
def unsubsample(g, sums, a, dx, w, dw, db, half):
    """Through `subsample` and the squashing before it, whose output a is: g to dx, and to dw and db (per lane)."""
    for c in range(w.size):
        weight, by_weight, by_bias = spread(w, c), load(dw, c * L), load(db, c * L)
        for p in range(half):
            for q in range(half):
                i, o = ((c * 2 * half + 2 * p) * 2 * half + 2 * q) * L, ((c * half + p) * half + q) * L
                value = load(g, o)
                by_weight, by_bias = fma(value, load(sums, o), by_weight), add(by_bias, value)
                value = mul(value, weight)
                for row in range(2):
                    for column in range(2):
                        at = i + (row * 2 * half + column) * L
                        v = load(a, at)
                        store(dx, at, mul(value, fma(mul(v, v), spread(_SLOPE, 1), spread(_SLOPE, 0))))
        store(dw, c * L, by_weight)
        store(db, c * L, by_bias)


@njit(nogil=True)
def add_maps(g, db, size):
    """Each map's sum is added to db (per lane)."""
    for k in range(db.size // L):
        total = load(db, k * L)
        for i in range(k * size, (k + 1) * size):
            total = add(total, load(g, i * L))
        store(db, k * L, total)


@njit(nogil=True)
def answer(a, prototypes, j, labels, valid, share, g):
    """MAP loss of `valid` images, and its gradient by F6's output a, times `share`."""
    classes, width = prototypes.shape
    loss = 0.0
    y = np.zeros(classes)
    g[:] = 0
    for n in range(valid):
        nearest = j
        for c in range(classes):
            y[c] = 0
            for i in range(width):
                y[c] += (a[i * L + n] - prototypes[c, i]) ** 2
            nearest = min(nearest, y[c])
        total = np.exp(nearest - j)
        for c in range(classes):
            total += np.exp(nearest - y[c])
        loss += y[labels[n]] + np.log(total) - nearest
        for c in range(classes):
            pull = (1.0 if c == labels[n] else 0.0) - np.exp(nearest - y[c]) / total
            for i in range(width):
                g[i * L + n] += share * pull * 2 * (a[i * L + n] - prototypes[c, i])
    return loss


@njit(nogil=True)
def step(
    room,
    images,
    labels,
    outputs,
    inputs,
    prototypes,
    j,
    w1,
    b1,
    w2,
    b2,
    w3,
    b3,
    w4,
    b4,
    w5,
    b5,
    w6,
    b6,
    d1,
    e1,
    d2,
    e2,
    d3,
    e3,
    d4,
    e4,
    batch4,
    batch5,
    grad5,
    grad6,
):
    """Loss (sum) of n images; adds to the gradients d, e (per lane) of C1 to S4 and leaves what C5's and F6's are products of."""
    n = labels.size
    x, a1, s2, a2, a3, s4, a4, a5, a6, g1, g2, g3, g4, g5, g6 = room
    loss = 0.0
    for start in range(0, n, L):
        valid = min(L, n - start)
        for image in range(valid):
            for i in range(1024):
                x[i * L + image] = images[start + image, i]
        fill(a1, b1, 784)
        for k in range(6):
            for p in range(28):
                convolution28(a1, (k * 28 + p) * 28 * L, x, p * 32 * L, 32, w1, k * 25)
        squash(a1)
        subsample(a1, s2, a2, w2, b2, 14)
        squash(a2)
        fill(a3, b3, 100)
        for pair in range(outputs.size):
            for p in range(10):
                o, i = (outputs[pair] * 10 + p) * 10 * L, (inputs[pair] * 14 + p) * 14 * L
                convolution10(a3, o, a2, i, 14, w3, pair * 25)
        squash(a3)
        subsample(a3, s4, a4, w4, b4, 5)
        squash(a4)
        fill(a5, b5, 1)
        product20(a5, a4, w5, 120, 400, 400, 1)
        squash(a5)
        fill(a6, b6, 1)
        product12(a6, a5, w6, 84, 120, 120, 1)
        squash(a6)
        loss += answer(a6, prototypes, j, labels[start : start + valid], valid, 1.0 / n, g6)
        through(g6, a6)
        g5[:] = 0
        product20(g5, g6, w6, 120, 84, 1, 120)
        through(g5, a5)
        g4[:] = 0
        product20(g4, g5, w5, 400, 120, 1, 400)
        through(g4, a4)
        unsubsample(g4, s4, a3, g3, w4, d4, e4, 5)
        add_maps(g3, e3, 100)
        g2[:] = 0
        for pair in range(outputs.size):
            k, c = outputs[pair], inputs[pair]
            weight_gradient(d3, pair * 25 * L, g3, k * 100 * L, 10, a2, c * 196 * L, 14)
            for p in range(10):
                for r in range(5):
                    input_gradient(g2, (c * 14 + p + r) * 14 * L, g3, (k * 10 + p) * 10 * L, w3, pair * 25 + r * 5)
        through(g2, a2)
        unsubsample(g2, s2, a1, g1, w2, d2, e2, 14)
        add_maps(g1, e1, 784)
        for k in range(6):
            weight_gradient(d1, k * 25 * L, g1, k * 784 * L, 28, x, 0, 32)
        for image in range(valid):
            for i in range(400):
                batch4[start + image, i] = a4[i * L + image]
            for i in range(120):
                batch5[start + image, i] = a5[i * L + image]
                grad5[start + image, i] = g5[i * L + image]
            for i in range(84):
                grad6[start + image, i] = g6[i * L + image]
    return loss


@cache
def _room() -> tuple[np.ndarray, ...]:
    """The maps of sixteen images and their gradients."""
    maps = (1024, 4704, 1176, 1176, 1600, 400, 400, 120, 84, 4704, 1176, 1600, 400, 120, 84)
    return tuple(np.zeros(numbers * L, np.float32) for numbers in maps)


def loss_and_gradients(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The mean loss of (n, 1, 32, 32) images; every parameter's `grad` is set. For a LeNet-5 of `convolve.models`, float32."""
    n = len(labels)
    layers = (net.c1, net.s2, net.c3, net.s4, net.c5, net.f6)
    weights = [tensor.detach().view(-1).numpy() for layer in layers for tensor in (layer.weight, layer.bias)]
    summed = [torch.zeros(tensor.numel(), L) for layer in layers[:4] for tensor in (layer.weight, layer.bias)]
    inner, fifth, back5, back6 = (torch.empty(n, width) for width in (400, 120, 120, 84))
    loss = step(
        _room(), images.reshape(n, 1024).numpy(), labels.numpy(), net.c3.outputs.numpy(), net.c3.inputs.numpy(),
        net.out.prototypes.numpy(), net.criterion.j, *weights, *(tensor.view(-1).numpy() for tensor in summed),
        inner.numpy(), fifth.numpy(), back5.numpy(), back6.numpy(),
    )  # fmt: skip
    gradients = [tensor.sum(1) for tensor in summed] + [back5.T @ inner, back5.sum(0), back6.T @ fifth, back6.sum(0)]
    for gradient, parameter in zip(gradients, (p for layer in layers for p in (layer.weight, layer.bias)), strict=True):
        parameter.grad = gradient.view(parameter.shape)
    return float(loss) / n
