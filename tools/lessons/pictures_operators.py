"""Pictures of the lessons about the operators themselves: 1 to 6, 14 and 15. Every number comes from the lesson's namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tools.lessons.sheet import INK, PINK, arrow, board, cells, frame, number, words

from convolve.draw.style import BLUE, GREEN, GREY, ORANGE, figure, tidy

Namespace = Mapping[str, Any]


def cross_correlation(ns: Namespace) -> Figure:
    drawing, axes = board(22, 14.6)
    image, kernel, window = (ns[name].numpy() for name in ("image", "kernel", "window"))
    cells(axes, image, 1, 1.6, title="input X")
    frame(axes, 3, 1.6, 3, 3)
    words(axes, 7.3, 4.1, "⋆", size=22)
    cells(axes, kernel, 8.6, 2.6, title="kernel K")
    words(axes, 12.9, 4.1, "=", size=14)
    cells(axes, ns["output"].numpy(), 14.2, 2.6, title="cross-correlation", mark=[(0, 2)])
    products = " + ".join(f"{a}·{b}" for a, b in zip(window.flatten(), kernel.flatten(), strict=True))
    words(axes, 11, 7.5, f"{products} = {(window * kernel).sum()}", size=8.5, colour=ORANGE)
    axes.plot([1, 21], [8.4, 8.4], color="#e5e7eb", linewidth=1)
    words(axes, 3.5, 11.5, "the same input,\nthe kernel turned\naround first", size=8, colour=GREY)
    words(axes, 7.3, 11.6, "∗", size=15)
    cells(axes, kernel[::-1, ::-1], 8.6, 10.1, title="K, turned around")
    words(axes, 12.9, 11.6, "=", size=14)
    cells(axes, ns["turned"].numpy(), 14.2, 10.1, title="convolution")
    words(axes, 19.6, 4.1, "what networks\ncompute", size=7.5, colour=GREY)
    words(axes, 19.6, 11.6, "what mathematics\nmeans by it", size=7.5, colour=GREY)
    return drawing


def edges(ns: Namespace) -> Figure:
    drawing, axes = board(24, 14.6)
    X, K, Y = (ns[name].numpy() for name in "XKY")
    cells(axes, X, 1, 1.5, side=0.85, title="X: 1 is white, 0 is black", shade=np.where(X > 0, 0, -0.6) * 0, size=7.5)
    for column in range(2, 6):
        axes.add_patch(_filled(1 + column * 0.85, 1.5, 0.85, 5.1, "#374151"))
        for row in range(6):
            words(
                axes,
                1 + (column + 0.5) * 0.85,
                1.5 + (row + 0.5) * 0.85,
                number(X[row, column]),
                size=7.5,
                colour="white",
            )
    words(axes, 8.8, 4.05, "⋆", size=22)
    cells(axes, K, 9.7, 3.6, side=0.85, title="K")
    words(axes, 12.4, 4.05, "=", size=14)
    cells(axes, Y, 13.4, 1.5, side=0.85, title="Y: edges, with their sign")
    words(axes, 21.6, 3.3, "1: white to black", size=7.5, colour=BLUE)
    words(axes, 21.6, 4.1, "0: no change", size=7.5, colour=GREY)
    words(axes, 21.6, 4.9, "\u22121: black to white", size=7.5, colour=ORANGE)
    panels = (
        ("the photo, grey", ns["grey"].numpy(), 0.0, 1.0, "gray"),
        ("Sobel, left to right", ns["across"].numpy(), -1.6, 1.6, "gray"),
        ("Sobel, top to bottom", ns["down"].numpy(), -1.6, 1.6, "gray"),
    )
    for place, (title, pixels, low, high, colours) in enumerate(panels):
        left = 0.9 + place * 7.6
        inset = drawing.add_axes((left / 24, 0.6 / 14.6, 7.1 / 24, 4.9 / 14.6))
        inset.imshow(pixels[::2, ::2], cmap=colours, vmin=low, vmax=high, interpolation="antialiased")
        inset.set(xticks=[], yticks=[])
        inset.spines[:].set_visible(False)
        words(axes, left + 3.55, 8.55, title, size=8, bold=True)
    words(
        axes,
        12.1,
        14.25,
        "grey: no change; white: brighter to the right, or downwards; black: darker",
        size=7,
        colour=GREY,
    )
    return drawing


def learned_kernel(ns: Namespace) -> Figure:
    drawing = figure(8.6, 3.5)
    drawing.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr]
    left, right = drawing.subplots(1, 2)
    for (rate, run), colour in zip(ns["runs"].items(), (BLUE, GREEN, ORANGE), strict=True):
        losses = [step.loss for step in run.steps]
        steps = np.arange(1, len(losses) + 1)
        kept = np.array(losses) > 1e-7
        left.semilogy(steps[kept], np.array(losses)[kept], color=colour, linewidth=1.8, label=f"rate {rate:g}")
        computed = np.array(ns["predicted"][rate])[::4]
        left.semilogy(
            steps[::4], computed, color=colour, linestyle="none", marker="o", markersize=4.5, markerfacecolor="white"
        )
        weights = np.array([step.kernel for step in run.steps[:30]])
        for weight in weights.T:
            right.plot(steps[:30], weight, color=colour, linewidth=1.4)
    left.set(xlabel="step", ylabel="loss, sum of squares", ylim=(1e-6, 200))
    left.set_title("the loss: run, and predicted", fontsize=9, loc="left", fontweight="bold")
    left.plot(
        [], [], color=GREY, linestyle="none", marker="o", markersize=4.5, markerfacecolor="white", label="predicted"
    )
    left.legend(frameon=False, fontsize=7.5, loc="lower left")
    for place, name in ((1, "left weight, to 1"), (-1, "right weight, to \u22121")):
        right.axhline(place, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        right.text(30, place + (0.95 if place > 0 else -0.75), name, fontsize=7.5, color=INK, ha="right", va="center")
    right.set(xlabel="step", ylabel="weight", ylim=(-2.1, 2.4))
    right.set_title("the two weights, step by step", fontsize=9, loc="left", fontweight="bold")
    for axes in (left, right):
        tidy(axes)
        axes.tick_params(labelsize=7.5)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
    return drawing


def padding_and_stride(ns: Namespace) -> Figure:
    drawing, axes = board(25, 10.6)
    reads, padded = ns["reads"].numpy(), ns["padded"].numpy()
    words(axes, 4.5, 0.6, "5 x 5, padding 1, stride 2", size=8.5, bold=True)
    for row in range(7):
        for column in range(7):
            if not (0 < row < 6 and 0 < column < 6):
                axes.add_patch(_filled(1 + column, 1.4 + row, 1, 1, "#f1f5f9"))
                words(axes, 1.5 + column, 1.9 + row, "0", size=7, colour="#94a3b8")
    cells(axes, padded, 2, 2.4)
    frame(axes, 1, 1.4, 3, 3)
    frame(axes, 3.06, 1.46, 2.88, 2.88, BLUE)
    frame(axes, 5, 5.4, 3, 3, GREEN)
    arrow(axes, (8.3, 4.9), (9.7, 4.9))
    cells(axes, np.ones((3, 3)), 10, 3.4, blank=True, shade=np.zeros((3, 3)))
    for place, colour in (((0, 0), ORANGE), ((0, 1), BLUE), ((2, 2), GREEN)):
        frame(axes, 10.06 + place[1], 3.46 + place[0], 0.88, 0.88, colour)
    words(axes, 11.5, 7, "3 x 3", size=7.5, colour=GREY)
    words(axes, 17.5, 0.6, "6 x 6, no padding, stride 2", size=8.5, bold=True)
    unread = reads == 0
    cells(axes, reads, 14.5, 1.9, shade=np.where(unread, -1, reads / 4))
    frame(axes, 14.5, 1.9, 3, 3)
    frame(axes, 16.56, 3.96, 2.88, 2.88, GREEN)
    arrow(axes, (20.8, 4.9), (22, 4.9))
    cells(axes, np.ones((2, 2)), 22.3, 3.9, blank=True, shade=np.zeros((2, 2)))
    for place, colour in (((0, 0), ORANGE), ((1, 1), GREEN)):
        frame(axes, 22.36 + place[1], 3.96 + place[0], 0.88, 0.88, colour)
    words(axes, 23.3, 6.5, "2 x 2", size=7.5, colour=GREY)
    words(axes, 17.5, 8.6, f"orange: {int(unread.sum())} pixels that no window reads", size=7.5, colour=ORANGE)
    words(
        axes,
        12.5,
        9.9,
        "each number: how many windows read the pixel; coloured frames: some windows and their outputs",
        size=7.5,
        colour=GREY,
    )
    return drawing


def channels(ns: Namespace) -> Figure:
    drawing, axes = board(24.5, 15.4)
    photo, kernels, maps = ns["photo"].numpy(), ns["filter_"].numpy(), ns["maps"].numpy()
    side, height = 0.78, 4.6
    for x, text in (
        (3.5, "input: 3 channels"),
        (9.4, "one filter: 3 kernels"),
        (14.6, "3 partial maps"),
        (20.7, "their sum: 1 map"),
    ):
        words(axes, x, 0.6, text, size=8.5, bold=True)
    for c, (name, colour) in enumerate((("R", ORANGE), ("G", GREEN), ("B", BLUE))):
        y = 1.4 + c * height
        middle = y + 2.5 * side
        words(axes, 0.8, middle, name, size=10, colour=colour, bold=True)
        cells(axes, photo[c], 1.5, y, side=side, size=6.8, edge="#d5dbe3")
        frame(axes, 1.5, y, 5 * side, 5 * side, colour, linewidth=1.2)
        words(axes, 6.7, middle, "⋆", size=18)
        cells(axes, kernels[c], 8.2, middle - 1.5 * side, side=side, size=6.8)
        words(axes, 11.9, middle, "=", size=11)
        cells(axes, maps[c], 13.4, middle - 1.5 * side, side=side, size=6.8)
        arrow(axes, (16.1, middle), (18.9, 1.4 + height + 2.5 * side + (c - 1) * 0.7))
    words(axes, 17.7, 1.4 + height + 2.5 * side - 1.6, "+", size=12)
    cells(axes, ns["output"].numpy(), 19.2, 1.4 + height + 2.5 * side - 1.5, size=8)
    words(axes, 20.7, 1.4 + height + 2.5 * side + 2.3, "more filters:\nmore maps, stacked", size=7.5, colour=GREY)
    return drawing


def pooling(ns: Namespace) -> Figure:
    drawing, axes = board(25, 9.4)
    sixteen = ns["sixteen"][0].numpy()
    words(axes, 6.6, 0.5, "three ways to pool", size=8.5, bold=True)
    cells(axes, sixteen, 0.8, 3.0, below="4 x 4")
    for place, colour in (((0, 0), ORANGE), ((0, 2), BLUE), ((2, 0), GREEN), ((2, 2), PINK)):
        frame(axes, 0.85 + place[1], 3.05 + place[0], 1.9, 1.9, colour)
    for row, (title, values) in enumerate((("maximum", "largest"), ("mean", "mean"), ("0.5 · sum + 1", "summed"))):
        y = 1.3 + row * 2.7
        arrow(axes, (5.1, 5.0), (7.0, y + 1))
        cells(axes, ns[values].numpy(), 7.3, y)
        words(axes, 9.6, y + 1, title, size=7.5, ha="left", colour=GREY)
    chart = drawing.add_axes((0.6, 0.17, 0.29, 0.70))
    for values, colour in zip(ns["change"].values(), (GREY, BLUE, ORANGE, GREEN), strict=True):
        chart.plot([1, 2, 3, 4], values, color=colour, marker="o", markersize=3.5, linewidth=1.7)
    none, mean, most, every = ns["change"].values()
    for text, y, colour in (
        ("every 8th pixel", every[3], GREEN),
        ("no pooling", none[3] - 0.03, GREY),
        ("mean", mean[3] + 0.045, BLUE),
        ("maximum", most[3] - 0.055, ORANGE),
    ):
        chart.text(4.12, y, text, fontsize=7.5, color=colour, va="center")
    chart.set_title("moved a little, how much changes?", fontsize=8.5, fontweight="bold", loc="left")
    chart.set(xticks=[1, 2, 3, 4], ylim=(0, 1.3), xlim=(0.85, 4.1))
    chart.set_xlabel("the photo moves by, pixels", fontsize=8)
    chart.set_ylabel("change of the result, relative", fontsize=8)
    chart.tick_params(labelsize=7.5)
    tidy(chart)
    return drawing


def three_views(ns: Namespace) -> Figure:
    drawing, axes = board(27, 21)
    image, kernel, rows, matrix, output = (ns[name].numpy() for name in ("image", "kernel", "rows", "matrix", "output"))
    words(axes, 0.6, 0.7, "1. the window slides", size=9, bold=True, ha="left")
    cells(axes, image, 0.6, 2.1, title="picture")
    frame(axes, 1.6, 3.1, 3, 3)
    words(axes, 6.3, 4.6, "⋆", size=20)
    cells(axes, kernel, 7, 3.1, title="kernel")
    words(axes, 10.6, 4.6, "=", size=12)
    cells(axes, output, 11.2, 3.1, mark=[(1, 1)])
    words(axes, 15.4, 0.7, "2. windows as rows, times a column", size=9, bold=True, ha="left")
    cells(axes, rows, 15.4, 2.1, side=0.78, size=6.2, title="9 windows, 9 x 9")
    frame(axes, 15.4, 2.1 + 4 * 0.78, 9 * 0.78, 0.78)
    words(axes, 22.9, 5.6, "·", size=14)
    cells(axes, kernel.reshape(9, 1), 23.3, 2.1, side=0.78, size=6.2)
    words(axes, 24.6, 5.6, "=", size=11)
    cells(axes, output.reshape(9, 1), 25.1, 2.1, side=0.78, size=6.2, mark=[(4, 0)])
    words(
        axes,
        0.6,
        10.7,
        "3. the kernel as a 9 x 25 matrix, times the picture as a column (written above it, on its side); empty: 0",
        size=9,
        bold=True,
        ha="left",
    )
    side = 0.86
    cells(axes, image.reshape(1, 25), 2.2, 11.7, side=side, size=6.2)
    taps = ns["convolve"].kernel_matrix(ns["torch"].ones(3, 3), (5, 5)).to_dense().numpy() != 0
    frame(axes, 2.2, 13.0, 25 * side, 9 * side, "#e2e8f0", linewidth=1.0, zorder=0)
    cells(axes, np.where(taps, matrix, np.nan), 2.2, 13.0, side=side, size=6.2)
    frame(axes, 2.2, 13.0 + 4 * side, 25 * side, side)
    words(axes, 24.3, 13.0 + 4.5 * side, "=", size=11)
    cells(axes, output.reshape(9, 1), 24.9, 13.0, side=side, size=6.2, mark=[(4, 0)])
    for row in range(9):
        words(axes, 1.7, 13.0 + (row + 0.5) * side, f"y{row + 1}", size=6.5, colour=GREY)
    return drawing


def transposed(ns: Namespace) -> Figure:
    drawing, axes = board(27, 9.6)
    convolve, small = ns["convolve"], ns["small"]
    colours = {(0, 0): GREY, (0, 1): BLUE, (1, 0): GREEN, (1, 1): ORANGE}
    cells(axes, small[0, 0].numpy(), 0.7, 3.2, title="input")
    cells(axes, small[0, 0].numpy(), 0.7, 6.8, title="kernel")
    for (row, column), colour in colours.items():
        frame(axes, 0.78 + column, 3.28 + row, 0.84, 0.84, colour)
    for stride, x in ((1, 4.4), (2, 9)):
        result = convolve.conv_transpose2d(small, small, stride=stride)[0, 0].numpy()
        size = len(result)
        cells(axes, result, x, 3.2, title=f"stride {stride}")
        for (row, column), colour in colours.items():
            inset = 0.06 + (0.07 * (2 * row + column) if stride == 1 else 0)
            frame(
                axes,
                x + column * stride + inset,
                3.2 + row * stride + inset,
                2 - 2 * inset,
                2 - 2 * inset,
                colour,
                linewidth=1.5,
            )
        words(
            axes,
            x + size / 2,
            3.2 + size + 0.6,
            "copies overlap, and add" if stride == 1 else "side by side",
            size=7,
            colour=GREY,
        )
    for (k, cover), x in zip(ns["cover"].items(), (14.6, 21.0), strict=True):
        grid = cover.numpy()
        side = 5.4 / len(grid)
        cells(axes, grid, x, 2.2, side=side, size=6, title=f"{k}x{k} kernel, stride 2")
        words(
            axes, x + 2.7, 8.2, "uneven: a checkerboard" if k == 3 else "even, but for the rim", size=7.5, colour=GREY
        )
    words(axes, 20.6, 9.0, "numbers: how many copies of the kernel cover each pixel", size=7.5, colour=GREY)
    words(axes, 6.5, 1.0, "each input stamps the kernel", size=8.5, bold=True)
    return drawing


def _filled(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="#cbd5e1", linewidth=0.6)
