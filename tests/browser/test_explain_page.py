"""The page of `convolve explain`, used as a reader uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convolve
from convolve.jobs.explain import Explanation


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    place = tmp_path_factory.mktemp("explain")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)).save(place / "digit.png")
    run = convolve.train("digits", epochs=2, snapshots=3, out=place / "run")
    return convolve.explain_image(run.files["model"], place / "digit.png", out=place / "shown")


def opened(open_page: Callable[..., Any], shown: Explanation, **options: Any) -> Any:
    tab = open_page(Path(shown.files["page"]), **options)
    tab.wait_for_selector("html[data-ready=yes]")
    return tab


def click_unit(tab: Any, layer: int, channel: int, row: float, column: float, shape: tuple[int, int, int]) -> None:
    """A click on the middle of a unit, wherever that lies between the screen's pixels."""
    frame = tab.locator(f'.map[data-layer="{layer}"][data-channel="{channel}"] .frame')
    frame.scroll_into_view_if_needed()
    _, h, w = shape
    frame.evaluate(
        """(node, [across, down]) => {
          const box = node.getBoundingClientRect();
          const place = { clientX: box.left + across * box.width, clientY: box.top + down * box.height, bubbles: true };
          node.dispatchEvent(new MouseEvent("click", place));
        }""",
        [(column + 0.5) / w, (row + 0.5) / h],
    )


CHOSEN = "() => [explanation.layer, explanation.channel, explanation.row, explanation.column]"
PIXELS = "document.querySelector('#layer-0 canvas').getContext('2d').getImageData(0, 0, 28, 28).data.join()"


def test_a_clicked_unit_shows_its_value_and_its_receptive_field(
    open_page: Callable[..., Any], shown: Explanation
) -> None:
    tab = opened(open_page, shown)
    for number, layer in enumerate(shown.findings.layers):
        _, h, w = layer.shape
        for channel, row, column in ((layer.channels[0], 0, 0), (layer.channels[-1], h - 1, w // 2)):
            click_unit(tab, number, channel, row, column, layer.shape)
            head = f"{layer.name}, map {channel}, row {row}, column {column}"
            tab.wait_for_function("head => document.querySelector('#unit h2').textContent === head", arg=head)
            seen = convolve.receptive_field(shown_model(shown), layer.name, (row, column), input="1x28x28").inputs[0]
            (top, bottom), (left, right) = seen.hull
            assert tab.inner_text("#where") == f"rows {top} to {bottom}, columns {left} to {right}: {seen.count} pixels"
            value = tab.inner_text("#value").replace("≈ ", "").replace("−", "-").partition(" ±")[0]
            maps = shown.findings.last.maps[number]
            truth = maps.values[layer.channels.index(channel), row, column].item()
            scale = float(maps.values.abs().max())
            assert abs(float(value) - truth) <= scale / 250 + 0.006 * abs(truth)
            assert tab.locator(".here").count() == 1
    assert tab.evaluate("explanation.show") == "field"


def shown_model(shown: Explanation) -> nn.Module:
    return convolve.load(Path(shown.folder).parent / "run" / "model.safetensors").net


def test_the_slider_goes_through_the_training(open_page: Callable[..., Any], shown: Explanation) -> None:
    tab = opened(open_page, shown)
    slider = tab.locator("#time")
    assert slider.get_attribute("max") == "3"
    before = tab.evaluate(PIXELS)
    slider.focus()
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    assert tab.inner_text("#moment") == "step 0 (random weights)"
    name, share = shown.findings.moments[0].probabilities[0]
    assert tab.locator("#bars .name").first.inner_text() == name
    assert tab.locator("#bars .number").first.inner_text() == f"{100 * share:.1f} %"
    tab.wait_for_function(f"before => {PIXELS} !== before", arg=before)


def test_the_keyboard_moves_the_unit_and_the_map(open_page: Callable[..., Any], shown: Explanation) -> None:
    tab = opened(open_page, shown)
    tab.locator("#layer-0 .maps").focus()
    tab.keyboard.press("Enter")
    unit = shown.findings.last.maps[0].strongest[0]
    assert tab.evaluate(CHOSEN) == [
        0,
        unit.channel,
        unit.row,
        unit.column,
    ]
    tab.wait_for_function("() => !document.querySelector('#value').textContent.includes('±')")
    for _ in range(40):
        tab.keyboard.press("ArrowDown")
    assert tab.evaluate("explanation.row") == 27  # it stops at the border
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("PageDown")
    assert tab.evaluate("[explanation.row, explanation.channel]") == [26, shown.findings.layers[0].channels[1]]


def test_the_overlays_can_be_chosen(open_page: Callable[..., Any], shown: Explanation) -> None:
    tab = opened(open_page, shown)
    pictures = set()
    for button in tab.locator("#choices button").all():
        button.click()
        tab.wait_for_timeout(150)
        assert button.get_attribute("aria-pressed") == "true"
        pictures.add(tab.evaluate("document.querySelector('#image').toDataURL()"))
    assert len(pictures) == 3 + len(shown.findings.last.attributions)
    tab.click('#choices button[value="grad-cam"]')
    assert f"for “{shown.label}”" in tab.inner_text("#legend")


@pytest.mark.parametrize(("width", "height"), [(360, 740), (1920, 1080)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_projector(
    open_page: Callable[..., Any], shown: Explanation, width: int, height: int, scheme: str
) -> None:
    tab = opened(open_page, shown, width=width, height=height, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelector('#image').getBoundingClientRect().width") > 80


def test_a_unit_of_a_thinned_map_is_the_one_under_the_pointer(open_page: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(*(nn.Conv2d(3 if n == 0 else 6, 6, 3, padding=1) for n in range(8)))
    shown = convolve.explain_image(deep, "sample:china", input="3x300x300", out=tmp_path / "deep")
    tab = opened(open_page, shown)
    layer = shown.findings.layers[0]
    assert layer.step > 1
    row, column = 50 * layer.step, 71 * layer.step
    click_unit(tab, 0, layer.channels[0], row + 0.5, column + 0.5, layer.shape)
    got = tab.evaluate("[explanation.row, explanation.column]")
    assert all(index % layer.step == 0 for index in got)
    # A browser gives clicks whole pixels, and a cell of this map is about as large as one: at most the neighbour is hit.
    assert abs(got[0] - row) <= layer.step >= abs(got[1] - column)
    tab.locator("#layer-0 .maps").press("ArrowRight")
    assert tab.evaluate("explanation.column") == got[1] + layer.step


def test_a_unit_that_was_not_measured_shows_its_nearest_measured_neighbour_and_says_so(
    open_page: Callable[..., Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(*(nn.Conv2d(3 if n == 0 else 6, 6, 5, stride=2 if n == 1 else 1) for n in range(4)))
    shown = convolve.explain_image(deep, "sample:china", input="3x120x120", units=("3:2,7,9",), out=tmp_path / "deep")
    tab = opened(open_page, shown)
    number = len(shown.findings.layers) - 1
    layer = shown.findings.layers[number]
    units = {
        (r.unit.channel, r.unit.row, r.unit.column): r for r in shown.findings.last.measured if r.layer == layer.name
    }
    _, h, w = layer.shape
    assert 0 < len(units) < 6 * h * w
    click_unit(tab, number, 2, 7, 9, layer.shape)  # asked for
    tab.wait_for_function("() => document.querySelector('#unit h2').textContent.includes('row 7, column 9')")
    assert tab.inner_text("#follows").startswith(f"{units[2, 7, 9].touched:,} pixels, measured by gradient; 0 outside")
    tab.click('#choices button[value="gradient"]')
    assert "the unit's value follows" in tab.inner_text("#legend")
    own = tab.evaluate("document.querySelector('#image').toDataURL()")
    row, column = next(
        (row, column)
        for row in range(h)
        for column in range(w)
        if (2, row, column) not in units and any(unit[0] == 2 for unit in units)
    )
    near = min(
        (unit for unit in units if unit[0] == 2), key=lambda unit: (unit[1] - row) ** 2 + (unit[2] - column) ** 2
    )
    click_unit(tab, number, 2, row, column, layer.shape)
    tab.wait_for_function(
        f"() => document.querySelector('#unit h2').textContent.includes('row {row}, column {column}')"
    )
    told = tab.inner_text("#follows")
    assert "not measured; nearest: map 2 (" in told
    at = tuple(int(part) for part in told.partition("map 2 (")[2].partition(")")[0].split(","))
    assert (at[0] - row) ** 2 + (at[1] - column) ** 2 == (near[1] - row) ** 2 + (near[2] - column) ** 2
    assert f"--unit {layer.name}:2,{row},{column}" in told
    assert f"{units[2, *at].touched:,} pixels" in told
    assert "This unit was not measured." in tab.inner_text("#legend")
    assert tab.evaluate("explanation.show") == "gradient"
    tab.wait_for_timeout(200)
    assert tab.evaluate("document.querySelector('#image').toDataURL()") != own


def test_the_gradient_on_the_image_is_the_measured_one(open_page: Callable[..., Any], shown: Explanation) -> None:
    """Where the drawn picture is orange, the unit's gradient is not zero, and the other way round, pixel by pixel."""
    tab = opened(open_page, shown, width=1500, height=1000)
    number = len(shown.findings.layers) - 1
    layer = shown.findings.layers[number]
    row = max((r for r in shown.findings.last.measured if r.layer == layer.name), key=lambda r: r.touched)
    unit = row.unit
    click_unit(tab, number, unit.channel, unit.row, unit.column, layer.shape)
    tab.wait_for_function(
        f"() => document.querySelector('#unit h2').textContent.includes('row {unit.row}, column {unit.column}')"
    )
    pictures = []
    for what in ("gradient", "image"):
        tab.click(f'#choices button[value="{what}"]')
        tab.wait_for_timeout(250)
        pictures.append(
            tab.evaluate(
                """() => { const c = document.querySelector('#image'), p = c.getContext('2d'), out = [];
                for (let i = 0; i < 28; i++) for (let j = 0; j < 28; j++)
                  out.push([...p.getImageData((j + 0.5) * c.width / 28, (i + 0.5) * c.height / 28, 1, 1).data]);
                return out; }"""
            )
        )
    orange = torch.tensor([r - b > 6 for r, _, b, _ in pictures[0]]).reshape(28, 28)
    assert not any(r != b for r, _, b, _ in pictures[1])  # a grey image: all colour is the gradient's
    assert torch.equal(orange, row.on((28, 28)) > 0)
