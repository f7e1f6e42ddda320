"""Random networks as drawn programs, and the float64 oracle of what their outputs see.

A program is a list of instructions on a growing list of values. Every weight is positive and every operator keeps zero
input at zero output and non-negative input at non-negative output, so an output differs from zero for a one-hot image if
and only if it sees that pixel: no cancellation, in float64.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F


class Program(nn.Module):
    def __init__(self, instructions: list[tuple], channels: int) -> None:
        super().__init__()
        self.instructions = instructions
        generator = torch.Generator().manual_seed(7)
        self.weights = nn.ParameterList()
        self.where: dict[int, int] = {}
        for number, (_, _, options) in enumerate(instructions):
            if "weight" in options:
                self.where[number] = len(self.weights)
                self.weights.append(nn.Parameter(torch.rand(options["weight"], generator=generator) + 0.5))
        self.norm = nn.BatchNorm2d(channels).eval()
        self.library: Any = F  # whose functions the kinds called "ours" are

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for number, (kind, sources, options) in enumerate(self.instructions):
            weight = self.weights[self.where[number]] if number in self.where else None
            values.append(apply(kind, [values[s] for s in sources], options, weight, self.norm, self.library))
        return values[-1]


def apply(kind: str, v: list[Tensor], o: dict, weight: Tensor | None, norm: nn.Module, library: Any = F) -> Tensor:
    x = v[0]
    match kind:
        case "conv":
            return F.conv2d(x, weight, None, o["s"], o["p"], o["d"], o["g"])
        case "same":
            return F.conv2d(x, weight, padding="same", dilation=o["d"])
        case "transposed":
            return F.conv_transpose2d(x, weight, None, o["s"], o["p"], o["extra"], 1, o["d"])
        case "max":
            return F.max_pool2d(x, o["k"], o["s"], o["p"], o["d"], o["ceil"])
        case "avg":
            return F.avg_pool2d(x, o["k"], o["s"], o["p"], o["ceil"], o["count"])
        case "adaptive":
            return F.adaptive_avg_pool2d(x, o["size"]) if o["mean"] else F.adaptive_max_pool2d(x, o["size"])
        case "pad":
            return F.pad(x, o["pad"], mode=o["mode"])
        case "resize":
            if "scale" in o:
                return F.interpolate(x, scale_factor=o["scale"], mode=o["mode"])
            return F.interpolate(x, o["size"], mode=o["mode"], align_corners=o.get("corners")).abs()
        case "shuffle":
            return F.pixel_shuffle(torch.cat([x] * 4, 1), 2)
        case "unshuffle":
            return F.pixel_unshuffle(x, 2)[:, : x.shape[1]] + F.pixel_unshuffle(x, 2).sum(1, keepdim=True)
        case "add" | "mul" | "cat" | "stack":
            h = min(t.shape[2] for t in v)
            w = min(t.shape[3] for t in v)
            a, b = (t[:, :, :h, :w] for t in v)
            if kind == "add":
                return a + b
            if kind == "mul":
                return (1 + a) * (1 + b) - 1
            if kind == "stack":
                return torch.stack([a, b]).sum(0)
            return F.conv2d(torch.cat([a, b], 1), weight)
        case "beside":
            h = min(t.shape[2] for t in v)
            return torch.cat([t[:, :, :h] for t in v], 3)
        case "slice":
            return x[:, :, o["a"] :: o["q"], o["b"] :]
        case "roll":
            return torch.roll(x, (o["a"], o["b"]), (2, 3))
        case "flip":
            return x.flip(3)
        case "turn":
            return x.transpose(2, 3)
        case "relu":
            return F.relu(x)
        case "norm":
            return norm(x)
        case "lrn":
            return F.local_response_norm(x, 3)
        case "squeeze":
            return (1 + x) * (1 + F.adaptive_avg_pool2d(x, 1)) - 1
        case "row":
            return x + x.mean(2, keepdim=True)
        case "flat":
            n, c, h, w = x.shape
            return x.flatten(2).relu().view(n, c, h, w)
        case "channels":
            n, c, h, w = x.shape
            return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        case "separable":
            return torch.matmul(x, torch.ones(x.shape[3], 3, dtype=x.dtype))
        case "cumulative":
            return x.cumsum(2)
        case "columns":
            # a convolution as a product: unfold, one matrix, and back
            h, w = F.max_pool2d(x, o["k"], o["s"], 0, o["d"]).shape[2:]
            patches = F.unfold(x, o["k"], o["d"], 0, o["s"])
            return torch.matmul(weight.flatten(1), patches).view(x.shape[0], -1, h, w)
        case "overlap":
            return F.fold(F.unfold(x, o["k"], 1, o["p"]), x.shape[2:], o["k"], 1, o["p"])
        case "attention":
            n, c, h, w = x.shape
            rows = x.flatten(2).transpose(1, 2)
            # a constant query and key: equal weights, so that the sum sees every place however small the change
            ones = torch.ones_like(rows)
            return F.scaled_dot_product_attention(ones, ones, rows).transpose(1, 2).reshape(n, c, h, w)
        case "einsum":
            return torch.einsum("nchw,dc->ndhw", x, weight)
        case "mixing":
            return torch.einsum("nchw,hk->nckw", x, torch.ones(x.shape[2], 4, dtype=x.dtype))
        case "halves":
            n, c, h, w = x.shape
            return x[:, :, : h // 2 * 2].reshape(n, c, h // 2, 2, w).sum(3)
        case "blocks":
            n, c, h, w = x.shape
            return x[:, :, : h // 2 * 2].reshape(n, c, 2, h // 2, w).sum(2)
        case "ours max":
            return library.max_pool2d(x, o["k"], o["s"], o["p"])
        case "ours avg":
            return library.avg_pool2d(x, o["k"], o["s"], o["p"])
        case "ours adaptive":
            return library.adaptive_avg_pool2d(x, o["size"])
        case "ours conv":
            return library.conv2d(x, weight, stride=o["s"], padding=o["p"])
        case "repeat":
            return x.repeat(1, 1, 2, 1)
    raise AssertionError(kind)


CHANNELS = 2


@st.composite
def programs(draw: st.DrawFn, most: int = 7) -> tuple[Program, tuple[int, int]]:
    """A program whose every value has at least one pixel and not too many, and the size of its input."""
    size = (draw(st.integers(5, 12)), draw(st.integers(4, 11)))
    sizes = [size]
    instructions: list[tuple] = []
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(KINDS))
        source = draw(st.integers(max(0, len(sizes) - 3), len(sizes) - 1))
        pick = draw
        sources, o = [source], {}
        small = st.integers(1, 3)
        if kind == "conv":
            g = pick(st.sampled_from([1, 2]))
            k = (pick(st.integers(1, 4)), pick(st.integers(1, 4)))
            o = {
                "weight": (CHANNELS, CHANNELS // g, *k),
                "g": g,
                "s": pick(small),
                "p": (pick(st.integers(0, 2)), pick(st.integers(0, 2))),
            }
            o["d"] = pick(st.integers(1, 2))
        elif kind == "same":
            o = {
                "weight": (CHANNELS, CHANNELS, pick(st.integers(1, 4)), pick(st.integers(1, 3))),
                "d": pick(st.integers(1, 2)),
            }
        elif kind == "transposed":
            s, d = pick(small), pick(st.integers(1, 2))
            o = {"weight": (CHANNELS, CHANNELS, pick(st.integers(1, 5)), pick(st.integers(1, 3))), "s": s, "d": d}
            o["p"] = pick(st.integers(0, 1))
            o["extra"] = pick(st.integers(0, max(s, d) - 1))
        elif kind == "max":
            k = pick(st.integers(1, 3))
            o = {
                "k": k,
                "s": pick(small),
                "p": pick(st.integers(0, k // 2)),
                "d": pick(st.integers(1, 2)),
                "ceil": pick(st.booleans()),
            }
        elif kind == "avg":
            k = pick(st.integers(1, 3))
            o = {
                "k": k,
                "s": pick(small),
                "p": pick(st.integers(0, k // 2)),
                "ceil": pick(st.booleans()),
                "count": pick(st.booleans()),
            }
        elif kind == "columns":
            k = (pick(st.integers(1, 3)), pick(st.integers(1, 3)))
            o = {"weight": (CHANNELS, CHANNELS, *k), "k": k, "s": pick(small), "d": pick(st.integers(1, 2))}
        elif kind == "overlap":
            o = {"k": pick(st.integers(1, 3)), "p": pick(st.integers(0, 1))}
        elif kind == "einsum":
            o = {"weight": (CHANNELS, CHANNELS)}
        elif kind in ("ours max", "ours avg"):
            k = pick(st.integers(1, 3))
            o = {"k": k, "s": pick(small), "p": pick(st.integers(0, k // 2))}
        elif kind == "ours conv":
            o = {
                "weight": (CHANNELS, CHANNELS, pick(st.integers(1, 4)), 2),
                "s": pick(small),
                "p": pick(st.integers(0, 2)),
            }
        elif kind == "ours adaptive":
            o = {"size": (pick(st.integers(1, 5)), pick(st.integers(1, 5)))}
        elif kind == "adaptive":
            o = {"size": (pick(st.integers(1, 7)), pick(st.integers(1, 7))), "mean": pick(st.booleans())}
        elif kind == "pad":
            mode = pick(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
            low = -1 if mode == "constant" else 0
            o = {"pad": tuple(pick(st.integers(low, 2)) for _ in range(4)), "mode": mode}
        elif kind == "resize":
            mode = pick(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic", "area", "scale"]))
            if mode == "scale":
                o = {"scale": pick(st.sampled_from([2, 3, 0.5, 1.5])), "mode": "nearest"}
            else:
                o = {"size": (pick(st.integers(1, 13)), pick(st.integers(1, 13))), "mode": mode}
                if mode in ("bilinear", "bicubic"):
                    o["corners"] = pick(st.booleans())
        elif kind in ("add", "mul", "cat", "stack", "beside"):
            sources.append(draw(st.integers(0, len(sizes) - 1)))
            if kind == "cat":
                o = {"weight": (CHANNELS, 2 * CHANNELS, 1, 1)}
        elif kind in ("slice", "roll"):
            o = {"a": pick(st.integers(0, 2)), "q": pick(small), "b": pick(st.integers(0, 2))}
        made = shape_of(kind, [sizes[s] for s in sources], o)
        if made is None:
            continue
        instructions.append((kind, sources, o))
        sizes.append(made)
    if not instructions:
        instructions.append(("relu", [0], {}))
    return Program(instructions, CHANNELS), size


def shape_of(kind: str, sizes: list[tuple[int, int]], o: dict) -> tuple[int, int] | None:
    """What torch makes of it, or None where it declines or the map is too small or large."""
    tensors = [torch.zeros(1, CHANNELS, *size, dtype=torch.float64) for size in sizes]
    weight = torch.ones(o["weight"], dtype=torch.float64) if "weight" in o else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns once of an even kernel with padding "same"
            made = apply(kind, tensors, o, weight, nn.Identity())
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    _, c, h, w = made.shape
    return (h, w) if c == CHANNELS and 1 <= h <= 24 and 1 <= w <= 24 else None


_NAMES = (
    "conv conv same transposed transposed max avg adaptive pad resize resize shuffle unshuffle add add mul cat stack "
    "beside slice roll flip turn relu norm lrn squeeze row flat channels separable cumulative repeat "
    "columns overlap attention einsum mixing halves blocks ours_max ours_avg ours_adaptive ours_conv"
)
KINDS = [name.replace("_", " ") for name in _NAMES.split()]


def seen_by(model: nn.Module, size: tuple[int, int], channels: int = CHANNELS) -> Tensor:
    """The oracle: [input row, input column, output row, output column], true where the output sees the pixel."""
    h, w = size
    model = model.double()
    images = torch.eye(h * w, dtype=torch.float64).view(h * w, 1, h, w).expand(-1, channels, -1, -1)
    with torch.no_grad():
        base = model(torch.zeros(1, channels, h, w, dtype=torch.float64))
        difference = (model(images) - base).abs().amax(1)
    model.float()
    return (difference > 1e-11 * difference.max()).view(h, w, *difference.shape[1:])
