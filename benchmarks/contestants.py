"""Who computes a problem of benchmarks/ops.py: ours, torch in both layouts, and the other libraries; and the exact result in float64.

Each contestant is a function of no arguments, prepared so that only what a user waits for is timed: libraries that keep packed weights
(ONNX Runtime, OpenVINO) have packed them before, torch and ours are given both tensors in every call.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import convolve
from benchmarks.problems import Row
from convolve.ops.call import ConvCall
from convolve.ops.choose import ranked, served
from convolve.ops.named_kernels import named_kernel
from convolve.ops.rule import convolve as by_role
from convolve.problem import ConvProblem

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
OPTIONAL = ("onnxruntime", "openvino", "opencv", "scipy")


@dataclass(frozen=True)
class Contestant:
    """`run` is timed; `value` makes a torch tensor in channels-first shape of what it returned."""

    run: Callable[[], Any]
    value: Callable[[Any], Tensor] = lambda result: result
    scope: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext


@dataclass(frozen=True)
class Field:
    """All contestants of one row, why others are absent, and what they are compared with."""

    exact: Tensor
    bound: float
    macs: int
    bytes: int
    algorithm: dict[str, str]
    contestants: dict[str, Contestant]
    absent: dict[str, str] = field(default_factory=dict)


def field_of(row: Row, wanted: tuple[str, ...] | None = None) -> Field:
    """The contestants of one row; only those `wanted`, if given."""
    if not row.pooling:
        return _convolution(row, wanted)
    return _unfold(row) if " unfold " in row.problem else _pooling(row, wanted)


def _convolution(row: Row, wanted: tuple[str, ...] | None) -> Field:
    problem = ConvProblem.parse(row.problem)
    transposed = "transposed" in row.problem.split()
    a, b = _operands(problem, row.kernel)
    found: dict[str, Contestant] = {}
    algorithm: dict[str, str] = {}
    layouts = {"": lambda t: t, " last": lambda t: t.contiguous(memory_format=LAST[t.dim()])}
    for suffix, convert in layouts.items():
        if suffix and problem.axes == 1:
            continue
        x, w = convert(a), convert(b)
        stored = replace(problem, layout="channels_last" if suffix else "channels_first")
        found[f"torch{suffix}"] = Contestant(_torchs(problem, transposed, x, w))
        for precision in ("default", "exact"):
            name = ("ours" if precision == "default" else "ours exact") + suffix
            algorithm[name] = ranked(stored, "auto", precision, row.frozen)[0].name
            if precision == "exact" and algorithm[name] == algorithm["ours" + suffix]:
                continue  # the same call
            scope = contextlib.nullcontext if precision == "default" else _exactly
            found[name] = Contestant(_ours(problem, transposed, x, w, precision, row.frozen), scope=scope)
    absent: dict[str, str] = {}
    for name in OPTIONAL:
        if wanted is not None and name not in wanted:
            continue
        try:
            found[name] = _PEERS[name](problem, transposed, a, b)
        except Exception as error:
            absent[name] = str(error).strip().splitlines()[0] if isinstance(error, AbsentError) else _reason(error)
    if wanted is not None:
        found = {name: contestant for name, contestant in found.items() if name in wanted}
    bound = max(_bound(problem, name) for name in algorithm.values())
    return Field(_exact(problem, a, b), bound, problem.macs, problem.bytes, algorithm, found, absent)


def _bound(problem: ConvProblem, name: str) -> float:
    row = next(row for row in _table() if row.name == name)
    return row.bound(served(row, problem))


def _table() -> tuple[convolve.Algorithm, ...]:
    from convolve.ops.algorithms import ALGORITHMS

    return ALGORITHMS


@contextlib.contextmanager
def _exactly() -> Iterator[None]:
    with convolve.precision("exact"):
        yield


def _operands(problem: ConvProblem, kernel: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, problem.dtype)
    a, b = (torch.randn(shape, generator=generator, dtype=dtype) for shape in problem.operand_shapes)
    if kernel == "gaussian":
        line = torch.exp(-((torch.arange(problem.window.kernel[0]) - problem.window.kernel[0] // 2) ** 2) / 8.0)
        b = (torch.outer(line, line) / line.sum() ** 2).to(dtype).expand(problem.weight_shape).contiguous()
    elif kernel:
        b = named_kernel(kernel.replace("_", "-")).kernels[0].to(dtype).expand(problem.weight_shape).contiguous()
    return a, b


def _text(problem: ConvProblem, precision: str) -> str:
    extra = problem.unused if problem.role == "input_gradient" else ()
    return str(ConvCall(problem.window, problem.groups, problem.role, extra, "auto", precision))


def _ours(
    problem: ConvProblem, transposed: bool, a: Tensor, b: Tensor, precision: str, frozen: bool
) -> Callable[[], Any]:
    window, axes = problem.window, problem.axes
    padding = tuple(p for p, _ in window.padding)
    if frozen:
        kind = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[axes - 1]
        settings = (window.kernel, window.stride, padding, window.dilation, problem.groups, False)
        layer = kind(problem.channels, problem.filters, *settings, dtype=a.dtype)
        layer.weight = torch.nn.Parameter(b, requires_grad=False)
        convolve.accelerate(layer, freeze=True)
        return lambda: layer(a)
    if problem.role == "output":
        forward = (convolve.conv1d, convolve.conv2d, convolve.conv3d)[axes - 1]
        stride, dilation, groups = window.stride, window.dilation, problem.groups
        return lambda: forward(a, b, None, stride, padding, dilation, groups)
    if transposed:
        backward = (convolve.conv_transpose1d, convolve.conv_transpose2d, convolve.conv_transpose3d)[axes - 1]
        return lambda: backward(a, b, None, window.stride, padding, problem.unused, problem.groups, window.dilation)
    text = _text(problem, precision)
    return lambda: by_role(a, b, None, text)


def _torchs(problem: ConvProblem, transposed: bool, a: Tensor, b: Tensor) -> Callable[[], Any]:
    window, axes, groups = problem.window, problem.axes, problem.groups
    padding = [p for p, _ in window.padding]
    if problem.role == "output":
        forward = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
        return lambda: forward(a, b, None, window.stride, padding, window.dilation, groups)
    if transposed:
        backward = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        return lambda: backward(a, b, None, window.stride, padding, problem.unused, groups, window.dilation)
    by_input = problem.role == "input_gradient"
    x = torch.empty(problem.input_shape, dtype=a.dtype) if by_input else a
    w = b if by_input else torch.empty(problem.weight_shape, dtype=a.dtype)
    if a.dim() in LAST and not a.is_contiguous():
        x, w = (t.contiguous(memory_format=LAST[t.dim()]) for t in (x, w))
    g = a if by_input else b
    settings = (
        None,
        window.stride,
        padding,
        window.dilation,
        False,
        [0] * axes,
        groups,
        [by_input, not by_input, False],
    )
    return lambda: torch.ops.aten.convolution_backward(g, x, w, *settings)[0 if by_input else 1]


def _exact(problem: ConvProblem, a: Tensor, b: Tensor) -> Tensor:
    """In float64: by Fourier transform for large kernels of single channels, where torch would need gigabytes, else by torch."""
    a, b, window = a.double(), b.double(), problem.window
    plain = {*window.stride, *window.dilation} == {1} and problem.groups == problem.channels
    if problem.role == "output" and plain and math.prod(window.kernel) >= 49:
        padded = F.pad(a, [side for pair in reversed(window.padding) for side in pair])
        axes = tuple(range(-problem.axes, 0))
        size = padded.shape[2:]
        data = torch.fft.rfftn(padded, dim=axes)
        weight = b.flip(axes)[:, 0]
        each = problem.filters // problem.groups
        results = []
        for k in range(problem.filters):
            product = data[:, k // each] * torch.fft.rfftn(weight[k], s=size, dim=axes)
            whole = torch.fft.irfftn(product, s=size, dim=axes)
            results.append(whole[(slice(None), *(slice(r - 1, None) for r in window.kernel))])
        return torch.stack(results, 1)
    return _torchs(replace(problem, dtype="float64"), False, a, b)()


# -- other libraries


class AbsentError(Exception):
    """Why a library takes no part in a row."""


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "not installed (pip install 'convolve[bench]')"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


def _model(problem: ConvProblem, transposed: bool, b: Tensor) -> bytes:
    """The problem as an ONNX model with its weight inside."""
    from onnx import TensorProto, helper, numpy_helper

    if problem.role != "output" and not transposed:
        raise AbsentError("no gradients")
    window = problem.window
    attributes: dict[str, Any] = {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "dilations": window.dilation,
        "pads": [p for p, _ in window.padding] + [q for _, q in window.padding],
        "group": problem.groups,
    }
    if transposed:
        attributes["output_padding"] = problem.unused
    node = helper.make_node("ConvTranspose" if transposed else "Conv", ["x", "w"], ["y"], **attributes)
    weight = numpy_helper.from_array(b.contiguous().numpy(), "w")
    return _onnx(node, problem.operand_shapes[0], problem.result_shape, problem.dtype, [weight], TensorProto, helper)


def _onnx(
    node: Any,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    dtype: str,
    weights: list[Any],
    kinds: Any,
    helper: Any,
) -> bytes:
    kind = kinds.DOUBLE if dtype == "float64" else kinds.FLOAT
    x = helper.make_tensor_value_info("x", kind, input_shape)
    y = helper.make_tensor_value_info("y", kind, output_shape)
    model = helper.make_model(
        helper.make_graph([node], "one", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    content: bytes = model.SerializeToString()
    return content


def _onnxruntime(content: bytes, x: Tensor) -> Contestant:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {"x": x.contiguous().numpy()}
    return Contestant(lambda: session.run(None, feed), lambda result: torch.from_numpy(result[0]))


def _openvino(content: bytes, x: Tensor) -> Contestant:
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f64" if x.dtype == torch.float64 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = core.compile_model(core.read_model(content), "CPU", settings).create_infer_request()
    array = x.contiguous().numpy()

    def run() -> Any:
        return request.infer([array], share_inputs=True, share_outputs=True)[0]

    return Contestant(run, lambda result: torch.from_numpy(np.array(result)))


def _conv_onnxruntime(problem: ConvProblem, transposed: bool, a: Tensor, b: Tensor) -> Contestant:
    return _onnxruntime(_model(problem, transposed, b), a)


def _conv_openvino(problem: ConvProblem, transposed: bool, a: Tensor, b: Tensor) -> Contestant:
    if problem.dtype == "float64":
        raise AbsentError("computes float64 in float32")
    return _openvino(_model(problem, transposed, b), a)


def _conv_opencv(problem: ConvProblem, _: bool, a: Tensor, b: Tensor) -> Contestant:
    """filter2D per channel, or over all channels at once where they share their kernel; sepFilter2D where that has rank one."""
    window = problem.window
    same = all(p == q == k // 2 for (p, q), k in zip(window.padding, window.kernel, strict=True))
    image = problem.axes == 2 and problem.batch == 1 and problem.groups == problem.channels and problem.channels <= 3
    if problem.role != "output" or not image or not same or {*window.stride, *window.dilation} != {1}:
        raise AbsentError("filters images only")
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    kernels, each = b[:, 0].numpy(), problem.filters // problem.channels
    shared = each == 1 and all((kernels[0] == kernel).all() for kernel in kernels)
    if shared:
        interleaved = np.ascontiguousarray(a[0].permute(1, 2, 0).numpy())
        left, values, right = np.linalg.svd(kernels[0].astype(np.float64))
        if values[1] < 1e-6 * values[0]:
            column, line = left[:, 0] * values[0], right[0]
            return Contestant(
                lambda: cv2.sepFilter2D(interleaved, -1, line, column, borderType=cv2.BORDER_CONSTANT), _planar
            )
        return Contestant(lambda: cv2.filter2D(interleaved, -1, kernels[0], borderType=cv2.BORDER_CONSTANT), _planar)
    planes = [a[0, k // each].numpy() for k in range(problem.filters)]
    return Contestant(
        lambda: [
            cv2.filter2D(plane, -1, kernel, borderType=cv2.BORDER_CONSTANT)
            for plane, kernel in zip(planes, kernels, strict=True)
        ],
        lambda result: torch.stack([torch.from_numpy(plane) for plane in result])[None],
    )


def _planar(result: Any) -> Tensor:
    image = torch.from_numpy(result)
    return image[None, None] if image.dim() == 2 else image.permute(2, 0, 1)[None]


def _conv_scipy(problem: ConvProblem, _: bool, a: Tensor, b: Tensor) -> Contestant:
    """The faster of fftconvolve and oaconvolve (overlap and add)."""
    window = problem.window
    plain = {*window.stride, *window.dilation} == {1} and problem.batch == problem.channels == problem.filters == 1
    if problem.role != "output" or not plain or math.prod(window.kernel) < 49:
        raise AbsentError("a convolution of one channel by a large kernel only")
    import scipy.fft
    import scipy.signal

    x, w = a[0, 0].numpy(), np.ascontiguousarray(b[0, 0].flip(tuple(range(problem.axes))).numpy())
    threads = torch.get_num_threads()

    def by(function: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> Any:
            with scipy.fft.set_workers(threads):
                return function(x, w, mode="same")

        return run

    from benchmarks.record import best_seconds

    functions = [by(scipy.signal.fftconvolve), by(scipy.signal.oaconvolve)]
    fastest = min(functions, key=lambda run: best_seconds(run, 2))
    return Contestant(fastest, lambda result: torch.from_numpy(result)[None, None])


_PEERS: dict[str, Callable[[ConvProblem, bool, Tensor, Tensor], Contestant]] = {
    "onnxruntime": _conv_onnxruntime,
    "openvino": _conv_openvino,
    "opencv": _conv_opencv,
    "scipy": _conv_scipy,
}


# -- pooling


@dataclass(frozen=True)
class PoolText:
    """A pooling row's text, read."""

    shape: tuple[int, ...]
    kind: str
    kernel: tuple[int, ...]
    stride: int
    padding: int
    pass_: str

    @staticmethod
    def parse(text: str) -> PoolText:
        shape, kind, kernel, *words = text.split()
        numbers = {word[0]: int(word[1:]) for word in words if word[1:].isdigit()}
        (pass_,) = [word for word in words if word in ("train", "backward")] or ("forward",)
        split = (tuple(map(int, word.split("x"))) for word in (shape, kernel))
        return PoolText(next(split), kind, next(split), numbers.get("s", 1), numbers.get("p", 0), pass_)


def _pooling(row: Row, wanted: tuple[str, ...] | None) -> Field:
    pool = PoolText.parse(row.problem)
    x = torch.randn(pool.shape, generator=torch.Generator().manual_seed(0))
    settings = (pool.kernel, pool.stride, pool.padding)
    functions = {"max": (convolve.max_pool2d, F.max_pool2d), "avg": (convolve.avg_pool2d, F.avg_pool2d)}[pool.kind]
    outputs = functions[1](x, *settings)
    g = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    found: dict[str, Contestant] = {}
    for suffix, memory in (("", torch.contiguous_format), (" last", torch.channels_last)):
        data, gradient = x.contiguous(memory_format=memory), g.contiguous(memory_format=memory)
        for name, function in zip(("ours", "torch"), functions, strict=True):
            found[name + suffix] = Contestant(_pooled(function, data, gradient, settings, pool.pass_), Tensor.detach)
    exact = _pooled(functions[1], x.double(), g.double(), settings, pool.pass_)().detach()
    absent: dict[str, str] = {"opencv": "no pooling", "scipy": "no pooling"}
    for name, peer in (("onnxruntime", _onnxruntime), ("openvino", _openvino)):
        if wanted is not None and name not in wanted:
            continue
        try:
            if pool.pass_ != "forward":
                raise AbsentError("no gradients")
            found[name] = peer(_pool_model(pool, tuple(outputs.shape)), x)
        except Exception as error:
            absent[name] = str(error) if isinstance(error, AbsentError) else _reason(error)
    if wanted is not None:
        found = {name: contestant for name, contestant in found.items() if name in wanted}
    operations = outputs.numel() * math.prod(pool.kernel)
    elements = x.numel() + outputs.numel()
    # What a backward pass must know: a maximum's place; eight bytes in torch, one is enough.
    elements += outputs.numel() // 4 if pool.kind == "max" and pool.pass_ != "forward" else 0
    return Field(exact, 1e-6, operations, 4 * elements, {}, found, absent)


def _pooled(
    function: Callable[..., Any], x: Tensor, g: Tensor, settings: tuple[Any, ...], pass_: str
) -> Callable[[], Any]:
    if pass_ == "forward":
        return lambda: function(x, *settings)
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()

    def recorded() -> Any:
        with torch.enable_grad():
            return function(leaf, *settings)

    if pass_ == "train":
        return recorded
    y = recorded()
    return lambda: torch.autograd.grad(y, leaf, g, retain_graph=True)[0]


def _pool_model(pool: PoolText, output_shape: tuple[int, ...]) -> bytes:
    from onnx import TensorProto, helper

    attributes: dict[str, Any] = {
        "kernel_shape": pool.kernel,
        "strides": [pool.stride] * 2,
        "pads": [pool.padding] * 4,
    }
    if pool.kind == "avg":
        attributes["count_include_pad"] = 1
    node = helper.make_node("MaxPool" if pool.kind == "max" else "AveragePool", ["x"], ["y"], **attributes)
    return _onnx(node, pool.shape, output_shape, "float32", [], TensorProto, helper)


def _unfold(row: Row) -> Field:
    pool = PoolText.parse(row.problem)
    x = torch.randn(pool.shape, generator=torch.Generator().manual_seed(0))
    found = {
        "ours": Contestant(lambda: convolve.unfold(x, pool.kernel, 1, pool.padding, pool.stride)),
        "torch": Contestant(lambda: F.unfold(x, pool.kernel, 1, pool.padding, pool.stride)),
    }
    exact = F.unfold(x.double(), pool.kernel, 1, pool.padding, pool.stride)
    absent = dict.fromkeys(OPTIONAL, "no such operator")
    return Field(exact, 0.0, 0, 4 * (x.numel() + exact.numel()), {}, found, absent)
