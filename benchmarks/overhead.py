"""What a call of convolve.conv2d costs over torch's, for a tiny problem that ends in the same kernel.

    python -m benchmarks.overhead

Blocks of calls of each are timed in turn, in random order; a pair's difference per call is one sample. Promised: at most 5 us
without gradient, 10 us with. `operator`: a row of ours, named, that calls the same kernel behind `convolve::conv`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

import convolve
from benchmarks import record
from convolve.ops.algorithm import Algorithm, Cost

CALLS, ROUNDS = 1000, 60


def over(ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, Any]:
    """Microseconds a call of `ours` takes more than one of `theirs`."""
    chance, pair = random.Random(0), [ours, theirs]
    differences, seconds = [], []
    for round_number in range(ROUNDS + 3):
        took = {}
        for function in chance.sample(pair, 2):
            started = time.perf_counter()
            for _ in range(CALLS):
                function()
            took[function] = (time.perf_counter() - started) / CALLS * 1e6
        if round_number >= 3:
            differences.append(took[ours] - took[theirs])
            seconds.append(took[theirs])
    return {"over_us": record.spread(differences), "torch_us": record.spread(seconds)}


def main() -> None:
    torch.set_num_threads(1)
    x, w, b = torch.randn(1, 1, 5, 5), torch.randn(1, 1, 3, 3), torch.randn(1)
    leaf = w.clone().requires_grad_()
    same = Algorithm(
        "same kernel",
        "torch.conv2d behind our operator",
        lambda _, x, w, bias: torch.conv2d(x, w, bias, 1, 1),
        lambda _: None,
        lambda _: Cost(0.0, 0),
        lambda _: 1e-6,
    )

    def both(f: Callable[..., Any], weight: torch.Tensor) -> Callable[[], Any]:
        return lambda: f(x, weight, b, 1, 1)

    def step(f: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(f(x, leaf, b, 1, 1).sum(), leaf)

    torchs = partial(convolve.conv2d, algorithm="torch")  # `auto` has a faster row for so small a problem
    record.write(
        "overhead",
        {
            "problem": "1x1x5x5 k1 3x3 s1 p1",
            "calls_per_sample": CALLS,
            "without gradient": over(both(torchs, w), both(F.conv2d, w)),
            "with gradient, forward": over(both(torchs, leaf), both(F.conv2d, leaf)),
            "with gradient, forward and backward": over(step(torchs), step(F.conv2d)),
            "operator, without gradient": over(
                lambda: convolve.conv2d(x, w, b, 1, 1, algorithm=same), both(F.conv2d, w)
            ),
            "operator, with gradient, forward": over(
                lambda: convolve.conv2d(x, leaf, b, 1, 1, algorithm=same), both(F.conv2d, leaf)
            ),
        },
    )


if __name__ == "__main__":
    main()
