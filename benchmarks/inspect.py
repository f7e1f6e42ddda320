"""How long an inspection takes: VGG-16 at two resolutions, the whole command, a network of 1,000 layers.

`python -m benchmarks.inspect` writes results/inspect.json. Processor seconds stand beside wall-clock seconds, because the
former do not depend on what else the machine does.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import convolve
from benchmarks.record import spread, write
from convolve.models import create

ROUNDS = 9


def timed(run: Callable[[], Any]) -> dict[str, Any]:
    """Wall-clock and processor seconds of ROUNDS runs after a warm-up."""
    run()
    wall, processor = [], []
    for _ in range(ROUNDS):
        started, used = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    return {"wall_s": spread(wall), "processor_s": spread(processor)}


def thousand_layers() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(334):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers)


def beside_torchinfo() -> dict[str, Any] | None:
    """Processor seconds of torchinfo.summary and of ours on the same VGG-16 of real tensors, in turn; None without torchinfo."""
    try:
        from torchinfo import summary
    except ImportError:
        return None
    net = create("vgg16").eval()
    seconds: dict[str, list[float]] = {"torchinfo": [], "convolve": []}
    runs: dict[str, Callable[[], Any]] = {
        "torchinfo": lambda: summary(net, (1, 3, 224, 224), verbose=0, device="cpu"),
        "convolve": lambda: convolve.inspect(net, "3x224x224"),
    }
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            used = time.process_time()
            run()
            seconds[name].append(time.process_time() - used)
    return {name: spread(values[1:]) for name, values in seconds.items()}  # the first of each warms up


def command(*words: str) -> float:
    """Wall-clock seconds of a whole command in a new process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "convolve", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    figures: dict[str, Any] = {}
    for side in (224, 2048):
        with torch.device("meta"):
            vgg = create("vgg16", img_size=side)
        figures[f"vgg16_{side}"] = timed(lambda net=vgg, n=side: convolve.inspect(net, f"3x{n}x{n}"))
        figures[f"vgg16_{side}_training"] = timed(
            lambda net=vgg, n=side: convolve.inspect(net, f"3x{n}x{n}", optimizer="adam")
        )
    figures["beside_torchinfo_vgg16_224"] = beside_torchinfo()
    deep = thousand_layers()
    figures["layers_1002"] = timed(lambda: convolve.inspect(deep, "8x64x64"))
    command("inspect", "vgg16")
    figures["command_vgg16_wall_s"] = spread([command("inspect", "vgg16") for _ in range(7)])
    importing = [sys.executable, "-c", "import torch"]
    started = time.perf_counter()
    subprocess.run(importing, check=True)
    figures["import_torch_wall_s"] = time.perf_counter() - started
    write("inspect", figures)


if __name__ == "__main__":
    main()
