"""The answers of analysis/shapes.py against torch's own meta kernels, and what they spare a process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor

from convolve.analysis import shapes

aten = torch.ops.aten


def meta(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


def described(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [described(item) for item in value]
    return tuple(value.shape), value.stride(), value.dtype, value.device.type


def outcome(run: Any) -> Any:
    try:
        return described(run())
    except (RuntimeError, IndexError, ValueError) as error:
        return type(error).__name__


def convolutions() -> list[tuple[Any, ...]]:
    cases: list[tuple[Any, ...]] = []
    for k, s, p, d, transposed, extra, groups in itertools.product(
        (1, 2, 5), (1, 3), (0, 2), (1, 2), (False, True), (0, 1, 2), (1, 2, 3)
    ):
        if extra and not transposed:
            continue
        weight = meta(4, 6 // max(1, groups), k, 3) if transposed else meta(6, 4 // groups, k, 3)
        bias = meta(6 // groups * groups) if k == 2 else None
        cases.append((meta(2, 4, 7, 4), weight, bias, [s, s], [p, 0], [d, 1], transposed, [extra, 0], groups))
    cases += [
        (meta(2, 4, 7), meta(6, 4, 3), None, [2], [1], [1], False, [0], 1),
        (meta(2, 4, 7, 5, 6), meta(6, 4, 3, 2, 1), meta(6), [2], [1], [1], False, [0], 1),
        (meta(1, 2, 3, 4, 5), meta(2, 3, 2, 2, 2), None, [2], [0], [1], True, [1], 1),
        (meta(0, 4, 7), meta(6, 4, 3), None, [2], [1], [1], False, [0], 1),
        (meta(2, 5, 7), meta(6, 4, 3), None, [2], [1], [1], False, [0], 1),
        (meta(2, 4, 2), meta(6, 4, 3), None, [1], [0], [1], False, [0], 1),
        (meta(2, 4, 7, dtype=torch.float64), meta(6, 4, 3), None, [1], [0], [1], False, [0], 1),
        (meta(2, 4, 7, 6).contiguous(memory_format=torch.channels_last), meta(6, 4, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        (meta(2, 4, 7, 6), meta(6, 4, 3, 3), meta(5), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    ]  # fmt: skip
    return cases


OTHERS: list[tuple[Any, tuple[Any, ...]]] = [
    *((op, (x,)) for op in (aten.relu.default, aten.sigmoid.default, aten.tanh.default, aten.hardtanh.default, aten.relu_.default)
      for x in (meta(2, 3, 5), meta(3, 2).t(), meta(0, 4), meta(4, dtype=torch.float64))),
    *((op, (x, y)) for op in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)
      for x, y in ((meta(2, 3, 5), meta(2, 3, 5)), (meta(2, 3, 5), meta(3, 1)), (meta(3, 1), meta(2, 3, 5)), (meta(2, 3), meta(4, 3)),
                   (meta(2, 3), 2), (meta(2, 3), 1.5), (meta(2, 3), meta(2, 3, dtype=torch.float64)), (meta(2, 3), meta()),
                   (meta(2, 3), 1j), (meta(3, 2).t(), meta(2, 3)), (meta(2, 3, dtype=torch.int64), meta(2, 3)))),
    *((aten.pow.Tensor_Scalar, (meta(2, 3), e)) for e in (2, 0.75, 1j)),
    *((aten.mean.dim, (x, dims, keep)) for x in (meta(2, 3, 5), meta(2, 3, 5, dtype=torch.float16))
      for dims in ([1], [-1, 0], [0, 0], [3], None, []) for keep in (False, True)),
    *((aten.cat.default, (ts, dim)) for dim in (0, 1, -1, 4)
      for ts in ([meta(2, 3), meta(2, 3)], [meta(2, 3), meta(2, 4)], [meta(2, 3), meta(0)], [meta(2, 3), meta(2, 3, dtype=torch.float64)])),
    *((aten.max_pool2d_with_indices.default, (meta(2, 3, 7, 6), [k, 2], s, [p, 0], [d, 1], ceil))
      for k in (1, 3) for s in ([], [2], [3, 2]) for p in (0, 1, 2) for d in (1, 2) for ceil in (False, True)),
    (aten.max_pool2d_with_indices.default, (meta(3, 7, 6), [3, 3])),
    (aten.max_pool2d_with_indices.default, (meta(2, 3, 7, 6), [8, 8])),
    *((aten.avg_pool2d.default, (meta(2, 3, 7, 6), [k], s, [p], ceil, True))
      for k in (1, 3) for s in ([], [2]) for p in (0, 1, 2) for ceil in (False, True)),
    (aten.avg_pool3d.default, (meta(2, 3, 7, 6, 5), [3, 2, 1], [2], [1, 0, 0], True)),
    (aten.avg_pool3d.default, (meta(2, 3, 7, 6, 5), [3, 2, 1], [2], [1, 1, 0], True)),
    (aten.native_batch_norm.default, (meta(2, 3, 5, 5), meta(3), meta(3), meta(3), meta(3), False, 0.1, 1e-5)),
    (aten.native_batch_norm.default, (meta(2, 3, 5, 5), None, None, meta(3), meta(3), False, 0.1, 1e-5)),
    (aten.native_batch_norm.default, (meta(2, 3, 5, 5), meta(3), meta(3), meta(3), meta(3), True, 0.1, 1e-5)),
    *((aten.addmm.default, case) for case in (
        (meta(5), meta(2, 3), meta(5, 3).t()), (meta(5), meta(2, 3), meta(3, 5)), (meta(4), meta(2, 3), meta(3, 5)),
        (meta(2, 5), meta(2, 3), meta(3, 5)), (meta(5), meta(2, 4), meta(3, 5)), (meta(5), meta(2, 3), meta(3, 5, dtype=torch.float64)))),
    *((op, (meta(2, 3), *rest)) for op, rest in ((aten.zero_.default, ()), (aten.fill_.Scalar, (1.0,)), (aten.uniform_.default, (0.0, 1.0)),
                                                 (aten.normal_.default, (0.0, 1.0)))),
]  # fmt: skip


def test_every_answer_is_the_one_torch_gives() -> None:
    answered = set()
    for operator, args in [*((aten.convolution.default, case) for case in convolutions()), *OTHERS]:
        theirs = outcome(lambda operator=operator, args=args: operator(*args))
        ours = outcome(lambda operator=operator, args=args: shapes.run(operator, args, {}))
        assert ours == theirs, (operator, [described(a) if isinstance(a, Tensor) else a for a in args])
        kernel = shapes._TABLE[operator]
        if not isinstance(theirs, str) and kernel(*args) is not None:
            answered.add(operator)
    assert answered == set(shapes._TABLE)


def test_a_table_needs_neither_torchs_compiler_nor_anything_that_draws_or_learns() -> None:
    code = (
        "import sys; from convolve.cli import main; "
        "print([main(['inspect', model]) for model in ('vgg16', 'googlenet', 'resnet18')], file=sys.stderr); "
        "print([m for m in ('torch._dynamo', 'sympy', 'matplotlib', 'sklearn', 'onnx', 'PIL', 'jinja2', 'scipy') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.strip() == "[0, 0, 0]"
    assert "15,470,264,320" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
