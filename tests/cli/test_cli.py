"""The command line's manners: quick help, plain errors, exit codes, stdout for results only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from convolve.cli import main
from convolve.cli.verbs import VERBS


def run(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user starts it."""
    source = str(Path(__file__).parents[2] / "src")
    env = {**os.environ, "PYTHONPATH": source, **environment}
    return subprocess.run(
        [sys.executable, "-m", "convolve", *words], capture_output=True, text=True, cwd=cwd, env=env, check=False
    )


def test_help_imports_no_torch_and_nothing_else_that_is_heavy() -> None:
    code = (
        "import sys; from convolve.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'sklearn', 'PIL', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(1 if heavy else 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False).returncode == 0


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        assert run("--help").returncode == 0
        seconds.append(time.perf_counter() - started)
    # 0.2 s is the promise on a quiet machine (benchmarks/startup.py); here the best of seven, with room for a busy one.
    assert min(seconds) < 1.0


def test_the_bare_command_prints_five_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("  convolve ") for line in out.splitlines()) == 5


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_the_packages(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    import convolve

    assert main([flag]) == 0
    assert capsys.readouterr().out.strip() == convolve.__version__


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"convolve {verb}" in out
    assert "--json" in out or verb == "demo"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "train"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--modell", "lenet"], "--model"),
        (["train", "--epochs", "many"], "many"),
        (["train", "epochs=10"], "--epochs 10"),
        (["predict"], "MODEL"),
        (["predict", "m.safetensors"], "at least one image"),
        (["train", "--img-size", "2xx3"], "--img-size"),
        (["train", "--resume", "runs/x", "--lr", "1"], "keeps its own choices"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_was_meant(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert expected.lower() in err.lower()
    assert "Traceback" not in err


def test_an_unknown_model_names_the_nearest_before_any_data_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nowhere", "--model", "lenet_rleu"]) == 2
    assert "lenet_relu" in capsys.readouterr().err


def test_an_error_in_json_mode_is_the_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "absent.safetensors", "--json"]) == 3
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["schema"] == "convolve.error"
    assert document["exit_code"] == 3
    assert "no such file" in document["why"]
    assert err == ""


def test_a_bug_of_ours_is_said_plainly_and_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Any:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("convolve.jobs.doctor.doctor", broken)
    assert main(["doctor"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: by design" in err
    assert "Traceback" not in err
    assert main(["doctor", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_doctor_prints_versions_as_text_and_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["doctor"]) == 0
    assert torch.__version__ in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["versions"]["torch"] == torch.__version__
    assert document["threads"] == torch.get_num_threads()


def test_a_closed_pipe_is_not_an_error_message() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = f"{sys.executable} -m convolve --help | true"
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_no_color_and_a_pipe_mean_no_escape_codes() -> None:
    assert "\033" not in run("trian", NO_COLOR="1", FORCE_COLOR="1").stderr
    assert "\033" not in run("trian").stderr
    assert "\033[31m" in run("trian", FORCE_COLOR="1", NO_COLOR="").stderr
