"""From a trace to the table: one row per step with its shape, cost, memory and receptive field, and their totals."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from convolve.analysis import fields as fields_
from convolve.analysis import memory as memory_
from convolve.analysis.fields import Every, Field, InputField, Read
from convolve.analysis.records import Parameter, Shape, Step, Tensor, Trace
from convolve.analysis.rules.registry import Call, Facts, rule_of
from convolve.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class Row:
    """One step of the network. Arithmetic is for the whole batch; `None` is unknown, never zero.

    sources      the rows (or graph inputs, by name) that it reads
    macs         multiply-adds with padding zeros; macs_valid without them; flops = 2 macs + the rest
    activation   bytes of the results that it allocates; saved: bytes that autograd keeps because of it in training
    status       exact, bound (at most this), data-dependent, unknown
    """

    index: int
    name: str
    path: str
    op: str
    module: str
    detail: str
    sources: tuple[str, ...]
    outputs: tuple[Shape, ...]
    dtype: str
    parameters: int
    trainable: int
    macs: int | None
    macs_valid: int | None
    flops: int | None
    activation: int
    saved: int | None
    fields: tuple[InputField, ...]
    status: str
    note: str = ""

    @property
    def output(self) -> Shape:
        return self.outputs[0]


@dataclass(frozen=True)
class Totals:
    """Sums over the rows; `active` are the parameters that this forward pass reads. `uncounted`
    names every step whose arithmetic no rule knows: the sums are then lower bounds.
    """

    parameters: int
    trainable: int
    active: int
    buffers: int
    parameter_bytes: int
    macs: int
    macs_valid: int
    flops: int
    activations: int
    saved: int | None
    uncounted: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Peak memory; `training` with its optimiser, where a training step was traced."""

    inference: memory_.Peak
    training: memory_.Peak | None = None
    optimizer: str | None = None


@dataclass(frozen=True)
class Lint:
    """Something a designer would want to know: where, what, and why it matters."""

    kind: str
    where: str
    says: str


@dataclass(frozen=True)
class Report:
    """All that inspect found out. `print(report)` is the table."""

    model: str
    inputs: tuple[tuple[str, Shape], ...]
    outputs: tuple[Shape, ...]
    rows: tuple[Row, ...]
    totals: Totals
    memory: Memory
    trace: Trace = field(repr=False)
    seen: tuple[tuple[Field, ...], ...] = field(repr=False)
    lints: tuple[Lint, ...] = ()

    def row(self, layer: str) -> Row:
        """The row called `layer`, or the last row inside the module of that name. Raises UnknownNameError."""
        named = [row for row in self.rows if row.name == layer]
        inside = [row for row in self.rows if row.path == layer or row.path.startswith(layer + ".")]
        if not (named or inside):
            raise UnknownNameError.of("layer", layer, [row.name for row in self.rows])
        return (named or inside)[-1]

    def field(self, layer: str) -> Field:
        """The receptive field of a layer's output, as sets."""
        return self.seen[self.row(layer).index][0]

    def __str__(self) -> str:
        from convolve.analysis.columns import text

        return text(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def build(trace: Trace, training: Trace | None = None, optimizer: str | None = None, unbatched: bool = False) -> Report:
    """The report of an inference `trace`, with the memory of a `training` trace beside it."""
    facts = [_facts(step) for step in trace.steps]
    seen = propagated(trace, facts, unbatched)
    names = step_names(trace)
    saved = _saved(trace, training)
    counted: set[str] = set()
    by_name = {name: p for p in trace.parameters for name in p.names}
    rows = []
    for step in trace.steps:
        own = []
        for name in _parameters(step, trace):
            parameter = by_name[name]
            if parameter.names[0] not in counted and not parameter.buffer:
                counted.add(parameter.names[0])
                own.append(parameter)
        rows.append(_row(step, facts[step.index], seen[step.index][0], names, own, saved, trace))
    memory = Memory(
        memory_.peak(trace.allocations),
        memory_.training_peak(training.allocations, training.parameters, optimizer) if training and optimizer else None,
        optimizer if training else None,
    )
    report = Report(
        trace.model,
        tuple((name, tensor.shape) for name, tensor in zip(trace.names, trace.inputs, strict=True)),
        tuple(tensor.shape for tensor in trace.outputs),
        tuple(rows),
        _totals(trace, rows, training),
        memory,
        trace,
        seen,
    )
    from convolve.analysis.lints import lints

    return replace(report, lints=lints(report))


def spatial_dims(shape: Shape, unbatched: bool) -> tuple[int, ...]:
    """Which dimensions of an input are positions: all after the channels (n, c, …), or after (c, …) without a batch."""
    return tuple(range(1 if unbatched else 2, len(shape)))


def propagated(
    trace: Trace, facts: Sequence[tuple[Facts, ...]], unbatched: bool = False
) -> tuple[tuple[Field, ...], ...]:
    """The field of every output of every step."""
    unbatched = unbatched or _unbatched(trace)
    inputs = [
        Field.of_input(number, tensor.shape, spatial_dims(tensor.shape, unbatched))
        for number, tensor in enumerate(trace.inputs)
    ]
    seen: list[tuple[Field, ...]] = []
    for step in trace.steps:
        sources = [_field(tensor, inputs, seen) for tensor in step.tensors]
        if not any(source.terms for source in sources):
            seen.append((Field(),) * len(step.outputs))
            continue
        shapes = [tensor.shape for tensor in step.tensors]
        found = []
        for output, fact in zip(step.outputs, facts[step.index], strict=True):
            reads = fact.reads
            if reads is None or step.stale:
                reads = tuple(Read(n, (Every(),) * len(s), exact=False) for n, s in enumerate(shapes))
            found.append(fields_.propagate(reads, sources, shapes, output.shape))
        seen.append(tuple(found))
    return tuple(seen)


def _field(tensor: Tensor, inputs: Sequence[Field], seen: Sequence[tuple[Field, ...]]) -> Field:
    if tensor.step is not None:
        return seen[tensor.step][tensor.output]
    return inputs[tensor.source] if tensor.source is not None else Field()


def _unbatched(trace: Trace) -> bool:
    """A 3-d input that a 2-d operator takes has no batch dimension (likewise 2-d in 1-d, 4-d in 3-d)."""
    for step in trace.steps:
        for axes in (1, 2, 3):
            if step.op in (f"conv{axes}d", f"max_pool{axes}d", f"avg_pool{axes}d", f"conv_transpose{axes}d"):
                return len(step.tensors[0].shape) == axes + 1
    return False


def _facts(step: Step) -> tuple[Facts, ...]:
    entry = rule_of(step.op) or rule_of(type(step.arguments.get("module")))
    if not step.tensors:
        return (Facts(),) * len(step.outputs)
    if entry is None:
        return (Facts(None, reads=None, note=f"no rule for {step.op}"),) * len(step.outputs)
    return tuple(entry.rule(Call(step, which)) for which in range(len(step.outputs)))


def _row(
    step: Step,
    facts: tuple[Facts, ...],
    seen: Field,
    names: Sequence[str],
    own: Sequence[Parameter],
    saved: list[int] | None,
    trace: Trace,
) -> Row:
    fact = facts[0]
    flops = None if fact.macs is None else 2 * fact.macs + fact.extra
    note = "; ".join(
        filter(
            None,
            [fact.note, "edges may be incomplete: memory shared with a view was overwritten" if step.stale else ""],
        )
    )
    sources = []
    for tensor in step.tensors:
        if tensor.step is not None:
            sources.append(names[tensor.step])
        elif tensor.source is not None:
            sources.append(trace.names[tensor.source])
    reused = step.in_place or _views(step)
    return Row(
        step.index,
        names[step.index],
        step.path,
        step.op,
        step.module,
        detail(step),
        tuple(dict.fromkeys(sources)),
        tuple(output.shape for output in step.outputs),
        step.outputs[0].dtype,
        sum(p.numel for p in own),
        sum(p.numel for p in own if p.trainable),
        fact.macs,
        fact.macs if fact.macs_valid is None else fact.macs_valid,
        flops,
        0 if reused else sum(output.bytes for output in step.outputs),
        None if saved is None else saved[step.index],
        fields_.summaries(seen),
        _status(step, fact, seen),
        note,
    )


def _status(step: Step, fact: Facts, seen: Field) -> str:
    if fact.macs is None or fact.reads is None:
        return "unknown"
    if fact.data:
        return "data-dependent"
    return "exact" if seen.exact and not step.stale else "bound"


_VIEW_NAMES = (
    "view flatten unflatten squeeze unsqueeze permute transpose swapaxes swapdims t movedim expand expand_as select slice "
    "getitem narrow split chunk unbind detach alias view_as contiguous _unsafe_view identity numpy_T"
)
_VIEWS = frozenset(_VIEW_NAMES.split())


def _views(step: Step) -> bool:
    """An operator that only looks at its argument's memory (reshape and contiguous: as far as torch can)."""
    return (
        step.op in _VIEWS
        or step.op == "reshape"
        or (step.op.startswith("dropout") and not step.arguments.get("training", True))
    )


Key = tuple[str, int, str, int]


def keys(trace: Trace) -> list[Key]:
    """What names the same step in two traces of one model: its module, call, operator, and the how-manieth there."""
    count: dict[tuple[str, int, str], int] = {}
    found = []
    for step in trace.steps:
        what = step.path, step.call, step.op
        found.append((*what, count.get(what, 0)))
        count[what] = count.get(what, 0) + 1
    return found


def _saved(trace: Trace, training: Trace | None) -> list[int] | None:
    """The bytes kept per step of `trace`, from the training trace of the same model."""
    if training is None:
        return None
    kept = {key: step.saved for key, step in zip(keys(training), training.steps, strict=True)}
    return [kept.get(key, 0) for key in keys(trace)]


def _parameters(step: Step, trace: Trace) -> list[str]:
    """The parameters that a step reads; of a module that is one step, all of them."""
    names = [tensor.parameter for tensor in step.tensors if tensor.parameter is not None]
    if "module" in step.arguments:
        names += [n for p in trace.parameters for n in p.names if n.startswith(step.path + "." if step.path else "")]
    return names


def used_parameters(trace: Trace) -> set[str]:
    """The names of all parameters that some step reads."""
    return set(trace.used).union(*(_parameters(step, trace) for step in trace.steps if "module" in step.arguments))


def step_names(trace: Trace) -> list[str]:
    """One unique name per step: the layer's, or the enclosing module's and the operator's."""
    alone: dict[tuple[str, int], int] = {}
    for step in trace.steps:
        if step.leaf:
            alone[step.path, step.call] = alone.get((step.path, step.call), 0) + 1
    used: dict[str, int] = {}
    names = []
    for step in trace.steps:
        if step.leaf and step.path and alone[step.path, step.call] == 1:
            name = step.path
        else:
            name = f"{step.path}.{step.op}" if step.path else step.op
        used[name] = used.get(name, 0) + 1
        names.append(name if used[name] == 1 else f"{name}#{used[name]}")
    return names


def detail(step: Step) -> str:
    """The numbers of a window in short: `3x3 s2 p1 d2 g32`."""
    given = step.arguments
    weight, kernel = given.get("weight"), given.get("kernel_size")
    parts = []
    if step.op.startswith("conv") and isinstance(weight, Tensor):
        parts.append("x".join(map(str, weight.shape[2:])))
    elif kernel is not None:
        axes = next((int(letter) for letter in step.op if letter.isdigit()), 2)
        parts.append("x".join(map(str, kernel if isinstance(kernel, (list, tuple)) else [kernel] * axes)))
    if parts:
        stride = given.get("stride")
        if stride in (None, [], ()) and "pool" in step.op:
            stride = kernel
        for letter, value, usual in (
            ("s", stride, 1), ("p", given.get("padding"), 0), ("d", given.get("dilation"), 1), ("g", given.get("groups"), 1),
        ):  # fmt: skip
            shown = _short(value)
            if shown not in ("", str(usual)):
                parts.append(letter + shown)
    elif "output_size" in given:
        parts.append("to " + _short(given["output_size"]))
    elif step.op == "cat":
        parts.append(f"dim {given.get('dim', 0)}")
    return " ".join(parts)


def _short(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return str(value[0]) if len(set(value)) == 1 else "x".join(map(str, value))
    return str(value)


def _totals(trace: Trace, rows: Sequence[Row], training: Trace | None) -> Totals:
    weights = [p for p in trace.parameters if not p.buffer]
    used = used_parameters(trace)
    return Totals(
        sum(p.numel for p in weights),
        sum(p.numel for p in weights if p.trainable),
        sum(p.numel for p in weights if used.intersection(p.names)),
        sum(p.numel for p in trace.parameters if p.buffer),
        sum(p.bytes for p in trace.parameters),
        sum(row.macs or 0 for row in rows),
        sum(row.macs_valid or 0 for row in rows),
        sum(row.flops or 0 for row in rows),
        sum(row.activation for row in rows),
        None if training is None else sum(step.saved for step in training.steps),
        tuple(f"{row.name} ({row.op})" for row in rows if row.macs is None),
    )


def require_exact(report: Report) -> None:
    """Raise UsageError naming every step that is not exactly known: what `strict=True` means."""
    vague = [f"{row.name} ({row.op}): {row.status}" for row in report.rows if row.status != "exact"]
    if vague:
        raise UsageError(
            "strict: every operator must be known exactly",
            "got " + "; ".join(vague),
            "register a rule (convolve.layer_rule)",
        )
