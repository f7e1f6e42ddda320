"""The animation's page, driven as a reader drives it: step, play, point, keyboard, both widths, every operator."""

from __future__ import annotations

import time
from typing import Any

import pytest

import convolve
from convolve.draw.animation_pictures import number
from convolve.explain.animation import OPERATORS


@pytest.fixture(scope="module")
def conv() -> Any:
    return convolve.animate("conv", "5x5", kernel=3, stride=2, padding=1)


def shown_sum(tab: Any) -> str:
    return tab.inner_text("#sum .total >> nth=-1")


def until(tab: Any, condition: str, seconds: float = 15) -> None:
    """Wait for a condition; playwright's own way needs eval, which the page forbids."""
    end = time.monotonic() + seconds
    while not tab.evaluate(condition):
        assert time.monotonic() < end, condition
        tab.wait_for_timeout(50)


def test_stepping_shows_the_operators_numbers(open_page: Any, conv: Any) -> None:
    tab = open_page(conv.page())
    values = conv.scenes[0].stages[0].output.flatten().tolist()
    seen = []
    for step in range(len(values)):
        assert tab.inner_text("#where") == f"{step + 1} / 9"
        seen.append(shown_sum(tab))
        tab.click("#forward")
    assert seen == [number(value) for value in values]
    assert tab.inner_text("#where") == "9 / 9"  # the last step stays the last
    tab.click("#first")
    assert shown_sum(tab) == number(values[0])


def test_the_products_that_are_shown_add_up_to_the_sum_that_is_shown(open_page: Any, conv: Any) -> None:
    tab = open_page(conv.page())
    for _ in range(4):
        tab.keyboard.press("ArrowRight")
    terms = [
        text.replace("−", "-").replace("(", "").replace(")", "").split("·")
        for text in tab.locator("#sum .line >> nth=0").locator(".term").all_inner_texts()
    ]
    assert len(terms) == 9
    assert number(sum(float(x) * float(w) for x, w in terms)) == shown_sum(tab)


def test_play_runs_to_the_end_and_pause_stops_it(open_page: Any, conv: Any) -> None:
    tab = open_page(conv.page())
    tab.select_option("#speed", "250")
    tab.click("#play")
    until(tab, "convolve.animation.state.step >= 2")
    assert "Pause" in tab.inner_text("#play")
    tab.click("#play")
    step = tab.evaluate("convolve.animation.state.step")
    tab.wait_for_timeout(600)
    assert tab.evaluate("convolve.animation.state.step") == step
    tab.click("#play")
    until(tab, "convolve.animation.state.step === 8 && !convolve.animation.state.timer")


def test_pointing_at_an_output_cell_shows_its_window_and_leaving_returns(open_page: Any, conv: Any) -> None:
    tab = open_page(conv.page())
    values = conv.scenes[0].stages[0].output.flatten().tolist()
    output = tab.locator("svg[aria-label^='output map']")
    output.locator("rect.c >> nth=7").hover()
    assert tab.inner_text("#where") == "8 / 9"
    assert shown_sum(tab) == number(values[7])
    assert tab.locator("svg[aria-label^='input'] rect.tap").count() == 9
    tab.mouse.move(2, 2)
    assert tab.inner_text("#where") == "1 / 9"
    output.locator("rect.c >> nth=5").click()
    tab.mouse.move(2, 2)
    assert tab.inner_text("#where") == "6 / 9"


def test_pointing_at_an_input_cell_names_the_windows_that_read_it(open_page: Any, conv: Any) -> None:
    tab = open_page(conv.page())
    stage = conv.scenes[0].stages[0]
    middle = 3 * 7 + 3
    count = sum(middle in row for row in stage.reads.tolist())
    tab.locator(f"svg[aria-label^='input'] rect.c >> nth={middle}").hover()
    assert f"read by {count} window" in tab.inner_text("#sum")


def test_the_keyboard_alone_is_enough(open_page: Any, conv: Any) -> None:
    tab = open_page(conv.page())
    tab.keyboard.press("End")
    assert tab.inner_text("#where") == "9 / 9"
    tab.keyboard.press("Home")
    tab.focus("svg[aria-label^='output map']")
    tab.keyboard.press("ArrowDown")
    assert tab.inner_text("#where") == "4 / 9"
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#where") == "5 / 9"
    tab.keyboard.press("Space")
    assert "Pause" in tab.inner_text("#play")
    tab.keyboard.press("Space")
    assert "Play" in tab.inner_text("#play")


def test_the_keyboard_points_at_cells_too(open_page: Any) -> None:
    shown = convolve.animate("conv-transpose", stride=2)
    tab = open_page(shown.page())
    tab.focus("svg[aria-label^='output']")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown"):
        tab.keyboard.press(key)
    assert shown_sum(tab) == number(shown.scenes[0].stages[0].output[0, 2, 2].item())
    tab.keyboard.press("Escape")
    assert tab.locator("#sum .total").count() == 0


def test_the_copied_code_is_the_stages(open_page: Any, conv: Any) -> None:
    tab = open_page(conv.page(), permissions=["clipboard-read", "clipboard-write"])
    tab.click("#copy")
    until(tab, "document.querySelector('#copy').textContent === 'Copied'")
    assert tab.evaluate("navigator.clipboard.readText()") == conv.scenes[0].stages[0].code


def test_filters_and_stages_are_chosen(open_page: Any) -> None:
    shown = convolve.animate("separable", filters=2)
    tab = open_page(shown.page())
    tab.click("text=2 pointwise")
    tab.keyboard.press("]")
    values = shown.scenes[0].stages[1].output[1].flatten().tolist()
    assert shown_sum(tab) == number(values[0])
    tab.keyboard.press("End")
    assert shown_sum(tab) == number(values[-1])


def test_a_cell_of_a_transposed_output_lists_its_stamps(open_page: Any) -> None:
    shown = convolve.animate("conv-transpose", stride=2)
    stage = shown.scenes[0].stages[0]
    tab = open_page(shown.page())
    tab.locator("svg[aria-label^='output'] rect.c >> nth=16").hover()  # row 2, column 2: four stamps overlap
    assert tab.locator("#sum .line >> nth=-1").locator(".term").count() == 4
    assert shown_sum(tab) == number(stage.output.flatten()[16].item())


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1920, "light")])
def test_every_operator_fits_its_window(open_page: Any, name: str, width: int, scheme: str) -> None:
    tab = open_page(convolve.animate(name).page(), width=width, scheme=scheme)
    tab.keyboard.press("End")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for theme in ("print", "dark", "light"):
        tab.select_option("#theme", theme)
    assert tab.locator("#rows canvas").count() == tab.locator("#matrix canvas").count() == 1
    if not tab.locator("#turn").is_hidden():
        tab.click("#turn")


def test_the_page_lives_in_a_notebooks_frame(open_page: Any) -> None:
    shown = convolve.animate("max-pool")
    tab = open_page(f"<!doctype html><title>notebook</title>{shown._repr_html_()}")
    frame = tab.frame_locator("iframe")
    frame.locator("#forward").click()
    assert frame.locator("#where").inner_text() == "2 / 9"
