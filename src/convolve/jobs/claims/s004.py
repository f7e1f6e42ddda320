"""Text S004: kinds of convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from convolve.geometry import Window
from convolve.jobs.claims.record import Claim, Fact, near, same, true
from convolve.jobs.claims.s003 import K, X
from convolve.ops.conv import conv2d, conv_transpose2d
from convolve.ops.fold import unfold
from convolve.ops.kernel_matrix import kernel_matrix
from convolve.ops.plain import corr2d
from convolve.ops.shuffle import channel_shuffle
from convolve.problem import ConvProblem


def one_by_one_weighs_channels() -> list[Fact]:
    x, w = _whole(1, 4, 3, 3), _whole(2, 4, 1, 1)
    by_hand = torch.stack([sum((w[k, c, 0, 0] * x[0, c] for c in range(4)), torch.zeros(3, 3)) for k in range(2)])
    return [true("each output map is one weighted sum of the input maps", torch.equal(conv2d(x, w)[0], by_hand))]


def groups_see_their_own_inputs() -> list[Fact]:
    w = torch.ones(2, 2, 1, 1)

    def reads(**arguments: str) -> list[list[int]]:
        x = torch.zeros(1, 4, 1, 1, requires_grad=True)
        y = conv2d(x, w, groups=2, **arguments)  # type: ignore[arg-type]
        return [
            (torch.autograd.grad(y[0, k].sum(), x, retain_graph=True)[0].flatten().nonzero().flatten() + 1).tolist()
            for k in range(2)
        ]

    x, mixed = _whole(1, 4, 5, 5), _whole(4, 2, 3, 3)
    first = x.clone()
    first[:, 2:] = 0
    y = conv2d(x, mixed, groups=2)
    return [
        same("contiguous (torch, Keras): inputs of outputs 1 and 2", reads(), [[1, 2], [3, 4]]),
        same("interleaved (the text)", reads(group_order="interleaved"), [[1, 3], [2, 4]]),
        true(
            "the first group does not see the second's inputs",
            torch.equal(y[:, :2], conv2d(first, mixed, groups=2)[:, :2]),
        ),
        same(
            "any multiple of the groups is possible: 6 outputs", conv2d(x, torch.ones(6, 2, 1, 1), groups=2).shape[1], 6
        ),
    ]


def depthwise_is_one_group_per_channel() -> list[Fact]:
    x, w, point = _whole(1, 3, 5, 5), _whole(3, 1, 3, 3), _whole(8, 3, 1, 1)
    depthwise = conv2d(x, w, groups=3)
    own = torch.stack([corr2d(x[0, c], w[c, 0]) for c in range(3)])
    combined = conv2d(x, point * w[:, 0])
    dense = ConvProblem.parse("1x32x8x8 k64 3x3 p1").taps * 64
    separable = 32 * 9 + 32 * 64
    return [
        true("each channel with its own kernel", torch.equal(depthwise[0], own)),
        true(
            "followed by 1x1 it is one dense convolution of product weights",
            torch.equal(conv2d(depthwise, point), combined),
        ),
        same("weights 32 to 64 channels 3x3: dense, depthwise separable", [dense, separable], [18432, 2336]),
    ]


def dilation_widens() -> list[Fact]:
    cases = [(3, 2, 5), (3, 3, 7), (5, 2, 9)]
    x, w = _whole(1, 1, 9, 9), _whole(1, 1, 3, 3)
    stuffed = torch.zeros(1, 1, 5, 5)
    stuffed[..., ::2, ::2] = w
    return [
        *(
            same(f"kernel {k}, dilation {d}: k + (d - 1)(k - 1)", Window.of(k, 1, 0, d, axes=1).extent[0], want)
            for k, d, want in cases
        ),
        true("dilation 2 is the kernel with zeros between", torch.equal(conv2d(x, w, dilation=2), conv2d(x, stuffed))),
        true("the same number of weights", w.numel() == 9),
    ]


def fields_of_stacks() -> list[Fact]:
    def field(layers: int) -> int:
        x = torch.zeros(1, 1, 11, 11, requires_grad=True)
        y = x
        for _ in range(layers):
            y = conv2d(y, torch.ones(1, 1, 3, 3), padding=1)
        return int((torch.autograd.grad(y[0, 0, 5, 5], x)[0][0, 0, 5] != 0).sum())

    def weights(kernels: tuple[int, ...]) -> int:
        return sum(ConvProblem.parse(f"1x16x32x32 k16 {k}x{k}").taps * 16 for k in kernels) // 16**2

    counts = [weights(kernels) for kernels in ((3, 3), (5,), (3, 3, 3), (7,))]
    return [
        same("field of two and of three 3x3", [field(2), field(3)], [5, 7]),
        same(
            "weights over c^2: 3x3 twice, 5x5, 3x3 three times, 7x7",
            counts,
            [18, 25, 27, 49],
        ),
    ]


def three_views() -> list[Fact]:
    rows = unfold(X[None], 3, orientation="rows")
    matrix = kernel_matrix(K, (5, 5)).to_dense()
    window_by_window = torch.tensor([[(X[i : i + 3, j : j + 3] * K).sum().item() for j in range(3)] for i in range(3)])
    return [
        true("windows times kernel, summed", torch.equal(window_by_window, corr2d(X, K))),
        same("rows of windows (9x9) times the kernel column (9x1)", (rows @ K.flatten()).reshape(3, 3), corr2d(X, K)),
        same("the 9x25 matrix times the image (25x1)", (matrix @ X.flatten()).reshape(3, 3), corr2d(X, K)),
        same("shapes", [rows.shape, matrix.shape], [[9, 9], [9, 25]]),
    ]


def transposed_restores_the_size() -> list[Fact]:
    k = torch.tensor([[0, 1], [2, 3]])[None, None]
    x = k.clone()
    dense = kernel_matrix(torch.arange(1.0, 10.0).reshape(3, 3), 5)
    matrix = kernel_matrix(torch.tensor([[1, 2], [3, 4]]), 3).to_dense()
    there = torch.randn(25, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    back = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    left, right = (dense.double() @ there) @ back, there @ (dense.double().t() @ back)
    sizes = [[n for n in range(3, 12) if Window.of(3, 2, axes=1).output_size((n,)) == (m,)] for m in (2, 3)]
    return [
        same(
            "transposed [[0, 1], [2, 3]] with itself", conv_transpose2d(x, k)[0, 0], [[0, 0, 1], [0, 4, 6], [4, 12, 9]]
        ),
        same("padding 1", conv_transpose2d(x, k, padding=1)[0, 0], [[4]]),
        same(
            "stride 2", conv_transpose2d(x, k, stride=2)[0, 0], [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]
        ),
        same("the 4x9 matrix of [[1, 2], [3, 4]] on 3x3", matrix, MATRIX),
        same(
            "9x25: places, of them filled, free values",
            [dense.numel(), dense._nnz(), len(set(dense.values().tolist()))],
            [225, 81, 9],
        ),
        near("<Wx, y> minus <x, W'y>", float(left - right), 0, 1e-9),
        true(
            "W W' is not the identity: values are not restored",
            not torch.equal(dense.to_dense() @ dense.to_dense().T, torch.eye(9)),
        ),
        same("k 3, s 2: input sizes that give 2 and 3 outputs", sizes, [[5, 6], [7, 8]]),
    ]


MATRIX = [
    [1, 2, 0, 3, 4, 0, 0, 0, 0],
    [0, 1, 2, 0, 3, 4, 0, 0, 0],
    [0, 0, 0, 1, 2, 0, 3, 4, 0],
    [0, 0, 0, 0, 1, 2, 0, 3, 4],
]


def group_orders_differ_by_a_shuffle() -> list[Fact]:
    x, w = _whole(1, 4, 5, 5), _whole(2, 2, 3, 3)
    interleaved = conv2d(x, w, groups=2, group_order="interleaved")
    order = channel_shuffle(torch.arange(1, 5).reshape(1, 4, 1, 1), 2).flatten()
    return [
        same("channels 1 to 4 shuffled by 2", order, [1, 3, 2, 4]),
        true(
            "interleaved groups = shuffle, then contiguous groups",
            torch.equal(interleaved, conv2d(channel_shuffle(x, 2), w, groups=2)),
        ),
        true(
            "the shuffle is fixed, not random",
            torch.equal(order, channel_shuffle(torch.arange(1, 5).reshape(1, 4, 1, 1), 2).flatten()),
        ),
    ]


def rows_are_columns_transposed() -> list[Fact]:
    columns, rows = unfold(X[None], 3), unfold(X[None], 3, orientation="rows")
    return [
        same("first column and first row: the first window", [columns[:, 0], rows[0]], [X[:3, :3].flatten()] * 2),
        true("the row form is the transpose", torch.equal(rows, columns.T)),
    ]


def two_small_are_not_one_large() -> list[Fact]:
    two = ConvProblem.parse("1x16x32x32 k16 3x3 p1").macs * 2
    one = ConvProblem.parse("1x16x32x32 k16 5x5 p2").macs
    x, w, large = _whole(1, 1, 5, 5), _whole(1, 1, 3, 3), _whole(1, 1, 5, 5)
    small = [conv2d(conv2d(sign * x, w).relu(), w) for sign in (1, -1)]
    single = [conv2d(sign * x, large) for sign in (1, -1)]

    def composed(numbers: Tensor) -> Tensor:
        """The 5x5 kernel that two linear 3x3 kernels amount to."""
        a, b = numbers.reshape(2, 3, 3)
        return conv2d(a, b, padding=2, flip_kernel=True).flatten()

    numbers = torch.randn(18, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    freedom = int(torch.linalg.matrix_rank(torch.func.jacrev(composed)(numbers)))
    return [
        same(
            "MACs of two 3x3 and of one 5x5, 16 channels at 32x32",
            [two, one],
            [18 * 16 * 16 * 1024, 25 * 16 * 16 * 1024],
        ),
        same("5x5 kernels have 25 degrees of freedom; two 3x3 without ReLU between reach", freedom, 17),
        true("with a ReLU between, -x does not give the negative of x", not torch.equal(small[0], -small[1])),
        true("with one 5x5 it does", torch.equal(single[0], -single[1])),
    ]


def _whole(*shape: int) -> Tensor:
    """Small whole numbers as float32: every sum of them is exact."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(sum(shape))).float()


CLAIMS = (
    Claim(
        "S004-1",
        "A 1x1 convolution is a weighted sum over channels, the same at all pixels.",
        "holds",
        one_by_one_weighs_channels,
    ),
    Claim(
        "S004-2",
        "In a group convolution outputs depend on their group's inputs only: outputs 1 and 2 on inputs {1, 3} and {2, 4}.",
        "holds as corrected",
        groups_see_their_own_inputs,
        "The common order is contiguous: {1, 2} and {3, 4}. Both are offered; outputs may be any multiple of the groups.",
    ),
    Claim(
        "S004-3",
        "Depthwise separable convolution is group convolution with as many groups as channels.",
        "holds as corrected",
        depthwise_is_one_group_per_channel,
        "That is the depthwise part; depthwise separable adds a 1x1 convolution behind it.",
    ),
    Claim(
        "S004-4",
        "Dilation d widens a kernel to k + (d - 1)(k - 1) with the same parameters.",
        "holds as corrected",
        dilation_widens,
        "With the original k on the right; taps are d apart. (The distance between two windows is the stride.)",
    ),
    Claim(
        "S004-5",
        "Two 3x3 see what one 5x5 sees, with 18 c^2 instead of 25 c^2 weights.",
        "holds",
        fields_of_stacks,
        "For stride 1 and dilation 1.",
    ),
    Claim(
        "S004-6",
        "Three views of convolution: windows times kernel, windows as rows, a 9x25 matrix.",
        "holds",
        three_views,
    ),
    Claim(
        "S004-7",
        "Transposed convolution multiplies by the transposed matrix and restores the size, not the values.",
        "holds as corrected",
        transposed_restores_the_size,
        "With a stride several input sizes give one output size: output_padding or output_size must pick one.",
    ),
    Claim(
        "S004-8",
        "After group convolution channels are shuffled at random to mix the groups.",
        "holds as corrected",
        group_orders_differ_by_a_shuffle,
        "ShuffleNet's shuffle is a fixed permutation; interleaved groups are the shuffle followed by contiguous ones.",
    ),
    Claim(
        "S004-9",
        "The 9 regions are rows of a 9x9 matrix.",
        "holds",
        rows_are_columns_transposed,
        'torch.unfold has them as columns; orientation="rows" is the text\'s form.',
    ),
    Claim(
        "S004-10",
        "Two 3x3 convolutions equal one 5x5, with fewer parameters and one more non-linearity.",
        "holds as corrected",
        two_small_are_not_one_large,
        "Equal in field, not as functions: 17 degrees of freedom cannot make every 5x5, and the non-linearity bends the rest.",
    ),
)
