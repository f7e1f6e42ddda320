"""The body of the operator: what happens once the operands and their sizes are real."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from convolve.errors import UsageError
from convolve.ops import roles, wisdom
from convolve.ops.algorithm import Algorithm, NotFinite
from convolve.ops.call import remembered_call
from convolve.ops.choose import WHERE_IT_CAN, declined, find, ranked, served
from convolve.ops.windows import format_of, with_bias
from convolve.problem import ConvProblem


class Plan(NamedTuple):
    """What is settled before any number is seen."""

    problem: ConvProblem
    rows: tuple[tuple[Algorithm, ConvProblem], ...]
    """The choice first, each row with the problem as it sees it."""
    empty: bool
    """No product is summed: what remains is the bias, or nothing."""
    memory_format: torch.memory_format


_PLANS: dict[tuple[object, ...], Plan] = {}
_MOST_PLANS = 4096
AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")  # asking about any other raises


def execute(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Tensor:
    """The result of the call that `text` describes, in the memory format of its operands."""
    found = plan(a, b, text)
    if torch._C._is_any_autocast_enabled() and a.device.type in AUTOCAST_DEVICES:
        with torch.autocast(a.device.type, enabled=False):  # the operands were cast at the public call; sums stay wide
            return _run(found, a, b, bias)
    return _run(found, a, b, bias)


def execute_frozen(a: Tensor, b: Tensor, bias: Tensor | None, text: str, frozen: FrozenWeight) -> Tensor:
    """The same, where what was prepared of the weight b may serve in its place."""
    found = plan(a, b, text, frozen=True)
    if torch._C._is_any_autocast_enabled() and a.device.type in AUTOCAST_DEVICES:
        with torch.autocast(a.device.type, enabled=False):
            return _run(found, a, b, bias, frozen)
    return _run(found, a, b, bias, frozen)


class FrozenWeight:
    """What rows have prepared of one weight that was declared not to change, and how to tell that it did.

    Changes in place, a new tensor and a move are noticed; what is written through `.data` or from NumPy is not: nothing tells of it.
    Copies and pickles hold nothing and are prepared anew.
    """

    def __init__(self) -> None:
        self.texts: dict[tuple[object, ...], str] = {}
        """The window string of calls that were checked before."""
        self._prepared: dict[tuple[object, ...], Tensor] = {}
        self._stamp: tuple[object, ...] | None = None

    def __deepcopy__(self, _: object) -> FrozenWeight:
        return FrozenWeight()

    def __reduce__(self) -> tuple[object, ...]:
        return FrozenWeight, ()

    def check(self, weight: Tensor) -> None:
        """Raise UsageError if the weight is no longer the one that was prepared."""
        stamp = (weight.data_ptr(), weight.dtype, weight.shape, None if weight.is_inference() else weight._version)
        if self._stamp is None:
            self._stamp = stamp
        elif stamp != self._stamp:
            raise UsageError(
                "a frozen weight must not change",
                "it was changed, replaced or moved after its transformed copy was made",
                "freeze again with convolve.accelerate(model, freeze=True), or call convolve.unfreeze(model)",
            )

    def prepared(self, row: Algorithm, problem: ConvProblem, weight: Tensor) -> Tensor:
        assert row.preparation is not None
        key = (row.name, problem.window, problem.groups, problem.dtype)
        found = self._prepared.get(key)
        if found is None:
            found = self._prepared[key] = row.preparation.prepare(problem, weight.detach())
        return found


def plan(a: Tensor, b: Tensor, text: str, frozen: bool = False) -> Plan:
    """The plan of a call on operands of these sizes, remembered."""
    key = (text, a.shape, b.shape, a.dtype, a.device.type, a.stride(), b.stride(), frozen)
    found = _PLANS.get(key)
    if found is None:
        call = remembered_call(text)
        problem = call.problem(a, b).validate()
        known = wisdom.changes()
        if (
            _LEARNERS
            and problem.device == "cpu"
            and (call.algorithm == "auto" or call.algorithm.endswith(WHERE_IT_CAN))
        ):
            _LEARNERS[-1](problem, frozen)
            known = wisdom.changes()
        rows = tuple((row, served(row, problem)) for row in ranked(problem, call.algorithm, call.precision, frozen))
        empty = problem.macs == 0 or 0 in problem.result_shape
        found = Plan(problem, rows, empty, format_of(problem.layout, problem.axes))
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        if known == wisdom.changes():
            _PLANS[key] = found
    return found


Learner = Callable[[ConvProblem, bool], None]
"""Told of a problem, and whether its weight is frozen."""
_LEARNERS: list[Learner] = []


def is_learning() -> bool:
    """Whether new problems are being measured: then every call must come by `plan`."""
    return bool(_LEARNERS)


@contextlib.contextmanager
def learning(learner: Learner) -> Iterator[None]:
    """Within the block, of all threads, `learner` is told of every problem before rows are chosen for it."""
    forget()
    _LEARNERS.append(learner)
    try:
        yield
    finally:
        _LEARNERS.remove(learner)


def forget() -> None:
    """Choose anew from now on."""
    _PLANS.clear()


def plan_of(row: Algorithm, problem: ConvProblem) -> Plan:
    """The plan that has this one row; rows remember things by the record they were given, so it is made once."""
    return Plan(problem, ((row, served(row, problem)),), False, format_of(problem.layout, problem.axes))


def run_plan(plan: Plan, a: Tensor, b: Tensor, frozen: FrozenWeight | None = None) -> Tensor:
    """What a call that has this plan does. Raises DeclinedError where its rows refuse these values."""
    return _run(plan, a, b, None, frozen)


def _run(plan: Plan, a: Tensor, b: Tensor, bias: Tensor | None, frozen: FrozenWeight | None = None) -> Tensor:
    """The result of the first row that serves these values."""
    problem = plan.problem
    if plan.empty:
        nothing = with_bias(a.new_zeros(problem.result_shape), bias)
        return nothing.contiguous(memory_format=plan.memory_format)
    reason: str | None = None
    for row, as_served in plan.rows:
        x, w = (a, b) if as_served is problem else roles.operands(problem, a, b)
        reason = row.not_these(as_served, x, w) if row.not_these is not None else None
        if reason is None:
            break
    else:
        raise declined(row, problem, str(reason))
    try:
        if frozen is not None and row.preparation is not None and as_served is problem:
            result = row.preparation.run(as_served, x, frozen.prepared(row, as_served, w), bias)
        else:
            result = row.run(as_served, x, w, bias)
    except NotFinite:
        return _directly(problem, a, b, bias).contiguous(memory_format=plan.memory_format)
    if as_served is not problem:
        result = roles.result(problem, result)
    if (not row.local and not row.looks(as_served)) or as_served is not problem:
        result = _checked(result, problem, a, b, bias)
    return result.contiguous(memory_format=plan.memory_format)


def _checked(result: Tensor, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The result, or, where it is not finite, that of a direct row: NaN, Inf and overflow then spread as they should."""
    if not result.is_floating_point() or bool(torch.isfinite(result.sum(dtype=torch.float64))):
        return result
    return _directly(problem, a, b, bias)


def _directly(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    direct = find("torch")
    row = direct if direct.why_not(problem) is None else find("reference")
    return row.run(problem, a, b, bias)
