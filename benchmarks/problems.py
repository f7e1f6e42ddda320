"""The named problems of benchmarks/ops.py and the classes they belong to: tables, fixed before anything was measured.

A problem is the text of `convolve.why`, or for pooling "32x64x112x112 max 3x3 s2 p1", with `train` for a forward pass that prepares a
backward one, `backward` for that one alone. A star in the lists below adds both gradients of a layer as rows of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Group:
    """A class of problems, with the ratios it should reach (geometric means; peer time over ours)."""

    title: str
    called: float | None
    """Against torch as it is called: channels first."""
    best: float | None
    """Against torch in its best layout."""
    peers: dict[str, float]
    """Against other libraries."""


@dataclass(frozen=True)
class Row:
    """One problem. `kernel` names the values of the weight where they are not random; `frozen`: with `freeze`, as for inference."""

    name: str
    group: str
    problem: str
    kernel: str = ""
    frozen: bool = False

    @property
    def pooling(self) -> bool:
        return any(word in self.problem.split() for word in ("max", "avg", "unfold"))


GROUPS: dict[str, Group] = {
    "filters": Group("image filters, 1 to 3 channels, kernels 3 to 15", 20, None, {"opencv": 1.0}),
    "large": Group("kernels 31 to 127 on images", 50, None, {"scipy": 1.0}),
    "depthwise": Group("depthwise 3x3 to 7x7", 1.5, 1.0, {}),
    "depthwise31": Group("depthwise 31x31", 40, 1.3, {}),
    "winograd": Group(
        "3x3 stride 1, 64 channels and more, maps of 14 and more, frozen",
        2.6,
        2.2,
        {"openvino": 1.6, "onnxruntime": 1.6},
    ),
    "winograd_plain": Group("the same without freeze, and both gradients", None, 1.6, {}),
    "few": Group("few channels: LeNet and first layers, forward", 2, 1.5, {}),
    "few_gradients": Group("the same, input and weight gradients", 4, 2, {}),
    "unusual": Group("small groups, dilated and long 1-D, 3-D with few channels", 3, 1.3, {}),
    "transposed": Group("transposed", 1.5, 1.2, {}),
    "pooling": Group("max and average pooling, forward and backward", 10, 1.0, {}),
    "float64": Group("float64", 5, 4, {}),
    "dense": Group("dense 1x1 and large matrix-like layers", 1.0, 0.95, {}),
    "columns": Group("im2col and col2im (no target was set)", None, None, {}),
}
ALL = Group("all", 4, 1.7, {})
"""Of the whole suite."""


def _starred(name: str, group: str, gradients: str, problem: str) -> tuple[Row, ...]:
    return (
        Row(name, group, problem),
        Row(f"{name} dx", gradients, f"{problem} input_gradient"),
        Row(f"{name} dw", gradients, f"{problem} weight_gradient"),
    )


def _pooled(name: str, problem: str) -> tuple[Row, ...]:
    return tuple(
        Row(f"{name}{suffix}", "pooling", f"{problem} {word}".strip())
        for suffix, word in (("", ""), (" train", "train"), (" back", "backward"))
    )


def _winograd(name: str, problem: str) -> tuple[Row, ...]:
    plain, dx, dw = _starred(name, "winograd_plain", "winograd_plain", problem)
    return Row(name, "winograd", problem, frozen=True), replace(plain, name=f"{name} plain"), dx, dw


ROWS: tuple[Row, ...] = (
    # LeNet, AlexNet and the first layers of the others
    *_starred("L1", "few", "few_gradients", "256x1x28x28 k6 5x5 p2"),
    *_starred("L2", "few", "few_gradients", "256x6x14x14 k16 5x5"),
    *_starred("L3", "few", "few_gradients", "1x1x28x28 k6 5x5 p2"),
    *_starred("L4", "few", "few_gradients", "1x6x14x14 k16 5x5"),
    *_starred("A1", "few", "few_gradients", "16x3x224x224 k64 11x11 s4 p2"),
    *_starred("V1", "few", "few_gradients", "1x3x224x224 k64 3x3 p1"),
    Row("R1", "few", "1x3x224x224 k64 7x7 s2 p3"),
    Row("one channel dx", "few_gradients", "1x1x1024x1024 k1 3x3 p1 input_gradient"),
    Row("one channel dw", "few_gradients", "1x1x1024x1024 k1 3x3 p1 weight_gradient"),
    # 3x3 at stride 1: where Winograd pays
    *_winograd("V2", "1x64x224x224 k64 3x3 p1"),
    *_winograd("V3", "1x128x112x112 k128 3x3 p1"),
    *_winograd("V4", "1x256x56x56 k256 3x3 p1"),
    *_winograd("V5", "1x512x28x28 k512 3x3 p1"),
    *_winograd("V6", "8x512x14x14 k512 3x3 p1"),
    *_winograd("G1", "1x64x56x56 k192 3x3 p1"),
    *_winograd("G4", "8x160x14x14 k320 3x3 p1"),
    Row("batch 8", "winograd", "8x128x28x28 k128 3x3 p1", frozen=True),
    Row("batch 8 plain", "winograd_plain", "8x128x28x28 k128 3x3 p1"),
    Row("batch 8 dw", "winograd_plain", "8x128x28x28 k128 3x3 p1 weight_gradient"),
    # dense
    *_starred("A2", "dense", "dense", "16x64x27x27 k192 5x5 p2"),
    *_starred("A3", "dense", "dense", "16x192x13x13 k384 3x3 p1"),
    *_starred("A4", "dense", "dense", "1x256x13x13 k256 3x3 p1"),
    *_starred("V7", "dense", "dense", "256x32x28x28 k64 3x3 p1"),
    Row("N1", "dense", "16x96x54x54 k96 1x1"),
    Row("N2", "dense", "16x96x26x26 k256 5x5 p2"),
    *_starred("N3", "dense", "dense", "16x256x12x12 k384 3x3 p1"),
    Row("G2", "dense", "1x192x28x28 k64 1x1"),
    Row("G3", "dense", "1x16x28x28 k32 5x5 p2"),
    Row("G5", "dense", "8x832x7x7 k384 1x1"),
    Row("M5", "dense", "1x32x112x112 k64 1x1"),
    Row("M6", "dense", "1x512x14x14 k512 1x1"),
    # depthwise
    *_starred("M1", "depthwise", "depthwise", "1x32x112x112 k32 3x3 p1 g32"),
    Row("M2", "depthwise", "1x64x112x112 k64 3x3 s2 p1 g64"),
    Row("M3", "depthwise", "1x512x14x14 k512 3x3 p1 g512"),
    *_starred("M4", "depthwise", "depthwise", "32x512x14x14 k512 3x3 p1 g512"),
    *_starred("K1", "depthwise", "depthwise", "1x96x56x56 k96 7x7 p3 g96"),
    Row("K3", "depthwise", "1x64x64x64 k128 7x7 p3 g64"),
    Row("K2", "depthwise31", "1x128x56x56 k128 31x31 p15 g128"),
    Row("K2 dx", "depthwise31", "1x128x56x56 k128 31x31 p15 g128 input_gradient"),
    # groups, dilation, one and three axes
    *_starred("R2", "unusual", "unusual", "8x128x56x56 k128 3x3 p1 g32"),
    Row("D1", "unusual", "1x256x33x33 k256 3x3 p12 d12"),
    *_starred("D2", "unusual", "unusual", "1x64x16384 k64 2 d512"),
    Row("K4", "unusual", "1x1x1048576 k1 1023 p511"),
    Row("audio", "unusual", "1x1x160000 k1 401 p200"),
    Row("volume 1", "unusual", "1x1x64x128x128 k1 3x3x3 p1"),
    Row("volume 4", "unusual", "1x4x32x64x64 k8 3x3x3 p1"),
    # transposed
    Row("T1", "transposed", "8x128x28x28 k64 4x4 s2 p1 transposed"),
    # The gradients of a transposed layer are those of the plain one, with its input and output exchanged.
    Row("T1 dx", "transposed", "8x64x56x56 k128 4x4 s2 p1"),
    Row("T1 dw", "transposed", "8x64x56x56 k128 4x4 s2 p1 weight_gradient"),
    Row("T2", "transposed", "1x256x56x56 k128 2x2 s2 transposed"),
    Row("T3", "transposed", "1x1026x224 k1 1024 s256 transposed"),
    # filters on images
    Row("F1", "filters", "1x1x1080x1920 k1 3x3 p1", kernel="sobel_x"),
    Row("F2", "filters", "1x3x1080x1920 k3 11x11 p5 g3", kernel="gaussian"),
    Row("F3", "filters", "1x1x1080x1920 k16 7x7 p3"),
    Row("any 3x3", "filters", "1x1x2048x2048 k1 3x3 p1"),
    Row("any 15x15", "filters", "1x1x1024x1024 k1 15x15 p7"),
    Row("RGB 5x5", "filters", "1x3x1080x1920 k3 5x5 p2 g3"),
    Row("31x31", "large", "1x1x1024x1024 k1 31x31 p15"),
    Row("63x63", "large", "1x1x1024x1024 k1 63x63 p31"),
    Row("127x127", "large", "1x1x512x512 k1 127x127 p63"),
    # pooling
    *_pooled("P1", "1x64x112x112 max 3x3 s2 p1"),
    *_pooled("P2", "256x6x28x28 max 2x2 s2"),
    *_pooled("P3", "8x192x28x28 avg 3x3 s1 p1"),
    *_pooled("max s2", "32x64x112x112 max 3x3 s2 p1"),
    *_pooled("max s1", "32x64x112x112 max 3x3 s1 p1"),
    *_pooled("avg s1", "32x64x112x112 avg 3x3 s1 p1"),
    *_pooled("global", "32x512x7x7 avg 7x7 s1"),
    # float64
    Row("d filter", "float64", "1x1x1024x1024 k1 3x3 p1 float64"),
    *_starred("d L2", "float64", "float64", "256x6x14x14 k16 5x5 float64"),
    Row("d V4", "float64", "1x64x56x56 k64 3x3 p1 float64"),
    Row("d depthwise", "float64", "1x32x112x112 k32 3x3 p1 g32 float64"),
    Row("d 1x1", "float64", "1x192x28x28 k64 1x1 float64"),
    # columns
    Row("U1", "columns", "8x64x56x56 unfold 3x3 s1 p1"),
)
