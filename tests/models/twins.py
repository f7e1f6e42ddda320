"""The networks once more, as plain functions of torch.nn.functional, written from the papers' tables.

A twin pulls its weights from the network in the order of running, and checks each one's shape against the paper's; nothing
else is shared. TWINS says for each variant which twin it has and at what reduced width and size the two are compared:
sizes are odd, and large enough that no pooling is trivial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convolve.models import create, find


class Weights:
    """Hands out a network's parameters in their order; batch normalisation also takes its running statistics."""

    def __init__(self, net: nn.Module, prefix: str = "", but: str = "-") -> None:
        def mine(name: str) -> bool:
            return name.startswith(prefix) and not name.startswith(but)

        self.training = net.training
        self.parameters: Iterator[Tensor] = iter([p for name, p in net.named_parameters() if mine(name)])
        self.buffers = iter([b.clone() for name, b in net.named_buffers() if mine(name) and "running" in name])

    def conv(
        self, x: Tensor, out: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1, bias: bool = True
    ) -> Tensor:
        weight = next(self.parameters)
        assert weight.shape == (out, x.shape[1] // groups, kernel, kernel)
        return F.conv2d(x, weight, next(self.parameters) if bias else None, stride, padding, 1, groups)

    def bn(self, x: Tensor) -> Tensor:
        weight, bias = next(self.parameters), next(self.parameters)
        mean, var = next(self.buffers), next(self.buffers)
        return F.batch_norm(x, mean, var, weight, bias, training=self.training)

    def unit(self, x: Tensor, *conv: int, norm: bool = True, **options: int) -> Tensor:
        x = self.conv(x, *conv, bias=not norm, **options)
        return F.relu(self.bn(x) if norm else x)

    def fc(self, x: Tensor, out: int) -> Tensor:
        weight = next(self.parameters)
        assert weight.shape == (out, x.shape[1])
        return F.linear(x, weight, next(self.parameters))

    def dropout(self, x: Tensor, probability: float) -> Tensor:
        return F.dropout(x, probability, self.training)

    def done(self) -> None:
        assert next(self.parameters, None) is None, "the network has more parameters than its paper"


def lenet(net: nn.Module, x: Tensor, act: Any, pool: Any, padding: int) -> Tensor:
    w = Weights(net)
    x = pool(act(w.conv(x, 6, 5, 1, padding)), 2)
    x = pool(act(w.conv(x, 16, 5)), 2).flatten(1)
    x = w.fc(act(w.fc(act(w.fc(x, 120)), 84)), 10)
    w.done()
    return x


def swiftnet(net: nn.Module, x: Tensor) -> Tensor:
    w = Weights(net)
    x = F.max_pool2d(F.relu(w.conv(x, 8, 5)), 2)
    x = w.bn(F.max_pool2d(F.relu(w.conv(x, 32, 5)), 2)).flatten(1)
    x = w.fc(F.relu(w.fc(x, 128)), 10)
    w.done()
    return x


def lenet5(net: nn.Module, x: Tensor) -> Tensor:
    """Section II-B, with the table by S2 maps (its rows) where the package has it by C3 maps (its columns)."""
    rows = {
        0: (0, 4, 5, 6, 9, 10, 11, 12, 14, 15), 1: (0, 1, 5, 6, 7, 10, 11, 12, 13, 15),
        2: (0, 1, 2, 6, 7, 8, 11, 13, 14, 15), 3: (1, 2, 3, 6, 7, 8, 9, 12, 14, 15),
        4: (2, 3, 4, 7, 8, 9, 10, 12, 13, 15), 5: (3, 4, 5, 8, 9, 10, 11, 13, 14, 15),
    }  # fmt: skip

    def f(a: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(a * 2 / 3)

    def subsample(x: Tensor, coefficient: Tensor, bias: Tensor) -> Tensor:
        total = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
        return f(total * coefficient.view(-1, 1, 1) + bias.view(-1, 1, 1))

    w = dict(net.named_parameters())
    x = subsample(f(F.conv2d(x, w["c1.weight"], w["c1.bias"])), w["s2.weight"], w["s2.bias"])
    maps, kernel = [], 0
    for c3 in range(16):
        total = w["c3.bias"][c3]
        for s2 in range(6):
            if c3 in rows[s2]:
                total = total + F.conv2d(x[:, s2 : s2 + 1], w["c3.weight"][kernel].view(1, 1, 5, 5))
                kernel += 1
        maps.append(total)
    x = subsample(f(torch.cat(maps, 1)), w["s4.weight"], w["s4.bias"])
    x = f(F.conv2d(x, w["c5.weight"], w["c5.bias"])).flatten(1)
    x = f(F.linear(x, w["f6.weight"], w["f6.bias"]))
    return -torch.cdist(x, net.out.prototypes).square()


def alexnet(net: nn.Module, x: Tensor, divisor: int, groups: int, lrn: bool, padding: int, classes: int) -> Tensor:
    w = Weights(net)

    def respond(x: Tensor) -> Tensor:
        if not lrn:
            return x
        squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        total = sum(squares[:, i : i + x.shape[1]] for i in range(5))
        return x / (2 + 1e-4 * total) ** 0.75

    x = F.max_pool2d(respond(F.relu(w.conv(x, 96 // divisor, 11, 4, padding))), 3, 2)
    x = F.max_pool2d(respond(F.relu(w.conv(x, 256 // divisor, 5, 1, 2, groups))), 3, 2)
    x = F.relu(w.conv(x, 384 // divisor, 3, 1, 1))
    x = F.relu(w.conv(x, 384 // divisor, 3, 1, 1, groups))
    x = F.relu(w.conv(x, 256 // divisor, 3, 1, 1, groups))
    x = F.max_pool2d(x, 3, 2).flatten(1)
    x = w.dropout(F.relu(w.fc(x, 4096 // divisor)), 0.5)
    x = w.dropout(F.relu(w.fc(x, 4096 // divisor)), 0.5)
    x = w.fc(x, classes)
    w.done()
    return x


def alexnet_torchvision(net: nn.Module, x: Tensor, divisor: int) -> Tensor:
    w = Weights(net)
    x = F.max_pool2d(F.relu(w.conv(x, 64 // divisor, 11, 4, 2)), 3, 2)
    x = F.max_pool2d(F.relu(w.conv(x, 192 // divisor, 5, 1, 2)), 3, 2)
    x = F.relu(w.conv(x, 384 // divisor, 3, 1, 1))
    x = F.relu(w.conv(x, 256 // divisor, 3, 1, 1))
    x = F.max_pool2d(F.relu(w.conv(x, 256 // divisor, 3, 1, 1)), 3, 2)
    x = w.dropout(F.adaptive_avg_pool2d(x, 6).flatten(1), 0.5)
    x = w.dropout(F.relu(w.fc(x, 4096 // divisor)), 0.5)
    x = w.fc(F.relu(w.fc(x, 4096 // divisor)), 1000)
    w.done()
    return x


def vgg(net: nn.Module, x: Tensor, groups: str, divisor: int, hidden: int, norm: bool, classes: int) -> Tensor:
    """`groups` as in the paper's table: a digit is a convolution's kernel, "m" a maximum."""
    w = Weights(net)
    width = 64
    for part in groups.split():
        for kernel in part:
            x = w.conv(x, width // divisor, int(kernel), 1, int(kernel) // 2)
            x = F.relu(w.bn(x) if norm else x)
        x = F.max_pool2d(x, 2, 2)
        width = min(512, 2 * width)
    x = x.flatten(1)
    for _ in range(2):
        x = w.dropout(F.relu(w.fc(x, hidden)), 0.5)
    x = w.fc(x, classes)
    w.done()
    return x


def nin_cifar(net: nn.Module, x: Tensor, divisor: int) -> Tensor:
    w = Weights(net)
    for out, kernel, padding in ((192, 5, 2), (160, 1, 0), (96, 1, 0)):
        x = F.relu(w.conv(x, out // divisor, kernel, 1, padding))
    x = w.dropout(F.max_pool2d(x, 3, 2, ceil_mode=True), 0.5)
    for out, kernel, padding in ((192, 5, 2), (192, 1, 0), (192, 1, 0)):
        x = F.relu(w.conv(x, out // divisor, kernel, 1, padding))
    x = w.dropout(F.avg_pool2d(x, 3, 2, ceil_mode=True), 0.5)
    x = F.relu(w.conv(x, 192 // divisor, 3, 1, 1))
    x = F.relu(w.conv(x, 192 // divisor, 1))
    x = w.conv(x, 10, 1).mean((2, 3))
    w.done()
    return x


def nin_large(net: nn.Module, x: Tensor, divisor: int, last: tuple[int, int], classes: int, last_relu: bool) -> Tensor:
    w = Weights(net)
    for out, kernel, stride, padding in ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1)):
        x = F.relu(w.conv(x, out // divisor, kernel, stride, padding))
        x = F.relu(w.conv(F.relu(w.conv(x, out // divisor, 1)), out // divisor, 1))
        x = F.max_pool2d(x, 3, 2)
    x = w.dropout(x, 0.5)
    x = F.relu(w.conv(x, last[0], 3, 1, 1))
    x = w.conv(F.relu(w.conv(x, last[1], 1)), classes, 1)
    x = (F.relu(x) if last_relu else x).mean((2, 3))
    w.done()
    return x


INCEPTION = """
3a 64 96 128 16 32 32 | 3b 128 128 192 32 96 64 | 4a 192 96 208 16 48 64 | 4b 160 112 224 24 64 64 | 4c 128 128 256 24 64 64
| 4d 112 144 288 32 64 64 | 4e 256 160 320 32 128 128 | 5a 256 160 320 32 128 128 | 5b 384 192 384 48 128 128
"""


def googlenet(net: nn.Module, x: Tensor, variant: str, divisor: int, classes: int) -> tuple[Tensor, ...]:
    norm = variant in ("bn", "torchvision")
    third = 3 if variant == "torchvision" else 5
    d = divisor
    w = Weights(net, but="aux")

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, padding=1) if variant == "d2l" else F.max_pool2d(x, 3, 2, ceil_mode=True)

    def respond(x: Tensor) -> Tensor:
        if variant != "paper":
            return x
        squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        return x / (2 + 1e-4 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75

    x = respond(pool(w.unit(x, 64 // d, 7, 2, 3, norm=norm)))
    x = w.unit(w.unit(x, 64 // d, 1, norm=norm), 192 // d, 3, 1, 1, norm=norm)
    x = pool(respond(x))
    middle = {}
    for row in INCEPTION.split("|"):
        block, *numbers = row.split()
        one, three_r, three, five_r, five, proj = (max(1, int(number) // d) for number in numbers)
        paths = [
            w.unit(x, one, 1, norm=norm),
            w.unit(w.unit(x, three_r, 1, norm=norm), three, 3, 1, 1, norm=norm),
            w.unit(w.unit(x, five_r, 1, norm=norm), five, third, 1, third // 2, norm=norm),
            w.unit(F.max_pool2d(x, 3, 1, 1), proj, 1, norm=norm),
        ]
        x = middle[block] = torch.cat(paths, 1)
        if block == "3b" or (block == "4e" and variant != "torchvision"):
            x = pool(x)
        elif block == "4e":
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = x.mean((2, 3))
    if variant != "d2l":
        x = w.dropout(x, 0.2 if variant == "torchvision" else 0.4)
    x = w.fc(x, classes)
    w.done()
    if not net.training or variant == "d2l":
        return (x,)

    def head(prefix: str, x: Tensor) -> Tensor:
        w = Weights(net, prefix)
        x = F.adaptive_avg_pool2d(x, 4) if variant == "torchvision" else F.avg_pool2d(x, 5, 3)
        x = w.unit(x, 128 // d, 1, norm=norm).flatten(1)
        x = w.fc(w.dropout(F.relu(w.fc(x, 1024 // d)), 0.7), classes)
        w.done()
        return x

    return x, head("aux1", middle["4a"]), head("aux2", middle["4d"])


def mobilenet_v1(net: nn.Module, x: Tensor, alpha: float) -> Tensor:
    w = Weights(net)
    channels = int(32 * alpha)
    x = w.unit(x, channels, 3, 2, 1)
    rows = "1-64 2-128 1-128 2-256 1-256 2-512 1-512 1-512 1-512 1-512 1-512 2-1024 1-1024"
    for row in rows.split():
        stride, full = map(int, row.split("-"))
        x = w.unit(x, channels, 3, stride, 1, channels)
        channels = int(full * alpha)
        x = w.unit(x, channels, 1)
    x = w.fc(x.mean((2, 3)), 1000)
    w.done()
    return x


def mobilenet_v2(net: nn.Module, x: Tensor) -> Tensor:
    w = Weights(net)

    def unit(x: Tensor, *conv: int) -> Tensor:
        return F.relu6(w.bn(w.conv(x, *conv, bias=False)))

    x = unit(x, 32, 3, 2, 1)
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for t, c, n, s in rows:
        for index in range(n):
            before, wide = x, x.shape[1] * t
            if t > 1:
                x = unit(x, wide, 1)
            x = unit(x, wide, 3, s if index == 0 else 1, 1, wide)
            x = w.bn(w.conv(x, c, 1, bias=False))
            if index > 0:
                x = x + before
    x = unit(x, 1280, 1)
    x = w.fc(w.dropout(x.mean((2, 3)), 0.2), 1000)
    w.done()
    return x


def shufflenet_v1(net: nn.Module, x: Tensor, groups: int, widths: tuple[int, int, int]) -> Tensor:
    w = Weights(net)
    x = F.max_pool2d(w.unit(x, 24, 3, 2, 1), 3, 2, 1)
    for stage, (width, units) in enumerate(zip(widths, (4, 8, 4), strict=True)):
        for unit in range(units):
            stride = 2 if unit == 0 else 1
            out = width - x.shape[1] if unit == 0 else width
            y = w.unit(x, width // 4, 1, groups=1 if stage == unit == 0 else groups)
            n, c, h, v = y.shape
            y = y.view(n, groups, c // groups, h, v).transpose(1, 2).reshape(n, c, h, v)
            y = w.bn(w.conv(y, c, 3, stride, 1, c, bias=False))
            y = w.bn(w.conv(y, out, 1, groups=groups, bias=False))
            x = F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1) if unit == 0 else x + y)
    x = w.fc(x.mean((2, 3)), 1000)
    w.done()
    return x


def resnet(
    net: nn.Module,
    x: Tensor,
    counts: tuple[int, ...],
    bottleneck: bool,
    stem: Any,
    widths: tuple[int, ...],
    classes: int,
) -> Tensor:
    w = Weights(net)
    x = stem(w, x)
    for stage, (count, width) in enumerate(zip(counts, widths, strict=True)):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            if bottleneck:
                y = w.unit(w.unit(x, width, 1), width, 3, stride, 1)
                y = w.bn(w.conv(y, 4 * width, 1, bias=False))
            else:
                y = w.bn(w.conv(w.unit(x, width, 3, stride, 1), width, 3, 1, 1, bias=False))
            same = x.shape == y.shape
            x = F.relu(y + (x if same else w.bn(w.conv(x, y.shape[1], 1, stride, bias=False))))
    x = w.fc(x.mean((2, 3)), classes)
    w.done()
    return x


def _resnet_stem(w: Weights, x: Tensor) -> Tensor:
    return F.max_pool2d(w.unit(x, 64, 7, 2, 3), 3, 2, 1)


def _smallnet_stem(w: Weights, x: Tensor) -> Tensor:
    return F.max_pool2d(w.unit(x, 32, 3, 1, 1), 2)


@dataclass(frozen=True)
class Twin:
    """How a variant is compared: its twin, the image's height and width, and the options that make it small."""

    run: Callable[..., Any]
    size: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)


def _alexnet(groups: int, lrn: bool, padding: int, classes: int) -> Twin:
    run = partial(alexnet, divisor=8, groups=groups, lrn=lrn, padding=padding, classes=classes)
    return Twin(run, (99, 107), {"width_divisor": 8})


def _vgg(groups: str, norm: bool = False, classes: int = 1000) -> Twin:
    run = partial(vgg, groups=groups, divisor=8, hidden=32, norm=norm, classes=classes)
    return Twin(run, (67, 99), {"width_divisor": 8, "hidden": 32})


def _googlenet(variant: str, classes: int = 1000) -> Twin:
    return Twin(partial(googlenet, variant=variant, divisor=8, classes=classes), (131, 117), {"width_divisor": 8})


def _shufflenet(groups: int, *widths: int) -> Twin:
    return Twin(partial(shufflenet_v1, groups=groups, widths=widths), (37, 35))


def _resnet(counts: tuple[int, ...], bottleneck: bool = False) -> Twin:
    run = partial(
        resnet, counts=counts, bottleneck=bottleneck, stem=_resnet_stem, widths=(64, 128, 256, 512), classes=1000
    )
    return Twin(run, (37, 35))


A, B, C = "3 3 33 33 33", "33 33 33 33 33", "33 33 331 331 331"
D, E = "33 33 333 333 333", "33 33 3333 3333 3333"
TWINS: dict[tuple[str, str], Twin] = {
    ("smallnet", "smallnet"): Twin(
        partial(resnet, counts=(1, 1, 1), bottleneck=False, stem=_smallnet_stem, widths=(32, 64, 128), classes=10),
        (29, 35),
    ),
    ("swiftnet", "swiftnet"): Twin(swiftnet, (29, 31)),
    ("lenet", "d2l"): Twin(partial(lenet, act=torch.sigmoid, pool=F.avg_pool2d, padding=2), (29, 31)),
    ("lenet", "shusentang"): Twin(partial(lenet, act=torch.sigmoid, pool=F.max_pool2d, padding=0), (29, 31)),
    ("lenet_relu", "relu"): Twin(partial(lenet, act=F.relu, pool=F.max_pool2d, padding=2), (29, 31)),
    ("lenet5", "1998"): Twin(lenet5, (32, 32)),
    ("alexnet", "2012"): _alexnet(groups=2, lrn=True, padding=0, classes=1000),
    ("alexnet", "2012-ungrouped"): _alexnet(groups=1, lrn=True, padding=0, classes=1000),
    ("alexnet", "d2l"): _alexnet(groups=1, lrn=False, padding=1, classes=10),
    ("alexnet", "shusentang"): _alexnet(groups=1, lrn=False, padding=0, classes=10),
    ("alexnet", "torchvision"): Twin(partial(alexnet_torchvision, divisor=8), (99, 107), {"width_divisor": 8}),
    ("vgg11", "vgg"): _vgg(A),
    ("vgg11", "bn"): _vgg(A, norm=True),
    ("vgg11", "d2l"): _vgg(A, classes=10),
    ("vgg13", "vgg"): _vgg(B),
    ("vgg13", "bn"): _vgg(B, norm=True),
    ("vgg16", "vgg"): _vgg(D),
    ("vgg16", "bn"): _vgg(D, norm=True),
    ("vgg16", "c"): _vgg(C),
    ("vgg19", "vgg"): _vgg(E),
    ("vgg19", "bn"): _vgg(E, norm=True),
    ("nin", "cifar"): Twin(partial(nin_cifar, divisor=8), (31, 37), {"width_divisor": 8}),
    ("nin", "imagenet"): Twin(
        partial(nin_large, divisor=8, last=(128, 128), classes=1000, last_relu=False), (131, 115), {"width_divisor": 8}
    ),
    ("nin", "d2l"): Twin(
        partial(nin_large, divisor=8, last=(10, 10), classes=10, last_relu=True), (131, 115), {"width_divisor": 8}
    ),
    ("googlenet", "paper"): _googlenet("paper"),
    ("googlenet", "bn"): _googlenet("bn"),
    ("googlenet", "torchvision"): _googlenet("torchvision"),
    ("googlenet", "d2l"): _googlenet("d2l", classes=10),
    ("mobilenet_v1", "1.0"): Twin(partial(mobilenet_v1, alpha=1.0), (37, 35)),
    ("mobilenet_v1", "0.75"): Twin(partial(mobilenet_v1, alpha=0.75), (37, 35)),
    ("mobilenet_v1", "0.5"): Twin(partial(mobilenet_v1, alpha=0.5), (37, 35)),
    ("mobilenet_v1", "0.25"): Twin(partial(mobilenet_v1, alpha=0.25), (37, 35)),
    ("mobilenet_v2", "1.0"): Twin(mobilenet_v2, (37, 35)),
    ("shufflenet_v1", "g1"): _shufflenet(1, 144, 288, 576),
    ("shufflenet_v1", "g2"): _shufflenet(2, 200, 400, 800),
    ("shufflenet_v1", "g3"): _shufflenet(3, 240, 480, 960),
    ("shufflenet_v1", "g4"): _shufflenet(4, 272, 544, 1088),
    ("shufflenet_v1", "g8"): _shufflenet(8, 384, 768, 1536),
    ("resnet18", "torchvision"): _resnet((2, 2, 2, 2)),
    ("resnet34", "torchvision"): _resnet((3, 4, 6, 3)),
    ("resnet50", "torchvision"): _resnet((3, 4, 6, 3), bottleneck=True),
}


def network(name: str, variant: str) -> nn.Module:
    """The variant at its reduced size in float64, every parameter and running statistic drawn so that every layer matters."""
    twin = TWINS[name, variant]
    torch.manual_seed(0)
    net = create(name, variant=variant, img_size=twin.size, **twin.options).double()
    with torch.no_grad():
        for parameter_name, parameter in net.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
            elif parameter_name.endswith("bias"):
                parameter.uniform_(-1.5, 0.5)  # mostly negative: even a maximum over 3x3 windows meets the ReLU
            else:
                parameter.uniform_(0.2, 1.2)
        for buffer_name, buffer in net.named_buffers():
            if "running" in buffer_name:
                buffer.uniform_(0.5, 1.5)
    return net


def image(name: str, variant: str) -> Tensor:
    twin = TWINS[name, variant]
    channels = find(name, variant)[1].channels
    return torch.randn(2, channels, *twin.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2


def difference(net: nn.Module, name: str, variant: str, training: bool) -> float:
    """The largest relative difference between the network and its twin: outputs, and in training all gradients too."""
    net.train(training)
    x = image(name, variant)
    results: list[list[Tensor]] = []
    for run in (net, partial(TWINS[name, variant].run, net)):
        torch.manual_seed(2)
        probe = x.clone().requires_grad_(training)
        outputs = run(probe)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        values = [output.detach() for output in outputs]
        if training:
            total = sum(
                (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in outputs
            )
            parameters = list(net.parameters())
            grads = torch.autograd.grad(total, [probe, *parameters], allow_unused=True)
            values += [torch.zeros(()) if grad is None else grad for grad in grads]
        results.append(values)
    ours, theirs = results
    assert [value.shape for value in ours] == [value.shape for value in theirs]
    # A gradient that is zero but for rounding (a bias in front of batch normalisation) is measured on the scale of the others.
    floor = 1e-6 * max(value.abs().max().item() for value in theirs)
    return max(((a - b).abs().max() / b.abs().max().clamp_min(floor)).item() for a, b in zip(ours, theirs, strict=True))
