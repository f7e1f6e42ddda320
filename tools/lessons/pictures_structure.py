"""Pictures of lessons 7 to 13: what is connected to what. Every number comes from the lesson's namespace or its operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from tools.lessons.sheet import INK, LINE, bars, board, cells, frame, tint, words

from convolve.draw.style import BLUE, GREEN, GREY, ORANGE

Namespace = Mapping[str, Any]


def receptive_field(ns: Namespace) -> Figure:
    drawing, axes = board(26, 12.2)
    words(axes, 6.6, 0.7, "four 3x3 layers, seen along one axis", size=8.5, bold=True)
    heights = [10.2, 8.1, 6.0, 3.9, 1.8]
    seen = [1] + [last - first + 1 for first, last in ns["cone"]]  # of the last output: in itself, one layer below, …
    for layer, y in enumerate(heights):
        count = 9 - 2 * layer
        for node in range(count):
            x = 2.4 + layer + node
            lit = abs(node - (count - 1) / 2) <= (seen[4 - layer] - 1) / 2
            if layer:
                for below in range(3):
                    axes.plot(
                        [x, x + below - 1],
                        [y, heights[layer - 1]],
                        color=tint(1) if lit else LINE,
                        linewidth=0.9,
                        zorder=1,
                    )
            axes.add_patch(
                Circle((x, y), 0.3, facecolor=BLUE if lit else "white", edgecolor=BLUE, linewidth=1, zorder=3)
            )
        label = "input" if layer == 0 else f"layer {layer} sees {seen[layer]}"
        words(axes, 11.0 if layer == 0 else 10.8 - layer * 0.55, y, label, size=7.5, colour=GREY, ha="left")
    scale = 9.2 / 227
    left, bottom = 16.0, 11.0
    words(axes, left + 113 * scale, 0.7, "AlexNet's fields, to scale on 227 x 227 pixels", size=8.5, bold=True)
    axes.add_patch(_box(left, bottom - 227 * scale, 227 * scale, "#f8fafc", LINE))
    colours = mpl.colormaps["viridis"](np.linspace(0.9, 0.15, len(ns["fields"])))
    for name, field, colour in reversed(list(zip(ns["names"], ns["fields"], colours, strict=True))):
        shade = mpl.colors.to_hex(colour)
        axes.add_patch(_box(left, bottom - field * scale, field * scale, "none", shade, 1.7))
        words(axes, left - 0.2, bottom - field * scale, f"{name}  {field}", size=6.8, ha="right", colour=INK)
    words(axes, left + 113 * scale, 11.6, "fields share a corner here, so that all can be seen", size=7, colour=GREY)
    return drawing


def one_by_one(ns: Namespace) -> Figure:
    drawing, axes = board(26, 11.4)
    x, y, weight = ns["x"].numpy(), ns["y"].numpy(), ns["weight"].numpy()
    words(axes, 6.3, 0.7, "one pixel: a matrix times its channels", size=8.5, bold=True)
    colours = (ORANGE, GREEN, BLUE)
    for c in range(3):
        cells(axes, x[c], 1.4, 1.6 + c * 2.75, side=0.8, size=6.8, mark=[(0, 1)], colour=colours[c])
    words(axes, 2.6, 10.2, "3 channels", size=7.5, colour=GREY)
    cells(axes, weight, 5.6, 4.0, size=7.5)
    words(axes, 7.1, 6.6, "weight, 2 x 3", size=7.5, colour=GREY)
    words(axes, 8.95, 5.0, "·", size=14)
    cells(axes, x[:, 0, 1].reshape(3, 1), 9.3, 3.5, size=7.5)
    for c in range(3):
        frame(axes, 9.36, 3.56 + c, 0.88, 0.88, colours[c], linewidth=1.5)
    words(axes, 10.75, 5.0, "=", size=12)
    cells(axes, y[:, 0, 1].reshape(2, 1), 11.2, 4.0, size=7.5)
    words(axes, 11.7, 6.6, "2 outputs", size=7.5, colour=GREY)
    words(axes, 8.6, 7.6, "the same matrix at every pixel", size=7.5, colour=GREY)
    top = drawing.add_axes((0.62, 0.63, 0.33, 0.26))
    top.set_title("weights of Inception 3a", fontsize=8.5, fontweight="bold", loc="left", x=-0.3)
    values = [ns["reduced"], ns["plain"]]
    bars(top, ["with 1x1", "without"], values, [BLUE, GREY], [f"{value:,}" for value in values])
    top.set(xticks=[])
    top.spines["bottom"].set_visible(False)
    low = drawing.add_axes((0.62, 0.10, 0.33, 0.34))
    low.set_title("parameters in fully connected layers", fontsize=8.5, fontweight="bold", loc="left", x=-0.3)
    share = ns["share"]
    titles = {"alexnet": "AlexNet", "vgg16": "VGG-16", "nin-imagenet": "NiN"}
    percent = [100 * value for value in share.values()]
    bars(low, [titles[name] for name in share], percent, [ORANGE] * 3, [f"{value:.0f} %" for value in percent])
    low.set(xticks=[])
    low.spines["bottom"].set_visible(False)
    return drawing


def weight_sharing(ns: Namespace) -> Figure:
    drawing, axes = board(26, 8.2)
    matrix = ns["matrix"].numpy()
    mask = matrix != 0
    own = np.where(mask, np.cumsum(mask).reshape(mask.shape), 0)
    every = np.arange(1, 226).reshape(9, 25)
    panels = (
        ("fully connected", every, 225, "225 weights"),
        ("locally connected", own, int(own.max()), f"{int(mask.sum())} weights"),
        ("convolution: shared", matrix, 9, f"{len(np.unique(matrix)) - 1} weights"),
    )
    for place, (title, weights, most, below) in enumerate(panels):
        left = 1.5 + place * 8.2
        inset = drawing.add_axes((left / 26, 1 - 5.6 / 8.2, 7.6 / 26, 3.6 / 8.2))
        # Neighbouring numbers get distant colours: the golden angle around a wheel that every eye can follow by lightness.
        hue = (weights * 0.381966) % 1 if most > 9 else (weights - 1) / 8
        colours = mpl.colormaps["viridis"](hue)
        colours[weights == 0] = (1, 1, 1, 1)
        inset.imshow(colours, aspect="auto", interpolation="nearest")
        inset.set_xticks(np.arange(-0.5, 25, 5), [])
        inset.set_yticks([])
        inset.tick_params(length=0)
        inset.spines[:].set(color=LINE)
        words(axes, left + 3.8, 1.2, title, size=8.5, bold=True)
        words(axes, left + 3.8, 6.2, below, size=8)
    words(axes, 0.85, 3.8, "9 outputs", size=7.5, colour=GREY, rotation=90)
    words(
        axes,
        13.2,
        7.4,
        "25 inputs along; each colour is one weight (of many, colours come again); white: no connection",
        size=7.5,
        colour=GREY,
    )
    return drawing


def groups(ns: Namespace) -> Figure:
    drawing, axes = board(26, 8.6)
    reaches, counts = ns["reaches"], ns["counts"]
    depthwise = reaches(4, 4, 4)
    panels = (
        ("dense", [reaches(4, 4, 1)], counts["dense"]),
        ("2 groups: blocks", [reaches(4, 4, 2)], counts["2 groups"]),
        ("2 groups: interleaved", [reaches(4, 4, 2, group_order="interleaved")], counts["2 groups"]),
        ("depthwise", [depthwise], counts["depthwise only"]),
        ("depthwise separable", [depthwise, reaches(4, 4, 1)], counts["depthwise separable"]),
    )
    for place, (title, tables, weights) in enumerate(panels):
        left = 1.3 + place * 5.1
        words(axes, left + 1.5, 0.8, title, size=8, bold=True)
        levels = [5.6, 2.0] if len(tables) == 1 else [5.6, 3.8, 2.0]
        for level, table in enumerate(tables):
            _links(axes, left, levels[level], levels[level + 1], table.numpy())
        for level, y in enumerate(levels):
            for node in range(4):
                colour = BLUE if level == 0 else GREEN if y == 2.0 else GREY
                axes.add_patch(
                    Circle((left + node, y), 0.33, facecolor=colour, edgecolor="white", linewidth=1, zorder=3)
                )
                words(axes, left + node, y + 0.02, str(node + 1), size=6.5, colour="white", zorder=4)
        words(axes, left + 1.5, 6.7, f"{weights:,} weights", size=8)
    words(axes, 0.35, 5.6, "in", size=7.5, colour=GREY)
    words(axes, 0.35, 2.0, "out", size=7.5, colour=GREY)
    words(
        axes,
        13,
        7.9,
        "drawn with 4 channels; weights of 32 to 64 channels, 3x3 (depthwise alone: 32 to 32)",
        size=7.5,
        colour=GREY,
    )
    return drawing


def dilation(ns: Namespace) -> Figure:
    drawing, axes = board(25, 14.8)
    for place, (dilations, field) in enumerate(ns["stacks"].items()):
        row, column = divmod(place, 3)
        size = field.size[-1]
        shown = np.zeros((size, size))
        for y, x in ((pixel[-2], pixel[-1]) for pixel in field.pixels):
            shown[y, x] = 1
        width = 5.0
        left, top = 1.6 + column * 8.2, 1.7 + row * 7.2
        title = (
            f"dilation {dilations[0]}" if len(dilations) == 1 else "dilations " + ", then ".join(map(str, dilations))
        )
        words(axes, left + width / 2, top - 0.6, title, size=8.5, bold=True)
        cells(axes, np.ones_like(shown), left, top, side=width / size, shade=shown, blank=True)
        words(
            axes,
            left + width / 2,
            top + width + 0.45,
            f"{field.count} of {size} x {size} pixels",
            size=7.5,
            colour=GREY,
        )
    words(axes, 0.65, 4.2, "one 3x3 layer", size=8, colour=GREY, rotation=90)
    words(axes, 0.65, 11.4, "stacked", size=8, colour=GREY, rotation=90)
    return drawing


def two_small_kernels(ns: Namespace) -> Figure:
    drawing, axes = board(25, 8.6)
    paths = ns["paths"].numpy()
    cells(axes, paths, 0.8, 1.9, title="two 3x3", below="paths from pixel to output")
    cells(
        axes,
        np.ones((5, 5)),
        7.2,
        1.9,
        title="one 5x5",
        shade=np.full((5, 5), 1 / 9),
        below="paths from pixel to output",
    )
    chart = drawing.add_axes((0.60, 0.16, 0.34, 0.66))
    per_square = {name: count // ns["c"] ** 2 for name, count in ns["rows"].items()}
    colours = [BLUE, GREY, BLUE, GREY]
    bars(chart, list(per_square), list(per_square.values()), colours, [f"{value} c²" for value in per_square.values()])
    chart.set_title("weights, c channels in and out", fontsize=8.5, fontweight="bold", loc="left", x=-0.2)
    chart.set(xticks=[])
    chart.spines["bottom"].set_visible(False)
    return drawing


def equivariance(ns: Namespace) -> Figure:
    import torch

    drawing, axes = board(23.5, 16.6)
    convolve = ns["convolve"]
    kernel = torch.tensor([[0.0, 1, 2], [2, 2, 0], [0, 1, 2]])
    side = 0.72
    for column, (array, pooled) in enumerate(zip(ns["shifted"], ns["pooled"], strict=True)):
        left = 5.0 + column * 6.4
        found = convolve.conv2d(array[0], kernel, padding=1).numpy()
        words(axes, left + 3 * side, 0.6, "as it is" if column == 0 else f"shifted by {column}", size=8.5, bold=True)
        cells(axes, array[0].numpy(), left, 1.2, side=side, size=6.2, edge="#e2e8f0")
        cells(axes, found, left, 6.4, side=side, size=6.2, edge="#e2e8f0")
        cells(axes, pooled.numpy(), left, 11.6, side=2 * side, size=7)
    for y, text in (
        (3.4, "input:\na dot"),
        (8.6, "convolution:\nmoves along\nby each pixel"),
        (13.8, "2x2 maximum\npooling of the dot:\nmoves only when\na window's border\nis crossed"),
    ):
        words(axes, 2.3, y, text, size=7.5, colour=GREY)
    return drawing


def _links(axes: Axes, left: float, below: float, above: float, table: Any) -> None:
    """Lines from the channels below to the outputs above that they reach."""
    for output, channel in zip(*np.nonzero(table), strict=True):
        axes.plot([left + channel, left + output], [below, above], color=tint(1), linewidth=1.4, zorder=1)


def _box(x: float, y: float, side: float, face: str, edge: str, width: float = 1.0) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), side, side, facecolor=face, edgecolor=edge, linewidth=width)
