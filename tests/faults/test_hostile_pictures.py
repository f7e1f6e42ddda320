"""Every hostile picture of hostile.py is refused by name or read right, soon and without a stray warning; so is a folder of them all."""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convolve.data.load import load
from convolve.data.picture import examine, quiet
from convolve.data.preprocess import Preprocessing
from convolve.errors import InputError
from faults.hostile import ANY, COLOUR, H, W, cases, stored

CASES = cases()
OUTCOMES = {
    "refused": "refused, naming the file and why",
    "read": "read as what it shows",
    "either": "refused, or read: its bytes do not say what they show",
}
ONE_FAULT = re.compile(  # rows that differ by a number only are one fault of the list
    r"PNG: cut|PNG: a flipped bit|JPEG: progressive, cut|GIF: codes that begin|BMP: \d+ bits|PPM: values up to|WebP: cut"
)
JUST_AS_GOOD = 3  # levels: what a JPEG's colours may lose on the way


def outcome(case: str) -> str:
    expected = CASES[case][1]
    return "refused" if expected is None else "either" if expected is ANY else "read"


def listed() -> list[object]:
    """A parameter for each case; of those that differ by a number the first carries the mark."""
    kinds = {case: (kind[0] if (kind := ONE_FAULT.match(case)) else case, outcome(case)) for case in CASES}
    alike = Counter(kinds.values())
    rows, seen = [], set()
    for case, kind in kinds.items():
        name = case if alike[kind] == 1 else f"{kind[0]} … ({alike[kind]} ways)"
        marks = () if kind in seen else (pytest.mark.fault(name, outcome=OUTCOMES[outcome(case)]),)
        seen.add(kind)
        rows.append(pytest.param(case, marks=marks, id=case))
    return rows


def close(pixels: torch.Tensor, expected: np.ndarray) -> bool:
    """Whether uint8 [3, h, w] are the expected [h, w, 3]."""
    shown = pixels.permute(1, 2, 0).numpy()
    return shown.shape == expected.shape and bool(np.abs(shown.astype(int) - expected).max() <= JUST_AS_GOOD)


def attempt(run: Callable[[], Any]) -> Any:
    """What `run` returns, or what its error says."""
    try:
        return run()
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("case", listed())
def test_a_hostile_picture_is_refused_by_name_or_read_right(case: str, tmp_path: Path) -> None:
    content, expected = CASES[case]
    path = tmp_path / "x"
    path.write_bytes(content)
    h, w = (H, W) if expected is None or expected is ANY else expected.shape[:2]
    rule = Preprocessing(3, (h, w), (0.5,) * 3, (0.5,) * 3)
    started = time.process_time()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        read = attempt(lambda: rule.apply(path))
        with quiet():
            examined = attempt(lambda: examine(content, str(path), 9))
    assert heard == []
    assert time.process_time() - started < 1
    assert isinstance(read, str) == isinstance(examined, str)
    if isinstance(read, str):
        assert expected is None or expected is ANY, read
        assert str(path) in read
        assert str(path) in examined
    elif expected is not ANY:
        assert expected is not None
        assert close(read, expected)


def test_a_folder_of_all_of_them_trains_on_the_good_ones_and_names_the_others(tmp_path: Path) -> None:
    names = {f"{number}.bin": case for number, case in enumerate(CASES)}
    for number, (name, case) in enumerate(names.items()):
        path = tmp_path / "photos" / ("cat" if number % 2 else "dog") / f"{name.removesuffix('.bin')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CASES[case][0])
    for number in range(200):  # so that the unusable ones are not the most
        picture = Image.fromarray(np.roll(COLOUR, number, 1) ^ number)
        (tmp_path / f"photos/{'cat' if number % 2 else 'dog'}/good-{number}.png").write_bytes(stored(picture, "PNG"))
    started = time.process_time()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        data = load(tmp_path / "photos", img_size=(H, W), channels=3, fit="stretch")
    assert heard == []
    assert time.process_time() - started < 10
    aside = {Path(one.path).stem: one.reason for one in data.quarantined}
    assert all(aside.values())
    refused = {name.removesuffix(".bin") for name, case in names.items() if outcome(case) == "refused"}
    either = {name.removesuffix(".bin") for name, case in names.items() if outcome(case) == "either"}
    assert refused <= aside.keys() <= refused | either
    for split in (data.train, data.validation):
        for index, name in enumerate(split.ids):
            expected = CASES.get(names.get(f"{Path(name).stem}.bin", ""), (b"", ANY))[1]
            if expected is not ANY and expected.shape == (H, W, 3):
                assert close(split.images.batch(torch.tensor([index]))[0], expected), name


@pytest.mark.fault("300 random bit flips in a PNG", outcome="every one is noticed, or changes no pixel")
def test_a_bit_that_flips_in_a_png_never_changes_a_picture_unnoticed(tmp_path: Path) -> None:
    whole, path = bytearray(stored(COLOUR, "PNG")), tmp_path / "x.png"
    rule, rng = Preprocessing(3, (H, W), (0.5,) * 3, (0.5,) * 3), np.random.default_rng(5)
    noticed = 0
    for bit in rng.integers(0, 8 * len(whole), 300).tolist():
        whole[bit // 8] ^= 1 << bit % 8
        path.write_bytes(whole)
        whole[bit // 8] ^= 1 << bit % 8
        read = attempt(lambda: rule.apply(path))
        assert str(path) in read if isinstance(read, str) else close(read, COLOUR), f"bit {bit}"
        noticed += isinstance(read, str)
    assert noticed > 280
