"""What one trace of a model leaves behind: frozen, without tensors, enough to answer every question later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor that went by: its shape, dtype and bytes. `origin` says where its values come from, in readable words."""

    shape: Shape
    dtype: str
    bytes: int
    step: int | None = None  # the step that made it, and which of its outputs
    output: int = 0
    source: int | None = None  # or the graph input it is
    parameter: str | None = None  # or the parameter or buffer it is

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def constant(self) -> bool:
        """Neither made by a step nor an input: a parameter, a buffer or a literal tensor."""
        return self.step is None and self.source is None


@dataclass(frozen=True)
class Step:
    """One operation, with its edges: `tensors` are its tensor arguments in order; `arguments` all of them by name."""

    index: int
    path: str  # dotted name of the module in which it ran; "" for the model itself
    call: int  # which call of that module (0 for the first)
    module: str  # the module's class name
    leaf: bool  # the module has no children, so that its name names the step
    op: str
    arguments: dict[str, Any]  # tensors stand as Tensor
    tensors: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    in_place: bool = False
    seconds: float | None = None
    saved: int = 0  # bytes that autograd keeps from here for the backward pass
    stale: bool = False  # reads a view whose memory was changed elsewhere: its edges may be incomplete


@dataclass(frozen=True)
class Parameter:
    """One parameter or buffer; several names when it is shared."""

    names: tuple[str, ...]
    shape: Shape
    numel: int
    bytes: int
    trainable: bool
    buffer: bool


@dataclass(frozen=True)
class Allocation:
    """One block of memory: the events between which it lived. Events count up, backward included; `death` None: to the end."""

    birth: int
    death: int | None
    bytes: int
    kind: str  # "parameter", "buffer", "input", "activation", "gradient"


@dataclass(frozen=True)
class Trace:
    model: str
    training: bool
    inputs: tuple[Tensor, ...]
    names: tuple[str, ...]  # of the inputs
    steps: tuple[Step, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[Parameter, ...]
    modules: tuple[tuple[str, str], ...]  # (path, class name) of every module
    called: frozenset[str]  # the paths of the modules that ran
    used: frozenset[str]  # the names of the parameters that some step read
    allocations: tuple[Allocation, ...] = ()
