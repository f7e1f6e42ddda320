"""Rules of interpolation and of the shuffles between channels and pixels."""

from __future__ import annotations

from collections.abc import Sequence

from convolve.analysis.fields import Along, Dim, Every
from convolve.analysis.maps import Map, adaptive, blocks, repeated, resized, smoothed
from convolve.analysis.rules.registry import Call, Facts, layer_rule
from convolve.analysis.rules.windows import over_last

KINDS = {
    "nearest": "nearest",
    "nearest-exact": "nearest-exact",
    "linear": "linear",
    "bilinear": "linear",
    "trilinear": "linear",
    "bicubic": "cubic",
}


@layer_rule("interpolate", "input size scale_factor mode align_corners recompute_scale_factor antialias")
def interpolation(call: Call) -> Facts:
    mode = call.get("mode", "nearest")
    axes = len(call.input.shape) - 2
    factor = None if call["recompute_scale_factor"] else call["scale_factor"]
    factors = list(factor) if isinstance(factor, (list, tuple)) else [factor] * axes
    rules = []
    for n, m, scale in zip(call.input.shape[2:], call.output.shape[2:], factors, strict=True):
        if mode == "area":
            rules.append(adaptive(n, m))
        elif call["antialias"]:
            rules.append(smoothed(n, m, 2 if mode == "bicubic" else 1))
        else:
            rules.append(resized(n, m, KINDS[mode], bool(call["align_corners"]), scale))
    return _resized(call, rules, mode)


@layer_rule("upsample_nearest1d upsample_nearest2d upsample_nearest3d", "input output_size")
def nearest(call: Call) -> Facts:
    return _aten(call, "nearest", False)


@layer_rule(
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d", "input output_size align_corners"
)
def smooth(call: Call) -> Facts:
    return _aten(call, "cubic" if "bicubic" in call.step.op else "linear", bool(call["align_corners"]))


def _aten(call: Call, kind: str, corners: bool) -> Facts:
    factors: Sequence[float | None] = (
        call["scale_factors"]
        or [call[name] for name in ("scales_d", "scales_h", "scales_w")][-(len(call.input.shape) - 2) :]
    )
    sizes = zip(call.input.shape[2:], call.output.shape[2:], factors, strict=True)
    return _resized(call, [resized(n, m, kind, corners, scale) for n, m, scale in sizes], kind)


def _resized(call: Call, rules: Sequence[Map], mode: str) -> Facts:
    weights = {"nearest": 0, "nearest-exact": 0, "bicubic": 16, "cubic": 16}.get(mode, 2 ** len(rules))
    return Facts(extra=2 * weights * call.output.numel, reads=(over_last(call, list(rules)),))


@layer_rule("pixel_shuffle", "input upscale_factor")
def pixel_shuffle(call: Call) -> Facts:
    factor = int(call["upscale_factor"])
    return Facts(reads=(over_last(call, [repeated(n, factor) for n in call.input.shape[-2:]], mixed=1),))


@layer_rule("pixel_unshuffle", "input downscale_factor")
def pixel_unshuffle(call: Call) -> Facts:
    """Every channel of the output holds one pixel of each block, so a block is what the channels together see."""
    factor = int(call["downscale_factor"])
    read = over_last(call, [blocks(n, factor) for n in call.input.shape[-2:]], mixed=1)
    return Facts(reads=(read,), note=f"each channel sees one of the {factor}x{factor} pixels")


@layer_rule("channel_shuffle native_channel_shuffle", "input groups")
def channel_shuffle(call: Call) -> Facts:
    dims: list[Dim] = [Along(d) for d in range(len(call.input.shape))]
    dims[1] = Every()
    return Facts(reads=(call.read(dims),))


@layer_rule("grid_sample grid_sampler grid_sampler_2d grid_sampler_3d", "input grid")
def grid_sample(call: Call) -> Facts:
    rank = len(call.input.shape)
    image = call.read([Along(0), Along(1), *([Every()] * (rank - 2))])
    grid = (
        []
        if len(call.step.tensors) < 2
        else [call.read([Along(0), *(Along(d + 1) for d in range(1, rank - 1)), Every()], 1)]
    )
    return Facts(
        extra=call.output.numel * 2 * 2 ** (rank - 2),
        reads=(image, *grid),
        data=True,
        note="the grid decides which pixels",
    )


@layer_rule("affine_grid", "theta size")
def affine_grid(call: Call) -> Facts:
    return Facts(call.output.numel * (call.output.shape[-1] + 1), reads=(call.read([Along(0), Every(), Every()]),))
