"""What every page shares: the themes, the data, no network, both widths."""

from __future__ import annotations

from typing import Any

import pytest

from convolve.draw.page import render

DATA = {"text": "</script><b>&", "numbers": [1.5, float("nan"), float("-inf")]}


@pytest.fixture
def page() -> str:
    return render("base.html", title="A <page> & more", data=DATA)


def test_the_data_arrives_as_it_was_given(open_page: Any, page: str) -> None:
    tab = open_page(page)
    assert tab.title() == "A <page> & more"
    assert tab.evaluate("convolve.data.text") == DATA["text"]
    assert tab.evaluate("convolve.data.numbers.map(Number).map(String)") == ["1.5", "NaN", "-Infinity"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(open_page: Any, page: str, scheme: str) -> None:
    tab = open_page(page, scheme=scheme)
    ground = {"light": "#f6f7f9", "dark": "#0d1117", "print": "#ffffff"}
    assert tab.evaluate("convolve.colour('ground')") == ground[scheme]
    for chosen in ("dark", "print", "light"):
        tab.select_option("#theme", chosen)
        assert tab.evaluate("convolve.colour('ground')") == ground[chosen]
    tab.select_option("#theme", "auto")
    assert tab.evaluate("convolve.colour('ground')") == ground[scheme]
    tab.select_option("#theme", "dark")
    tab.emulate_media(media="print")
    assert tab.evaluate("convolve.colour('ground')") == ground["print"]


@pytest.mark.parametrize("width", [360, 1920])
def test_nothing_is_wider_than_the_window(open_page: Any, page: str, width: int) -> None:
    tab = open_page(page, width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_request_to_the_network_is_forbidden_by_the_page_itself(open_page: Any, page: str) -> None:
    tab = open_page(page)
    assert tab.evaluate("fetch('data:text/plain,x').then(() => 'sent', () => 'refused')") == "refused"
    assert any("Content Security Policy" in fault for fault in open_page.faults)
    open_page.faults.clear()


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (-2, "−2"), (0.1234567, "0.123"), (123.456, "123"), (1e-5, "1.00e-5"), (0, "0"), (2**20, "1.05e+6")],
)
def test_numbers_are_written_one_way(open_page: Any, page: str, value: float, text: str) -> None:
    assert open_page(page).evaluate(f"convolve.format({value})") == text
