"""Hostile and damaged model files: each is one ModelFileError that names the file; nothing runs and nothing large is allocated."""

from __future__ import annotations

import copy
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import convolve
from convolve.cli import main
from convolve.errors import ModelFileError
from convolve.models import create
from convolve.models.file import read, write
from jobs_support import CARD


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create("lenet_relu", num_classes=3, in_channels=1, img_size=12).state_dict()


@pytest.fixture
def file(tensors: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    write(tmp_path / "m.safetensors", tensors, CARD)
    return tmp_path / "m.safetensors"


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what comes after it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: dict[str, Any] | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


Change = Callable[[dict[str, Any], bytes], bytes]


def of_tensor(name: str, **changes: Any) -> Change:
    def change(header: dict[str, Any], body: bytes) -> bytes:
        header[name] |= changes
        return joined(header, body)

    return change


def _moved(by: int) -> Change:
    def change(header: dict[str, Any], body: bytes) -> bytes:
        for entry in header.values():
            if "data_offsets" in entry and entry["data_offsets"][0] > 0:
                entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]
        return joined(header, body + bytes(max(0, by)))

    return change


def _twice(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header)
    return joined((text[:-1] + ', "conv1.bias": ' + json.dumps(header["conv1.bias"]) + "}").encode(), body)


def _renamed(name: str) -> Change:
    def change(header: dict[str, Any], body: bytes) -> bytes:
        header[name] = header.pop("conv1.bias")
        return joined(header, body)

    return change


def _length(value: int) -> Change:
    return lambda header, body: value.to_bytes(8, "little") + joined(header, body)[8:]


HEADERS: dict[str, Change] = {
    "a header length beyond the file": _length(10**9),
    "a header length of 2**63": _length(2**63),
    "a header length of zero": _length(0),
    "a header length one too small": lambda header, body: _length(len(json.dumps(header)) - 1)(header, body),
    "a header of 110 MB": lambda header, body: joined(json.dumps(header).encode() + b" " * 110_000_000, body),
    "a header that is not UTF-8": lambda header, body: joined(json.dumps(header).encode()[:-1] + b"\xff\xfe}", body),
    "a header that is no JSON": lambda header, body: joined(b"{'a': 1}" + b" " * 40, body),
    "a header that is a list": lambda header, body: joined(b"[]", body),
    "a header nested 100,000 deep": lambda header, body: joined(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, body),
    "a name twice in the header": _twice,
    "tensors that overlap": _moved(-4),
    "a hole between tensors": _moved(4),
    "a negative offset": of_tensor("conv1.bias", data_offsets=[-24, 0]),
    "an offset beyond the end": of_tensor("conv1.bias", data_offsets=[0, 10**12]),
    "offsets in the wrong order": of_tensor("conv1.bias", data_offsets=[24, 0]),
    "a shape whose product overflows": of_tensor("conv1.bias", shape=[2**32, 2**32, 2]),
    "a shape of 10**15 elements": of_tensor("conv1.bias", shape=[10**15]),
    "a negative size": of_tensor("conv1.bias", shape=[-6]),
    "a shape that does not fit its bytes": of_tensor("conv1.bias", shape=[7]),
    "another shape of as many bytes": of_tensor("conv1.bias", shape=[2, 3]),
    "another type of as many bytes": of_tensor("conv1.bias", dtype="I32"),
    "a type that does not exist": of_tensor("conv1.bias", dtype="F33"),
    "a tensor name that climbs out": _renamed("../../conv1.bias"),
    "a tensor name with NUL": _renamed("conv1.bias\0"),
    "a tensor name of 10,000 letters": _renamed("x" * 10_000),
    "no tensors": lambda header, body: joined({"__metadata__": header["__metadata__"]}, b""),
    "metadata that is no text": lambda header, body: joined(header | {"__metadata__": {"convolve": 1}}, body),
    "more metadata than ours": lambda header, body: joined(
        header | {"__metadata__": header["__metadata__"] | {"evil": "x"}}, body
    ),
    "no digest of the description": lambda header, body: joined(
        header | {"__metadata__": {k: v for k, v in header["__metadata__"].items() if k != "convolve.sha256"}}, body
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.fault(f"model file: {case}", outcome="refused, naming the file"))
        for case in HEADERS
    ],
)
def test_a_header_that_lies_is_refused(case: str, file: Path) -> None:
    content = HEADERS[case](*parts(file))
    assert content != file.read_bytes()
    file.write_bytes(content)
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(ModelFileError, match=r"m\.safetensors"):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
        assert time.perf_counter() - started < 10
    finally:
        tracemalloc.stop()


def card_with(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(CARD) | changes


def architecture_with(**changes: Any) -> dict[str, Any]:
    return card_with(architecture=CARD["architecture"] | changes)


# Written with valid digests by somebody who means harm: what the description says is not believed either.
CARDS: dict[str, tuple[dict[str, Any], str]] = {
    "a network of an unknown name": (architecture_with(name="lenet9"), "lenet9"),
    "a network that is code": (architecture_with(name="evil.py:Net"), "holds no code"),
    "a network that is another module's function": (architecture_with(name="os:system"), "os:system"),
    "another architecture": (architecture_with(name="lenet", variant="d2l", img_size=[28, 28]), "do not fit"),
    "another number of scores": (architecture_with(num_classes=4), "3 classes for 4 scores"),
    "fewer classes than scores": (card_with(classes=["a", "b"]), "2 classes for 3 scores"),
    "pictures of 10**6 x 10**6": (architecture_with(img_size=[10**6, 10**6]), "larger than its weights"),
    "10**15 classes": (architecture_with(num_classes=10**15), "larger than its weights|cannot be used"),
    "sizes that are text": (architecture_with(img_size="12"), "cannot be used"),
    "a negative size": (architecture_with(img_size=[-1, 12]), "cannot be used"),
    "an option that does not exist": (architecture_with(evil=True), "evil"),
    "a description without classes": ({k: v for k, v in CARD.items() if k != "classes"}, "cannot be used"),
    "a description without architecture": ({k: v for k, v in CARD.items() if k != "architecture"}, "cannot be used"),
    "a preprocessing that divides by zero": (
        card_with(preprocessing=CARD["preprocessing"] | {"std": [0.0]}),
        "std above 0",
    ),
    "a preprocessing with other fields": (card_with(preprocessing={"channels": 1, "run": "rm"}), "run"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, marks=pytest.mark.fault(f"model file, digests valid: {case}", outcome="refused, with the reason")
        )
        for case in CARDS
    ],
)
def test_a_description_that_lies_is_refused_before_memory_is_taken(
    case: str, tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    card, message = CARDS[case]
    write(tmp_path / "m", tensors, card)
    started = time.perf_counter()
    with pytest.raises(convolve.InputError, match=message):
        convolve.load(tmp_path / "m")
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            text, marks=pytest.mark.fault(f"model file, digest valid: a description that is {name}", outcome="refused")
        )
        for name, text in {
            "nested 100,000 deep": "[" * 100_000,
            "a list": "[]",
            "null": "null",
            "without its tensors": '{"format": "convolve.model/1"}',
            "with tensors that are a number": '{"format": "convolve.model/1", "tensors": 3}',
            "cut off": '{"format": "convolve.mo',
        }.items()
    ],
)
def test_a_description_that_is_none_is_refused(text: str, file: Path) -> None:
    import hashlib

    header, body = parts(file)
    header["__metadata__"] |= {"convolve": text, "convolve.sha256": hashlib.sha256(text.encode()).hexdigest()}
    file.write_bytes(joined(header, body))
    with pytest.raises(ModelFileError, match=r"m\.safetensors"):
        read(file)


@pytest.mark.fault("200 splices of two model files", outcome="every one is refused")
def test_a_file_spliced_of_two_is_refused(tensors: dict[str, torch.Tensor], file: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", {name: tensor + 1 for name, tensor in tensors.items()}, CARD)
    one, other = file.read_bytes(), (tmp_path / "other").read_bytes()
    assert len(one) == len(other)
    chance = random.Random(0)
    for _ in range(200):
        start = chance.randrange(len(one) - 1)
        end = chance.randrange(start + 1, len(one))
        content = one[:start] + other[start:end] + one[end:]
        if content in (one, other):
            continue
        file.write_bytes(content)
        with pytest.raises(ModelFileError):
            read(file)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            content, marks=pytest.mark.fault(f"model file: {name} instead", outcome="refused with exit code 3")
        )
        for name, content in {
            "pickle bytes": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
            "a .zip": b"PK\x03\x04" + bytes(60),
            "a picture": b"\x89PNG\r\n\x1a\n" + bytes(60),
            "HTML": b"<!doctype html><title>404 Not Found</title>",
            "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
            "an empty file": b"",
            "64 bytes of 0xff": b"\xff" * 64,
        }.items()
    ],
)
def test_another_file_under_the_name_of_a_model_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    assert main(["predict", str(tmp_path / "m.safetensors"), "x.png"]) == 3
    err = capsys.readouterr().err
    assert "m.safetensors" in err
    assert "Traceback" not in err
