"""`convolve animate`: text into tensors, files, the page's own data read back, pictures, errors in words."""

from __future__ import annotations

import io
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops

import convolve
from convolve.cli import main
from convolve.draw.animation_pictures import number
from convolve.draw.page import MOST_BYTES
from convolve.errors import ConvolveError, InputError, ShapeError, UnknownNameError, UsageError
from convolve.explain.animation import OPERATORS

GOLDEN = Path(__file__).parents[1] / "golden"


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_number_in_a_page_is_the_operators(name: str) -> None:
    shown = convolve.animate(name)
    page = shown.page()
    assert len(page.encode()) < MOST_BYTES
    scenes = data_of(page)["scenes"]
    assert [scene["name"] for scene in scenes] == [scene.name for scene in shown.scenes]
    for scene, made in zip(scenes, shown.scenes, strict=True):
        for stage, truth in zip(scene["stages"], made.stages, strict=True):
            read = {key: torch.tensor(stage[key], dtype=torch.float64) for key in ("input", "output", "reads", "rows")}
            assert torch.equal(read["output"], truth.output.flatten(1))
            assert torch.equal(read["input"], truth.input.flatten(1))
            assert torch.equal(read["reads"], truth.reads.double())
            assert torch.equal(read["rows"], truth.rows)
            if stage["products"] is not None:
                assert torch.equal(torch.tensor(stage["products"]).double(), truth.products)
            (rows, columns), values = stage["matrix"]["at"], stage["matrix"]["values"]
            dense = torch.zeros(stage["matrix"]["size"], dtype=torch.float64)
            dense[rows, columns] = torch.tensor(values, dtype=torch.float64)
            again = (dense @ torch.tensor(stage["matrix_input"]).double()).reshape_as(read["output"])
            if stage["bias"] is not None:
                again += torch.tensor(stage["bias"]).double()[:, None]
            torch.testing.assert_close(again, read["output"])
            assert stage["order"] == list(truth.order)
            if stage["scale"] is not None:
                assert truth.scale is not None
                assert torch.equal(torch.tensor(stage["scale"]).double(), truth.scale)


def test_the_figure_of_dumoulin_and_visin_from_the_numbers_in_the_text(tmp_path: Path, capsys: Any) -> None:
    numbers = "3 3 2 1 0; 0 0 1 3 1; 3 1 2 2 3; 2 0 0 2 2; 2 0 0 0 1"
    arguments = [
        "animate",
        "conv",
        "--input",
        numbers,
        "--kernel",
        "0 1 2; 2 2 0; 0 1 2",
        "--out",
        str(tmp_path / "a.html"),
    ]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["stages"][0]["values"] == [[[12, 12, 17], [10, 17, 19], [9, 6, 14]]]  # S003-2
    assert main([*arguments, "--flip", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["stages"][0]["values"] == [[[18, 20, 19], [10, 9, 17], [11, 8, 14]]]
    assert document["files"] == [str(tmp_path / "a.html")]


def test_the_command_of_the_first_five_minutes(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["animate", "conv", "--input", "5x5", "--kernel", "3", "--stride", "2", "--padding", "1"]) == 0
    out = capsys.readouterr().out
    assert "conv2d: 5×5 → 3×3" in out
    assert "⌊(5 + 2·1 − 3) / 2⌋ + 1 = 3" in out
    assert "nn.Conv2d(1, 1, kernel_size=3, stride=2, padding=1, bias=False)" in out
    assert {path.name for path in tmp_path.iterdir()} == {f"conv-k3-s2-p1.{kind}" for kind in ("html", "gif", "svg")}


def test_a_page_of_seven_by_seven_is_written_in_two_seconds(tmp_path: Path) -> None:
    convolve.animate("conv")  # what is imported once is not counted
    start = time.perf_counter()
    convolve.animate("conv", "7x7", out=tmp_path / "seven.html")
    assert time.perf_counter() - start < 2
    assert (tmp_path / "seven.html").stat().st_size < MOST_BYTES


def test_the_largest_animation_stays_below_the_limit_of_a_page() -> None:
    weight = torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    shown = convolve.animate("conv", torch.rand(3, 11, 11), weight, filters=8)
    assert shown.scenes[0].stages[0].macs > 17_000
    assert len(shown.page().encode()) < MOST_BYTES


def test_a_page_above_the_limit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    large = torch.rand(4, 13, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(UsageError, match="up to 2,000,000 bytes; this animation's would have"):
        convolve.animate("compare", large, filters=4, stride=1, out=tmp_path / "a", to=("html", "svg"))
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_gives_the_same_page_and_leaves_the_callers_generator_alone() -> None:
    state = torch.get_rng_state()
    first = convolve.animate("separable", seed=3).page()
    assert first == convolve.animate("separable", seed=3).page()
    assert first != convolve.animate("separable", seed=4).page()
    assert torch.equal(state, torch.get_rng_state())


def test_a_photo_is_its_red_green_and_blue(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (9, 12, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "p.png")
    shown = convolve.animate("conv", str(tmp_path / "p.png"), resize="9x12")
    stage = shown.scenes[0].stages[0]
    assert torch.equal(stage.input, pixels.permute(2, 0, 1).double())
    assert shown.given.names == ("R", "G", "B")
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).double().expand(1, 3, 3, 3)
    assert torch.equal(stage.output, F.conv2d(stage.input[None], sobel)[0])
    data = data_of(shown.page())
    assert len(data["channel_pictures"]) == 3
    grey = convolve.animate("conv", str(tmp_path / "p.png"), channels=1)
    assert grey.scenes[0].stages[0].input.shape == (1, 12, 16)


def test_comparing_counts_weights_as_by_hand() -> None:
    shown = convolve.animate("compare", "4x5x5")
    assert {scene.name: (scene.parameters, scene.macs) for scene in shown.scenes} == {
        "conv": (4 * 4 * 9, 4 * 4 * 9 * 9),
        "grouped": (4 * 2 * 9, 4 * 2 * 9 * 9),
        "depthwise": (4 * 9, 4 * 9 * 9),
        "pointwise": (4 * 4, 4 * 4 * 25),
        "separable": (4 * 9 + 4 * 4, 4 * 9 * 9 + 4 * 4 * 9),
    }
    inputs = [scene.stages[0].input for scene in shown.scenes]
    assert all(torch.equal(inputs[0], other) for other in inputs)


def test_interleaved_groups_from_the_command_line_read_channels_1_and_3_and_2_and_4(
    tmp_path: Path, capsys: Any
) -> None:
    words = [
        "animate",
        "grouped",
        "--input",
        "4x3x3",
        "--filters",
        "2",
        "--kernel",
        "2",
        "--out",
        str(tmp_path / "a.html"),
    ]
    assert main([*words, "--group-order", "interleaved", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    stage = data_of((tmp_path / "a.html").read_text(encoding="utf-8"))["scenes"][0]["stages"][0]
    assert stage["order"] == [0, 2, 1, 3]  # S004-8: {1, 3} and {2, 4}, counted from 1
    x = torch.tensor(stage["input"]).double().reshape(1, 4, 3, 3)
    weight = torch.tensor(stage["weight"]).double().reshape(2, 2, 2, 2)
    truth = F.conv2d(x[:, [0, 2, 1, 3]], weight, groups=2)[0]
    assert document["stages"][0]["values"] == truth.tolist()


def test_kernels_may_be_given_for_each_channel() -> None:
    shown = convolve.animate("conv", "1 2; 3 4 | 5 6; 7 8", "1 0; 0 1 | 0 2; 0 0")
    assert shown.scenes[0].stages[0].output.tolist() == [[[1 + 4 + 2 * 6]]]
    one = convolve.animate("conv", "1 2 4 8", "1 -1").scenes[0].stages[0]
    assert one.output.tolist() == [[-1, -2, -4]]


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_the_pictures_show_the_step_that_was_asked_for(theme: str, tmp_path: Path) -> None:
    shown = convolve.animate("conv", "5x5", stride=2, padding=1, theme=theme)
    svg = shown.save(tmp_path / "a.svg", step=5).read_text(encoding="utf-8")
    values = shown.scenes[0].stages[0].output[0].flatten().tolist()
    texts = re.findall(r">([^<>]+)</text>", svg)
    written = texts[texts.index("output") + 1 :]
    assert written[:5] == [number(value) for value in values[:5]]
    assert number(values[4]) == written[-1].strip()
    width, height = (int(size) for size in re.findall(r'<svg [^>]*width="(\d+)" height="(\d+)"', svg)[0])
    with Image.open(shown.save(tmp_path / "a.png", step=5)) as png:
        assert png.size == (2 * width, 2 * height)


def test_the_gif_has_one_frame_per_step_and_no_two_are_alike(tmp_path: Path) -> None:
    path = convolve.animate("conv-transpose", stride=2).save(tmp_path / "a.gif")
    with Image.open(path) as gif:
        assert gif.n_frames == 9
        frames = []
        for index in range(9):
            gif.seek(index)
            frames.append(gif.convert("RGB"))
    assert all(ImageChops.difference(a, b).getbbox() for a, b in itertools.pairwise(frames))


def test_a_long_gif_is_bounded_and_says_how_many_steps_it_left_out() -> None:
    from convolve.draw.animation_pictures import MOST_FRAMES

    shown = convolve.animate("conv", "13x13")
    with Image.open(io.BytesIO(shown.render("gif"))) as gif:
        assert gif.n_frames == MOST_FRAMES
    assert shown.left_out_of_gif == 11 * 11 - MOST_FRAMES


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("conv", {"stride": 2, "padding": 1}),
        ("conv-transpose", {"stride": 2}),
        ("max-pool", {}),
        ("avg-pool", {"kernel": 3}),
    ],
)
def test_the_svg_is_the_golden_one(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    svg = convolve.animate(name, **arguments).save(tmp_path / "a.svg", step=2).read_text(encoding="utf-8")
    golden = GOLDEN / f"animate-{name}.svg"
    assert svg == golden.read_text(encoding="utf-8"), (
        f"write it anew with tools/golden_animations.py and look at {golden}"
    )


def test_a_notebook_shows_the_page_in_a_frame_of_its_own() -> None:
    shown = convolve.animate("max-pool")
    html = shown._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert "<script" not in html
    assert "allow-scripts" in html


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"operator_name": "conv2d"}, UnknownNameError, "conv"),
        ({"operator_name": "maxpool"}, UnknownNameError, "max-pool"),
        ({"input": "100x100"}, UsageError, "up to 20,000 products; this operator forms 86,436"),
        ({"input": "99999x99999"}, UsageError, "small input"),
        ({"input": "5x5x5x5"}, UsageError, "LENGTH, HxW or CxHxW"),
        ({"input": "0x5"}, UsageError, "at least 1"),
        ({"input": "1 2; 3"}, UsageError, "equally long"),
        ({"input": "nowhere.png"}, InputError, "cannot read an image"),
        ({"input": "nowhere"}, InputError, "a size, numbers, or an image file"),
        ({"input": "sample:dog"}, UnknownNameError, "china"),
        ({"kernel": "sobel-z"}, UnknownNameError, "sobel-x"),
        ({"kernel": "sobel"}, UsageError, "joins 2"),
        ({"kernel": "0"}, UsageError, "at least 1"),
        ({"kernel": "7"}, ShapeError, "must fit into the padded input"),
        ({"stride": "0"}, UsageError, "stride must be at least 1"),
        ({"dilation": 0}, UsageError, "dilation must be at least 1"),
        ({"padding": "sam"}, UnknownNameError, "same"),
        ({"padding_mode": "reflekt"}, UnknownNameError, "reflect"),
        ({"groups": 2}, ShapeError, "groups must divide"),
        ({"operator_name": "max-pool", "bias": True}, UsageError, "max-pool has no bias"),
        ({"operator_name": "max-pool", "kernel": "1 2; 3 4"}, UsageError, "pooling has no kernel of numbers"),
        (
            {"operator_name": "conv-transpose", "padding_mode": "reflect"},
            UsageError,
            "conv-transpose has no padding mode",
        ),
        ({"operator_name": "conv-transpose", "group_order": "interleaved"}, UsageError, "has no group order"),
        ({"operator_name": "grouped", "group_order": "interleave"}, UnknownNameError, "interleaved"),
        ({"operator_name": "depthwise", "groups": 3}, UsageError, "depthwise has no groups"),
        ({"operator_name": "pointwise", "kernel": 3}, UsageError, "kernel of 1"),
        ({"operator_name": "compare", "filters": 3}, ShapeError, "multiple of the channels"),
        ({"operator_name": "conv-transpose", "padding": 9}, UsageError, "to nothing"),
        ({"to": ("pdf",)}, UnknownNameError, "kind of file"),
        ({"theme": "drak"}, UnknownNameError, "dark"),
        ({"step": 10}, UsageError, "1 to 9"),
        ({"resize": "9x9"}, UsageError, "only an image can be resized"),
    ],
)
def test_bad_input_gives_one_clear_error(arguments: dict[str, Any], error: type[ConvolveError], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        convolve.animate(**arguments)


def test_an_unwritable_target_is_named_and_nothing_is_left(tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "absent" / "a.html"
    assert main(["animate", "conv", "--out", str(target)]) == 1
    captured = capsys.readouterr()
    assert str(target) in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_names_the_nearest_operators(capsys: Any) -> None:
    assert main(["animate", "conv-transposed"]) == 2
    assert "conv-transpose" in capsys.readouterr().err
