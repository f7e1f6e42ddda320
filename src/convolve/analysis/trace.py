"""Run a model once without data, and write down what happened.

The input and the parameters become tensors with shapes and no memory (of the meta device, or torch's fake tensors), so the
time does not depend on the image's size. Two listeners are nested in the run. One hears the public calls (F.conv2d, torch.cat,
x + y); a call whose name has a rule becomes one step. Inside any other call the second one hears torch's elementary
operators and records those, so nothing goes unseen. Edges are by tensor identity. A third record is the memory: each
storage's birth and death, in order, which in a training trace runs through the backward pass as well.

The caller's model is not touched: its tensors are swapped for fakes during the run (torch.func.functional_call), and every
attribute that the forward pass sets is put back.

Limits: one thread; a model that reads a tensor's *value* (`.item()`, indexing by a mask) cannot be followed without data:
the error names the line, and `data=True` runs it for real.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from convolve.analysis import records, shapes
from convolve.analysis.names import function_name, in_place, operator_name
from convolve.analysis.ours import forward_of, in_torchs_words
from convolve.analysis.records import Allocation, Parameter, Step, Trace
from convolve.analysis.rules.registry import rule_of
from convolve.errors import ConvolveError, UsageError

_DEVICES = {"meta": "meta", "fake": "cpu"}
_REFERENCE = "_convolve_reference"  # set on the trace's own tensors: which step made it


@dataclass(frozen=True)
class Input:
    """One input of a model: a shape and a dtype (then the tensor is made here), or a tensor as it is."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    name: str = ""


class StoppedTraceError(Exception):
    """The forward pass failed: what was recorded before, the call that failed, the module entered last, and why."""

    def __init__(self, trace: Trace, failed: Step | None, module: str, error: Exception) -> None:
        super().__init__(str(error))
        self.trace, self.failed, self.module, self.error = trace, failed, module, error


def run(
    model: nn.Module,
    inputs: Sequence[Input],
    *,
    training: bool = False,
    backward: bool = False,
    data: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> Trace:
    """Trace `model` on `inputs`. With `backward`, gradients of the sum of its outputs too (for the memory).

    Raises StoppedTraceError where the model's own code fails, UsageError where it needs data.
    """
    if not data:
        # Tensors of the meta device have shapes and no memory, too, and cost neither torch's compiler (a second to import) nor
        # a copy of each result. They do not mix with tensors that a model makes itself: then fake ones are the judge.
        try:
            return _run(model, inputs, "meta", training, backward, arguments)
        except (StoppedTraceError, UsageError):
            return _run(model, inputs, "fake", training, backward, arguments)
    return _run(model, inputs, "data", training, backward, arguments)


def _run(
    model: nn.Module,
    inputs: Sequence[Input],
    kind: str,
    training: bool,
    backward: bool,
    arguments: Mapping[str, Any] | None,
) -> Trace:
    recorder = _Recorder(type(model).__name__, training)
    with _untouched(model), _silent(), contextlib.ExitStack() as stack:
        errors = stack.enter_context(_fake()) if kind == "fake" else ()
        model.train(training)
        if _lazy(model):
            raise UsageError(
                "a lazy layer has no parameters before its first run",
                "got a model with Lazy layers",
                "call inspect, which completes a copy, or run the model once",
            )
        fakes = recorder.parameters(model, kind)
        tensors = [_input(item, kind) for item in inputs]
        for number, tensor in enumerate(tensors):
            recorder.enter(tensor, inputs[number].name or f"input{number or ''}")
        stack.enter_context(recorder.hooked(model))
        stack.enter_context(torch.set_grad_enabled(backward))
        if backward:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(recorder.keep, lambda packed: packed))
        stack.enter_context(recorder.memory)
        try:
            with recorder.calls:
                result = torch.func.functional_call(model, fakes, tuple(tensors), dict(arguments or {}))
            recorder.listening = False
            recorder.finish(result)
            if backward:
                _backward(result, recorder)
        except errors as error:
            raise _needs_data(error) from error
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError, KeyError) as error:
            if isinstance(error, ConvolveError) and not isinstance(error, ValueError):
                raise
            recorder.listening = False
            raise StoppedTraceError(recorder.trace(), recorder.attempt, recorder.entered, error) from error
        del tensors, fakes, result
        return recorder.trace()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """torch logs a failed fake operator at length; we say it ourselves."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextlib.contextmanager
def _fake() -> Iterator[tuple[type[Exception], ...]]:
    """Tensors are fake inside; yields the errors that say that a value was wanted."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        yield DataDependentOutputException, DynamicOutputShapeException


def _input(item: Input, kind: str) -> torch.Tensor:
    if kind != "data":
        return torch.empty(item.shape, dtype=item.dtype, device=_DEVICES[kind])
    if item.dtype.is_floating_point:
        return torch.rand(item.shape, dtype=item.dtype, generator=torch.Generator().manual_seed(0))
    return torch.zeros(item.shape, dtype=item.dtype)


def _backward(result: Any, recorder: _Recorder) -> None:
    outputs = [t for t in _tensors(result) if t.requires_grad]
    if outputs:
        recorder.in_backward = True
        torch.autograd.backward(outputs, [torch.ones_like(t) for t in outputs])


def _needs_data(error: Exception) -> UsageError:
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in f.filename and "convolve/analysis" not in f.filename
    ]
    where = (
        f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else "an operator inside the model"
    )
    return UsageError(
        "this model looks at the values of a tensor, which an inspection without data does not have",
        f"at {where}",
        "inspect it with data=True, which runs it once for real",
    )


@contextlib.contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Whatever the block sets on the model's modules is put back: attributes, buffers, training flags."""
    before = [(m, dict(m.__dict__), dict(m._parameters), dict(m._buffers), dict(m._modules)) for m in model.modules()]
    gradients = [(p, p.grad) for p in model.parameters() if not nn.parameter.is_lazy(p)]
    try:
        yield
    finally:
        for module, attributes, parameters, buffers, children in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for current, old in (
                (module._parameters, parameters),
                (module._buffers, buffers),
                (module._modules, children),
            ):
                if (
                    list(current.items()) != list(old.items())
                    if len(current) != len(old)
                    else any(current.get(k) is not v for k, v in old.items())
                ):
                    current.clear()
                    current.update(old)  # type: ignore[arg-type]
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _lazy(model: nn.Module) -> bool:
    return any(nn.parameter.is_lazy(p) for p in (*model.parameters(), *model.buffers()))


@dataclass
class _Recorder:
    """The state of one run."""

    model: str
    training: bool
    listening: bool = True
    in_backward: bool = False
    steps: list[Step] = field(default_factory=list)
    sources: list[records.Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    results: tuple[records.Tensor, ...] = ()
    attempt: Step | None = None  # the call that is running
    entered: str = ""  # the module entered last

    def __post_init__(self) -> None:
        self.stack: list[tuple[str, str, bool, int]] = []
        self.quiet = 0  # inside a call that is one step
        self.listed: list[Parameter] = []
        self.modules: list[tuple[str, str]] = []
        self.called: dict[str, int] = {}
        self.used: set[str] = set()
        self.saved = 0
        self.kept: set[int] = set()
        self.owners: dict[int, tuple[int, int]] = {}  # storage -> (step, output) that wrote it last
        self.written: dict[int, int] = {}  # storage -> step of the last in-place write
        self.calls = _Calls(self)
        self.memory = _Memory(self)

    # --- tensors -----------------------------------------------------------------------------------------------------
    def parameters(self, model: nn.Module, kind: str) -> dict[str, torch.Tensor]:
        """The stand-ins of the model's parameters and buffers by name; shared ones are one tensor."""
        made: dict[int, torch.Tensor] = {}
        names: dict[int, list[str]] = {}
        found: dict[str, torch.Tensor] = {}
        everything = [
            *((name, p, False) for name, p in model.named_parameters(remove_duplicate=False)),
            *((name, b, True) for name, b in model.named_buffers(remove_duplicate=False)),
        ]
        self.modules = [(path, type(m).__name__) for path, m in model.named_modules(remove_duplicate=False)]
        originals: dict[int, tuple[torch.Tensor, bool]] = {}
        for name, tensor, is_buffer in everything:
            key = id(tensor)
            if key not in made:
                made[key] = self._stand_in(tensor, is_buffer, kind)
                names[key] = []
                originals[key] = (tensor, is_buffer)
                setattr(made[key], _REFERENCE, ("parameter", name))
                self.memory.birth(made[key], "buffer" if is_buffer else "parameter")
            names[key].append(name)
            found[name] = made[key]
        for key, (tensor, is_buffer) in originals.items():
            size = tensor.numel() * tensor.element_size()
            self.listed.append(
                Parameter(tuple(names[key]), tuple(tensor.shape), tensor.numel(), size, tensor.requires_grad, is_buffer)
            )
        return found

    @staticmethod
    def _stand_in(tensor: torch.Tensor, is_buffer: bool, kind: str) -> torch.Tensor:
        if kind == "data":
            copy = tensor.detach().clone()
        else:
            copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_DEVICES[kind])
        return copy if is_buffer else nn.Parameter(copy, requires_grad=tensor.requires_grad)

    def enter(self, tensor: torch.Tensor, name: str) -> None:
        number = len(self.sources)
        setattr(tensor, _REFERENCE, ("source", number))
        self.sources.append(self.describe(tensor))
        self.names.append(name)
        self.memory.birth(tensor, "input")

    def describe(self, tensor: torch.Tensor) -> records.Tensor:
        shape = tuple(int(n) for n in tensor.shape)
        dtype = str(tensor.dtype).removeprefix("torch.")
        size = tensor.numel() * tensor.element_size()
        reference = getattr(tensor, _REFERENCE, None)
        if reference is None:
            owner = self.owners.get(_storage(tensor))
            reference = owner and ("step", *owner)
        match reference:
            case ("step", int(step), int(output)):
                return records.Tensor(shape, dtype, size, step=step, output=output)
            case ("source", int(number)):
                return records.Tensor(shape, dtype, size, source=number)
            case ("parameter", str(name)):
                self.used.add(name)
                return records.Tensor(shape, dtype, size, parameter=name)
        return records.Tensor(shape, dtype, size)

    # --- steps -------------------------------------------------------------------------------------------------------
    def begin(self, op: str, arguments: dict[str, Any], overwrites: bool) -> Step:
        """The step as it is before its call: no outputs yet."""
        tensors: list[records.Tensor] = []
        stale = False

        def readable(value: Any) -> Any:
            nonlocal stale
            if isinstance(value, torch.Tensor):
                tensor = self.describe(value)
                tensors.append(tensor)
                made = -1 if tensor.step is None else tensor.step
                stale |= self.written.get(_storage(value), -1) > made
                return tensor
            if isinstance(value, (list, tuple)):
                return (
                    type(value)(readable(item) for item in value)
                    if type(value) in (list, tuple)
                    else [readable(i) for i in value]
                )
            return value

        named = {name: readable(value) for name, value in arguments.items()}
        path, module, leaf, call = self.stack[-1] if self.stack else ("", self.model, False, 0)
        return Step(len(self.steps), path, call, module, leaf, op, named, tuple(tensors), (), overwrites, stale=stale)

    def end(self, begun: Step, result: Any) -> None:
        outputs = _tensors(result)
        if not outputs:
            return
        number = len(self.steps)
        for which, tensor in enumerate(outputs):
            setattr(tensor, _REFERENCE, ("step", number, which))
            self.owners[_storage(tensor)] = (number, which)
            if begun.in_place:
                self.written[_storage(tensor)] = number
        made = tuple(
            records.Tensor(
                tuple(t.shape), str(t.dtype).removeprefix("torch."), t.numel() * t.element_size(), number, which
            )
            for which, t in enumerate(outputs)
        )
        begun = Step(
            number,
            begun.path,
            begun.call,
            begun.module,
            begun.leaf,
            begun.op,
            begun.arguments,
            begun.tensors,
            made,
            begun.in_place,
            None,
            self.saved,
            begun.stale,
        )
        self.saved = 0
        self.steps.append(begun)

    def finish(self, result: Any) -> None:
        self.results = tuple(self.describe(tensor) for tensor in _tensors(result))

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """autograd packs a tensor for the backward pass: counted once per storage; parameters and inputs live anyway."""
        storage = _storage(tensor)
        if storage not in self.kept and self.memory.kind.get(storage) == "activation":
            self.kept.add(storage)
            self.saved += tensor.untyped_storage().nbytes()
        # An alias: packing an operator's own output as it is would tie a knot that is never freed.
        return tensor.detach()

    @contextlib.contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """While this lasts, the stack says which module is running."""
        handles = []
        for path, module in model.named_modules():
            leaf = next(module.children(), None) is None
            forward = forward_of(module)
            if forward is not None:
                module.__dict__["forward"] = forward  # put back by _untouched
            handles.append(
                module.register_forward_pre_hook(self._enter_module(path, leaf), prepend=True, with_kwargs=True)
            )
            handles.append(module.register_forward_hook(self._leave_module(), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter_module(self, path: str, leaf: bool) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            count = self.called.get(path, 0)
            self.called[path] = count + 1
            self.entered = path
            entry = rule_of(type(module)) if not self.quiet and "forward" not in module.__dict__ else None
            self.stack.append((path, type(module).__name__, leaf or entry is not None, count))
            if entry is not None:
                begun = self.begin(
                    entry.operator or type(module).__name__,
                    {**_whole(entry.signature, module, args), **kwargs, "module": module},
                    False,
                )
                self.wholes.append((len(self.stack), begun))
                self.attempt = begun
                self.quiet += 1

        return enter

    wholes: list[tuple[int, Step]] = field(default_factory=list)

    def _leave_module(self) -> Callable[..., None]:
        def leave(_module: nn.Module, _args: Any, result: Any) -> None:
            if self.wholes and self.wholes[-1][0] == len(self.stack):
                _, begun = self.wholes.pop()
                self.quiet -= 1
                if result is not None:
                    self.end(begun, result)
                    self.attempt = None
            if self.stack:
                self.stack.pop()

        return leave

    def trace(self) -> Trace:
        return Trace(
            self.model,
            self.training,
            tuple(self.sources),
            tuple(self.names),
            tuple(self.steps),
            self.results,
            tuple(self.listed),
            tuple(self.modules),
            frozenset(self.called),
            frozenset(self.used),
            self.memory.allocations(),
        )


class _Calls(TorchFunctionMode):
    """Hears the public calls of torch."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        recorder, kwargs = self.recorder, kwargs or {}
        if recorder.quiet or not recorder.listening:
            return func(*args, **kwargs)
        name = function_name(func)
        entry = rule_of(name) if name else None
        if name is None or entry is None:
            return func(*args, **kwargs)
        overwrites = in_place(getattr(func, "__name__", "")) or bool(kwargs.get("inplace"))
        begun = recorder.begin(name, {**_named(entry.signature, args), **kwargs}, overwrites)
        recorder.attempt = begun
        recorder.quiet += 1
        try:
            result = func(*args, **kwargs)
        finally:
            recorder.quiet -= 1
        recorder.end(begun, args[0] if name == "setitem" else result)
        recorder.attempt = None
        return result


class _Memory(TorchDispatchMode):
    """Hears every elementary operator: records those outside a known call, and every storage's birth and death."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would wrap this class against torch.compile, whose import takes a second."""
        return False

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.clock = 0
        self.kind: dict[int, str] = {}
        self.born: list[tuple[int, int, str]] = []
        self.died: dict[int, int] = {}
        self.living: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        recorder, kwargs = self.recorder, kwargs or {}
        record = recorder.listening and not recorder.quiet
        if record:
            name = operator_name(func)
            schema = func._schema
            named = {("input" if a.name == "self" else a.name): v for a, v in zip(schema.arguments, args, strict=False)}
            name, named = in_torchs_words(name, {**named, **kwargs})
            begun = recorder.begin(name, named, schema.is_mutable)
            recorder.attempt = begun
        result = shapes.run(func, args, kwargs)
        for tensor in _tensors(result):
            self.birth(tensor, "gradient" if recorder.in_backward else "activation")
        if record:
            recorder.end(begun, result)
            recorder.attempt = None
        return result

    def birth(self, tensor: torch.Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key = int(storage._cdata)
        if key in self.living:
            return
        number = len(self.born)
        self.living[key] = number
        self.kind[key] = kind
        self.clock += 1
        self.born.append((self.clock, storage.nbytes(), kind))
        weakref.finalize(storage, self._death, key, number).atexit = False

    def _death(self, key: int, number: int) -> None:
        if self.living.get(key) == number:
            del self.living[key]
            self.kind.pop(key, None)
            self.recorder.owners.pop(key, None)
            self.recorder.written.pop(key, None)
            self.recorder.kept.discard(key)
        self.clock += 1
        self.died[number] = self.clock

    def allocations(self) -> tuple[Allocation, ...]:
        return tuple(
            Allocation(birth, self.died.get(number), size, kind) for number, (birth, size, kind) in enumerate(self.born)
        )


def _whole(signature: Sequence[str], module: nn.Module, args: Sequence[Any]) -> dict[str, Any]:
    """The arguments of a module that is one step: its attributes named by the rule's signature, and what it is called with."""
    attributes = {name: getattr(module, name) for name in signature if hasattr(module, name)}
    return {**attributes, **{f"argument{number}": value for number, value in enumerate(args)}}


def _named(signature: Sequence[str], args: Sequence[Any]) -> dict[str, Any]:
    """Positional arguments by name; those beyond the signature, together, as `rest` (Tensor.view(2, 3), permute(0, 2, 1))."""
    if len(args) <= len(signature):
        return dict(zip(signature, args, strict=False))
    extra = len(args) - len(signature)
    if not signature:
        return {f"argument{number}": value for number, value in enumerate(args)}
    return {**dict(zip(signature, args, strict=False)), "rest": tuple(args[-extra:])}


def _tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in a result, in order: a tensor, or any nesting of tuples, lists, dicts and simple objects of them."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [tensor for name in value.__dataclass_fields__ for tensor in _tensors(getattr(value, name))]
    return []


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
