"""models/file.py: what was written comes back, and a file that was changed in any bit is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convolve.errors import ConvolveError, ModelFileError
from convolve.models.file import load_weights, read, write

CARD = {"classes": ["a,b", 'quote"', "猫", "<b>"], "number": 0.1, "nested": {"list": [1, None, True]}}


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(3, 5, generator=generator),
        "half": torch.randn(7, generator=generator).bfloat16(),
        "count": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "transposed": torch.randn(2, 3, generator=generator).T,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "m.safetensors", _tensors(), CARD)
    return tmp_path / "m.safetensors"


def test_tensors_and_card_come_back_exactly(file: Path) -> None:
    tensors, card = read(file)
    assert {name: card[name] for name in CARD} == CARD
    assert tensors.keys() == _tensors().keys()
    for name, tensor in _tensors().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


@pytest.mark.fault("1,000 random bit flips in a model file", outcome="every one is refused")
def test_a_thousand_flipped_bits_are_all_noticed(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    chance = random.Random(0)
    damaged = tmp_path / "damaged"
    for _ in range(1000):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(changed)
        with pytest.raises(ModelFileError):
            read(damaged)


@pytest.mark.fault("a model file is cut off or goes on", outcome="refused at every length")
def test_every_truncation_and_every_extension_is_noticed(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    damaged = tmp_path / "damaged"
    for length in (*range(0, len(content), 13), len(content) - 1):
        damaged.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            read(damaged)
    damaged.write_bytes(content + b"x")
    with pytest.raises(ModelFileError):
        read(damaged)


@pytest.mark.fault("two tensors of one shape swapped in a model file", outcome="refused by their digests")
def test_swapped_tensors_of_one_shape_are_noticed(tmp_path: Path) -> None:
    write(tmp_path / "m", {"a": torch.zeros(4), "b": torch.ones(4)}, {})
    content = (tmp_path / "m").read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    (tmp_path / "m").write_bytes(content[:length] + content[length + 16 :] + content[length : length + 16])
    with pytest.raises(ModelFileError, match="sha256"):
        read(tmp_path / "m")


@pytest.mark.fault("a safetensors file of another tool as a model", outcome="refused with the reason")
def test_a_safetensors_file_of_somebody_else_is_refused_with_the_reason(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "m")
    with pytest.raises(ModelFileError, match="not written by convolve") as caught:
        read(tmp_path / "m")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04", b"\xff" * 64, b"GIF89a", (2**40).to_bytes(8, "little")]
)
def test_other_files_are_refused_without_running_or_allocating_anything(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ModelFileError, match="cannot read"):
        read(tmp_path / "m")


@pytest.mark.fault("a model file that is absent, or a folder", outcome="refused with the reason")
def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        read(tmp_path / "absent")
    with pytest.raises(ModelFileError, match="it is a folder"):
        read(tmp_path)


@pytest.mark.fault("a state file given as a model", outcome="refused, naming what it is")
def test_another_kind_of_our_files_is_refused(file: Path) -> None:
    with pytest.raises(ModelFileError, match=r"it says convolve\.model/1"):
        read(file, "convolve.state/1")


@pytest.mark.fault("a model file of another architecture", outcome="the differences are listed")
def test_weights_that_do_not_fit_are_listed() -> None:
    net = torch.nn.Linear(3, 2)
    with pytest.raises(ModelFileError, match=r"bias is missing, extra is not .* weight is \[1\], expected \[2, 3\]"):
        load_weights(net, {"weight": torch.zeros(1), "extra": torch.zeros(1)}, "file")


def test_a_failed_write_keeps_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ValueError, match="Out of range float"):
        write(file, {}, {"loss": float("nan")})
    file_in_nothing = file.parent / "missing" / "m"
    with pytest.raises(ConvolveError, match="cannot write"):
        write(file_in_nothing, {}, {})
    assert file.read_bytes() == before
