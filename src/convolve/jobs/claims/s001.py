"""Text S001: LeNet to GoogLeNet, as far as operators decide."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convolve.data.picture import open_picture, to_colours, to_pixels
from convolve.data.samples import SAMPLES, sample_photo
from convolve.geometry import Window
from convolve.jobs.claims import trained
from convolve.jobs.claims.record import Claim, Fact, near, same, true
from convolve.models.source import build
from convolve.ops.conv import conv2d
from convolve.ops.named_kernels import named_kernel
from convolve.ops.pool import avg_pool2d, max_pool2d
from convolve.ops.pool_adaptive import global_avg_pool2d
from convolve.ops.pool_trainable import trainable_pool2d
from convolve.problem import ConvProblem


def parameters(problem: str, bias: bool = True) -> int:
    """Weights and biases of the convolution that `problem` describes."""
    record = ConvProblem.parse(problem)
    return math.prod(record.weight_shape) + (record.filters if bias else 0)


def strides_divide_with_a_floor() -> list[Fact]:
    cases = list(itertools.product(range(5, 20), (1, 2, 3, 5), (0, 1, 2), (1, 2, 3, 4)))
    right = all(Window.of(k, s, p, axes=1).output_size((n,)) == ((n + 2 * p - k + s) // s,) for n, k, p, s in cases)
    whole = sum((n + 2 * p - k + s) % s == 0 for n, k, p, s in cases)
    return [
        true(f"floor((n + 2p - k + s) / s) in {len(cases)} cases", right),
        true(f"without the floor only {whole} of them are whole", whole < len(cases)),
    ]


def one_kernel_per_channel() -> list[Fact]:
    x, w = _random(1, 3, 5, 5), _random(2, 3, 3, 3)
    maps = conv2d(x, w, partial_maps=True)
    return [
        same("partial maps: batch, filters, channels, height, width", maps.shape, [1, 2, 3, 3, 3]),
        near("their sum minus the convolution, at most", (maps.sum(2) - conv2d(x, w)).abs().max().item(), 0, 1e-12),
    ]


def one_by_one_is_fully_connected() -> list[Fact]:
    x, k = _random(3, 3, 3), _random(2, 3, 1, 1)
    dense = (k.reshape(2, 3) @ x.reshape(3, 9)).reshape(2, 3, 3)
    return [near("largest difference from the matrix product", (conv2d(x, k) - dense).abs().max().item(), 0, 1e-6)]


def pooling_goldens() -> list[Fact]:
    nine, sixteen = torch.arange(9.0).reshape(1, 3, 3), torch.arange(16.0).reshape(1, 4, 4)
    both = max_pool2d(torch.cat([sixteen, sixteen + 1]), 3, 2, 1)
    return [
        same("max 2x2 of 0..8", max_pool2d(nine, 2, 1)[0], [[4, 5], [7, 8]]),
        same("average 2x2 of 0..8", avg_pool2d(nine, 2, 1)[0], [[2, 3], [5, 6]]),
        same("max 3 of 0..15", max_pool2d(sixteen, 3)[0], [[10]]),
        same("max 3, padding 1, stride 2", max_pool2d(sixteen, 3, 2, 1)[0], [[5, 7], [13, 15]]),
        same(
            "max (2, 4), padding (1, 2), stride (2, 3)",
            max_pool2d(sixteen, (2, 4), (2, 3), (1, 2))[0],
            [[1, 3], [9, 11], [13, 15]],
        ),
        same(
            "max (2, 3), padding (0, 1), stride (2, 3)",
            max_pool2d(sixteen, (2, 3), (2, 3), (0, 1))[0],
            [[5, 7], [13, 15]],
        ),
        same("a second channel X + 1", both[1], [[6, 8], [14, 16]]),
    ]


def pooling_with_parameters() -> list[Fact]:
    x = torch.arange(16.0).reshape(1, 4, 4)
    weight, bias = torch.tensor([0.5]), torch.tensor([1.0])
    return [
        same("max times 0.5 plus 1", trainable_pool2d(x, weight, bias, 2, mode="max")[0], [[3.5, 4.5], [7.5, 8.5]]),
        same("LeNet-5's sum of four times 0.5 plus 1", trainable_pool2d(x, weight, bias, 2)[0], [[6, 10], [22, 26]]),
    ]


def lenet_sizes() -> list[Fact]:
    x = torch.zeros(1, 1, 28, 28)
    sizes = []
    for filters, channels, padding in ((6, 1, 2), (16, 6, 0)):
        x = conv2d(x, torch.zeros(filters, channels, 5, 5), padding=padding).sigmoid()
        sizes.append(list(x.shape[1:]))
        x = avg_pool2d(x, 2)
        sizes.append(list(x.shape[1:]))
    return [
        same("maps of 28 x 28 with padding 2", sizes, [[6, 28, 28], [6, 14, 14], [16, 10, 10], [16, 5, 5]]),
        same("inputs of the first fully connected layer", x[0].numel(), 400),
    ]


# Which S2 maps each C3 map reads (LeCun et al. 1998, table I): three adjacent, four adjacent, four with a gap, all six.
C3_TABLE = (
    *(tuple((first + i) % 6 for i in range(3)) for first in range(6)),
    *(tuple((first + i) % 6 for i in range(4)) for first in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    tuple(range(6)),
)


def lenet5_counts() -> list[Fact]:
    c3 = sum(parameters(f"1x{len(maps)}x14x14 k1 5x5") for maps in C3_TABLE)
    counts = {
        "C1": parameters("1x1x32x32 k6 5x5"),
        "S2": (1 + 1) * 6,
        "C3": c3,
        "S4": (1 + 1) * 16,
        "C5": parameters("1x16x5x5 k120 5x5"),
        "F6": parameters("1x120x1x1 k84 1x1"),
    }
    trainable = sum(counts.values())
    x = torch.arange(4.0).reshape(1, 2, 2)
    summed = trainable_pool2d(x, torch.ones(1), torch.zeros(1), 2).item()
    return [
        same("C1, S2, C3, S4, C5, F6", list(counts.values()), [156, 12, 1516, 32, 48120, 10164]),
        same("trainable in all", trainable, 60000),
        same("with the 84 x 10 fixed numbers of the output", trainable + 84 * 10, 60840),
        same("S4 from 10 x 10", Window.of(2, 2, axes=1).output_size((10,)), [5]),
        same("S2 adds its four inputs: of 0, 1, 2, 3", summed, 6),
    ]


def vgg_block_sizes() -> list[Fact]:
    x = torch.zeros(1, 3, 32, 32)
    sizes = []
    for channels in (3, 8):
        x = conv2d(x, torch.zeros(8, channels, 3, 3), padding=1)
        sizes.append(list(x.shape[2:]))
    sizes.append(list(max_pool2d(x, 2).shape[2:]))
    return [same("3x3, 3x3, pool on 32 x 32", sizes, [[32, 32], [32, 32], [16, 16]])]


def nin_ends_in_an_average() -> list[Fact]:
    x = conv2d(torch.zeros(1, 8, 6, 6), torch.zeros(10, 8, 3, 3), padding=1)
    for _ in range(2):
        x = conv2d(x, torch.zeros(10, 10, 1, 1))
    pooled = global_avg_pool2d(x).flatten(1)
    return [
        same(
            "10 classes: the last maps, and after global average pooling",
            [x.shape[1:], pooled.shape[1:]],
            [[10, 6, 6], [10]],
        )
    ]


def inception_concatenates() -> list[Fact]:
    x = torch.zeros(1, 192, 28, 28)
    narrow = conv2d(x, torch.zeros(96, 192, 1, 1))
    fewer = conv2d(x, torch.zeros(16, 192, 1, 1))
    paths = (
        conv2d(x, torch.zeros(64, 192, 1, 1)),
        conv2d(narrow, torch.zeros(128, 96, 3, 3), padding=1),
        conv2d(fewer, torch.zeros(32, 16, 5, 5), padding=2),
        conv2d(max_pool2d(x, 3, 1, 1), torch.zeros(32, 192, 1, 1)),
    )
    return [same("inception 3a: four paths concatenated", torch.cat(paths, 1).shape, [1, 256, 28, 28])]


def one_by_one_saves_parameters() -> list[Fact]:
    size = "28x28"
    reduced = ["192 64 1", "192 96 1", "96 128 3", "192 16 1", "16 32 5", "192 32 1"]
    plain = ["192 64 1", "192 128 3", "192 32 5"]

    def weights(rows: list[str]) -> int:
        cells = [row.split() for row in rows]
        return sum(parameters(f"1x{c}x{size} k{k} {r}x{r}", bias=False) for c, k, r in cells)

    vgg = list(itertools.pairwise([3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]))
    vgg_conv = sum(parameters(f"1x{c}x14x14 k{k} 3x3") for c, k in vgg)
    alexnet_conv = sum(
        parameters(text)
        for text in (
            "1x3x227x227 k96 11x11",
            "1x96x27x27 k256 5x5 g2",
            "1x256x13x13 k384 3x3",
            "1x384x13x13 k384 3x3 g2",
            "1x384x13x13 k256 3x3 g2",
        )
    )

    def share(convolutional: int, sizes: list[int]) -> float:
        connected = sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(sizes))
        return connected / (connected + convolutional)

    return [
        same("inception 3a with reductions", weights(reduced), 163328),
        same("without them", weights(plain), 387072),
        same("output channels without them", 64 + 128 + 32 + 192, 416),
        near("fully connected share: AlexNet", share(alexnet_conv, [9216, 4096, 4096, 1000]), 0.96, 0.005),
        near("fully connected share: VGG-16", share(vgg_conv, [25088, 4096, 4096, 1000]), 0.89, 0.005),
    ]


def pooling_dampens_shifts() -> list[Fact]:
    """Edges of 40 crops of two photos, before and after shifting by 1 to 4 pixels; the relative change of what comes out."""
    changes = {name: [_change(name, shift) for shift in range(1, 5)] for name in POOLINGS}
    facts = [
        Fact(f"{name}: change for shifts of 1, 2, 3, 4 pixels", [round(c, 3) for c in row], "measured", True)
        for name, row in changes.items()
    ]

    def below(pooling: str, other: str) -> bool:
        return all(a < b for a, b in zip(changes[pooling], changes[other], strict=True))

    return [
        *facts,
        true("average pooling changes less than no pooling, at every shift", below("average", "none")),
        true("and less than keeping every 8th value", below("average", "every 8th")),
        true("so does max pooling", below("max", "none") and below("max", "every 8th")),
    ]


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "average": lambda y: avg_pool2d(y, 8),
    "max": lambda y: max_pool2d(y, 8),
    "every 8th": lambda y: y[..., ::8, ::8],
}


def _change(pooling: str, shift: int) -> float:
    """Mean over crops and directions of |f(shifted) - f| / |f|, f the pooled strength of horizontal and vertical edges."""
    generator = torch.Generator().manual_seed(0)
    kernels = named_kernel("sobel").kernels[:, None]
    total, count = 0.0, 0
    for name in SAMPLES:
        photo = torch.from_numpy(to_pixels(to_colours(open_picture(sample_photo(name)), 1))).float() / 255
        for _ in range(20):
            top, left = (int(torch.randint(0, side - 140, (), generator=generator)) for side in photo.shape[1:])
            responses = []
            for down, right in ((0, 0), (shift, 0), (0, shift)):
                crop = photo[None, :, top + down : top + down + 130, left + right : left + right + 130]
                responses.append(POOLINGS[pooling](conv2d(crop, kernels).relu()))
            for moved in responses[1:]:
                total += ((moved - responses[0]).norm() / responses[0].norm()).item()
                count += 1
    return total / count


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def alexnet_as_published() -> list[Fact]:
    net = build("alexnet")
    kinds = [type(module) for module in net.modules()]
    count = {name: sum(issubclass(kind, made) for kind in kinds) for name, made in _KINDS.items()}
    return [
        same("convolutions, fully connected layers", [count["conv"], count["fc"]], [5, 3]),
        same("outputs of the fully connected layers", [m.out_features for m in net.modules() if isinstance(m, nn.Linear)],
             [4096, 4096, 1000]),
        same("ReLUs, one behind every layer but the last; sigmoids", [count["relu"], count["sigmoid"]], [7, 0]),
        same("dropouts, and their rates", [m.p for m in net.modules() if isinstance(m, nn.Dropout)], [0.5, 0.5]),
    ]  # fmt: skip


_KINDS = {"conv": nn.Conv2d, "fc": nn.Linear, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}

CLAIMS = (
    Claim(
        "S001-1",
        "With padding p on each side and stride s the output has (H + 2p - k + s) / s rows.",
        "holds as corrected",
        strides_divide_with_a_floor,
        "Rounded down; here p is per side, while S000 counts both sides together.",
    ),
    Claim(
        "S001-2",
        "Each filter has one kernel per channel; their results are added place by place.",
        "holds",
        one_kernel_per_channel,
    ),
    Claim(
        "S001-3",
        "A 1x1 convolution changes the channels only, and equals a fully connected layer over the pixels.",
        "holds",
        one_by_one_is_fully_connected,
    ),
    Claim(
        "S001-4",
        "Pooling takes padding and stride, works per channel and keeps their number.",
        "holds",
        pooling_goldens,
    ),
    Claim("S001-5", "Pooling may have parameters: a weight, and a bias.", "holds", pooling_with_parameters),
    Claim(
        "S001-6",
        "LeNet: two times 5x5 convolution, sigmoid and average pooling, 6 and 16 channels.",
        "holds",
        lenet_sizes,
    ),
    Claim(
        "S001-7",
        "LeNet-5 (1998): 156, 12, 1516, 32, 48120, 10164 and 840 parameters; its pooling is max pooling.",
        "holds as corrected",
        lenet5_counts,
        "The counts are right, but S2 and S4 add their four inputs (no maximum), and the 840 are fixed: 60,000 are trained.",
    ),
    Claim(
        "S001-8",
        "AlexNet: five convolutions, three fully connected layers, ReLU, dropout, augmentation.",
        "holds",
        alexnet_as_published,
        "The three fully connected ones are two hidden layers and the output. Augmentation belongs to its training, not to the network.",
    ),
    Claim(
        "S001-9",
        "A VGG block: 3x3 convolutions with padding 1 keep the size, 2x2 pooling halves it.",
        "holds",
        vgg_block_sizes,
    ),
    Claim(
        "S001-10",
        "NiN: 1x1 convolutions, as many last maps as classes, global average pooling, no fully connected layer.",
        "holds",
        nin_ends_in_an_average,
    ),
    Claim(
        "S001-11",
        "GoogLeNet's Inception: four parallel paths, 1x1 to cut channels, concatenated.",
        "holds",
        inception_concatenates,
    ),
    Claim(
        "S001-12",
        "Average pooling lowers the sensitivity to position.",
        "holds",
        pooling_dampens_shifts,
        "Max pooling does so nearly as well; a stride alone does not. Measured on edges of 40 crops of two photos, 8 x 8 pooling.",
        slow=True,
    ),
    Claim(
        "S001-13",
        "Learned features surpass hand-designed ones.",
        "holds as corrected",
        None,
        "Not always, and not because they are learned. One layer of twelve 5x5 filters, learned from 4,000 images, stays behind twelve of "
        "Sobel's and Gabor's on the digits and on MNIST, and is ahead on the photos of CIFAR-10. What surpasses them on both MNIST and "
        "CIFAR-10 is two learned layers (benchmarks/results/claims_by_training.json).",
        trained=trained.learned_against_designed,
    ),
    Claim(
        "S001-14",
        "Dropout and augmentation counter overfitting.",
        "holds as corrected",
        None,
        "On MNIST (1,000 training images, 5 seeds) each narrows the gap between seen and unseen images, augmentation by more than half, "
        "dropout by a fifth. On the embedded digits of 8x8 pixels neither does by more than the spread between seeds, and there "
        "augmentation costs accuracy (benchmarks/results/claims_by_training.json).",
        trained=trained.against_overfitting,
    ),
    Claim(
        "S001-15",
        "1x1 convolutions reduce channels and cost; NiN drops the fully connected layers that hold most parameters.",
        "holds",
        one_by_one_saves_parameters,
    ),
)
