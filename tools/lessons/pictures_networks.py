"""Pictures of lessons 16 to 18: whole networks, and what they cost. Every number comes from the lesson's namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tools.lessons.sheet import LINE, bars, board, tint, words

from convolve.draw.style import BLUE, GREEN, GREY, ORANGE, figure, tidy

Namespace = Mapping[str, Any]


def lenet5(ns: Namespace) -> Figure:
    drawing, axes = board(28, 16)
    report, trained = ns["report"], ns["trained"]
    kinds = {"c": BLUE, "s": GREEN, "f": ORANGE}
    base, scale = 5.4, 3.6 / 32
    axes.add_patch(Rectangle((0.6, base - 32 * scale), 32 * scale, 32 * scale, facecolor="#f1f5f9", edgecolor=GREY))
    words(axes, 0.6 + 16 * scale, base + 0.55, "input", size=8.5, bold=True)
    words(axes, 0.6 + 16 * scale, base + 1.3, "1 @ 32 x 32", size=7.5)
    x = 5.7
    for name in ns["layers"]:
        _, maps, *size = report.row(name).output
        h = size[0] if size else 1
        sheets, step = (min(maps, 6), 0.16) if size and h > 1 else (1, 0.0)
        width = max(h * scale, 0.3)
        height = h * scale if h > 1 else {120: 3.6, 84: 2.6}.get(maps, 1.0)
        for sheet in reversed(range(sheets)):
            place = x + sheet * step, base - height - sheet * step
            axes.add_patch(
                Rectangle(
                    place, width, height, facecolor=tint(0.8, kinds[name[0]]), edgecolor=kinds[name[0]], linewidth=1
                )
            )
        middle = x + max(width + step * sheets, 0.8) / 2
        words(axes, middle, base + 0.55, name.upper(), size=8.5, bold=True)
        words(axes, middle, base + 1.3, f"{maps} @ {h} x {h}" if size else f"{maps}", size=7.5)
        words(axes, middle, base + 2.0, f"{trained[name]:,}", size=7.5, colour=kinds[name[0]])
        field = report.row(name).fields[0].axes[0] if size else None
        words(axes, middle, base + 2.7, f"{field.size} x {field.size}" if field else "all", size=7.5, colour=GREY)
        x += max(width + step * sheets, 1.8) + 1.0
    words(axes, 26.1, base + 0.55, "output", size=8.5, bold=True)
    words(axes, 26.1, base + 1.3, "10 distances", size=7.5)
    words(axes, 26.1, base + 2.0, "0 (840 fixed)", size=7.5, colour=GREY)
    axes.add_patch(Rectangle((25.95, base - 1.2), 0.3, 1.2, facecolor="#f1f5f9", edgecolor=GREY))
    words(axes, 2.8, base + 2.0, "trained numbers:", size=7.5, colour=GREY)
    words(axes, 2.8, base + 2.7, "one unit sees:", size=7.5, colour=GREY)
    table = ns["table"]
    top = 9.8
    words(axes, 13.3, top - 0.6, "which of S2's maps (down) each map of C3 (across) reads", size=8.5, bold=True)
    for row, reads in enumerate(table):
        words(axes, 4.3, top + 0.75 + row * 0.8, str(row), size=7, colour=GREY)
        for column, yes in enumerate(reads):
            place = 4.9 + column * 1.05, top + 0.35 + row * 0.8
            axes.add_patch(
                Rectangle(
                    place, 1.05, 0.8, facecolor=tint(0.8, BLUE) if yes else "white", edgecolor=LINE, linewidth=0.6
                )
            )
            if yes:
                words(axes, place[0] + 0.52, place[1] + 0.4, "X", size=6.5)
    for column in range(16):
        words(axes, 4.9 + (column + 0.5) * 1.05, top + 0.05, str(column), size=7, colour=GREY)
    words(
        axes, 13.3, top + 5.7, f"{sum(map(sum, table))} pairs, each with a 5x5 kernel of its own", size=7.5, colour=GREY
    )
    return drawing


def four_networks(ns: Namespace) -> Figure:
    drawing = figure(8.6, 3.4)
    drawing.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr]
    left, right = drawing.subplots(1, 2)
    table = ns["table"]
    names = list(table)
    convolutional = [row[0] / 1e6 for row in table.values()]
    dense = [row[1] / 1e6 for row in table.values()]
    left.barh(names, convolutional, color=BLUE, height=0.6, label="convolutional")
    stacked = left.barh(names, dense, left=convolutional, color=ORANGE, height=0.6, label="fully connected")
    totals = [a + b for a, b in zip(convolutional, dense, strict=True)]
    left.bar_label(stacked, labels=[f"{total:.1f}" for total in totals], padding=4, fontsize=8)
    left.set_xlabel("parameters, millions", fontsize=8)
    left.legend(frameon=False, fontsize=7.5, loc="lower right")
    macs = [row[2] / 1e9 for row in table.values()]
    drawn = right.barh(names, macs, color=GREEN, height=0.6)
    right.bar_label(drawn, labels=[f"{value:.2f}" for value in macs], padding=4, fontsize=8)
    right.set_xlabel("multiply-adds for one picture, 10⁹", fontsize=8)
    for axes in (left, right):
        tidy(axes)
        axes.grid(False, axis="y")
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
    return drawing


def why_fast(ns: Namespace) -> Figure:
    drawing = figure(8.6, 3.5)
    drawing.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr]
    left, right = drawing.subplots(1, 2, width_ratios=(1.25, 1))
    kernels = list(ns["products"])
    for name, colour in (("direct", GREY), ("separable", GREEN)):
        counts = [ns["products"][k][name] for k in kernels]
        left.plot(kernels, counts, color=colour, marker="o", markersize=4, linewidth=1.8)
        place = (kernels[-1], counts[-1])
        left.annotate(name, place, xytext=(7, 0), textcoords="offset points", fontsize=8, color=colour, va="center")
    for name, colour in (("F(2x2, 3x3)", BLUE), ("F(4x4, 3x3)", ORANGE)):
        value = ns["products"][3][name]
        left.plot([3], [value], color=colour, marker="D", markersize=6, linestyle="none")
        left.annotate(
            f"Winograd {name}: {value:g}",
            (3, value),
            xytext=(10, -3),
            textcoords="offset points",
            fontsize=8,
            color=colour,
        )
    left.set(xticks=kernels, yscale="log", ylim=(0.8, 220), xlim=(0.5, 13.6))
    left.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    left.minorticks_off()
    left.set_xlabel("kernel size", fontsize=8)
    left.set_ylabel("multiplications per output and channel", fontsize=8)
    left.set_title("multiplying less", fontsize=9, fontweight="bold", loc="left")
    tidy(left)
    left.tick_params(labelsize=7.5)
    uses = ns["uses"]
    bars(right, list(uses), list(uses.values()), [BLUE, ORANGE], [f"{value:,}" for value in uses.values()])
    right.set(xlim=(0, 4000), xticks=[0, 1000, 2000, 3000])
    right.set_xlabel("how often each weight is used for one picture", fontsize=8)
    right.set_title("using each weight more", fontsize=9, fontweight="bold", loc="left")
    return drawing
