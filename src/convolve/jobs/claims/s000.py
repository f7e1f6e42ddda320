"""Text S000: the convolution layer."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Sequence

import torch

from convolve.errors import UsageError
from convolve.geometry import Window
from convolve.jobs.claims.record import Claim, Fact, near, same, true
from convolve.jobs.learn_kernel import curvatures, edge_example, learn_kernel
from convolve.nn.plain import Conv2D
from convolve.ops.conv import Ints, conv2d
from convolve.ops.fold import unfold
from convolve.ops.plain import corr2d

GRID = torch.arange(9.0).reshape(3, 3)
KERNEL = torch.tensor([[0.0, 1.0], [2.0, 3.0]])


def corr2d_slides() -> list[Fact]:
    return [same("corr2d of 0..8 (3x3) with [[0, 1], [2, 3]]", corr2d(GRID, KERNEL), [[19, 25], [37, 43]])]


def layer_adds_a_bias() -> list[Fact]:
    torch_state = torch.get_rng_state()
    layer = Conv2D(kernel_size=(2, 2))
    torch.set_rng_state(torch_state)
    return [
        same("shape of weight and bias", [list(layer.weight.shape), list(layer.bias.shape)], [[2, 2], [1]]),
        true("forward is corr2d plus bias", torch.equal(layer(GRID), corr2d(GRID, layer.weight) + layer.bias)),
    ]


def edges_are_found() -> list[Fact]:
    x, y = edge_example()
    turned = corr2d(x.T.contiguous(), torch.tensor([[1, -1]]))
    return [
        same("size of the result", list(y.shape), [6, 7]),
        same("every row", y, [[0, 1, 0, 0, 0, -1, 0]] * 6),
        same("of the turned picture: size, and the largest value", [turned.shape, turned.abs().max()], [[8, 5], 0]),
    ]


def kernel_is_learned() -> list[Fact]:
    x, y = edge_example()
    with_bias, without = curvatures(x, y, True), curvatures(x, y, False)
    learned = learn_kernel(steps=400)
    alone = learn_kernel(steps=40, lr=0.03, bias=False).steps
    try:
        learn_kernel(lr=0.03)
        diverges = False
    except UsageError:
        diverges = 1 - 0.03 * max(with_bias) < -1
    return [
        *(
            near("curvature with bias", got, want, 1e-3)
            for got, want in zip(with_bias, (12, 19.6932, 124.3068), strict=True)
        ),
        *(near("curvature without bias", got, want, 1e-9) for got, want in zip(without, (12, 60), strict=True)),
        near("largest learning rate with bias", 2 / max(with_bias), 0.016089, 1e-6),
        *(
            near("factor per step at 0.01", got, want, 1e-4)
            for got, want in zip(learned.factors, (0.88, 0.80307, -0.24307), strict=True)
        ),
        near("loss ratio over two epochs at 0.03 without bias", alone[21].loss / alone[19].loss, 0.4096, 1e-3),
        near("distance from ([1, -1], 0) after 400 steps", learned.distance, 0, 1e-5),
        true("at 0.03 with the bias it diverges", diverges),
    ]


def flipping_matters_only_for_fixed_kernels() -> list[Fact]:
    flipped = conv2d(GRID, KERNEL, flip_kernel=True)
    x = torch.randn(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randn(8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).flatten()
    rows = unfold(x[None], (2, 3), orientation="rows")
    by_correlation = torch.linalg.lstsq(rows, y[:, None]).solution
    by_convolution = torch.linalg.lstsq(rows.flip(1), y[:, None]).solution
    return [
        true("convolution is correlation with K turned around", torch.equal(flipped, corr2d(GRID, KERNEL.flip(0, 1)))),
        same("convolution of 0..8 with the same K differs", flipped, [[5, 11], [23, 29]]),
        true(
            "the best kernel for a convolution is the turned one",
            torch.allclose(by_convolution, by_correlation.flip(0), atol=1e-12),
        ),
        true("and predicts the same", torch.allclose(rows.flip(1) @ by_convolution, rows @ by_correlation, atol=1e-12)),
    ]


def two_layers_see_everything() -> list[Fact]:
    x = GRID.clone().requires_grad_()
    y = corr2d(x, torch.ones(2, 2))
    z = corr2d(y, torch.ones(2, 2))
    by_y, by_x = torch.autograd.grad(z.sum(), (y, x))
    return [
        same("elements of Y that z depends on", int((by_y != 0).sum()), 4),
        same("elements of X that z depends on", int((by_x != 0).sum()), 9),
    ]


def sizes_follow_the_formula() -> list[Fact]:
    goldens: list[tuple[tuple[int, int], Ints, Ints, Ints, list[int]]] = [
        ((8, 8), 3, 1, 1, [8, 8]),
        ((8, 8), (5, 3), (2, 1), 1, [8, 8]),
        ((8, 8), 3, 1, 2, [4, 4]),
        ((8, 8), (3, 5), (0, 1), (3, 4), [2, 2]),
    ]
    facts = [
        same(
            f"{size} kernel {k} padding {p} per side stride {s}",
            conv2d(torch.zeros(1, 1, *size), torch.zeros(1, 1, *_pair(k)), padding=p, stride=s).shape[2:],
            want,
        )
        for size, k, p, s, want in goldens
    ]
    cases = list(itertools.product(range(4, 20), (1, 2, 3, 5), range(5), (1, 2, 3)))
    right = all(
        Window.of(k, s, ((p // 2, p - p // 2),), axes=1).output_size((n,)) == ((n - k + p + s) // s,)
        for n, k, p, s in cases
        if n + p >= k
    )
    kept = all(
        Window.of(k, 1, ((k // 2, k - 1 - k // 2),), axes=1).output_size((n,)) == (n,)
        for n in range(3, 9)
        for k in (2, 3, 5)
    )
    return [
        *facts,
        true(f"floor((n - k + p + s) / s) in {len(cases)} cases", right),
        true("p = k - 1 keeps the size, also for even k", kept),
        same(
            "even kernel, one zero: torch's 'same' puts it after, 'same_lower' before",
            [conv2d(torch.tensor([[1.0, 2.0]]), torch.ones(1, 2), padding=side) for side in ("same", "same_lower")],
            [[[3, 2]], [[1, 3]]],
        ),
    ]


def channels_add_up_and_filters_stack() -> list[Fact]:
    x = torch.stack([GRID, GRID + 1])
    k = torch.stack([KERNEL, KERNEL + 1])
    stacked = conv2d(x, torch.stack([k, k + 1, k + 2]))
    return [
        same("two input channels", conv2d(x, k[None])[0], [[56, 72], [104, 120]]),
        same("filters K, K + 1, K + 2: the last two", stacked[1:], [[[76, 100], [148, 172]], [[96, 128], [192, 224]]]),
    ]


LISTING = """
X = torch.ones(6, 8)
X[:, 2:6] = 0
K = torch.tensor([[1, -1]])
Y = corr2d(X, K)
conv2d = Conv2D(kernel_size=(1, 2))
step = 20
lr = 0.01
for i in range(step):
    Y_hat = conv2d(X)
    l = ((Y_hat - Y) ** 2).sum()
    l.backward()
    conv2d.weight.data -= lr * conv2d.weight.grad
    conv2d.bias.data -= lr * conv2d.bias.grad
    conv2d.weight.grad.fill_(0)
    conv2d.bias.grad.fill_(0)
    if (i + 1) % 5 == 0:
        print('Step %d, loss %.3f' % (i + 1, l.item()))
"""


def the_listings_run() -> list[Fact]:
    import convolve

    names = {"torch": torch, "corr2d": convolve.corr2d, "Conv2D": convolve.Conv2D}
    printed = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(printed):
        torch.manual_seed(0)
        exec(LISTING, names)
    lines = printed.getvalue().split("\n")[:-1]
    losses = [float(line.rpartition(" ")[2]) for line in lines]
    return [
        same("what is printed", [line.partition(",")[0] for line in lines], [f"Step {n}" for n in (5, 10, 15, 20)]),
        true("each printed loss is below the one before", losses == sorted(losses, reverse=True)),
        near("loss at step 20", losses[-1], 0, 0.1),
    ]


def deeper_layers_see_more() -> list[Fact]:
    fields = []
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    y = x
    for _ in range(4):
        y = conv2d(y, torch.ones(1, 1, 3, 3), padding=1)
        (gradient,) = torch.autograd.grad(y[0, 0, 7, 7], x, retain_graph=True)
        fields.append(int((gradient[0, 0, 7] != 0).sum()))
    exceeds = [2 * layers + 1 > 6 for layers in range(1, 5)]
    return [
        same("field after 1 to 4 layers of 3x3", fields, [3, 5, 7, 9]),
        same("on a 6 x 6 input it exceeds the input from layer", 1 + exceeds.index(True), 3),
    ]


def _pair(k: int | Sequence[int]) -> tuple[int, ...]:
    return (k, k) if isinstance(k, int) else tuple(k)


CLAIMS = (
    Claim(
        "S000-1",
        "corr2d slides a kernel over an array from the top left, multiplies element by element and sums.",
        "holds",
        corr2d_slides,
    ),
    Claim(
        "S000-2",
        "A convolution layer is corr2d plus a scalar bias, both trainable.",
        "holds",
        layer_adds_a_bias,
    ),
    Claim(
        "S000-3",
        "The kernel [1, -1] finds vertical edges: 1 from white to black, -1 from black to white, 0 elsewhere.",
        "holds",
        edges_are_found,
    ),
    Claim(
        "S000-4",
        "The kernel can be learned from an example by 20 steps of gradient descent.",
        "holds as corrected",
        kernel_is_learned,
        "It converges at exact rates, for learning rates below 0.016089 with the bias and 1/30 without; 0.03 with bias diverges.",
    ),
    Claim(
        "S000-5",
        "Convolution is cross-correlation with the kernel turned around; for prediction the two do not differ.",
        "holds as corrected",
        flipping_matters_only_for_fixed_kernels,
        "They do not differ for a learned kernel, which is learned turned around; for a fixed kernel they do.",
    ),
    Claim(
        "S000-6",
        "A feature map represents the input at one level; the receptive field is all that can affect a value, and grows with depth.",
        "holds",
        two_layers_see_everything,
    ),
    Claim(
        "S000-7",
        "Output size (n - k + p + s) / s, where p is the padding of both sides together; p = k - 1 keeps the size.",
        "holds as corrected",
        sizes_follow_the_formula,
        "With a floor (its brackets were lost), and where p is odd someone must choose the side: torch and TensorFlow put it after.",
    ),
    Claim(
        "S000-8",
        "With several input channels the channels' results are summed; with several filters the results are stacked.",
        "holds",
        channels_add_up_and_filters_stack,
    ),
    Claim(
        "S000-9",
        "The listings of the text run: corr2d, Conv2D, the edge, the loop.",
        "holds",
        the_listings_run,
        "The whole-number kernel meets a float image by promotion, in corr2d only; the operators refuse mixed dtypes.",
    ),
    Claim(
        "S000-10",
        "Deeper layers see more of the input; the field may exceed it.",
        "holds",
        deeper_layers_see_more,
    ),
)
