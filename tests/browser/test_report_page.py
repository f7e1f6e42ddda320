"""The report, used as a reader uses it: click a cell, see its images; by keyboard; on a phone; with names that are markup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convolve.data.records import ResidentImages, Split
from convolve.draw.report import page_of
from convolve.jobs.report.facts import Subject, gather
from convolve.training.measure import Measured
from convolve.training.records import Epoch

NAMES = ('<img src=x onerror="window.hacked=1">', "a, b 'c'", "🐈‍⬛ 猫", "=SUM(A1)")
SIDE = 12


def facts_of(names: tuple[str, ...], n: int, seed: int = 0) -> Any:
    """A report on made-up images, each a level of its own, of which about a quarter are answered wrong."""
    generator = torch.Generator().manual_seed(seed)
    classes = len(names)
    labels = torch.randint(0, classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 2.2
    levels = (torch.arange(n) * 7 % 251).to(torch.uint8)[:, None, None, None].expand(n, 1, SIDE, SIDE).contiguous()
    sizes = torch.full((n, 2), SIDE, dtype=torch.int32)
    split = Split("test", ResidentImages(levels), labels, [f"test/<b>{k}</b>" for k in range(n)], sizes)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(400, classes))
    subject = Subject(net, lambda batch: batch.float() / 255, torch.device("cpu"), "made", names)
    history = tuple(Epoch(k + 1, 1 / (k + 1), 0.5, 1.2 / (k + 1), 0.6, 0.01, 1.0, 100.0, k < 3) for k in range(4))
    outcome = (split, Measured(1.0, 0.5, logits.softmax(1), labels))
    findings = ({"text": "<i>2</i> duplicates", "files": ["<b>a.png"]},)
    return gather(
        subject, [outcome], data="<u>data</u>", history=history, findings=findings, repeat="convolve train '<s>'"
    ), outcome


@pytest.fixture(scope="module")
def made() -> Any:
    facts, outcome = facts_of(NAMES, 300)
    return facts, outcome, page_of(facts)


def opened(open_page: Callable[..., Any], page: str | Path, **options: Any) -> Any:
    tab = open_page(page, **options)
    tab.wait_for_selector("html[data-ready=yes]")
    return tab


def expected(outcome: Any, truth: int, answer: int) -> list[str]:
    """The names behind a cell, in the order in which the page must show them."""
    split, measured = outcome
    shares, guesses = measured.probabilities.amax(1), measured.predictions
    there = [k for k in range(len(split)) if split.labels[k] == truth and guesses[k] == answer]
    return [split.ids[k] for k in sorted(there, key=lambda k: shares[k] * (1 if truth == answer else -1))]


def shown(tab: Any, gallery: str = "#cell-images") -> list[str]:
    names: list[str] = tab.locator(f"{gallery} .shot .name").all_inner_texts()
    return names


def test_a_clicked_cell_opens_the_images_behind_it(open_page: Callable[..., Any], made: Any) -> None:
    _, outcome, page = made
    tab = opened(open_page, page)
    confusion = outcome[1].confusion()
    for truth, answer in ((0, 1), (3, 2), (1, 0)):
        count = int(confusion[truth, answer])
        assert count > 1
        cell = tab.locator(f'#matrix td[data-truth="{truth}"][data-answer="{answer}"]')
        assert cell.inner_text() == str(count)
        cell.click()
        names = expected(outcome, truth, answer)
        assert tab.inner_text("#cell-title") == f"{NAMES[truth]}, taken for {NAMES[answer]}: {count} images"
        assert shown(tab) == names
        share = outcome[1].probabilities.amax(1)[list(outcome[0].ids).index(names[0])].item()
        assert f"{100 * share:.1f} %" in tab.locator("#cell-images .shot").first.inner_text()
        assert cell.get_attribute("aria-selected") == "true"


def test_the_headline_is_the_hand_count_with_its_interval(open_page: Callable[..., Any], made: Any) -> None:
    _, (split, measured), page = made
    tab = opened(open_page, page)
    right = sum(a == b for a, b in zip(measured.predictions.tolist(), split.labels.tolist(), strict=True))
    assert tab.inner_text("#headline") == f"{100 * right / 300:.2f} %"
    assert f"{right} of 300 test images right, {300 - right} wrong" in " ".join(tab.inner_text("#result").split())
    # Wilson's centre and half width, from the textbook's formula.
    p, z = right / 300, 1.959964
    middle, half = (
        (p + z * z / 600) / (1 + z * z / 300),
        z / (1 + z * z / 300) * (p * (1 - p) / 300 + z * z / 360000) ** 0.5,
    )
    assert f"{100 * (middle - half):.2f} to {100 * (middle + half):.2f} %" in tab.inner_text("#result")


def test_the_picture_of_a_tile_is_the_image(open_page: Callable[..., Any], made: Any) -> None:
    _, outcome, page = made
    tab = opened(open_page, page)
    tab.locator('#matrix td[data-truth="2"][data-answer="1"]').click()
    for place, name in enumerate(expected(outcome, 2, 1)[:4]):
        level = int(outcome[0].images.pixels[list(outcome[0].ids).index(name), 0, 0, 0])
        read = f"document.querySelectorAll('#cell-images canvas')[{place}].getContext('2d').getImageData(5, 5, 1, 1).data[0]"
        tab.wait_for_function(f"level => {read} === level", arg=level)


def test_the_keyboard_moves_through_the_matrix_and_into_the_images(open_page: Callable[..., Any], made: Any) -> None:
    _, outcome, page = made
    tab = opened(open_page, page)
    tab.locator('#matrix td[data-truth="0"][data-answer="1"]').click()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("[report.truth, report.answer]") == [1, 2]
    assert shown(tab) == expected(outcome, 1, 2)
    tab.keyboard.press("Home")  # the row's name: every mistake of the class
    assert tab.evaluate("[report.truth, report.answer]") == [1, None]
    wrong = {name for answer in (0, 2, 3) for name in expected(outcome, 1, answer)}
    assert set(shown(tab)) == wrong
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.classList.contains('shot')")
    tab.keyboard.press("Enter")
    assert tab.inner_text("#viewer-title") == expected(outcome, 1, 0)[0]
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#viewer-title") == expected(outcome, 1, 0)[1]
    tab.keyboard.press("Escape")
    assert not tab.locator("#viewer").is_visible()


def test_one_stop_of_the_tab_key_enters_the_matrix(open_page: Callable[..., Any], made: Any) -> None:
    tab = opened(open_page, made[2])
    assert tab.locator('#matrix [tabindex="0"]').count() == 1


def test_names_are_text_and_never_markup(open_page: Callable[..., Any], made: Any) -> None:
    tab = opened(open_page, made[2])
    for truth in range(4):
        tab.locator(f'#matrix th[data-truth="{truth}"] button').click()
    tab.locator("#cell-images .shot").first.click()
    assert NAMES[3] in tab.inner_text("#viewer")
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("main img:not([src^='data:'])").count() == 0
    assert tab.locator("main i:text('2'), main u, main s").count() == 0
    assert "<i>2</i> duplicates" in tab.inner_text("#data-found")
    assert tab.inner_text("#repeat") == "convolve train '<s>'"


def test_right_answers_begin_with_the_least_certain(open_page: Callable[..., Any], made: Any) -> None:
    _, outcome, page = made
    tab = opened(open_page, page)
    tab.locator('#matrix td[data-truth="0"][data-answer="0"]').click()
    names = expected(outcome, 0, 0)
    assert shown(tab) == names[:60]
    if len(names) > 60:
        tab.click("#cell-images .more")
        assert shown(tab) == names
    assert "All are here" in tab.inner_text("#cell-says")


def test_classes_sort_and_open_their_mistakes(open_page: Callable[..., Any], made: Any) -> None:
    facts, outcome, page = made
    tab = opened(open_page, page)
    tab.click("#class-table thead th:nth-child(3) button")
    recalls = [
        float(text.replace(" %", "")) for text in tab.locator("#class-table tbody td:nth-child(3)").all_inner_texts()
    ]
    assert recalls == sorted(recalls)
    assert recalls == sorted(round(100 * row.recall, 1) for row in facts.counts)
    tab.locator("#class-table tbody button").first.click()
    worst = min(range(4), key=lambda k: facts.counts[k].recall)
    assert set(shown(tab)) == {name for k in range(4) if k != worst for name in expected(outcome, worst, k)}


def test_the_mistakes_are_saved_as_a_table_that_no_spreadsheet_runs(open_page: Callable[..., Any], made: Any) -> None:
    facts, _, page = made
    tab = opened(open_page, page)
    with tab.expect_download() as waiting:
        tab.click("#save-worst")
    assert waiting.value.suggested_filename == "worst-mistakes.csv"
    lines = Path(waiting.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == len(facts.worst) + 1
    assert not any('"=' in line for line in lines)
    assert any('"\'=SUM(A1)"' in line for line in lines)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1920, "light")])
def test_it_fits_its_window_in_every_theme(open_page: Callable[..., Any], made: Any, width: int, scheme: str) -> None:
    tab = opened(open_page, made[2], width=width, scheme=scheme)
    for theme in ("print", "dark", "light"):
        tab.select_option("#theme", theme)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.locator('#matrix td[data-truth="0"][data-answer="1"]').click()
    tab.wait_for_function(
        "() => { const box = document.querySelector('#cell').getBoundingClientRect(); return box.top >= 0 && box.top < innerHeight; }"
    )


def test_curves_are_read_by_pointing_and_by_arrows(open_page: Callable[..., Any], made: Any) -> None:
    tab = opened(open_page, made[2])
    chart = tab.locator("#charts svg").first
    chart.focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#charts output").first.inner_text() == "epoch 3: training 0.333, validation 0.4"
    chart.hover()
    assert tab.locator("#charts output").first.inner_text().startswith("epoch ")


def test_a_thousand_classes_do_not_break_it(open_page: Callable[..., Any]) -> None:
    facts, outcome = facts_of(tuple(f"class {k}" for k in range(1000)), 4000, seed=1)
    tab = opened(open_page, page_of(facts))
    assert tab.locator("#matrix tbody tr").count() == 30
    assert tab.locator("#class-table tbody tr").count() == 1000
    outside = next((i, j) for i, j, n in facts.pairs if i not in facts.matrix)
    tab.locator(f"#class-table button[title='class {outside[0]}']").click()
    assert set(expected(outcome, *outside)) <= set(shown(tab))
    assert tab.inner_text("#cell-title").startswith(f"class {outside[0]}, taken for something else")
