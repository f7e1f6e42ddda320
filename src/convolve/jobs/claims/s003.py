"""Text S003: what a convolution is, in pictures."""

from __future__ import annotations

import torch

from convolve.data.picture import open_picture, to_pixels
from convolve.data.samples import sample_photo
from convolve.jobs.claims import trained
from convolve.jobs.claims.record import Claim, Fact, near, same, true
from convolve.ops.conv import conv2d, conv_transpose2d
from convolve.ops.kernel_matrix import kernel_matrix
from convolve.ops.named_kernels import named_kernel
from convolve.ops.plain import corr2d
from convolve.ops.pool import max_pool2d

# The figure that the text shows is Dumoulin and Visin's (arXiv 1603.07285); the numbers follow from its script's seed.
X = torch.tensor([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]])
K = torch.tensor([[0, 1, 2], [2, 2, 0], [0, 1, 2]])
Y = [[12, 12, 17], [10, 17, 19], [9, 6, 14]]
DIRECTIONS = ("horizontal", "vertical", "rising", "falling")


def filters_find_their_direction() -> list[Fact]:
    line = torch.eye(9)
    pictures = {"falling": line, "rising": line.flip(1), "horizontal": torch.zeros(9, 9), "vertical": torch.zeros(9, 9)}
    pictures["horizontal"][4] = 1
    pictures["vertical"][:, 4] = 1
    best = [
        max(DIRECTIONS, key=lambda name: float(conv2d(pictures[drawn], named_kernel(f"edge-{name}").kernels[0])[3, 3]))
        for drawn in DIRECTIONS
    ]
    return [same("strongest filter on a line of each direction", best, list(DIRECTIONS))]


def the_figure() -> list[Fact]:
    matrix = kernel_matrix(K, (5, 5))
    return [
        same("cross-correlation", corr2d(X, K), Y),
        same("true convolution", conv2d(X, K, flip_kernel=True), [[18, 20, 19], [10, 9, 17], [11, 8, 14]]),
        same(
            "back through the transposed matrix",
            (matrix.t() @ torch.tensor(Y).flatten()).reshape(5, 5),
            [
                [0, 12, 36, 41, 34],
                [24, 58, 95, 87, 38],
                [20, 75, 132, 105, 62],
                [18, 40, 77, 81, 38],
                [0, 9, 24, 26, 28],
            ],
        ),
        true(
            "which is the transposed convolution",
            torch.equal(
                conv_transpose2d(torch.tensor(Y)[None, None], K[None, None])[0, 0],
                (matrix.t() @ torch.tensor(Y).flatten()).reshape(5, 5),
            ),
        ),
    ]


def kernels_filters_weights() -> list[Fact]:
    weight = torch.zeros(8, 3, 5, 5)
    shapes = [weight.shape, weight[0].shape, weight[0, 0].shape]
    return [
        same(
            "weight, filter, kernel of 8 filters 5x5 on 3 channels",
            shapes,
            [[8, 3, 5, 5], [3, 5, 5], [5, 5]],
        )
    ]


def depth_n_to_m() -> list[Fact]:
    x = torch.ones(1, 3, 5, 5)
    parts = conv2d(x, torch.ones(1, 3, 3, 3), partial_maps=True)
    return [
        same(
            "three maps before the sum, then one",
            [parts.shape, parts.sum(2).shape],
            [[1, 1, 3, 3, 3], [1, 1, 3, 3]],
        ),
        same("depth 3 to 7 takes 7 filters", conv2d(x, torch.ones(7, 3, 3, 3)).shape[1], 7),
    ]


def partial_maps_add_up() -> list[Fact]:
    x = torch.randint(-9, 9, (1, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    w = torch.randint(-9, 9, (1, 3, 3, 3), generator=torch.Generator().manual_seed(1))
    maps = conv2d(x, w, partial_maps=True)
    own = torch.stack([corr2d(x[0, c], w[0, c]) for c in range(3)])
    return [
        true(
            "each map is its channel's own cross-correlation",
            torch.equal(maps[0, 0], own),
        ),
        true("their sum is the convolution", torch.equal(maps.sum(2), conv2d(x, w))),
    ]


def equivariance_not_invariance() -> list[Fact]:
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = torch.randn(1, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = x.roll(1, 3)

    def conv(x: torch.Tensor, **arguments: int) -> torch.Tensor:
        return conv2d(x, w, **arguments)  # type: ignore[arg-type]

    inner = (conv(moved)[..., 1:] - conv(x)[..., :-1]).abs().max().item()
    padded = (conv(moved, padding=1) - conv(x, padding=1).roll(1, 3)).abs()
    strided = (conv(moved, stride=2)[..., 1:] - conv(x, stride=2)[..., :-1]).abs().max().item()
    by_two = (conv(x.roll(2, 3), stride=2)[..., 1:] - conv(x, stride=2)[..., :-1]).abs().max().item()
    dot = torch.zeros(1, 8, 8)
    dot[0, 2, 2] = 1
    within, across = (max_pool2d(dot.roll(n, 2), 2) for n in (1, 2))
    return [
        true("the output itself changes with a shift (no invariance)", not torch.allclose(conv(moved), conv(x))),
        near("conv(shift x) minus shift(conv x), away from the border, at most", inner, 0, 1e-12),
        true(
            "with padding they differ, in the border's columns only",
            bool((padded[..., 2:-1] < 1e-12).all() and padded.max() > 0.1),
        ),
        true("with stride 2 they differ for a shift of 1", strided > 0.1),
        near("but not for a shift of 2, at most", by_two, 0, 1e-12),
        true("2x2 max pooling hides a shift within its window", torch.equal(within, max_pool2d(dot, 2))),
        true("and not one across it", not torch.equal(across, max_pool2d(dot, 2))),
    ]


def colours_stress_different_things() -> list[Fact]:
    pixels = torch.from_numpy(to_pixels(open_picture(sample_photo("flower")))).float() / 255
    kernels = named_kernel("sobel").kernels[:, None]
    strength = [
        conv2d(pixels[c : c + 1], kernels, padding="same", padding_mode="replicate").norm(dim=0).flatten()
        for c in range(3)
    ]
    pairs = [
        round(float(torch.corrcoef(torch.stack([strength[a], strength[b]]))[0, 1]), 2)
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    alone = [
        round(
            float(
                (strength[c] > 2 * torch.stack([s for i, s in enumerate(strength) if i != c]).amax(0)).float().mean()
            ),
            3,
        )
        for c in range(3)
    ]
    return [
        Fact(
            "flower photo: mean edge strength of R, G, B",
            [round(float(s.mean()), 3) for s in strength],
            "measured",
            True,
        ),
        Fact("share of pixels where one colour's edge is twice the others'", alone, "measured", True),
        Fact("correlation of the edges R-G, R-B, G-B", pairs, "measured", True),
        true("no two colours show the same edges (correlation below 0.95)", max(pairs) < 0.95),
    ]


CLAIMS = (
    Claim("S003-1", "Filters extract features, such as edges of one direction.", "holds", filters_find_their_direction),
    Claim(
        "S003-2",
        "The 3x3 filter [[0, 1, 2], [2, 2, 0], [0, 1, 2]] slides over a 5x5 image: element-wise products, added.",
        "holds as corrected",
        the_figure,
        "That is cross-correlation; a convolution turns the kernel around first and gives other numbers.",
    ),
    Claim(
        "S003-3",
        "Kernel and filter: a kernel is two-dimensional, a filter is a stack of kernels.",
        "holds",
        kernels_filters_weights,
        "Here: kernel r x s, filter = channels / groups kernels, weight = all filters.",
    ),
    Claim(
        "S003-4",
        "On three channels one filter gives three maps, summed to one; depth n to m takes m filters.",
        "holds",
        depth_n_to_m,
    ),
    Claim("S003-5", "Three kernels give three maps, which are then added.", "holds", partial_maps_add_up),
    Claim(
        "S003-6",
        "Convolution is translation invariant.",
        "false",
        equivariance_not_invariance,
        "It is equivariant: away from the border and in steps of the stride the output moves with the input. Pooling adds some invariance.",
    ),
    Claim(
        "S003-7",
        "The relation between pixels matters.",
        "holds as corrected",
        None,
        "To a convolutional network: with all pixels in one other order, the same for every image, it loses accuracy; a fully connected "
        "one, which knows no neighbours, does not.",
        trained=trained.neighbours_matter,
    ),
    Claim("S003-8", "The channels of an RGB image stress different aspects.", "holds", colours_stress_different_things),
    Claim(
        "S003-9",
        "L1 and L2, dropout, noise, early stopping, batch size fight overfitting.",
        "holds as corrected",
        None,
        "Measured here for the batch size: with equally many epochs at one rate, small batches are the more accurate, and large ones, "
        "which take fewer steps, do not even learn the training images. Of the others `convolve train` has all: --l1, --weight-decay (L2), "
        "--dropout, noise among the changes of the images, --patience and the choice of the best epoch.",
        trained=trained.batch_sizes,
    ),
)
