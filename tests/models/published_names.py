"""The names and shapes of torchvision's published weight files, written from knowledge of them; no such file is at hand.

Each function lists the entries of a state dict in order: what a synthetic file of that release holds.
"""

from __future__ import annotations

Entries = dict[str, tuple[int, ...]]


def _conv(name: str, out: int, inputs: int, kernel: int, bias: bool = True) -> Entries:
    return {f"{name}.weight": (out, inputs, kernel, kernel)} | ({f"{name}.bias": (out,)} if bias else {})


def _bn(name: str, channels: int) -> Entries:
    entries: Entries = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return entries | {f"{name}.num_batches_tracked": ()}


def _fc(name: str, out: int, inputs: int) -> Entries:
    return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}


def alexnet() -> Entries:
    entries: Entries = {}
    for index, out, inputs, kernel in (
        (0, 64, 3, 11),
        (3, 192, 64, 5),
        (6, 384, 192, 3),
        (8, 256, 384, 3),
        (10, 256, 256, 3),
    ):
        entries |= _conv(f"features.{index}", out, inputs, kernel)
    return entries | _fc("classifier.1", 4096, 9216) | _fc("classifier.4", 4096, 4096) | _fc("classifier.6", 1000, 4096)


VGG = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def vgg(name: str, norm: bool) -> Entries:
    """Convolution, [normalisation], ReLU are numbered through; a pooling after each of the five groups."""
    entries: Entries = {}
    index, inputs = 0, 3
    for count, out in zip(VGG[name], (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            entries |= _conv(f"features.{index}", out, inputs, 3)
            entries |= _bn(f"features.{index + 1}", out) if norm else {}
            index, inputs = index + 2 + norm, out
        index += 1
    return (
        entries | _fc("classifier.0", 4096, 25088) | _fc("classifier.3", 4096, 4096) | _fc("classifier.6", 1000, 4096)
    )


def googlenet() -> Entries:
    def unit(name: str, out: int, inputs: int, kernel: int) -> Entries:
        return _conv(f"{name}.conv", out, inputs, kernel, bias=False) | _bn(f"{name}.bn", out)

    entries = unit("conv1", 64, 3, 7) | unit("conv2", 64, 64, 1) | unit("conv3", 192, 64, 3)
    inputs = 192
    for block, a, b_r, b, c_r, c, d in (
        ("3a", 64, 96, 128, 16, 32, 32), ("3b", 128, 128, 192, 32, 96, 64), ("4a", 192, 96, 208, 16, 48, 64),
        ("4b", 160, 112, 224, 24, 64, 64), ("4c", 128, 128, 256, 24, 64, 64), ("4d", 112, 144, 288, 32, 64, 64),
        ("4e", 256, 160, 320, 32, 128, 128), ("5a", 256, 160, 320, 32, 128, 128), ("5b", 384, 192, 384, 48, 128, 128),
    ):  # fmt: skip
        name = f"inception{block}"
        entries |= unit(f"{name}.branch1", a, inputs, 1)
        entries |= unit(f"{name}.branch2.0", b_r, inputs, 1) | unit(f"{name}.branch2.1", b, b_r, 3)
        entries |= unit(f"{name}.branch3.0", c_r, inputs, 1) | unit(f"{name}.branch3.1", c, c_r, 3)
        entries |= unit(f"{name}.branch4.1", d, inputs, 1)
        inputs = a + b + c + d
    for head, inputs_of_head in (("aux1", 512), ("aux2", 528)):
        entries |= unit(f"{head}.conv", 128, inputs_of_head, 1)
        entries |= _fc(f"{head}.fc1", 1024, 2048) | _fc(f"{head}.fc2", 1000, 1024)
    return entries | _fc("fc", 1000, 1024)


def mobilenet_v2() -> Entries:
    def unit(name: str, out: int, inputs: int, kernel: int) -> Entries:
        return _conv(f"{name}.0", out, inputs, kernel, bias=False) | _bn(f"{name}.1", out)

    entries = unit("features.0", 32, 3, 3)
    inputs, index = 32, 1
    for t, c, n in ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)):
        for _ in range(n):
            name, wide = f"features.{index}.conv", inputs * t
            if t == 1:
                entries |= unit(f"{name}.0", wide, 1, 3)
                entries |= _conv(f"{name}.1", c, wide, 1, bias=False) | _bn(f"{name}.2", c)
            else:
                entries |= unit(f"{name}.0", wide, inputs, 1) | unit(f"{name}.1", wide, 1, 3)
                entries |= _conv(f"{name}.2", c, wide, 1, bias=False) | _bn(f"{name}.3", c)
            inputs, index = c, index + 1
    return entries | unit("features.18", 1280, 320, 1) | _fc("classifier.1", 1000, 1280)


def resnet(counts: tuple[int, int, int, int], bottleneck: bool) -> Entries:
    entries = _conv("conv1", 64, 3, 7, bias=False) | _bn("bn1", 64)
    inputs = 64
    for stage, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True), 1):
        for block in range(count):
            name, out = f"layer{stage}.{block}", 4 * width if bottleneck else width
            kernels = (
                ((width, inputs, 1), (width, width, 3), (out, width, 1))
                if bottleneck
                else ((width, inputs, 3), (out, width, 3))
            )
            for number, (outputs, source, kernel) in enumerate(kernels, 1):
                entries |= _conv(f"{name}.conv{number}", outputs, source, kernel, bias=False)
                entries |= _bn(f"{name}.bn{number}", outputs)
            if block == 0 and (stage > 1 or bottleneck):
                entries |= _conv(f"{name}.downsample.0", out, inputs, 1, bias=False) | _bn(f"{name}.downsample.1", out)
            inputs = out
    return entries | _fc("fc", 1000, inputs)
