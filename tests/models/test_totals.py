"""Every variant of the table against the totals of its paper or release, counted again from the modules on the meta device."""

from __future__ import annotations

import pytest
import torch

from convolve.models import MODELS, create, find
from convolve.models.lenet5 import LeNet5
from models import counting

VARIANTS = [(model.name, variant.name) for model in MODELS.values() for variant in model.variants]

# Published, or summed from the papers' tables by hand; None where no such number was found.
# name, variant: parameters, multiply-adds, receptive field
PUBLISHED: dict[tuple[str, str], tuple[int, int | None, int | None]] = {
    ("lenet", "d2l"): (61_706, 416_520, None),
    ("lenet", "shusentang"): (44_426, 281_640, None),
    ("lenet_relu", "relu"): (61_706, 416_520, None),
    ("lenet5", "1998"): (60_000, None, 32),
    ("alexnet", "2012"): (60_965_224, 724_406_816, 195),
    ("alexnet", "2012-ungrouped"): (62_378_344, 1_135_256_096, 195),
    ("alexnet", "torchvision"): (61_100_840, 714_188_480, 195),
    ("alexnet", "d2l"): (46_764_746, 938_146_176, None),
    ("alexnet", "shusentang"): (46_764_746, 938_146_176, None),
    ("vgg11", "vgg"): (132_863_336, 7_609_090_048, 150),
    ("vgg11", "bn"): (132_868_840, None, 150),
    ("vgg11", "d2l"): (128_806_154, None, 150),
    ("vgg13", "vgg"): (133_047_848, 11_308_466_176, 156),
    ("vgg13", "bn"): (133_053_736, None, 156),
    ("vgg16", "vgg"): (138_357_544, 15_470_264_320, 212),
    ("vgg16", "bn"): (138_365_992, None, 212),
    ("vgg16", "c"): (133_638_952, 11_770_888_192, 156),
    ("vgg19", "vgg"): (143_667_240, 19_632_062_464, 268),
    ("vgg19", "bn"): (143_678_248, None, 268),
    ("nin", "cifar"): (966_986, 222_486_528, None),
    ("nin", "imagenet"): (7_595_176, 969_460_864, None),
    ("nin", "d2l"): (1_992_166, 762_297_352, None),
    ("googlenet", "paper"): (13_378_280, 1_582_671_872, None),
    ("googlenet", "bn"): (13_385_816, 1_582_671_872, None),
    ("googlenet", "torchvision"): (13_004_888, 1_498_376_192, None),
    ("googlenet", "d2l"): (5_977_530, None, None),
    ("mobilenet_v1", "1.0"): (4_231_976, 568_740_352, 315),
    ("mobilenet_v1", "0.75"): (2_585_560, 325_400_448, 315),
    ("mobilenet_v1", "0.5"): (1_331_592, 149_497_088, 315),
    ("mobilenet_v1", "0.25"): (470_072, 41_030_272, 315),
    ("mobilenet_v2", "1.0"): (3_504_872, 300_774_272, None),
    ("shufflenet_v1", "g1"): (1_531_936, 143_078_976, None),
    ("shufflenet_v1", "g2"): (1_733_848, 140_836_512, None),
    ("shufflenet_v1", "g3"): (1_865_728, 137_460_672, None),
    ("shufflenet_v1", "g4"): (1_968_344, 134_339_776, None),
    ("shufflenet_v1", "g8"): (2_434_768, 138_365_952, None),
    ("resnet18", "torchvision"): (11_689_512, 1_814_073_344, None),
    ("resnet34", "torchvision"): (21_797_672, 3_663_761_408, None),
    ("resnet50", "torchvision"): (25_557_032, 4_089_184_256, None),
}


def _meta(name: str, **arguments: object) -> torch.nn.Module:
    with torch.device("meta"):
        return create(name, **arguments)


def _image(name: str, variant: str | None = None) -> torch.Tensor:
    row = find(name, variant)[1]
    return torch.empty(1, row.channels, *row.size, device="meta")


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_tables_totals_are_those_counted_from_the_modules(name: str, variant: str) -> None:
    row = find(name, variant)[1]
    net = _meta(name, variant=variant)
    counted = sum(p.numel() for p in net.parameters() if p.requires_grad)
    fixed = net.out.prototypes.numel() if isinstance(net, LeNet5) else 0
    macs = sum(counting.multiply_adds(net, _image(name, variant)).values())
    assert (row.parameters, row.fixed, row.macs) == (counted, fixed, macs)
    assert counting.receptive_field(net) == (row.receptive_field, row.receptive_field)


@pytest.mark.parametrize(("name", "variant"), sorted(PUBLISHED))
def test_the_tables_totals_are_the_published_ones(name: str, variant: str) -> None:
    row = find(name, variant)[1]
    for own, published in zip((row.parameters, row.macs, row.receptive_field), PUBLISHED[name, variant], strict=True):
        assert published is None or own == published


def test_every_variant_but_our_own_networks_has_published_totals() -> None:
    own = {("smallnet", "smallnet"), ("swiftnet", "swiftnet")}
    assert {variant for variant in VARIANTS if variant not in PUBLISHED} == own


def test_lenet5_has_the_papers_counts_layer_by_layer() -> None:
    net, x = _meta("lenet5"), _image("lenet5")
    trainable = {name: sum(p.numel() for p in layer.parameters()) for name, layer in net.named_children()}
    paper = {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert {name: count for name, count in trainable.items() if count} == paper
    counted = counting.connections(net, x)
    assert counted == {
        "c1": 122_304, "s2": 5_880, "c3": 151_600, "s4": 2_000, "c5": 48_120, "f6": 10_164, "out": 840,
    }  # fmt: skip
    assert sum(counted.values()) == 340_908


LAYERS = {  # multiply-adds and parameters of single layers, from the papers and their released code
    ("alexnet", "2012"): {
        "conv1": (105_415_200, 34_944), "conv2": (223_948_800, 307_456), "conv3": (149_520_384, 885_120),
        "conv4": (112_140_288, 663_936), "conv5": (74_760_192, 442_624),
        "fc1": (37_748_736, 37_752_832), "fc2": (16_777_216, 16_781_312), "fc3": (4_096_000, 4_097_000),
    },
    ("mobilenet_v1", "1.0"): {
        "stem.conv": (10_838_016, 864), "depthwise1.conv": (3_612_672, 288), "pointwise1.conv": (25_690_112, 2_048),
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "variant"), sorted(LAYERS))
def test_single_layers_have_the_published_counts(name: str, variant: str) -> None:
    net = _meta(name, variant=variant)
    macs = counting.multiply_adds(net, _image(name, variant))
    for layer, published in LAYERS[name, variant].items():
        assert (macs[layer], sum(p.numel() for p in net.get_submodule(layer).parameters())) == published


INCEPTION_WEIGHTS = {  # weights without biases, from the channel counts of the paper's table 1
    "3a": 163_328, "3b": 388_096, "4a": 375_552, "4b": 448_512, "4c": 509_440, "4d": 604_672, "4e": 867_328,
    "5a": 1_042_432, "5b": 1_442_816,
}  # fmt: skip


def test_inception_blocks_have_the_weights_of_the_papers_columns() -> None:
    net = _meta("googlenet")
    for block, weights in INCEPTION_WEIGHTS.items():
        assert sum(p.numel() for p in net.get_submodule(f"inception{block}").parameters() if p.dim() == 4) == weights
    assert sum(p.numel() for n, p in net.named_parameters() if not n.startswith("aux")) == 6_998_552
    assert sum(p.numel() for n, p in _meta("googlenet-bn").named_parameters() if not n.startswith("aux")) == 7_005_832
    without = sum(p.numel() for p in _meta("googlenet-torchvision", aux=False).parameters())
    assert without == 6_624_904


SHAPES = {  # as printed by the tutorials, and by the papers' figures
    ("alexnet", "d2l"): {
        "conv1": (96, 54, 54), "max1": (96, 26, 26), "conv2": (256, 26, 26), "max2": (256, 12, 12),
        "conv3": (384, 12, 12), "conv4": (384, 12, 12), "conv5": (256, 12, 12), "max3": (256, 5, 5), "flatten1": (6400,),
    },
    ("alexnet", "2012"): {
        "conv1": (96, 55, 55), "max1": (96, 27, 27), "conv2": (256, 27, 27), "max2": (256, 13, 13),
        "conv3": (384, 13, 13), "conv4": (384, 13, 13), "conv5": (256, 13, 13), "max3": (256, 6, 6), "flatten1": (9216,),
    },
    ("vgg11", "d2l"): {
        "features.2": (64, 112, 112), "features.5": (128, 56, 56), "features.10": (256, 28, 28),
        "features.15": (512, 14, 14), "features.20": (512, 7, 7), "flatten": (25088,),
    },
    ("nin", "d2l"): {
        "block1.5": (96, 54, 54), "pool1": (96, 26, 26), "block2.5": (256, 26, 26), "pool2": (256, 12, 12),
        "block3.5": (384, 12, 12), "pool3": (384, 5, 5), "block4.5": (10, 5, 5), "average": (10, 1, 1), "flatten": (10,),
    },
    ("nin", "cifar"): {"pool1": (96, 16, 16), "pool2": (192, 8, 8), "block3.4": (10, 8, 8)},
    ("googlenet", "d2l"): {
        "maxpool1": (64, 24, 24), "maxpool2": (192, 12, 12), "maxpool3": (480, 6, 6), "maxpool4": (832, 3, 3),
        "flatten": (1024,), "fc": (10,),
    },
    ("googlenet", "paper"): {
        "conv1.conv": (64, 112, 112), "maxpool1": (64, 56, 56), "maxpool2": (192, 28, 28), "maxpool3": (480, 14, 14),
        "maxpool4": (832, 7, 7), "flatten": (1024,),
    },
    ("lenet5", "1998"): {
        "c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5), "c5": (120, 1, 1), "f6": (84,),
    },
    ("mobilenet_v1", "1.0"): {"stem.conv": (32, 112, 112), "pointwise13.conv": (1024, 7, 7)},
    ("shufflenet_v1", "g3"): {
        "pool": (24, 56, 56), "stage2_4.relu": (240, 28, 28), "stage3_8.relu": (480, 14, 14), "stage4_4.relu": (960, 7, 7),
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "variant"), sorted(SHAPES))
def test_layers_have_the_published_shapes(name: str, variant: str) -> None:
    found = counting.shapes(_meta(name, variant=variant), _image(name, variant))
    assert {layer: found[layer][1:] for layer in SHAPES[name, variant]} == SHAPES[name, variant]


def test_width_divisors_give_the_tutorials_totals() -> None:
    def count(**arguments: int) -> int:
        return sum(p.numel() for p in _meta("vgg11-d2l", **arguments).parameters())

    assert count(width_divisor=4) == 43_093_322  # d2l: the hidden width of 4,096 is kept
    assert count(width_divisor=8, hidden=512) == 2_018_346  # ShusenTang


def test_the_share_of_fully_connected_parameters_is_what_nin_gives_up() -> None:
    def share(name: str) -> float:
        net = _meta(name)
        linear = sum(p.numel() for m in net.modules() if isinstance(m, torch.nn.Linear) for p in m.parameters())
        return linear / sum(p.numel() for p in net.parameters())

    assert [round(share(name), 2) for name in ("alexnet", "vgg16", "nin")] == [0.96, 0.89, 0.0]
