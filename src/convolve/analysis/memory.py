"""Peak memory, from the births and deaths of every storage in a trace: no model of liveness, the run itself.

Inference: parameters, buffers and the input live throughout; activations live as long as the forward pass holds them.
Training: what autograd keeps lives until its backward step; gradients of parameters are born in the backward pass; the
optimiser's state lives throughout (it is created by the first step, so the second step is the one that peaks). The step
itself needs temporaries of the size of the largest parameter.

Not counted: workspaces inside the library's kernels, the allocator's rounding and caching, Python itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convolve.analysis.records import Allocation, Parameter
from convolve.errors import UnknownNameError

# copies of the trainable parameters that the optimiser keeps, and temporaries of the largest one during its step
OPTIMIZERS: dict[str, tuple[int, int]] = {
    "sgd": (0, 0),
    "sgd-momentum": (1, 0),
    "adagrad": (1, 1),
    "rmsprop": (1, 1),
    "adam": (2, 1),
    "adamw": (2, 1),
}


@dataclass(frozen=True)
class Peak:
    """The fullest moment, in bytes, and what it holds."""

    bytes: int
    parameters: int
    buffers: int
    inputs: int
    activations: int
    gradients: int = 0
    optimizer: int = 0


def peak(allocations: Sequence[Allocation], state: int = 0) -> Peak:
    """The peak of a trace, with `state` more bytes that live throughout."""
    events: list[tuple[int, int, str]] = []
    for block in allocations:
        events.append((block.birth, block.bytes, block.kind))
        if block.death is not None:
            events.append((block.death, -block.bytes, block.kind))
    events.sort()
    now = dict.fromkeys(("parameter", "buffer", "input", "activation", "gradient"), 0)
    most, best = 0, dict(now)
    for _, size, kind in events:
        now[kind] += size
        if size > 0 and sum(now.values()) > most:
            most, best = sum(now.values()), dict(now)
    return Peak(
        most + state, best["parameter"], best["buffer"], best["input"], best["activation"], best["gradient"], state
    )


def training_peak(allocations: Sequence[Allocation], parameters: Sequence[Parameter], optimizer: str) -> Peak:
    """The peak of a training step: forward, backward, and the optimiser's own step."""
    if optimizer not in OPTIMIZERS:
        raise UnknownNameError.of("optimizer", optimizer, OPTIMIZERS)
    copies, temporaries = OPTIMIZERS[optimizer]
    trainable = [p.bytes for p in parameters if p.trainable and not p.buffer]
    state = copies * sum(trainable)
    running = peak(allocations, state)
    everything = sum(p.bytes for p in parameters if not p.buffer)
    buffers = sum(p.bytes for p in parameters if p.buffer)
    inputs = sum(block.bytes for block in allocations if block.kind == "input")
    stepping = everything + buffers + inputs + sum(trainable) + state + temporaries * max(trainable, default=0)
    if stepping <= running.bytes:
        return running
    return Peak(
        stepping,
        everything,
        buffers,
        inputs,
        0,
        sum(trainable),
        stepping - everything - buffers - inputs - sum(trainable),
    )
