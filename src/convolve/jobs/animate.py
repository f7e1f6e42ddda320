"""`convolve animate`: an operator, taken apart step by step, as one HTML page and as pictures for slides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from convolve.draw import animation as drawing
from convolve.draw.page import THEMES
from convolve.errors import UnknownNameError, UsageError
from convolve.explain.animation import Request, Scene, operator, scenes
from convolve.files import atomic_write
from convolve.geometry import Pair
from convolve.jobs.animate_input import Given, read_input, read_kernel, read_padding, read_sizes

FORMATS = ("html", "gif", "svg", "png")
Sizes = int | str | Sequence[int]


@dataclass(frozen=True, eq=False)
class Animation:
    """An operator taken apart. In a notebook it shows its page; `save` writes it."""

    operator: str
    name: str
    """What its files are called, such as "conv-k3-s2-p1"."""
    title: str
    scenes: tuple[Scene, ...]
    given: Given
    theme: str
    files: tuple[Path, ...] = ()

    def page(self) -> str:
        """The whole page: one HTML document that needs no network."""
        return drawing.page(self)

    def render(self, kind: str, step: int | None = None) -> bytes:
        """The content of a file of `kind`: html, gif, svg or png."""
        return drawing.render_as(self, kind, step)

    @property
    def left_out_of_gif(self) -> int:
        """How many steps a GIF does not show: it has up to 120 frames, and of long animations only the first filter."""
        return drawing.left_out_of_gif(self)

    def save(self, path: str | Path, step: int | None = None) -> Path:
        """Write the animation as what the path's ending says (.html, .gif, .svg, .png); pictures show `step`, or the last one.

        Raises UsageError for another ending, ConvolveError where the file cannot be written.
        """
        target = Path(path)
        kind = target.suffix.removeprefix(".").lower()
        if kind not in FORMATS:
            raise UnknownNameError.of("kind of file", kind or str(path), FORMATS)
        content = self.render(kind, step)
        with atomic_write(target, "wb") as file:
            file.write(content)
        return target

    def _repr_html_(self) -> str:
        return drawing.frame_for_notebook(self.page())

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        stages = [
            {
                "scene": scene.name,
                "operator": stage.operator,
                "input": list(stage.input.shape),
                "output": list(stage.output.shape),
                "sizes": list(stage.size_formulas),
                "parameters": stage.parameters,
                "macs": stage.macs,
                "steps": stage.positions,
                "values": stage.output.tolist(),
            }
            for scene in self.scenes
            for stage in scene.stages
        ]
        return {
            "operator": self.operator,
            "title": self.title,
            "stages": stages,
            "code": self.scenes[0].stages[0].code,
            "files": [str(path) for path in self.files],
        }


def animate(
    operator_name: str = "conv",
    input: str | Tensor | None = None,  # noqa: A002 - torch's name
    kernel: Sizes | Tensor | None = None,
    stride: Sizes | None = None,
    padding: Sizes | Sequence[Pair] = 0,
    dilation: Sizes = 1,
    groups: int | None = None,
    *,
    group_order: str = "contiguous",
    channels: int | None = None,
    filters: int | None = None,
    output_padding: Sizes = 0,
    padding_mode: str = "zeros",
    bias: bool = False,
    flip: bool = False,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    resize: str | None = None,
    seed: int = 0,
    theme: str = "auto",
    to: Sequence[str] = (),
    out: str | Path | None = None,
    step: int | None = None,
) -> Animation:
    """Take an operator apart, step by step: conv, conv-transpose, max-pool, avg-pool, trainable-pool, grouped, ….

    Also depthwise, pointwise, separable, and "compare": the convolutions among these on one input.

    input: a tensor (c, *size), or text: "5x5", "7" (1-D), "3x5x5", numbers "1 2 3; 4 5 6" (channels apart by |), an image file,
        "sample:china". Sizes are filled with small random integers of `seed`.
    kernel: a size, numbers, a tensor, or the name of a filter such as "sobel-x".
    padding: an int, one per axis, (before, after) per axis (as text "0:1x1:2"), "same", "same_lower", "valid".
    group_order: which channels a group reads: a block of them ("contiguous", torch's), or every groups-th ("interleaved").
    resize: the size (h, w) to which an image is scaled; its longer side is 16 pixels without.
    to: the kinds of files to write (html, gif, svg, png), as `out`, or after what is shown: conv-k3-s2-p1.html.

    Raises UnknownNameError for an operator that is not in the list, UsageError for more than a page can show.

    >>> import convolve
    >>> shown = convolve.animate("conv", "5x5", kernel=3, stride=2, padding=1)
    >>> shown.title, shown.name
    ('conv2d: 5×5 → 3×3', 'conv-k3-s2-p1')
    """
    row = operator(operator_name)
    kinds = _kinds(to, out)
    if theme not in THEMES:
        raise UnknownNameError.of("theme", theme, THEMES)
    given = read_input(input, row.size, channels, row.channels, resize, seed)
    axes = given.x.dim() - 1
    if kernel is None and given.picture is not None and row.name == "conv":
        kernel = "sobel-x"  # random weights on a photo show noise
    size, kernels = read_kernel(kernel, axes, row.kernel)
    request = Request(
        given.x, size, kernels, read_sizes(stride, "stride"), read_padding(padding, axes), padding_mode,
        _sizes(output_padding, "output_padding"), _sizes(dilation, "dilation"), groups, group_order, filters, bias, flip,
        ceil_mode, count_include_pad, seed,
    )  # fmt: skip
    made = scenes(row.name, request)
    name = _name(row.name, made)
    shown = Animation(row.name, name, _title(row.name, made), made, given, theme)
    last = max(stage.positions for scene in made for stage in scene.stages)
    if step is not None and not 1 <= step <= last:
        raise UsageError(f"step is one of 1 to {last}", f"got {step}", "count from 1")
    base = Path(out) if out is not None else Path(name)
    if base.suffix.removeprefix(".").lower() in FORMATS:
        base = base.with_suffix("")
    files = tuple(shown.save(base.with_name(f"{base.name}.{kind}"), step) for kind in kinds)
    return Animation(row.name, name, shown.title, made, given, theme, files)


def _sizes(given: Sizes, name: str) -> int | Sequence[int]:
    read = read_sizes(given, name)
    assert read is not None
    return read


def _kinds(to: Sequence[str], out: str | Path | None) -> tuple[str, ...]:
    words = [word for item in to for word in item.split(",") if word]
    if not words and out is not None:
        suffix = Path(out).suffix.removeprefix(".").lower()
        words = [suffix] if suffix in FORMATS else ["html"]
    for word in words:
        if word not in FORMATS:
            raise UnknownNameError.of("kind of file", word, FORMATS)
    return tuple(dict.fromkeys(words))


def _name(operator_name: str, made: tuple[Scene, ...]) -> str:
    """The operator and what differs from its defaults: conv-k3-s2-p1."""
    stage = made[0].stages[0]
    window = stage.window
    parts = [operator_name]
    default = window.kernel if stage.kind in ("max", "average", "sum") else (1,) * window.axes
    sides = [str(p) if p == q else f"{p}_{q}" for p, q in window.padding]
    for letter, values, usual in (
        ("k", window.kernel, ()),
        ("s", window.stride, default),
        ("p", sides, ("0",) * window.axes),
        ("d", window.dilation, (1,) * window.axes),
    ):
        if tuple(values) != usual:
            words = [str(value) for value in values]
            parts.append(letter + (words[0] if len(set(words)) == 1 else "x".join(words)))
    return "-".join(parts)


def _title(operator_name: str, made: tuple[Scene, ...]) -> str:
    first, last = made[0].stages[0], made[-1].stages[-1]
    if operator_name == "compare":
        return f"Five convolutions on one input of {_shape(first.input)}"
    called = (
        first.operator
        if operator_name in ("conv", "conv-transpose", "max-pool", "avg-pool", "trainable-pool")
        else operator_name
    )
    return f"{called}: {_shape(first.input)} → {_shape(last.output)}"


def _shape(x: Tensor) -> str:
    sizes = list(x.shape) if x.shape[0] != 1 else list(x.shape[1:])
    return "×".join(map(str, sizes))
