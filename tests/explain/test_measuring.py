"""Which units are measured, that those which share a backward pass are measured as if alone, and what a page keeps of them."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import convolve
from convolve.draw import explain as draw
from convolve.draw import page
from convolve.errors import UnknownNameError, UsageError
from convolve.explain import activations, measuring
from convolve.explain.explaining import Wishes, explain
from convolve.explain.records import Axis, Layer, Sight
from explain.models import Dilated, UNet
from explain.test_findings import NETS, found_for

Places = list[tuple[int, int, int]]


@pytest.mark.parametrize("name", NETS)
def test_a_unit_that_shares_its_pass_is_measured_as_if_alone(name: str) -> None:
    model, image, found = found_for(name)
    model = copy.deepcopy(model).eval()
    pixels = image.clone().requires_grad_()
    _, kept = activations.run(model, pixels, found.layers)
    shared = 0
    for layer in found.layers:
        rows = [row for row in found.last.measured if row.layer == layer.name]
        groups = measuring.passes(
            [(row.unit.channel, row.unit.row, row.unit.column) for row in rows],
            measuring.Spots(layer, found.size).apart,
        )
        shared += sum(len(group) > 1 for group in groups)
        for row in rows[:: max(1, len(rows) // 7)]:
            unit = row.unit
            (slope,) = torch.autograd.grad(
                kept[layer.name][0, unit.channel, unit.row, unit.column],
                pixels,
                retain_graph=True,
                materialize_grads=True,
            )
            alone = slope[0].abs().sum(0)
            torch.testing.assert_close(row.on(found.size), alone, rtol=1e-4, atol=float(alone.max()) * 1e-5)
            assert not (alone[~activations.covered(layer, (unit.row, unit.column), found.size)] > 0).any()
            assert row.touched == int((row.gradient > 0).sum())
            assert (
                abs(row.touched - int((alone > 0).sum())) <= 0.01 * alone.numel()
            )  # sums that cancel to zero by chance
            assert unit.value == pytest.approx(kept[layer.name][0, unit.channel, unit.row, unit.column].item())
    assert shared > 0
    assert all(row.outside == 0 for row in found.last.measured)
    for maps in found.last.maps:  # of every layer that is measured at all, the strongest unit is
        units = [row.unit for row in found.last.measured if row.layer == maps.layer]
        first = maps.strongest[0]
        assert not units or (first.channel, first.row, first.column) in {(u.channel, u.row, u.column) for u in units}


def test_the_fields_of_a_pass_never_meet() -> None:
    _, _, found = found_for("unet")
    for layer in found.layers:
        spots = measuring.Spots(layer, found.size)
        rows = [row.unit for row in found.last.measured if row.layer == layer.name]
        places = [(unit.channel, unit.row, unit.column) for unit in rows]
        groups = measuring.passes(places, spots.apart)
        assert sorted(itertools.chain.from_iterable(groups)) == sorted(places)
        for group in groups:
            seen = sum(activations.covered(layer, place[1:], found.size).int() for place in group)
            assert int(torch.as_tensor(seen).max()) <= 1


def layer_of(c: int, h: int, w: int, kernel: int, stride: int) -> Layer:
    """A layer whose units see kernel x kernel pixels, stride apart."""
    rows, columns = (
        Axis(axis, tuple(((n * stride, n * stride + kernel - 1),) for n in range(size)))
        for axis, size in enumerate((h, w))
    )
    return Layer("a", "a", 0, "", (c, h, w), 1, 1, Sight(((rows, columns),), None, None, True), tuple(range(c)))


@given(
    c=st.integers(1, 16),
    h=st.integers(1, 20),
    w=st.integers(1, 20),
    kernel=st.integers(1, 30),
    stride=st.integers(1, 4),
    every=st.integers(1, 40),
)
def test_a_lattice_serves_every_map_within_the_distance_it_says(
    c: int, h: int, w: int, kernel: int, stride: int, every: int
) -> None:
    layer = layer_of(c, h, w, kernel, stride)
    spots = measuring.Spots(layer, ((h - 1) * stride + kernel, (w - 1) * stride + kernel))
    least = -(-kernel // stride)  # by hand: fields of `kernel` pixels, `stride` apart, part after so many units
    assert spots.apart == (least if least < h else h, least if least < w else w)
    places = measuring.lattice(layer, spots.apart, every)
    assert len(set(places)) == len(places)
    assert {place[0] for place in places} == set(range(c))
    if every == 1 and least > 1:
        assert len(places) == c * h * w
    for channel in range(c):
        for axis, size in ((1, h), (2, w)):
            own = sorted({place[axis] for place in places if place[0] == channel})
            gaps = [b - a for a, b in itertools.pairwise(own)]
            assert all(gap <= every + spots.apart[axis - 1] for gap in gaps)
            assert own[-1] < size


def test_of_a_small_network_every_unit_is_measured() -> None:
    torch.manual_seed(0)
    model, image = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2)), torch.randn(1, 1, 12, 9)
    found = explain(model, image, [("now", lambda: None)], None, Wishes(methods=("none",)))
    for layer in found.layers:
        _, h, w = layer.shape
        places = [(r.unit.channel, r.unit.row, r.unit.column) for r in found.last.measured if r.layer == layer.name]
        assert sorted(places) == [(c, i, j) for c in range(3) for i in range(h) for j in range(w)]
    assert "the gradient of every unit was measured" in found.notes


def test_the_budget_holds_and_at_least_the_strongest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BYTES", 30_000)
    monkeypatch.setattr(measuring, "MACS", 40_000_000_000)
    passes = []
    whole = measuring.measure

    def counted(result: Any, image: Any, spots: measuring.Spots, places: Places) -> Any:
        passes.append((spots.macs(places), spots.bytes(places), len(places)))
        return whole(result, image, spots, places)

    monkeypatch.setattr(measuring, "measure", counted)
    _, _, found = found_for("googlenet")
    assert len(passes) == len(found.layers)
    assert sum(size for _, size, _ in passes) <= 30_000 + sum(size for _, size, count in passes if count == 1)
    assert sum(macs for macs, _, _ in passes) <= measuring.MACS
    assert all(count >= 1 for *_, count in passes)
    assert any("nearest measured neighbour" in note for note in found.notes)
    monkeypatch.setattr(measuring, "MACS", 4_000_000_000)
    _, _, fewer = found_for("googlenet")
    assert 0 < len({row.layer for row in fewer.last.measured}) < len(found.layers)
    assert any(note.startswith("gradients were not measured at") for note in fewer.notes)


def test_a_unit_that_is_asked_for_is_measured_and_its_map_is_shown(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 40, 5), nn.ReLU(), nn.Conv2d(40, 30, 5), nn.ReLU())
    plain = convolve.explain_image(model, "sample:china", input="3x48x96", out=tmp_path / "plain")
    hidden = next(c for c in range(30) if c not in plain.findings.layers[1].channels)
    shown = convolve.explain_image(
        model, "sample:china", input="3x48x96", units=(f"3:{hidden},7,61",), out=tmp_path / "asked"
    )
    layer = shown.findings.layers[1]
    assert layer.channels[0] == hidden
    assert len(layer.channels) == len(plain.findings.layers[1].channels)
    row = next(row for row in shown.findings.last.measured if row.layer == layer.name)
    assert (row.unit.channel, row.unit.row, row.unit.column) == (hidden, 7, 61)
    assert shown.content["layers"][1]["asked"] == ((hidden, 7, 61),)


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        ("wide", UsageError, "LAYER:MAP,ROW,COLUMN"),
        ("wide:1,2", UsageError, "LAYER:MAP,ROW,COLUMN"),
        ("wied:1,2,3", UnknownNameError, "unknown layer; got 'wied'"),
        ("act:4,0,0", UsageError, "one of 4 maps of 20x20; got map 4; count maps from 0 to 3"),
        ("act:0,0,20", UsageError, "got column 20"),
        ("across:0,0,0", UsageError, "in a layer that is shown; across is not; --layer across"),
    ],
)
def test_a_unit_that_does_not_exist_gets_one_clear_error(
    word: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        convolve.explain_image(
            Dilated(), "sample:china", input="3x20x20", layers=("act",), units=(word,), out=tmp_path / "no"
        )
    assert not (tmp_path / "no").exists()


def test_large_gradients_are_drawn_in_blocks_that_hide_nothing() -> None:
    gradient = np.random.default_rng(0).random((9, 7)) * (np.random.default_rng(1).random((9, 7)) > 0.8)
    coarse = draw._strongest(gradient, 4)
    assert coarse.shape == (3, 2)
    for i, j in itertools.product(range(3), range(2)):
        assert coarse[i, j] == gradient[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].max()
    means = draw._means(np.arange(230.0).reshape(1, 230).repeat(3, 0), 2)
    assert means.shape == (2, 115)
    assert means[0].tolist() == [2 * n + 0.5 for n in range(115)]


def test_a_page_that_would_be_too_large_keeps_fewer_units_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = UNet()
    whole = convolve.explain_image(model, "sample:china", input="3x64x64", out=tmp_path / "whole")
    size = Path(whole.files["page"]).stat().st_size
    monkeypatch.setattr(page, "MOST_BYTES", size)  # more is set aside for the page than it needs
    less = convolve.explain_image(model, "sample:china", input="3x64x64", out=tmp_path / "less")
    assert Path(less.files["page"]).stat().st_size < size
    assert any("of the measured units is on it" in note for note in less.content["notes"])
    one, other = (shown.content["moments"][0]["measured"]["0"]["units"] for shown in (whole, less))
    assert one[: draw.FIRST_UNITS] == other[: draw.FIRST_UNITS]
    assert len(one) > len(other)
    monkeypatch.setattr(page, "MOST_BYTES", 70_000)
    with pytest.raises(UsageError, match="a page has up to"):
        convolve.explain_image(model, "sample:china", input="3x64x64", out=tmp_path / "never")
    assert not (tmp_path / "never").exists()
