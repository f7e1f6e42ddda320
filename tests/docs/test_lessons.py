"""Every lesson prints what it says and its picture shows what its code computed; the numbers are checked against torch and numpy too."""

from __future__ import annotations

import base64
import html
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tools.lessons import notebook, text
from tools.lessons.pictures import PICTURES
from tools.lessons.sheet import description, number, path_of, shown
from torch.nn import functional as F

import convolve

LESSONS = text.lessons()
CLAIMS = (text.FOLDER.parent / "claims.md").read_text(encoding="utf-8")
SUBJECTS = (  # in the order of the claims; a lesson may not be lost
    *("cross-correlation", "edges", "learned-kernel", "padding-and-stride", "channels", "pooling", "receptive-field"),
    *("one-by-one", "weight-sharing", "groups-and-depthwise", "dilation", "two-3x3-and-a-5x5"),
    *("equivariance-and-invariance", "three-views", "transposed-convolution", "lenet5", "alexnet-to-googlenet"),
    "why-convolution-is-fast",
)


@cache
def ran(name: str) -> tuple[str, str, dict[str, Any]]:
    """A lesson's text as kept, as renewed, and the namespace that its code left."""
    kept = (text.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    return kept, *text.run(kept, name)


@cache
def drawn(name: str) -> dict[str, Any]:
    """What the lesson's picture shows when it is drawn now."""
    return shown(PICTURES[name](ran(name)[2]))


@pytest.fixture(params=[lesson.stem for lesson in LESSONS])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_there_is_a_lesson_for_every_subject_in_order() -> None:
    assert [lesson.stem for lesson in LESSONS] == [f"{place:02}-{subject}" for place, subject in enumerate(SUBJECTS, 1)]
    assert list(PICTURES) == [lesson.stem for lesson in LESSONS]


def test_a_lesson_prints_exactly_what_stands_behind_its_code(name: str) -> None:
    kept, renewed, _ = ran(name)
    assert renewed == kept, "run `make lessons`"
    assert kept.count("\n```text\n") >= 2


def test_a_lesson_prints_the_same_whatever_random_numbers_were_drawn_before(name: str) -> None:
    kept, renewed, _ = ran(name)
    torch.rand(17)
    assert text.run(kept, name)[0] == renewed


def test_a_picture_shows_what_its_lesson_computed(name: str) -> None:
    file = path_of(name)
    assert same(description(file), drawn(name)), f"{file.name} is not current: run `make lessons`"
    assert 2_000 < file.stat().st_size < 100_000
    assert f"](images/{file.name})" in ran(name)[0]


def test_no_picture_is_left_over() -> None:
    assert {path.name for path in (text.FOLDER / "images").iterdir()} == {path_of(name).name for name in PICTURES}


def test_a_picture_s_words_lie_inside_it_and_apart_from_each_other(name: str) -> None:
    drawing = PICTURES[name](ran(name)[2])
    canvas = FigureCanvasAgg(drawing)
    drawing.draw_without_rendering()
    renderer = canvas.get_renderer()
    whole = drawing.bbox
    boxes = []
    for axes in drawing.axes:
        labels = [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for item in labels:
            if item.get_text():
                box = item.get_window_extent(renderer)
                inside = whole.x0 <= box.x0 < box.x1 <= whole.x1 and whole.y0 <= box.y0 < box.y1 <= whole.y1
                assert inside, f"{item.get_text()!r} leaves the picture"
                boxes.append((item.get_text(), box.padded(-1)))
    for place, (words, box) in enumerate(boxes):
        for other, second in boxes[place + 1 :]:
            overlap = box.x0 < second.x1 and second.x0 < box.x1 and box.y0 < second.y1 and second.y0 < box.y1
            # A cell may be drawn again in another colour with its own number.
            assert not overlap or words == other, f"{words!r} lies on {other!r}"


def test_a_lesson_names_its_claims_and_they_exist(name: str) -> None:
    found = re.findall(r"claims\.md#(s\d+-\d+)", ran(name)[0])
    assert found
    for claim in found:
        assert f"\n## {claim.upper()}\n" in CLAIMS


def test_every_claim_has_a_lesson_that_names_it() -> None:
    named = {claim for lesson in LESSONS for claim in re.findall(r"claims\.md#(s\d+-\d+)", lesson.read_text("utf-8"))}
    every = {heading.lower() for heading in re.findall(r"^## (S\d+-\d+)$", CLAIMS, re.MULTILINE)}
    assert every == named


def test_the_links_between_the_lessons_and_the_index_are_current() -> None:
    for place, lesson in enumerate(LESSONS):
        kept = lesson.read_text(encoding="utf-8")
        assert text.with_trail(kept, text.trail(LESSONS, place)) == kept
    readme = (text.FOLDER / "README.md").read_text(encoding="utf-8")
    assert text.with_index(readme, text.index(LESSONS)) == readme
    assert all(lesson.name in readme for lesson in LESSONS)


def test_a_wrong_number_in_a_lesson_is_noticed() -> None:
    kept, renewed, _ = ran("01-cross-correlation")
    wrong = kept.replace("[19, 25]", "[19, 26]")
    assert wrong != kept
    assert text.run(wrong)[0] == renewed


def test_a_picture_of_other_numbers_is_noticed() -> None:
    namespace = dict(ran("01-cross-correlation")[2])
    namespace["output"] = namespace["output"] + 1
    assert not same(shown(PICTURES["01-cross-correlation"](namespace)), description(path_of("01-cross-correlation")))


def test_code_that_fails_says_in_which_line_of_the_lesson() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        text.run("# x\n\n```python\na = 1\n1 / 0\n```\n", "broken.md")
    last = error.traceback[-1]
    assert (Path(str(last.path)).name, last.lineno + 1) == ("broken.md", 5)


def test_a_notebook_holds_the_lesson_cell_by_cell() -> None:
    lesson = ran("02-edges")[0]
    cells = notebook.cells(lesson)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["source"] + "\n" for cell in code] == re.findall(r"```python\n(.*?)```", lesson, re.DOTALL)
    assert "".join(output["text"] for cell in code for output in cell["outputs"]) == "".join(
        re.findall(r"```text\n(.*?)```", lesson, re.DOTALL)
    )
    (holder,) = [cell for cell in cells if "attachments" in cell]
    assert "](attachment:02-edges.png)" in holder["source"]
    (picture,) = holder["attachments"]["02-edges.png"].values()
    assert base64.b64decode(picture) == path_of("02-edges").read_bytes()
    texts = "".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert "](03-learned-kernel.ipynb)" in texts
    assert ".md" not in texts


@pytest.mark.parametrize(
    "shown_in_a_notebook",
    [convolve.why("1x3x9x9 k4 3x3"), convolve.inspect("lenet", "1x28x28")],
    ids=["why", "inspect"],
)
def test_a_result_shows_its_table_in_a_notebook(shown_in_a_notebook: Any) -> None:
    page = shown_in_a_notebook._repr_html_()
    assert page.startswith("<pre>")
    assert html.unescape(page.removeprefix("<pre>").removesuffix("</pre>")) == str(shown_in_a_notebook)


# What the pictures show, computed without this package.


def test_the_first_picture_shows_both_sums_of_numpy() -> None:
    image = np.array([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]])
    kernel = np.array([[0, 1, 2], [2, 2, 0], [0, 1, 2]])
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3))
    for laid in (kernel, kernel[::-1, ::-1]):
        assert in_order(laid, drawn("01-cross-correlation"))
        assert in_order((windows * laid).sum((2, 3)), drawn("01-cross-correlation"))


def test_the_edges_are_those_of_differences() -> None:
    picture = np.ones((6, 8))
    picture[:, 2:6] = 0
    assert in_order(-np.diff(picture), drawn("02-edges"))


def test_the_partial_maps_are_torch_s() -> None:
    space = ran("05-channels")[2]
    alone = F.conv2d(space["photo"][None].float(), space["filter_"][:, None].float(), groups=3)[0]
    for partial in alone:
        assert in_order(partial.numpy(), drawn("05-channels"))
    assert in_order(alone.sum(0).numpy(), drawn("05-channels"))


def test_the_pooled_maps_are_torch_s() -> None:
    x = torch.arange(16.0).reshape(1, 4, 4)
    for pooled in (F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.avg_pool2d(x, 2) * 4 * 0.5 + 1):
        assert in_order(pooled[0].numpy(), drawn("06-pooling"))


def test_the_learned_curves_are_those_of_plain_gradient_descent() -> None:
    """Again with numpy alone, from the same start: windows of two pixels, squares, gradients by hand."""
    picture = np.ones((6, 8))
    picture[:, 2:6] = 0
    pairs = np.stack([picture[:, :-1].ravel(), picture[:, 1:].ravel(), np.ones(42)], 1)
    edges = picture[:, :-1].ravel() - picture[:, 1:].ravel()
    torch.manual_seed(0)
    start = np.array([*torch.randn(1, 2).flatten().tolist(), torch.randn(1).item()])
    for rate, run in ran("03-learned-kernel")[2]["runs"].items():
        w = start.copy()
        for step in run.steps:
            wrong = pairs @ w - edges
            assert step.loss == pytest.approx((wrong**2).sum(), rel=1e-3, abs=1e-8)
            w -= rate * 2 * pairs.T @ wrong


def test_the_reads_are_counted_by_hand() -> None:
    reads = np.zeros((6, 6))
    for i in (0, 2):
        for j in (0, 2):
            reads[i : i + 3, j : j + 3] += 1
    assert in_order(reads, drawn("04-padding-and-stride"))


def test_the_rows_and_the_matrix_are_written_out_by_loops() -> None:
    space = ran("14-three-views")[2]
    image, kernel = space["image"].numpy(), space["kernel"].numpy()
    matrix, rows = np.zeros((9, 25)), np.zeros((9, 9))
    for i in range(3):
        for j in range(3):
            placed = np.zeros((5, 5))
            placed[i : i + 3, j : j + 3] = kernel
            matrix[3 * i + j] = placed.ravel()
            rows[3 * i + j] = image[i : i + 3, j : j + 3].ravel()
    assert np.array_equal(matrix, space["matrix"].numpy())
    assert in_order(rows, drawn("14-three-views"))
    assert np.array_equal(matrix @ image.ravel(), space["output"].numpy().ravel())


def test_the_stamps_are_torch_s() -> None:
    small = torch.tensor([[[[0.0, 1], [2, 3]]]])
    for stride in (1, 2):
        stamped = F.conv_transpose2d(small, small, stride=stride)[0, 0]
        assert in_order(stamped.numpy(), drawn("15-transposed-convolution"))


def test_the_fields_of_the_cone_and_of_alexnet_follow_the_recurrence() -> None:
    space = ran("07-receptive-field")[2]
    assert space["cone"] == [(0, 2 * layers) for layers in (1, 2, 3, 4)]
    field, step, expected = 1, 1, []
    for kernel, stride in ((11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)):
        field, step = field + (kernel - 1) * step, step * stride
        expected.append(field)
    assert space["fields"] == expected


def test_lenet5_is_counted_as_in_its_paper() -> None:
    words = drawn("16-lenet5")["words"]
    for count in ("156", "12", "1,516", "32", "48,120", "10,164"):
        assert count in words
    assert words.count("X") == 60


def test_the_four_networks_are_those_of_the_papers() -> None:
    table = ran("17-alexnet-to-googlenet")[2]["table"]
    totals = {title: (convolutional + dense, macs) for title, (convolutional, dense, macs) in table.items()}
    assert totals == {
        "AlexNet": (60_965_224, 724_406_816),
        "VGG-16": (138_357_544, 15_470_264_320),
        "NiN": (7_595_176, 969_460_864),
        "GoogLeNet": (6_998_552, 1_582_671_872),
    }


def in_order(values: Any, picture: dict[str, Any]) -> bool:
    """Whether the picture's words hold these numbers, row by row, one directly behind the other."""
    wanted, words = [number(value) for value in np.asarray(values, float).ravel()], picture["words"]
    return any(words[start : start + len(wanted)] == wanted for start in range(len(words)))


def same(kept: Any, now: Any) -> bool:
    """Equal words; numbers equal to within the last digit that the file keeps."""
    if isinstance(kept, dict):
        return kept.keys() == now.keys() and all(same(kept[key], now[key]) for key in kept)
    if isinstance(kept, list):
        return len(kept) == len(now) and all(map(same, kept, now))
    if isinstance(kept, float | int) and not isinstance(kept, bool):
        return bool(np.isclose(kept, now, rtol=2e-3, atol=1e-7, equal_nan=True))
    return bool(kept == now)
