"""MODELS, the table of the networks: one row each, with its variants and how it is trained when nothing is said."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import nn


@dataclass(frozen=True)
class Recipe:
    """Training defaults of a model: what `convolve train` uses where its user says nothing."""

    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = 1e-3
    batch_size: int = 128
    epochs: int = 20
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"


@dataclass(frozen=True)
class Variant:
    """One definition of a network, for its native input. Sizes are (h, w); `smallest` is the least that it can take,
    `largest` the side above which pictures are made smaller unless their size is named (None: half as large again as `size`).

    The totals are those of the native input and classes: trainable parameters (auxiliary heads included) and fixed ones; `macs`,
    the multiply-adds of convolutions and fully connected layers for one image, without biases and without heads; and the
    side in pixels of what one unit of the last maps before the head sees. The tests count them again.
    """

    name: str
    summary: str
    channels: int
    size: tuple[int, int]
    smallest: tuple[int, int]
    num_classes: int
    parameters: int
    macs: int
    receptive_field: int
    fixed: int = 0
    largest: int | None = None


@dataclass(frozen=True)
class Model:
    """A row of MODELS: a network by name, its variants (the first is the default), and the function that builds it."""

    name: str
    summary: str
    paper: str
    builder: str
    variants: tuple[Variant, ...]
    recipe: Recipe

    @property
    def default(self) -> Variant:
        return self.variants[0]

    @property
    def build(self) -> Callable[..., nn.Module]:
        """The building function; its module is imported when first asked for."""
        module, _, function = self.builder.partition(":")
        build: Callable[..., nn.Module] = getattr(importlib.import_module(f"convolve.models.{module}"), function)
        return build


def _square(
    name: str,
    summary: str,
    channels: int,
    side: int,
    smallest: int,
    num_classes: int,
    parameters: int,
    macs: int,
    field: int,
    fixed: int = 0,
    largest: int | None = None,
) -> Variant:
    sizes = (side, side), (smallest, smallest)
    return Variant(name, summary, channels, *sizes, num_classes, parameters, macs, field, fixed, largest)


def _rows(*rows: Model) -> Mapping[str, Model]:
    return MappingProxyType({row.name: row for row in rows})


# variant, what it is, channels, side, smallest side, classes, parameters, multiply-adds, receptive field
MODELS: Mapping[str, Model] = _rows(
    Model(
        "smallnet",
        "small and modern, 28 to 64 pixels: try it first",
        "blocks of He et al. 2016",
        "smallnet:smallnet",
        (_square("smallnet", "three stages, 32 maps", 3, 32, 16, 10, 308_650, 12_944_640, 48, largest=64),),
        Recipe(
            "adamw", lr=3e-3, batch_size=256, epochs=12, weight_decay=5e-2, label_smoothing=0.1, schedule="onecycle"
        ),
    ),
    Model(
        "swiftnet",
        "two stages for 28 pixels, trained in seconds",
        "the shape of LeCun et al. 1998",
        "swiftnet:swiftnet",
        (_square("swiftnet", "8 and 32 maps, 128 units", 1, 28, 16, 10, 73_658, 591_616, 16),),
        Recipe(
            "adamw", lr=1.5e-2, batch_size=192, epochs=1, weight_decay=5e-2, label_smoothing=0.1, schedule="onecycle"
        ),
    ),
    Model(
        "lenet",
        "as taught today: sigmoid, average pooling",
        "LeCun et al. 1998",
        "lenet:lenet",
        (
            _square("d2l", "padded by 2, average pooling", 1, 28, 12, 10, 61_706, 416_520, 16),
            _square("shusentang", "no padding, max pooling", 1, 28, 16, 10, 44_426, 281_640, 16),
        ),
        Recipe("adam", lr=5e-3, batch_size=128, epochs=20),
    ),
    Model(
        "lenet_relu",
        "as taught today, with ReLU and max pooling",
        "LeCun et al. 1998",
        "lenet:lenet_relu",
        (_square("relu", "padded by 2, max pooling", 1, 28, 12, 10, 61_706, 416_520, 16),),
        Recipe("adamw", lr=4e-3, batch_size=64, epochs=10, weight_decay=5e-2, label_smoothing=0.1, schedule="onecycle"),
    ),
    Model(
        "lenet5",
        "as published: connection table, RBF output",
        "LeCun et al. 1998",
        "lenet5:lenet5",
        (_square("1998", "the paper's", 1, 32, 32, 10, 60_000, 325_680, 32, fixed=840),),
        Recipe("adamw", lr=2e-3, batch_size=64, epochs=20, weight_decay=1e-2),
    ),
    Model(
        "alexnet",
        "as published: groups, LRN, dropout",
        "Krizhevsky et al. 2012",
        "alexnet:alexnet",
        (
            _square(
                "2012", "groups of 2, local response normalisation", 3, 227, 67, 1000, 60_965_224, 724_406_816, 195
            ),
            _square("2012-ungrouped", "without the groups", 3, 227, 67, 1000, 62_378_344, 1_135_256_096, 195),
            _square("torchvision", "one weird trick, adaptive pooling", 3, 224, 63, 1000, 61_100_840, 714_188_480, 195),
            _square("d2l", "one channel, no groups, no normalisation", 1, 224, 65, 10, 46_764_746, 938_146_176, 195),
            _square(
                "shusentang", "as d2l, the first convolution not padded", 1, 224, 67, 10, 46_764_746, 938_146_176, 195
            ),
        ),
        Recipe("adamw", lr=3e-4, batch_size=128, epochs=30, weight_decay=5e-2),
    ),
    Model(
        "vgg11",
        "configuration A: five blocks of 3x3",
        "Simonyan & Zisserman 2015",
        "vgg:vgg11",
        (
            _square("vgg", "configuration A", 3, 224, 32, 1000, 132_863_336, 7_609_090_048, 150),
            _square("bn", "with batch normalisation", 3, 224, 32, 1000, 132_868_840, 7_609_090_048, 150),
            _square("d2l", "one channel, ten classes", 1, 224, 32, 10, 128_806_154, 7_547_232_256, 150),
        ),
        Recipe("adamw", lr=3e-4, batch_size=128, epochs=30, weight_decay=5e-2),
    ),
    Model(
        "vgg13",
        "configuration B: five blocks of 3x3",
        "Simonyan & Zisserman 2015",
        "vgg:vgg13",
        (
            _square("vgg", "configuration B", 3, 224, 32, 1000, 133_047_848, 11_308_466_176, 156),
            _square("bn", "with batch normalisation", 3, 224, 32, 1000, 133_053_736, 11_308_466_176, 156),
        ),
        Recipe("adamw", lr=3e-4, batch_size=128, epochs=30, weight_decay=5e-2),
    ),
    Model(
        "vgg16",
        "configuration D: five blocks of 3x3",
        "Simonyan & Zisserman 2015",
        "vgg:vgg16",
        (
            _square("vgg", "configuration D", 3, 224, 32, 1000, 138_357_544, 15_470_264_320, 212),
            _square("bn", "with batch normalisation", 3, 224, 32, 1000, 138_365_992, 15_470_264_320, 212),
            _square("c", "configuration C: 1x1 ends blocks 3 to 5", 3, 224, 32, 1000, 133_638_952, 11_770_888_192, 156),
        ),
        Recipe("adamw", lr=3e-4, batch_size=128, epochs=30, weight_decay=5e-2),
    ),
    Model(
        "vgg19",
        "configuration E: five blocks of 3x3",
        "Simonyan & Zisserman 2015",
        "vgg:vgg19",
        (
            _square("vgg", "configuration E", 3, 224, 32, 1000, 143_667_240, 19_632_062_464, 268),
            _square("bn", "with batch normalisation", 3, 224, 32, 1000, 143_678_248, 19_632_062_464, 268),
        ),
        Recipe("adamw", lr=3e-4, batch_size=128, epochs=30, weight_decay=5e-2),
    ),
    Model(
        "nin",
        "1x1 convolutions, global average pooling",
        "Lin, Chen & Yan 2014",
        "nin:nin",
        (
            _square("cifar", "three blocks for 32x32", 3, 32, 8, 10, 966_986, 222_486_528, 27),
            _square("imagenet", "four blocks for 224x224", 3, 224, 67, 1000, 7_595_176, 969_460_864, 195),
            _square("d2l", "one channel, ten classes", 1, 224, 67, 10, 1_992_166, 762_297_352, 195),
        ),
        Recipe("adamw", lr=1e-3, batch_size=128, epochs=30, weight_decay=5e-2),
    ),
    Model(
        "googlenet",
        "nine Inception blocks, two auxiliary heads",
        "Szegedy et al. 2015",
        "googlenet:googlenet",
        (
            _square(
                "paper",
                "as published, two auxiliary heads while training",
                3,
                224,
                32,
                1000,
                13_378_280,
                1_582_671_872,
                715,
            ),
            _square("bn", "with batch normalisation", 3, 224, 32, 1000, 13_385_816, 1_582_671_872, 715),
            _square(
                "torchvision", "batch normalisation, 3x3 for 5x5", 3, 224, 32, 1000, 13_004_888, 1_498_376_192, 379
            ),
            _square("d2l", "one channel, ten classes, no heads", 1, 96, 32, 10, 5_977_530, 276_066_304, 715),
        ),
        Recipe("adamw", lr=1e-3, batch_size=128, epochs=30, weight_decay=5e-2),
    ),
    Model(
        "mobilenet_v1",
        "depthwise-separable convolutions",
        "Howard et al. 2017",
        "mobilenet:mobilenet_v1",
        (
            _square("1.0", "width x 1.0", 3, 224, 32, 1000, 4_231_976, 568_740_352, 315),
            _square("0.75", "width x 0.75", 3, 224, 32, 1000, 2_585_560, 325_400_448, 315),
            _square("0.5", "width x 0.5", 3, 224, 32, 1000, 1_331_592, 149_497_088, 315),
            _square("0.25", "width x 0.25", 3, 224, 32, 1000, 470_072, 41_030_272, 315),
        ),
        Recipe("adamw", lr=2e-3, batch_size=128, epochs=30, weight_decay=5e-2, label_smoothing=0.1),
    ),
    Model(
        "mobilenet_v2",
        "inverted residuals with linear ends",
        "Sandler et al. 2018",
        "mobilenet:mobilenet_v2",
        (_square("1.0", "width x 1.0", 3, 224, 32, 1000, 3_504_872, 300_774_272, 491),),
        Recipe("adamw", lr=2e-3, batch_size=128, epochs=30, weight_decay=5e-2, label_smoothing=0.1),
    ),
    Model(
        "shufflenet_v1",
        "grouped 1x1 convolutions, channel shuffle",
        "Zhang et al. 2018",
        "shufflenet:shufflenet_v1",
        (
            _square("g3", "3 groups", 3, 224, 32, 1000, 1_865_728, 137_460_672, 527),
            _square("g1", "no groups", 3, 224, 32, 1000, 1_531_936, 143_078_976, 527),
            _square("g2", "2 groups", 3, 224, 32, 1000, 1_733_848, 140_836_512, 527),
            _square("g4", "4 groups", 3, 224, 32, 1000, 1_968_344, 134_339_776, 527),
            _square("g8", "8 groups", 3, 224, 32, 1000, 2_434_768, 138_365_952, 527),
        ),
        Recipe("adamw", lr=2e-3, batch_size=128, epochs=30, weight_decay=5e-2, label_smoothing=0.1),
    ),
    Model(
        "resnet18",
        "residual blocks, for comparison",
        "He et al. 2016",
        "resnet:resnet18",
        (_square("torchvision", "stride on the 3x3", 3, 224, 32, 1000, 11_689_512, 1_814_073_344, 435),),
        Recipe("adamw", lr=1e-3, batch_size=128, epochs=30, weight_decay=5e-2, label_smoothing=0.1),
    ),
    Model(
        "resnet34",
        "residual blocks, for comparison",
        "He et al. 2016",
        "resnet:resnet34",
        (_square("torchvision", "stride on the 3x3", 3, 224, 32, 1000, 21_797_672, 3_663_761_408, 899),),
        Recipe("adamw", lr=1e-3, batch_size=128, epochs=30, weight_decay=5e-2, label_smoothing=0.1),
    ),
    Model(
        "resnet50",
        "residual blocks, for comparison",
        "He et al. 2016",
        "resnet:resnet50",
        (_square("torchvision", "stride on the 3x3", 3, 224, 32, 1000, 25_557_032, 4_089_184_256, 427),),
        Recipe("adamw", lr=1e-3, batch_size=128, epochs=30, weight_decay=5e-2, label_smoothing=0.1),
    ),
)
