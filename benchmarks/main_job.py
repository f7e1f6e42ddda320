"""The main job on real data: accuracy over seeds, wall time, memory, and how soon CIFAR-10 (JPEG) starts training.

python -m benchmarks.main_job digits      5 seeds, whole command (promise: >= 98.0 %, < 30 s)
python -m benchmarks.main_job mnist       lenet_relu, 5 epochs, 3 seeds (promise: >= 99.0 %, < 700 MB)
python -m benchmarks.main_job lenet_relu  15 epochs on MNIST, 3 seeds (promise: test error <= 0.8 %)
python -m benchmarks.main_job smallnet    the default network, 15 epochs on MNIST, images moved a little, 3 seeds (promise: <= 0.4 %)
python -m benchmarks.main_job cifar10     lenet_relu, from the command to the first training step (promise: < 60 s), with a corrupt file
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from benchmarks.record import DATA, spread, write


def _train(*words: str) -> tuple[dict[str, object], float, float]:
    """The command's document, its wall seconds, and its peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "convolve", "train", *words, "--json", "--quiet", "--out", f"{folder}/run"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, text
        return json.loads(text), time.perf_counter() - started, usage.ru_maxrss / 1000


def _scores(name: str, words: tuple[str, ...], seeds: int) -> None:
    accuracies, seconds, memory = [], [], []
    for seed in range(seeds):
        document, wall, peak = _train(*words, "--seed", str(seed))
        accuracies.append(document["test"]["accuracy"])  # type: ignore[index]
        seconds.append(wall)
        memory.append(peak)
        print(f"seed {seed}: {accuracies[-1]:.4f}, {wall:.1f} s, {peak:.0f} MB", file=sys.stderr)
        figures = {"test accuracy": spread(accuracies), "seeds": accuracies, "command (s)": spread(seconds)}
        figures |= {"peak memory (MB)": spread(memory)}
        write(f"main_job_{name}", {"arguments": " ".join(words).replace(str(DATA), "shared/data"), **figures})


def _cifar10() -> None:
    """Copies the zip with one JPEG cut in half, and waits for the first step."""
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(folder) / "cifar10.zip"
        with zipfile.ZipFile(DATA / "cifar10-jpeg.zip") as source, zipfile.ZipFile(damaged, "w") as target:
            bad = next(name for name in source.namelist() if name.endswith(".jpg") and "train" in name)
            for name in source.namelist():
                content = source.read(name)
                target.writestr(name, content[: len(content) // 2] if name == bad else content)
        command = [sys.executable, "-m", "convolve", "train", str(damaged), "--model", "lenet_relu"]
        command += ["--epochs", "1", "--out", f"{folder}/run"]
        started = time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if line.startswith("time "):
                    break
            seconds = time.perf_counter() - started
            process.terminate()
            process.stderr.read()
        assert any(Path(bad).name in line for line in said), "the corrupt file must be named"
        write("main_job_cifar10", {"seconds to the first step": seconds, "corrupt file named": True})


if __name__ == "__main__":
    which = sys.argv[1] if len(sys.argv) > 1 else ""
    if which == "digits":
        _scores("digits", ("digits",), 5)
    elif which == "mnist":
        _scores("mnist", (str(DATA / "mnist"), "--model", "lenet_relu", "--epochs", "5"), 3)
    elif which == "lenet_relu":
        _scores("lenet_relu", (str(DATA / "mnist"), "--model", "lenet_relu", "--epochs", "15"), 3)
    elif which == "smallnet":
        moved = ("--epochs", "15", "--val-split", "0.05", "--augment", "gentle")
        _scores("smallnet", (str(DATA / "mnist"), "--model", "smallnet", *moved), 3)
    elif which == "cifar10":
        _cifar10()
    else:
        sys.exit(__doc__)
