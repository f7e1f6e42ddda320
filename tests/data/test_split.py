"""The validation split: stable, stratified, and never across a duplicate."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convolve.data import digits
from convolve.data.split import choose_validation, content_digest


def digests(numbers: list[int]) -> list[bytes]:
    return [content_digest(str(number).encode()) for number in numbers]


def test_each_class_gives_about_its_share_whatever_the_seed() -> None:
    labels = [0] * 200 + [1] * 40 + [2] * 10
    for seed in range(50):
        chosen = choose_validation(labels, digests(list(range(250))), 0.2, seed)
        counts = Counter(label for label, held in zip(labels, chosen, strict=True) if held)
        assert 30 <= counts[0] <= 50
        assert 6 <= counts[1] <= 10
        assert 1 <= counts[2] <= 3


def test_over_many_seeds_the_share_is_the_one_asked_for() -> None:
    labels, contents = [0] * 100 + [1] * 100, digests(list(range(200)))
    held = [sum(choose_validation(labels, contents, 0.2, seed)) for seed in range(300)]
    # A sum of 200 draws of probability 0.2 has a standard deviation of 5.7; of the mean of 300 of them, 0.33.
    assert sum(held) / len(held) == pytest.approx(40, abs=1.2)


def test_adding_files_leaves_nearly_all_others_on_their_side() -> None:
    contents = digests(list(range(1100)))
    moved = 0
    for seed in range(20):
        before = choose_validation([0] * 500 + [1] * 500, contents[:1000], 0.2, seed)
        after = choose_validation([0] * 500 + [1] * 500 + [0] * 50 + [1] * 50, contents, 0.2, seed)
        moved += sum(a != b for a, b in zip(before, after, strict=False))
    assert moved == 0


def test_the_order_and_the_names_of_files_do_not_matter() -> None:
    labels, contents = [0, 1] * 30, digests(list(range(60)))
    chosen = choose_validation(labels, contents, 0.3, 5)
    assert choose_validation(labels[::-1], contents[::-1], 0.3, 5) == chosen[::-1]


def test_another_seed_makes_another_split() -> None:
    labels, contents = [0, 1] * 50, digests(list(range(100)))
    assert choose_validation(labels, contents, 0.2, 0) != choose_validation(labels, contents, 0.2, 1)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=2, max_size=60),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
)
def test_identical_files_share_a_side_and_no_class_is_all_validation(
    files: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    labels, numbers = [label for label, _ in files], [number for _, number in files]
    chosen = choose_validation(labels, digests(numbers), fraction, seed)
    sides: dict[int, set[bool]] = {}
    for number, held in zip(numbers, chosen, strict=True):
        sides.setdefault(number, set()).add(held)
    assert all(len(side) == 1 for side in sides.values())
    alone = {label: {n for lab, n in files if lab == label} for label in set(labels)}
    shared = {n for n in numbers if len({lab for lab, m in files if m == n}) > 1}
    for label, own in alone.items():
        if not own & shared:
            held = [side for lab, side in zip(labels, chosen, strict=True) if lab == label]
            assert not all(held)


def test_the_digits_split_is_fixed_disjoint_and_stratified() -> None:
    pixels, labels, parts = digits.read()
    assert {name: len(indices) for name, indices in parts.items()} == {"train": 1258, "validation": 180, "test": 359}
    assert sorted(i for indices in parts.values() for i in indices.tolist()) == list(range(1797))
    for name, share in (("test", 0.2), ("validation", 0.1)):
        for label in range(10):
            of_class = int((labels == label).sum())
            assert abs(int((labels[parts[name]] == label).sum()) - share * of_class) < 1
    contents = [{pixels[i].numpy().tobytes() for i in indices.tolist()} for indices in parts.values()]
    assert not contents[0] & contents[2]
    assert not contents[1] & contents[2]
