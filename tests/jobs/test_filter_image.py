"""Filtering real pictures: values against SciPy, files of every colour mode, nothing overwritten, errors in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

import convolve
from convolve.cli import main
from convolve.errors import InputError, UnknownNameError, UsageError
from convolve.ops.named_kernels import gabor, named_kernel, named_kernels, parse_kernel

PHOTO = "sample:china"


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg").astype(np.float64) / 255


def test_every_row_answers_flat_areas_with_their_brightness_or_with_zero() -> None:
    for name, row in named_kernels().items():
        total = row.kernels.sum(dim=(1, 2))
        expected = torch.zeros(len(row.kernels)) if row.signed else torch.ones(len(row.kernels))
        torch.testing.assert_close(total, expected, atol=1e-6, rtol=0, msg=name)
        assert row.name == name
        assert row.shows


def test_kernels_are_the_ones_of_the_literature() -> None:
    rows = named_kernels()
    smooth, derive = np.array([1, 2, 1]), np.array([-1, 0, 1])
    np.testing.assert_array_equal(rows["sobel-x"].kernels[0], np.outer(smooth, derive))
    np.testing.assert_array_equal(rows["sobel-y"].kernels[0], np.outer(derive, smooth))
    np.testing.assert_array_equal(rows["prewitt-x"].kernels[0], np.outer([1, 1, 1], derive))
    np.testing.assert_array_equal(rows["scharr-y"].kernels[0], np.outer(derive, [3, 10, 3]))
    np.testing.assert_array_equal(rows["gaussian"].kernels[0] * 256, np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]))
    impulse = np.zeros((3, 3))
    impulse[1, 1] = 1
    np.testing.assert_array_equal(rows["laplacian"].kernels[0], scipy.ndimage.laplace(impulse, mode="constant"))
    np.testing.assert_array_equal(rows["sharpen"].kernels[0], impulse - rows["laplacian"].kernels[0].numpy())
    for name in ("horizontal", "vertical", "rising", "falling"):
        assert rows[f"edge-{name}"].symmetric
    assert not rows["sobel-x"].symmetric


def test_a_gabor_kernel_answers_most_to_stripes_of_its_direction_and_width() -> None:
    place = torch.arange(64.0)
    for angle, stripes in ((0, place.expand(64, 64)), (90, place.expand(64, 64).T), (45, place + place[:, None])):
        length = 6 * (2**0.5 if angle == 45 else 1)
        strength = {}
        for wave in (length / 2, length, length * 2):
            picture = torch.cos(2 * torch.pi * stripes / wave)
            for turn in (0, 45, 90, 135):
                strength[wave, turn] = convolve.corr2d(picture, gabor(turn)).abs().max().item()
        assert max(strength, key=strength.__getitem__) == (length, angle)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("gaussian", lambda x: scipy.ndimage.convolve1d(
            scipy.ndimage.convolve1d(x, np.array([1, 4, 6, 4, 1]) / 16, 0, mode="nearest"),
            np.array([1, 4, 6, 4, 1]) / 16, 1, mode="nearest")),
        ("box", lambda x: scipy.ndimage.uniform_filter(x, (5, 5), mode="nearest")),
        ("laplacian", lambda x: scipy.ndimage.laplace(x, mode="nearest")),
        ("sobel-x", lambda x: scipy.ndimage.sobel(x, 1, mode="nearest")),
        ("sobel-y", lambda x: scipy.ndimage.sobel(x, 0, mode="nearest")),
        ("prewitt-x", lambda x: scipy.ndimage.prewitt(x, 1, mode="nearest")),
        ("sobel", lambda x: np.hypot(scipy.ndimage.sobel(x, 0, mode="nearest"), scipy.ndimage.sobel(x, 1, mode="nearest"))),
    ],
)  # fmt: skip
def test_responses_are_scipys_in_every_channel(name: str, oracle, photo: np.ndarray, tmp_path: Path) -> None:
    found = convolve.filter_image(PHOTO, [name], on="channels", out=tmp_path / "r")
    for channel in range(3):
        np.testing.assert_allclose(found.responses[0].values[channel], oracle(photo[:, :, channel]), atol=2e-6)


def test_flipping_gives_the_true_convolution_and_is_said(photo: np.ndarray, tmp_path: Path) -> None:
    kernel = "0 1 2; 2 2 0; 0 1 2"
    plain = convolve.filter_image(PHOTO, kernel=kernel, out=tmp_path / "a")
    turned = convolve.filter_image(PHOTO, kernel=kernel, flip=True, out=tmp_path / "b")
    numbers = np.array([[0, 1, 2], [2, 2, 0], [0, 1, 2]])
    red = photo[:, :, 0]
    np.testing.assert_allclose(
        plain.responses[0].values[0], scipy.ndimage.correlate(red, numbers, mode="nearest"), atol=1e-5
    )
    np.testing.assert_allclose(
        turned.responses[0].values[0], scipy.ndimage.convolve(red, numbers, mode="nearest"), atol=1e-5
    )
    assert "cross-correlation" in plain.operation
    assert "turned around" in turned.operation
    assert plain.responses[0].shown == "divided by the kernel's sum, 10"


def test_the_written_pictures_are_the_responses(tmp_path: Path) -> None:
    found = convolve.filter_image(PHOTO, ["identity", "sobel-x", "sobel", "sharpen"], out=tmp_path / "r")
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "identity.png", "sharpen.png", "sheet.png", "sobel-x.png", "sobel.png",
    ]  # fmt: skip
    for row in found.responses:
        with Image.open(found.folder / row.file) as picture:
            pixels = np.asarray(picture)
        np.testing.assert_array_equal(pixels, row.pixels.squeeze())
    same = found.responses[0]
    np.testing.assert_array_equal(same.pixels, found.original)
    signed = found.responses[1]
    assert signed.on == "luminance"
    zero = (signed.values.abs() < 1e-6).numpy().transpose(1, 2, 0)
    assert zero.any()
    assert set(np.unique(signed.pixels[zero])) <= {127, 128}
    strength = found.responses[2]
    order = strength.values.flatten().argsort()
    assert (np.diff(strength.pixels.flatten()[order].astype(int)) >= 0).all()
    with Image.open(found.folder / "sheet.png") as sheet:
        assert sheet.width > 1000


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pictures_of_every_mode_are_filtered(mode: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (11, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    picture = Image.fromarray(values[:, :, 0].astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
    path = tmp_path / f"picture.{'tif' if mode == 'CMYK' else 'png'}"
    picture.save(path)
    found = convolve.filter_image(path, ["gaussian", "sobel"], out=tmp_path / "r")
    grey = mode in ("1", "L", "LA", "I;16")
    assert found.size == (11, 7)
    assert found.responses[0].values.shape == (1 if grey else 3, 11, 7)
    assert found.responses[1].values.shape == (1, 11, 7)


def test_a_photo_that_the_camera_turned_comes_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (10, 6), "white")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert convolve.filter_image(tmp_path / "turned.jpg", ["box"], out=tmp_path / "r").size == (10, 6)


def test_pictures_smaller_than_the_kernel_and_flat_ones_work(tmp_path: Path) -> None:
    for size in ((1, 1), (2, 9)):
        path = tmp_path / f"tiny-{size[0]}.png"
        Image.new("RGB", size, (200, 10, 60)).save(path)
        names = list(named_kernels()) if size == (1, 1) else ["gaussian", "sobel", "gabor"]
        found = convolve.filter_image(path, () if size == (1, 1) else names, out=tmp_path / f"r-{size[0]}")
        assert [row.kernel.name for row in found.responses] == names
        for row in found.responses:
            expected = found.original / 255 if not row.kernel.signed else np.zeros((size[1], size[0], 1))
            np.testing.assert_allclose(row.values.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_results_go_to_new_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = convolve.filter_image(PHOTO, ["box"])
    second = convolve.filter_image(PHOTO, ["box"])
    assert [str(first.folder), str(second.folder)] == ["runs/china-filtered", "runs/china-filtered-2"]
    with pytest.raises(UsageError, match=r"not written over others; .* exists"):
        convolve.filter_image(PHOTO, ["box"], out=first.folder)


@pytest.mark.parametrize(
    ("text", "rows"),
    [("1 -1", [[1, -1]]), ("0,1;2,3;", [[0, 1], [2, 3]]), ("1/4 .5e1", [[0.25, 5]]), ("7", [[7]])],
)
def test_kernels_are_read_from_text(text: str, rows: list) -> None:
    assert parse_kernel(text).kernels[0].tolist() == rows


@pytest.mark.parametrize("text", ["", ";", "1 2; 3", "a b", "1/0", "nan 1", "inf", "1 2;; 3 4"])
def test_what_is_no_kernel_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="0 1 2; 2 2 0; 0 1 2"):
        parse_kernel(text)


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("no image")
    cases = [
        (("sample:chin",), {}, UnknownNameError, "sample photo"),
        ((PHOTO, ["sobl"]), {}, UnknownNameError, "use sobel"),
        ((PHOTO,), {"kernel": "x"}, UsageError, "holds numbers"),
        ((PHOTO,), {"on": "red"}, UnknownNameError, "colours"),
        (("missing.png",), {}, InputError, "missing.png"),
        (("text.jpg",), {}, InputError, "text.jpg"),
        ((str(tmp_path),), {}, UsageError, "one image file"),
    ]
    for arguments, keywords, error, words in cases:
        with pytest.raises(error, match=words):
            convolve.filter_image(*arguments, **keywords)
    assert not (tmp_path / "runs").exists()


def test_the_verb_prints_a_table_or_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["filter", PHOTO, "sobel", "laplacian", "--on", "luminance"]) == 0
    captured = capsys.readouterr()
    assert "cross-correlation" in captured.err
    assert "wrote runs/china-filtered/: sheet.png and 2 pictures" in captured.out
    assert main(["filter", PHOTO, "edge-rising", "-k", "1 -1", "--flip", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "convolve.filter"
    assert [row["filter"] for row in document["responses"]] == ["edge-rising", "kernel"]
    assert document["flipped"] is True
    assert (tmp_path / document["sheet"]).exists()
    assert main(["filter", "nothing.png"]) == 3
    assert main(["filter", PHOTO, "blurr"]) == 2


def test_a_row_is_found_by_name() -> None:
    assert named_kernel("emboss").kernels.shape == (1, 3, 3)
