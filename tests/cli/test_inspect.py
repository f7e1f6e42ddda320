"""`convolve inspect`: the command as its user sees it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from convolve.cli import main

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, padding=1)
        self.b = nn.Conv2d(3, width, 1)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.head(torch.cat([self.a(x), self.b(x)], 1).relu().mean((2, 3)))

def narrow():
    return Net(4)
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return str(tmp_path / "net.py")


TABLE = """\
layer   operator        from            output   params       MACs      memory   RF   stride
a       conv2d 3x3 p1   input      1x8x16x16        224     55,296     8.0 KiB    3        1
b       conv2d 1x1      input      1x8x16x16         32      6,144     8.0 KiB    1        1
cat     cat dim 1       a, b      1x16x16x16                          16.0 KiB    3        1
relu    relu            cat       1x16x16x16                          16.0 KiB    3        1
mean    mean            relu            1x16                              64 B  all
head    linear          mean            1x10        170        160        40 B  all
parameters 426
MACs 61,600, 57,088 without padding zeros (7.3% less)"""


def test_the_table(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", net + ":Net", "--input", "3x16x16"]) == 0
    shown = capsys.readouterr().out
    words = [line.split() for line in shown.splitlines() if line.strip() and "─" not in line]
    expected = [line.split() for line in TABLE.splitlines()]
    assert words[1 : 1 + len(expected)] == expected


def test_json_is_one_document_with_every_number(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", net + ":narrow()", "--input", "3x16x16", "--optimizer", "adam", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["version"]) == ("convolve.inspect", 1)
    assert document["totals"]["macs"] == sum(layer["macs"] for layer in document["layers"]) == 30_800
    assert document["layers"][0]["field"][0]["axes"][0] == {
        "size": 3, "seen": 3, "stride": "1", "offset": -1, "centre": "0", "phases": [3], "effective": 3.266, "whole": False,
    }  # fmt: skip
    assert document["memory"]["training"]["bytes"] > document["memory"]["inference"]["bytes"]


def test_markdown_csv_svg_and_html_carry_the_same_numbers(
    net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--svg", str(tmp_path / "n.svg"), "--html", str(tmp_path / "n.html")]
    assert main(["inspect", net + ":Net", "--input", "3x16x16", "--markdown", *files]) == 0
    markdown = capsys.readouterr().out
    assert "| a | conv2d 3x3 p1 | input | 1x8x16x16 | 224 | 55,296 |" in markdown
    assert main(["inspect", net + ":Net", "--input", "3x16x16", "--csv"]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert rows[1][rows[0].index("macs")] == "55296"
    svg = ElementTree.parse(tmp_path / "n.svg").getroot()
    texts = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "224 params · 55,296 MACs" in texts
    html = (tmp_path / "n.html").read_text()
    assert ">55,296</td>" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--max-macs", "61600"], 0, ""),
        (["--max-macs", "61.5k"], 4, "61,600 MACs, 61,500 allowed"),
        (["--max-params", "400"], 4, "426 parameters, 400 allowed"),
        (["--max-memory", "8KiB"], 4, "of memory, 8.0 KiB allowed"),
        (["--max-macs", "many"], 2, "write 600M, 1.5G or 512MiB"),
        (["--optimizer", "adan"], 2, "use adam"),
        (["--layer", "c"], 2, "unknown layer"),
        (["--profile", "thop"], 2, "unknown profile"),
    ],
)
def test_exit_codes(net: str, options: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", net + ":Net", "--input", "3x16x16", *options]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--layer", "a", "--index", "0,5"], "a at [0, 5]\n  input 16x16: sees 6 pixels in 0..1 x 4..6"),
        (["--layer", "a", "--size", "7"], "a has 7 rows for inputs of 7 rows"),
        (["--smallest"], "the smallest input is 3x1x1"),
        (["--reach", "5"], "a: dilation 2, padding 2: sees 5x5, 61,600 MACs (100% of now)"),
        (["--profile", "torchinfo"], "torchinfo counts 65,706 (mult-adds); here it is 61,600 MACs"),
    ],
)
def test_questions_are_answered(net: str, options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", net + ":Net", "--input", "3x16x16", *options]) == 0
    assert says in capsys.readouterr().out


def test_two_networks_are_compared(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", net + ":Net", "--input", "3x16x16", "--diff", net + ":narrow()"]) == 0
    shown = capsys.readouterr().out
    assert "-50.0%" in shown
    assert "a: conv2d 3x3 p1 1x8x16x16, 224 params, 55,296 MACs, RF 3 -> conv2d 3x3 p1 1x4x16x16, 112 params" in shown


def test_names_specs_and_published_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "alexnet", "--like", "paper"]) == 0
    assert "parameters  paper 60,965,224, here 60,965,224" in capsys.readouterr().out
    assert main(["inspect", "vgg16", "--input", "3x160x160", "--like", "paper"]) == 4
    assert main(["inspect", "conv 6 5 p2, sigmoid, avg 2, fc 10", "--input", "1x28x28", "--max-params", "12k"]) == 0


def test_shapes_that_do_not_fit_print_the_table_and_the_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(100, 5))\n"
    (tmp_path / "wrong.py").write_text(text)
    assert main(["inspect", str(tmp_path / "wrong.py:net()"), "--input", "3x12x12"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "conv2d 5x5" in shown.err
    assert (
        "error: at 2 (linear): Linear expects 100 features\n  why: 4x8x8 = 256 arrive\n  fix: use in_features=256"
        in shown.err
    )


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        ("vgg17", 2, "vgg16"),
        ("nothing.py:Net", 3, "there is no such file"),
        ("{net}:Nut", 2, "use Net"),
        ("{net}:torch", 3, "could not be built"),
        ("nothing.safetensors", 3, "there is no such file"),
    ],
)
def test_a_wrong_model_is_said(net: str, model: str, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", model.format(net=net), "--input", "3x16x16"]) == code
    assert says in capsys.readouterr().err


def test_layers_are_timed_in_torch_and_with_our_operators(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "conv 4 3 p1, relu, max 2, fc 10", "--input", "1x12x12", "--time", "--json"]) == 0
    times = json.loads(capsys.readouterr().out)["time"]
    assert [layer["operator"] for layer in times["layers"]] == ["Conv2d", "MaxPool2d"]
    assert all(layer["torch"] > 0 and layer["ours"] > 0 for layer in times["layers"])
    assert times["layers"][0]["algorithm"]
    assert times["limit_macs_per_second"] > 1e8
