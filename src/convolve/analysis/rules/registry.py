"""The table of rules: operator name -> a small function from a call to its facts.

The name is torch's own in its shortest form: `conv2d` for torch.conv2d, F.conv2d and aten::conv2d; `add` for +, +=, torch.add
and Tensor.add_. Operators of other libraries keep their namespace (`mylib::blur`); a rule may also stand for a whole
module class, which is then one step. Shapes are torch's own answer (under fake tensors) and the bytes kept for the
backward pass are autograd's, so a rule states two things only: the arithmetic, and which inputs an output index reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convolve.analysis.fields import Along, Dim, Every, Read, Reshape
from convolve.analysis.maps import broadcast
from convolve.analysis.records import Step, Tensor
from convolve.errors import UsageError


@dataclass(frozen=True)
class Facts:
    """What a rule says of one call.

    macs         multiply-adds, padding zeros included; None: unknown
    macs_valid   those that meet a real element; None: as many as `macs`
    extra        floating-point operations beyond 2 macs (bias additions, comparisons, …)
    reads        how the output reads each tensor argument; None: unknown, taken as everything
    data         what is read depends on the data, so `reads` is the most it can be
    note         for the reader, empty for nothing
    """

    macs: int | None = 0
    macs_valid: int | None = None
    extra: int = 0
    reads: tuple[Read | Reshape, ...] | None = ()
    data: bool = False
    note: str = ""


@dataclass(frozen=True)
class Call:
    """One output of a step, as a rule sees it: arguments by name, tensors as records with shapes."""

    step: Step
    which: int = 0

    def __getitem__(self, name: str) -> Any:
        return self.step.arguments.get(name)

    def get(self, name: str, default: Any) -> Any:
        value = self.step.arguments.get(name)
        return default if value is None else value

    @property
    def input(self) -> Tensor:
        """The first tensor argument."""
        return self.step.tensors[0]

    @property
    def output(self) -> Tensor:
        return self.step.outputs[self.which]

    def tensor(self, name: str) -> int | None:
        """The position among the tensor arguments of the argument called `name`; None when it is no tensor."""
        value = self.step.arguments.get(name)
        return next((number for number, tensor in enumerate(self.step.tensors) if tensor is value), None)

    def read(self, dims: Sequence[Dim], tensor: int = 0, exact: bool = True) -> Read:
        return Read(tensor, tuple(dims), exact)

    def same(self, tensor: int = 0) -> Read:
        """Each output reads the input element at its own place, broadcasting as torch does."""
        shape, output = self.step.tensors[tensor].shape, self.output.shape
        ahead = len(output) - len(shape)
        return Read(
            tensor,
            tuple(
                Along(d + ahead, broadcast(output[d + ahead]))
                if size == 1 and output[d + ahead] != 1
                else Along(d + ahead)
                for d, size in enumerate(shape)
            ),
        )

    def every(self, tensor: int = 0) -> Read:
        """Each output reads all of the input."""
        return Read(tensor, (Every(),) * len(self.step.tensors[tensor].shape))


Rule = Callable[[Call], Facts]


@dataclass(frozen=True)
class Entry:
    rule: Rule
    signature: tuple[str, ...]
    operator: str = ""  # of a module class: what its step is called


_TABLE: dict[object, Entry] = {}


def layer_rule(names: str | type, signature: str = "", operator: str = "") -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of the operators `names` (separated by spaces) or of a module class.

    `signature` names the positional arguments in order; for a class, the attributes that the rule reads, and `operator` what
    the step is called (else the class's name). The function gets a call and returns its facts: the arithmetic,
    and which elements of its tensor arguments an output element reads. A later rule replaces an earlier one.

    >>> import convolve, torch
    >>> from convolve.analysis.rules import Facts
    >>> class Doubled(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x + x
    >>> @convolve.layer_rule(Doubled)
    ... def doubled(call):
    ...     return Facts(extra=call.output.numel, reads=(call.same(),))
    >>> convolve.inspect(Doubled(), "1x5x5").totals.flops
    25
    """

    def register(rule: Rule) -> Rule:
        keys: list[object] = [names] if isinstance(names, type) else list(names.split())
        if not keys:
            raise UsageError("a rule needs the name of an operator", f"got {names!r}", 'write "mylib::blur"')
        for key in keys:
            _TABLE[key] = Entry(rule, tuple(signature.split()), operator)
        return rule

    return register


def rule_of(key: object) -> Entry | None:
    """The entry of an operator's name or a module's class; a subclass does not inherit a rule."""
    return _TABLE.get(key)


def known() -> list[str]:
    """The operator names and module classes with a rule, sorted."""
    return sorted(key if isinstance(key, str) else getattr(key, "__qualname__", str(key)) for key in _TABLE)


def others(call: Call, but: int) -> tuple[Read, ...]:
    """Broadcast reads of every tensor argument except number `but`."""
    return tuple(call.same(n) for n in range(len(call.step.tensors)) if n != but)
