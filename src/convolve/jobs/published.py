"""Published totals of the classic networks, by source, and the comparison of a report with them.

Parameters (of the network as it predicts, without heads that only training has) and MACs (biases not counted) are exact
integers from reference tables: the papers', torchvision's documentation, d2l.ai's and others' definitions, recomputed layer
by layer. None where the source gives no such number.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from convolve.analysis.report import Report
from convolve.errors import UnknownNameError


@dataclass(frozen=True)
class Published:
    """One line: the network (and variant) as `convolve.models` names it, whose definition, its totals."""

    model: str
    source: str
    parameters: int | None
    macs: int | None
    connections: int | None = None


PUBLISHED: tuple[Published, ...] = (
    Published("lenet5", "paper", 60_000, None, connections=340_908),
    Published("lenet", "d2l", 61_706, 416_520),
    Published("lenet-shusentang", "shusentang", 44_426, 281_640),
    Published("alexnet", "paper", 60_965_224, 724_406_816),
    Published("alexnet-torchvision", "torchvision", 61_100_840, 714_188_480),
    Published("alexnet-d2l", "d2l", 46_764_746, 938_146_176),
    Published("vgg11", "paper", 132_863_336, 7_609_090_048),
    Published("vgg11", "torchvision", 132_863_336, 7_609_090_048),
    Published("vgg11-d2l", "d2l", 128_806_154, None),
    Published("vgg13", "paper", 133_047_848, 11_308_466_176),
    Published("vgg13", "torchvision", 133_047_848, 11_308_466_176),
    Published("vgg16", "paper", 138_357_544, 15_470_264_320),
    Published("vgg16", "torchvision", 138_357_544, 15_470_264_320),
    Published("vgg16-c", "paper", 133_638_952, 11_770_888_192),
    Published("vgg19", "paper", 143_667_240, 19_632_062_464),
    Published("vgg19", "torchvision", 143_667_240, 19_632_062_464),
    Published("googlenet", "paper", 6_998_552, 1_582_671_872),
    Published("googlenet-torchvision", "torchvision", 6_624_904, 1_498_376_192),
    Published("googlenet-bn", "corrected", 7_005_832, 1_582_671_872),
    Published("googlenet-d2l", "d2l", 5_977_530, None),
    Published("nin", "paper", 966_986, 222_486_528),
    Published("nin-imagenet", "caffe", 7_595_176, 969_460_864),
    Published("nin-d2l", "d2l", 1_992_166, 762_297_352),
    Published("mobilenet_v1", "paper", 4_231_976, 568_740_352),
    Published("mobilenet_v1-0.75", "paper", 2_585_560, 325_400_448),
    Published("mobilenet_v1-0.5", "paper", 1_331_592, 149_497_088),
    Published("mobilenet_v1-0.25", "paper", 470_072, 41_030_272),
    Published("shufflenet_v1-g1", "paper", 1_531_936, 143_078_976),
    Published("shufflenet_v1-g2", "paper", 1_733_848, 140_836_512),
    Published("shufflenet_v1-g3", "paper", 1_865_728, 137_460_672),
    Published("shufflenet_v1-g4", "paper", 1_968_344, 134_339_776),
    Published("shufflenet_v1-g8", "paper", 2_434_768, 138_365_952),
)


@dataclass(frozen=True)
class Comparison:
    """Quantity by quantity: (what, published, ours)."""

    model: str
    source: str
    values: tuple[tuple[str, int, int], ...]

    @property
    def agrees(self) -> bool:
        return all(theirs == ours for _, theirs, ours in self.values)

    @property
    def lines(self) -> list[str]:
        """One line per quantity."""
        return [
            f"{what:<11} {self.source} {theirs:,}, here {ours:,}"
            + ("" if theirs == ours else f": differs by {ours - theirs:+,}")
            for what, theirs, ours in self.values
        ]


def like(report: Report, name: str, source: str) -> Comparison:
    """The report's totals beside those published by `source` for the network of that name. Raises UnknownNameError."""
    rows = [row for row in PUBLISHED if row.model in (name, f"{name}-{source}")]
    chosen = next((row for row in sorted(rows, key=lambda row: row.model != name) if row.source == source), None)
    if chosen is None:
        kind = f"published total of {name}"
        raise UnknownNameError.of(kind, source, [row.source for row in rows] or sorted({r.model for r in PUBLISHED}))
    values = []
    if chosen.parameters is not None:
        values.append(("parameters", chosen.parameters, report.totals.active))
    if chosen.macs is not None:
        values.append(("MACs", chosen.macs, report.totals.macs))
    if chosen.connections is not None:
        values.append(("connections", chosen.connections, connections(report)))
    return Comparison(name, source, tuple(values))


def connections(report: Report) -> int:
    """LeCun et al.'s count (1998, section II.B): one per weight used and one per bias, at every unit that has them.

    A subsampling unit counts the elements of its window and its bias (5 for 2 x 2); the kernels of a connection table are only those
    that exist; the output layer's bitmaps count one per element though they are fixed.
    """
    sizes = {name: p.numel for p in report.trace.parameters if not p.buffer for name in p.names}
    found = 0
    for step in report.trace.steps:
        if step.op.startswith(("conv", "linear")):
            own = sum(numel for name, numel in sizes.items() if name.rpartition(".")[0] == step.path)
            output = step.outputs[0].shape
            found += own * prod(output[2:]) * output[0]
        elif step.op.startswith("avg_pool"):
            kernel = step.arguments["kernel_size"]
            taps = prod(kernel) if isinstance(kernel, (tuple, list)) else kernel**2
            found += (taps + 1) * step.outputs[0].numel
    bitmaps = sum(p.numel for p in report.trace.parameters if p.buffer and p.names[0] == "out.prototypes")
    return found + bitmaps
