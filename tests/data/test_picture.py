"""From files of every mode to the pixels that they show."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolve.data.picture import MAX_PIXELS, open_picture, read_header
from convolve.data.preprocess import Preprocessing, normalise
from convolve.errors import InputError, UsageError

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)


def rule(channels: int, size: tuple[int, int] = (4, 6)) -> Preprocessing:
    return Preprocessing(channels, size, (0.5,) * channels, (0.5,) * channels)


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(content: bytes, channels: int, tmp_path: Path) -> np.ndarray:
    path = tmp_path / "picture"
    path.write_bytes(content)
    return rule(channels).apply(path).numpy()


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601-2, in float64."""
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


def test_grey_and_rgb_files_give_their_values(tmp_path: Path) -> None:
    assert (shown(stored(Image.fromarray(GREY), "PNG"), 1, tmp_path)[0] == GREY).all()
    assert (shown(stored(Image.fromarray(COLOUR), "PNG"), 3, tmp_path) == COLOUR.transpose(2, 0, 1)).all()


def test_grey_becomes_three_equal_channels_and_colour_becomes_luma(tmp_path: Path) -> None:
    tripled = shown(stored(Image.fromarray(GREY), "PNG"), 3, tmp_path)
    assert (tripled == GREY[None]).all()
    assert np.abs(shown(stored(Image.fromarray(COLOUR), "PNG"), 1, tmp_path)[0] - luma(COLOUR)).max() <= 1


def test_a_palette_shows_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    image = image.convert("P")
    image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    pixels = shown(stored(image, "PNG"), 3, tmp_path)
    expected = np.array(image.convert("RGB")).transpose(2, 0, 1)
    assert (pixels == expected).all()
    assert (pixels[2] == 7).all()


def test_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (4, 6, 1), dtype=np.uint8)
    content = stored(Image.fromarray(np.concatenate([COLOUR, alpha], 2)), "PNG")
    opacity = alpha.astype(float) / 255
    expected = COLOUR * opacity + 255 * (1 - opacity)
    assert np.abs(shown(content, 3, tmp_path).transpose(1, 2, 0) - expected).max() <= 1


def test_a_palette_with_a_transparent_colour_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    pixels = shown(stored(image, "PNG", transparency=0), 3, tmp_path)
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 1, 1].tolist() == [10, 20, 30]


@pytest.mark.fault("picture: 16 bits", outcome="scaled by its range, never clipped")
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (4, 6)).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = shown(stored(Image.fromarray(values), kind), 1, tmp_path)
        assert np.abs(pixels[0] - values / 65535 * 255).max() <= 0.5


def test_32_bit_integers_are_scaled_as_16_bits_or_8_by_their_values(tmp_path: Path) -> None:
    for top in (65535, 255):
        values = RNG.integers(0, top + 1, (4, 6)).astype(np.int32)
        values[0, 0] = top
        pixels = shown(stored(Image.fromarray(values), "TIFF"), 1, tmp_path)
        assert np.abs(pixels[0] - values / top * 255).max() <= 0.5


@pytest.mark.fault("picture: NaN among the pixels of a float TIFF", outcome="refused, saying NaN")
def test_float_pictures_of_zero_to_one_are_scaled_and_nan_is_refused(tmp_path: Path) -> None:
    values = RNG.random((4, 6)).astype(np.float32)
    assert np.abs(shown(stored(Image.fromarray(values), "TIFF"), 1, tmp_path)[0] - values * 255).max() <= 0.5
    values[1, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        shown(stored(Image.fromarray(values), "TIFF"), 1, tmp_path)


@pytest.mark.fault("picture: CMYK", outcome="its true colours")
def test_cmyk_shows_the_complement(tmp_path: Path) -> None:
    image = Image.new("CMYK", (6, 4), (255, 0, 0, 0))  # full cyan: no red
    assert shown(stored(image, "TIFF"), 3, tmp_path)[:, 0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_that_exif_declares_is_applied(orientation: int, tmp_path: Path) -> None:
    # What each value means, by EXIF 2.3's table "where row 0 and column 0 are": here as array operations.
    turn: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: a.T[:, ::-1],
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: a.T[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = stored(Image.fromarray(GREY), "PNG", exif=exif)
    expected = turn[orientation](GREY)
    header = read_header(content, "x")
    assert (header.h, header.w, header.turned) == (*expected.shape, orientation != 1)
    assert (np.array(open_picture(content)) == expected).all()


def test_the_fraction_that_a_jpeg_is_decoded_at_changes_the_result_little() -> None:
    ramp = np.add.outer(np.linspace(0, 120, 900), np.linspace(0, 130, 1200)).astype(np.uint8)
    content = stored(Image.fromarray(ramp), "JPEG", quality=95)
    quick = np.array(open_picture(content, (32, 32)).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    full = np.array(open_picture(content).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert open_picture(content, (32, 32)).size < (1200, 900)
    assert np.abs(quick - full).max() <= 2


def test_a_path_an_image_an_array_and_a_tensor_give_the_same_pixels(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    ways = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(COLOUR),
        COLOUR,
        torch.from_numpy(COLOUR).permute(2, 0, 1),
    ]
    for channels, size in ((3, (4, 6)), (1, (5, 3)), (3, (9, 2))):
        pixels = [rule(channels, size).apply(way) for way in ways]
        assert all(torch.equal(pixels[0], other) for other in pixels)
        assert pixels[0].shape == (channels, *size)


def test_normalise_is_the_formula() -> None:
    preprocessing = Preprocessing(3, (4, 6), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    batch = torch.from_numpy(COLOUR).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    expected = (COLOUR / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7])
    np.testing.assert_allclose(normalise(batch, preprocessing)[1].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert batch.dtype == torch.uint8


def broken(kind: str) -> bytes:
    whole = stored(Image.fromarray(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)), kind)
    return whole[: len(whole) // 2]


BAD = {
    "an empty file": (b"", "it is empty"),
    "text": (b"hello, this is no image at all", "it is no image"),
    "a truncated JPEG": (broken("JPEG"), "truncated"),
    "a truncated PNG": (broken("PNG"), "image must be whole"),
    "a PostScript file": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image"),
    "100 megapixels": (stored(Image.new("1", (10_000, 10_000)), "PNG"), f"more than {MAX_PIXELS:,} pixels"),
    "a bomb": (stored(Image.new("1", (30_000, 10_000)), "PNG"), f"more than {MAX_PIXELS:,} pixels"),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.fault(f"picture: {kind}", outcome="refused, naming the file"))
        for kind in BAD
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(kind: str, tmp_path: Path) -> None:
    content, message = BAD[kind]
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        rule(3).apply(path)
    assert str(path) in str(caught.value)


@pytest.mark.fault("picture: HEIC without its plugin", outcome="refused, naming the plugin")
def test_a_file_that_is_not_there_and_a_heic_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png: No such file"):
        rule(1).apply(tmp_path / "gone.png")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(InputError, match="pillow-heif"):
        rule(1).apply(tmp_path / "a.heic")


@pytest.mark.parametrize("array", [np.zeros((4, 6)), np.zeros((4, 6, 2), np.uint8), np.zeros((0, 6), np.uint8)])
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="an array is uint8"):
        rule(1).apply(array)


def test_an_impossible_preprocessing_is_refused() -> None:
    with pytest.raises(UsageError, match="1 channel"):
        Preprocessing(2, (4, 6), (0.5, 0.5), (0.5, 0.5))
    with pytest.raises(UsageError, match="std above 0"):
        Preprocessing(1, (4, 6), (0.5,), (0.0,))
    with pytest.raises(UsageError, match="fit is one of"):
        Preprocessing(1, (4, 6), (0.5,), (0.5,), fit="squash")
    with pytest.raises(InputError, match="fields of Preprocessing"):
        Preprocessing.from_dict({"channels": 1, "colour": "blue"})
