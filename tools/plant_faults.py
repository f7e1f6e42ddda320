"""Plant faults in the operators' code, one at a time, and see whether the tests notice.

    python tools/plant_faults.py [--only WORD] [--workers N] [--out benchmarks/results/faults.json]

A fault is a small wrong edit of one file: stride axes swapped, 'same' padded on the wrong side, a group rotated, a bound
forgotten. Each is planted in a copy of the project, and the fast tests of the operators run there until the first failure.
Exit code 4 when fewer than 95 % are noticed. Survivors are listed: each is a test to write, or an edit that changes nothing.
"""

# ruff: noqa: E501

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.update(CONVOLVE_FAULTS="1", OMP_NUM_THREADS="1")  # before torch is imported
sys.dont_write_bytecode = True  # an edit within a second would run the old bytecode

# Imported once, here; each fault runs in a fork. Never our own package, of which every fork has its own copy.
import hypothesis  # noqa: E402, F401
import pytest  # noqa: E402
import scipy.signal  # noqa: E402, F401
import torch  # noqa: E402
import torch._dynamo  # noqa: E402

PROJECT = Path(__file__).resolve().parents[1]
FAST = [
    "tests/test_geometry.py",
    "tests/test_problem.py",
    "tests/ops/test_conv.py",
    "tests/ops/test_algorithms.py",
    "tests/ops/test_generated.py",
]
DOORS = ["tests/ops/test_doors.py"]
REWRITTEN = "ignore::pytest.PytestAssertRewriteWarning"  # hypothesis was imported before pytest could
WANTED = 0.95
SECONDS = 240


@dataclass(frozen=True)
class Fault:
    file: str
    old: str
    new: str
    number: int = 0


def _table() -> list[Fault]:
    """The faults, one per line of the lists below: what the code says, and what it says wrongly."""
    faults = [Fault(file, old, new) for file, edits in FAULTS.items() for old, new in edits]
    return [Fault(f.file, f.old, f.new, number) for number, f in enumerate(faults, 1)]


ROWS = "ops/algorithms/"
FAULTS: dict[str, list[tuple[str, str]]] = {
    "geometry.py": [
        ("d * (k - 1) + 1, \"kernel extent\") for k, d", "d * k, \"kernel extent\") for k, d"),
        ("start = output * s - self.padding[axis][0]", "start = output * s - self.padding[axis][1]"),
        ("position = start + tap * d", "position = start + tap"),
        ("if position % e == 0 and 0 <= position // e < size", "if position % e == 0 and 0 <= position // e <= size"),
        ("if position % e == 0 and", "if"),
        ("last = spread(size, e) - 1", "last = spread(size, e)"),
        ("first_j = max(0, -(offset // s))", "first_j = max(0, -(offset // s) - 1)"),
        ("last_j = min(outputs - 1, (last - offset) // s)", "last_j = min(outputs, (last - offset) // s)"),
        ("(checked(k - 1 - p, \"padding\"), checked(k - 1 - q + o", "(checked(k - 1 - q, \"padding\"), checked(k - 1 - p + o"),
        ("checked(k - 1 - q + o, \"padding\")", "checked(k - 1 - q, \"padding\")"),
        ("            self.dilation,\n            self.stride,\n        )", "            self.dilation,\n            self.input_dilation,\n        )"),
        ("return input_dilation * (size - 1) + 1 if size > 0 else 0", "return input_dilation * size if size > 0 else 0"),
        ("return (total - small, small) if lower else (small, total - small)", "return (small, total - small) if lower else (total - small, small)"),
        ("small = total // 2", "small = -(-total // 2)"),
        ("(-(-size // stride) - 1) * stride", "(size // stride - 1) * stride"),
        ("if isinstance(value, bool):", "if False:"),
        ("if at_least is not None and number < at_least:", "if at_least is not None and number < at_least - 1:"),
        ("if not -LARGEST - 1 <= number <= LARGEST:", "if not -LARGEST - 1 <= number:"),
        ("    if room < 0 and not (ceil and room > -s):", "    if room < -2 * s and not (ceil and room > -s):"),
        ("outputs = room // s + 1", "outputs = -(-room // s) + 1"),
        ("if ceil and room % s != 0 and outputs * s < spread(n, e) + p:", "if ceil and room % s != 0:"),
        ("return (last - remainder) // modulus - (first - 1 - remainder) // modulus", "return (last - remainder) // modulus - (first - remainder) // modulus"),
        ("if isinstance(outputs, int) and outputs > LARGEST:", "if False:"),
    ],
    "problem.py": [
        ("return self.channels // self.groups * math.prod(self.window.kernel)", "return self.channels * math.prod(self.window.kernel)"),
        ("first = self.output_shape if self.role == \"input_gradient\"", "first = self.output_shape if self.role == \"weight_gradient\""),
        ("size=self.output_size,\n                window=self.window.transposed(self.unused)", "size=self.output_size,\n                window=self.window.transposed()"),
        ("channels=self.groups * self.batch", "channels=self.batch"),
        ("tuple((p, q - u) for (p, q), u in", "tuple((p, q) for (p, q), u in"),
        ("            self.output_size,\n            self.window.dilation,", "            self.output_size,\n            self.window.stride,"),
        ("return (s if m > 1 else 1), (p, q), d, e", "return s, (p, q), d, e"),
        ("    if k == 1:\n        d = 1", "    if k == 2:\n        d = 1"),
        ("if count % groups != 0:", "if count % groups > 1:"),
        ("if padded < extent:", "if padded < extent - 1:"),
        ("extent - p - q + extra + e - 1", "extent - p - p + extra + e - 1"),
        ("(s * (m - 1) + extent - p - q + extra + e - 1) // e", "(s * (m - 1) + extent - p - q + e - 1) // e"),
        ("        if n < 0:\n            raise ShapeError(\n                \"the padding of", "        if n < -9:\n            raise ShapeError(\n                \"the padding of"),
        ("parts = zip(size, window.kernel, window.stride, window.dilation, strict=True)", "parts = zip(size, window.kernel, window.dilation, window.stride, strict=True)"),
        ("str(p) if p == q else f\"{p}:{q}\"", "str(p) if p == q else f\"{q}:{p}\""),
        ("if set(window.input_dilation) != {1} else []", "if set(window.input_dilation) == {9} else []"),
        ("channels=filters,\n                filters=channels,", "channels=channels,\n                filters=filters,"),
        ("self.batch * self.filters * (self.channels // self.groups) * valid", "self.batch * self.filters * self.channels * valid"),
        ("return int(before), int(after or before)", "return int(before), int(before)"),
    ],
    "ops/call.py": [
        ("int((spread(n, e) + p + q - extent) % s)", "0"),
        ("return (b[1], a[1] // self.groups, *self.window.kernel)", "return (b[1], a[1], *self.window.kernel)"),
        ("return (a[0], b[1] * self.groups, *transposed_size", "return (a[0], b[1], *transposed_size"),
        ("a.shape[1], b.shape[0] if self.role == \"output\" else b.shape[1]", "a.shape[1], b.shape[0]"),
        ("algorithm = self.algorithm if known else self.algorithm + WHERE_IT_CAN", "algorithm = self.algorithm"),
        ("f\" o{'x'.join(map(str, self.output_padding))}\" if any(self.output_padding) else \"\"", "\"\""),
    ],
    "ops/rule.py": [
        ("\"output\": ((\"input_gradient\", \"g\", \"b\"), (\"weight_gradient\", \"a\", \"g\"))", "\"output\": ((\"input_gradient\", \"g\", \"b\"), (\"weight_gradient\", \"a\", \"a\"))"),
        ("(\"weight_gradient\", \"g\", \"a\")", "(\"weight_gradient\", \"a\", \"g\")"),
        ("\"weight_gradient\": ((\"input_gradient\", \"b\", \"g\")", "\"weight_gradient\": ((\"input_gradient\", \"g\", \"b\")"),
        ("g.sum((0, *range(2, g.dim()))) if needed[2]", "g.mean((0, *range(2, g.dim()))) if needed[2]"),
        ("by(b, *by_b) if needed[1] else None", "by(b, *by_b) if needed[0] else None"),
        ("or forward_ad._current_level >= 0:", "or False:"),
        ("elif torch.is_grad_enabled() and (a.requires_grad or b.requires_grad or (bias is not None and bias.requires_grad)):", "elif torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):"),
        ("tangent if db is None else tangent + convolve(a, db, None, ctx.text)", "tangent"),
        ("return convolve(a, torch.zeros_like(b) if db is None else db, dbias, ctx.text)", "return convolve(a, torch.zeros_like(b) if db is None else db, None, ctx.text)"),
        ("groups=call.groups * copies", "groups=copies"),
        ("return t.flatten(0, 1) if weight else t.transpose(0, 1).flatten(1, 2)", "return t.flatten(0, 1) if weight else t.transpose(0, 1).transpose(1, 2).flatten(1, 2)"),
        ("memory_format=format_of(layout_of(a, b), a.dim() - 2)", "memory_format=torch.contiguous_format"),
        ("t.expand(copies, *t.shape) if dim is None else t.movedim(dim, 0)", "t.expand(copies, *t.shape) if dim is None else t.transpose(dim, 0)"),
    ],
    "ops/export.py": [
        ("a = a if equal else zero_pad(a, window.padding)", "a = a"),
        ("crop = [(-p, o - q) for (p, q), o in", "crop = [(-q, o - p) for (p, q), o in"),
        ("return with_bias(zero_pad(full, crop), bias)", "return zero_pad(full, crop)"),
        ("equal = all(p == q >= 0 for p, q in window.padding)", "equal = True"),
        ("return torch.convolution(a, b, bias, stride, sides, dilation, True, extra, groups)", "return torch.convolution(a, b, bias, stride, sides, dilation, True, zero, groups)"),
    ],
    "ops/roles.py": [
        ("flipped = b.flip(tuple(range(2, b.dim())))", "flipped = b"),
        ("swapped = flipped.reshape(g, k // g, cg, *kernel).transpose(1, 2)", "swapped = flipped.reshape(k // g, g, cg, *kernel).transpose(1, 2)"),
        ("x.reshape(n, groups, channels // groups, *size).permute(2, 1, 0", "x.reshape(n, channels // groups, groups, *size).permute(1, 2, 0"),
        ("return y.transpose(0, 1) if problem.role == \"weight_gradient\" else y", "return y"),
    ],
    "ops/windows.py": [
        ("sides = [max(0, side) for pair in reversed(padding) for side in pair]", "sides = [max(0, side) for pair in padding for side in pair]"),
        ("x = x.narrow(axis, start, stop - start)", "x = x.narrow(axis, 0, stop - start)"),
        ("zero_pad(x, [(-before, -after) for before, after in padding])", "zero_pad(x, [(-after, -before) for before, after in padding])"),
        ("*(step * s for step, s in zip(steps, stride, strict=True))", "*(step * s for step, s in zip(steps, reversed(stride), strict=True))"),
        ("*(step * d for step, d in zip(steps, dilation, strict=True))", "*(step for step, d in zip(steps, dilation, strict=True))"),
        ("        x.storage_offset(),\n", "        0,\n"),
        ("y = inner.index_add(axis,", "y = inner.index_copy(axis,"),
        ("(m, k, n), table.unbind(1)", "(m, k, m), table.unbind(1)"),
        ("\"reflect\": n - 1, \"circular\": n", "\"reflect\": n, \"circular\": n"),
        ("return positions.remainder(n)", "return positions.clamp(0, n - 1)"),
        ("return positions.clamp(0, n - 1)", "return positions.remainder(n)"),
        ("return (n - 1) - ((n - 1) - positions.abs()).abs()", "return (n - 1) - (n - 1 - positions).abs()"),
        ("for t in (a, b))", "for t in (a,))"),
    ],
    "ops/conv.py": [
        ("x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2)", "x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)"),
        ("x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)", "x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2)"),
        ("w = w.flip(tuple(range(2, axes + 2)))", "w = w.flip((2,))"),
        ("inside = tuple(min(o, s - 1) for o, s in", "inside = tuple(o for o, s in"),
        ("after = [(p, q - (o - i)) for", "after = [(p, q) for"),
        ("if o >= max(s, d):", "if o > max(s, d):"),
        ("high = low + max(s, d) - 1", "high = low + max(s, d)"),
        ("return tuple(n - low for n, low in", "return tuple(0 * n * low for n, low in"),
        ("x = mode_pad_adjoint(x, pairs, mode)", "x = mode_pad_adjoint(x, [(q, p) for p, q in pairs], mode)"),
        ("return x.to(wide), w.to(wide), None if bias is None else bias.to(wide)", "return x, w.to(x.dtype), None if bias is None else bias.to(x.dtype)"),
        ("if x.shape[1] != w.shape[1] * groups:", "if x.shape[1] < w.shape[1] * groups:"),
        ("if tensor.dtype != x.dtype:", "if name == \"weight\" and tensor.dtype != x.dtype:"),
        ("if bias is not None and tuple(bias.shape) != (channels,):", "if bias is not None and bias.dim() != 1:"),
        ("y = y.unflatten(1, (groups // maps, maps, -1)).transpose(2, 3).flatten(1, 2)", "y = y.unflatten(1, (groups // maps, -1, maps)).flatten(1, 2)"),
        ("return t.to(narrow) if t.is_floating_point() and t.dtype != torch.float64 else t", "return t"),
        ("return str(ConvCall(window, groups, role, output_padding, str(name), current_precision()))", "return str(ConvCall(window, groups, role, output_padding, str(name)))"),
        ("(x.is_cpu and weight.is_cpu) or (x.device, weight.device)", "x.device"),
        ("key = (arguments, x.shape,", "key = (arguments[1:], x.shape,"),
        ("weight.shape, layouts, x.dtype,", "weight.shape, x.dtype,"),
        ("if any(side < 0 for pair in window.padding", "if all(side < 0 for pair in window.padding"),
        ("late = mode != \"zeros\" or group_order", "late = group_order"),
        ("y = y[0] if single else y\n    return y[0] if plain else y", "y = y[0] if single else y\n    return y"),
    ],
    "ops/arguments.py": [
        ("lower=padding == \"same_lower\"", "lower=False"),
        ("if padding not in NAMED_PADDING:", "if False:"),
        ("if padding == \"valid\":", "if padding == \"same\":"),
    ],
    "ops/choose.py": [
        ("if precision == \"exact\" and not row.exact:", "if precision == \"exact\" and row.exact:"),
        ("if precision == \"reproducible\" and not row.reproducible:", "if False:"),
        ("return problem if problem.role in row.roles else problem.as_convolution()", "return problem"),
        ("        if known is algorithm:\n            return name", "        if known.name == algorithm.name:\n            return name"),
        ("return reason or row.not_automatic(served(row, problem))", "return reason"),
    ],
    "ops/costs.py": [
        ("MARGIN = 1.5", "MARGIN = 0.5"),
    ],
    "ops/execute.py": [
        ("if (not row.local and not row.looks(as_served)) or as_served is not problem:", "if False:"),
        ("    if plan.empty:", "    if False:"),
        ("nothing = with_bias(a.new_zeros(problem.result_shape), bias)", "nothing = a.new_zeros(problem.result_shape)"),
        ("    return result.contiguous(memory_format=plan.memory_format)\n\n\ndef _checked", "    return result\n\n\ndef _checked"),
        ("        if reason is None:\n            break", "        break"),
        ("with torch.autocast(a.device.type, enabled=False):", "with torch.autocast(a.device.type, enabled=True):"),
        ("result = roles.result(problem, result)", "pass"),
    ],
    "ops/precision.py": [
        ("    finally:\n        _CURRENT.name = before", "    finally:\n        _CURRENT.name = \"default\""),
        ("class _Current(threading.local):", "class _Current:"),
        ("if name not in PRECISIONS:", "if False:"),
    ],
    "ops/bounds.py": [
        ("return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype", "return dtype"),
        ("return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype", "return torch.float32 if dtype.is_floating_point else dtype"),
    ],
    ROWS + "direct.py": [
        ("            y += product", "            y -= product"),
        ("slice(t * d, t * d + s * (m - 1) + 1, s)", "slice(t, t + s * (m - 1) + 1, s)"),
        ("rest = terms[..., 2 * half :]", "rest = terms[..., 2 * half + 1 :]"),
        ("x[window] += y[:, :, k, None]", "x[window] = y[:, :, k, None]"),
        ("torch.mul(x[:, :, c, None][window], _column(w[:, :, c][tap], problem), out=product)\n            y += product", "y = torch.addcmul(y, x[:, :, 0, None][window], _column(w[:, :, c][tap], problem))"),
    ],
    ROWS + "im2col.py": [
        ("for start in range(0, n, step):", "for start in range(0, 1, step):"),
        ("rows = w.to(wide).reshape(g, problem.filters // g, taps)", "rows = w.to(wide).reshape(problem.filters // g, g, taps).transpose(0, 1)"),
        ("return with_bias(y.reshape", "return (y.reshape"),
    ],
    ROWS + "matrix.py": [
        ("index_add(3, inputs, entries)", "index_copy(3, inputs, entries)"),
        ("index_add(3, outputs, entries)", "index_copy(3, outputs, entries)"),
        ("    local=False,\n    not_automatic", "    local=True,\n    not_automatic"),
    ],
    ROWS + "fft.py": [
        (".conj().reshape(g,", ".reshape(g,"),
        ("step = tuple(t - k + 1 for t, k in", "step = tuple(t - k + 2 for t, k in"),
        ("slice(None, m, s) for m, s in zip(full, window.stride", "slice(s - 1, m, s) for m, s in zip(full, window.stride"),
        ("if math.isfinite(peak) and peak > _WIDEST_RANGE * smallest:", "if False:"),
        (".to(torch.float64)\n    w = stuff_zeros(w, window.dilation).to(torch.float64)", ".to(torch.float32)\n    w = stuff_zeros(w, window.dilation).to(torch.float32)"),
        ("w = stuff_zeros(w, window.dilation)", "w = w"),
        ("math.ceil(math.log2(least / three)))", "math.ceil(math.log2(least / three)) + 1)"),
        ("    local=False,\n    looks=looks,", "    local=True,\n    looks=looks,"),
    ],
    "ops/fourier_plan.py": [
        ("max(span.results, span.before + span.inputs,", "max(span.before + span.inputs,"),
        ("min(n, full + k - 1 - before)", "n"),
        ("root + Fraction(q, r) for root in roots", "root - Fraction(q, r) for root in roots"),
        ("return sine, cosine", "return cosine, sine"),
        ("else math.nan, min(smallest)", "else max(largest), min(smallest)"),
    ],
    "ops/fourier_lines.py": [
        ("at + part * (count // parts) * (2 * radix - 2)", "at"),
        ("-w[2] if turned else w[2]", "w[2]"),
    ],
    "kernels/butterflies.py": [
        ("plus, minus = (\"sub\", \"add\") if back else (\"add\", \"sub\")", "plus, minus = (\"add\", \"sub\")"),
        ("*times(f\"o{s}\", \"k\", True)", "*times(f\"o{s}\", \"k\", False)"),
    ],
    "kernels/fourier.py": [
        ("finite = fma({rounded}, zero(), finite)", "finite = fma(zero(), zero(), finite)"),
        ("{io[\"first\"]}(there, i * LANES, value, left)", "{io[\"store\"]}(there, i * LANES, value)"),
    ],
    "kernels/minimal_filtering.py": [
        ("Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)", "Fraction(1), Fraction(-1), Fraction(2), Fraction(-2)"),
        ("shifted = [Fraction(0), *coefficients]", "shifted = [*coefficients, Fraction(0)]"),
    ],
    ROWS + "winograd.py": [
        ("if {*window.dilation, *window.input_dilation} != {1}:", "if {*window.input_dilation} != {1}:"),
        (
            "base = BOUND[tile] * max(1.0, math.sqrt(_summed(tile, problem) / 256))",
            "base = BOUND[tile] * max(1.0, _summed(tile, problem) / 256)",
        ),
        ("    if any(other != taps for other in others):\n", "    if False:\n"),
        ("        local=False,\n        looks", "        local=True,\n        looks"),
        ("    if not finite:\n", "    if False:\n"),
        ("slice(size) for size in problem.output_size", "slice(1, size + 1) for size in problem.output_size"),
    ],
    ROWS + "images_winograd.py": [
        ("\"padded_w\": tiles * kernels.OUTPUTS + taps - 1", "\"padded_w\": tiles * kernels.OUTPUTS + taps - 2"),
        ("\"last\": int(problem.layout == \"channels_last\" and problem.axes > 1)", "\"last\": 0"),
        ("if not all(map(math.isfinite, flags.tolist())):", "if not math.isfinite(flags.tolist()[0]):"),
        ("    result = shares[0] if plan.threads == 1 else shares.sum(0)", "    result = shares[0]"),
    ],
    "kernels/images_winograd.py": [
        ("first_r, last_r = max(0, 0 - z), min(kernel_h, out_h - z)", "first_r, last_r = 0, min(kernel_h, out_h - z)"),
        ("kernel_h, 0 - w_r, w_s, weights)", "kernel_h, w_r, w_s, weights)"),
        ("    if count >= {outputs}:", "    if count >= 0:"),
        ("                    good = fma(value, zero(), good)", "                    good = fma(zero(), zero(), good)"),
        ("add(load(here, {i} * LANES), o{i})", "o{i}"),
        ("+ k % {tile} * {rows} + r % {rows}", "+ k % {tile} * {rows}"),
        ("h * lines_h + before_w * LANES)", "h * lines_h)"),
    ],
    "ops/winograd_call.py": [
        ("(sizes.channels // stride * sizes.panel, sizes.panel, stride * sizes.panel, 0)", "(sizes.panel, sizes.channels // stride * sizes.panel, stride * sizes.panel, 0)"),
        ("        flags=problem.batch,\n", "        flags=threads,\n"),
        ("before - s * first)", "0)"),
        ("(0, 0) if turned or stride == 1 else", "(1, 1) if stride > 1 else"),
        ("-(-k // s) - 1 - first", "-(-k // s) - 1 + first"),
        ("\"flipped\": int(turned)", "\"flipped\": 0"),
        ("strides[1] if turned else strides[0]", "strides[0] if turned else strides[1]"),
        ("key = (tile, id(problem), a.stride(), threads, prepared)", "key = (tile, id(problem), threads, prepared)"),
    ],
    "kernels/vector.py": [
        ("both = [j if i < 2 * lanes else i - lanes", "both = [j if i < 2 * lanes else i - 2 * lanes"),
    ],
    "kernels/scratch.py": [
        ("left = 3 * (count - i) - 2", "left = 3 * (count - i) - 3"),
        ("if first <= at and at + LANES <= last:", "if first <= at:"),
        ("if first <= at and at + LANES <= last:", "if at + LANES <= last:"),
    ],
    "kernels/planes.py": [
        ("stream(there, {k} * to_k + y{v}_at, s{k}_{v})", "stream(there, {k} * to_k + y{v}_at, s{v}_{v})"),
        ("{v} % vectors_across * LANES", "{v} * LANES"),
        ("row + down <= passes and column", "column"),
    ],
    "kernels/filters.py": [
        ("stream(there, {i} * step_w + {v} * LANES, s{i}_{v})", "stream(there, {i} * step_w + {v} * LANES, s0_{v})"),
    ],
    ROWS + "planes.py": [
        ("list(a[2:]) != _dense(problem.size)", "a[-1] != 1"),
        ("{*window.kernel, *window.stride, *window.input_dilation} == {1}", "{*window.kernel, *window.input_dilation} == {1}"),
        ("and not any(map(any, window.padding))", ""),
        ("result_strides=positions.result_strides(problem))", "result_strides=plan.result_strides)"),
    ],
    "ops/positions.py": [
        ("threads == 0)  # by all threads", "threads != 0)  # by all threads"),
    ],
    "ops/direct_call.py": [
        ("all(step % lanes == 0 for step in steps)", "True"),
    ],
    ROWS + "filters.py": [
        ("problem.result_shape[1] // problem.groups % lanes == 0 and", ""),
    ],
    "ops/phases.py": [
        ("-(-k // s) for k, s", "k // s for k, s"),
        ("window.kernel[axis] - window.padding[axis][0]", "window.kernel[axis] + 1 - window.padding[axis][0]"),
        ("stride > 2 or problem", "stride > 3 or problem"),
        ("m + t - 1 for m, t", "m + t for m, t"),
        (".permute(0, 2, 4, 1, 5, 3)", ".permute(0, 2, 4, 3, 5, 1)"),
        ("\"before_h\": before_h, \"before_w\": before_w", "\"before_h\": before_w, \"before_w\": before_h"),
    ],
    "kernels/dense_phases.py": [
        ("h + phase_h < size_h", "h + phase_h <= size_h"),
        ("w + v < size_w", "w < size_w"),
        ("g * channels * x_c + phase_h * x_h", "g * x_c + phase_h * x_h"),
        ("+ {stride} <= size_w", "<= size_w"),
        ("address(shift(pointer(flags), n))", "flags"),
        ("address(shift(pointer(y), n * y_n))", "y"),
    ],
    "ops/winograd_gradient.py": [
        ("sizes.phases * cut.group_channels", "cut.group_channels"),
        ("\"size_h\": phases.inputs_met(problem, 0)", "\"size_h\": problem.size[0]"),
        ("return phases.weight_gradient(problem, dw), finite", "return phases.weight_gradient(problem, dw), True"),
    ],
    "kernels/winograd_gradient.py": [
        ("begin_part, end_part = 1, 3", "begin_part, end_part = 0, 2"),
        ("if {s} < taps_w:", "if {s} <= taps_w:"),
        ("(phase_h * kernel_w + phase_w) * strip_tap", "(phase_w * kernel_w + phase_h) * strip_tap"),
        ("e * v_element + part * v_part + c * tiles", "e * v_element + c * tiles"),
        ("if {s} < taps_w:\n", "if {s} < taps_h:\n"),
    ],
    "kernels/pointwise_sums.py": [
        ("(first + done) % count_w", "first % count_w"),
        ("min(count - done, count_w - w)", "count - done"),
        ("d * d_step + h * h_step", "d * d_step"),
        ("b // LANES * block + done * LANES", "b // LANES * block"),
        ("min(LANES, channels - b), piece", "LANES, piece"),
        ("= count, first - begin", "= count, first"),
        ("g * channels * x_c", "g * x_c"),
        ("(g * filters + first_k) * y_k", "g * filters * y_k"),
        ("share * share_size + ", ""),
        ("+ k % panel)", ")"),
        ("min(LANES, some_k - k), to", "LANES, to"),
    ],
    ROWS + "pointwise_sums.py": [
        ("found[-1][1:] == (count * step, count * y_step)", "found[-1][1] == count * step"),
        ("step = stride * x_step", "step = x_step"),
        ("elif count > 1:", "elif count > 2:"),
        ("found[0] if shares == 1 else found.sum(0)", "found[0]"),
        ("if any(side != 0 for pair in window.padding for side in pair):", "if False:"),
        ("\"w_k\": channels", "\"w_k\": problem.channels"),
    ],
    ROWS + "separable.py": [
        ("row, column = pivot // s, pivot % s", "row, column = pivot // r, pivot % r"),
        ("if not bool((off <= _ROUNDINGS", "if bool((off > _ROUNDINGS"),
        ("(1, window.stride[1]), (1, window.dilation[1]))", "(1, window.stride[0]), (1, window.dilation[1]))"),
        ("torch.where(value == 0, 1.0, value)", "value"),
        ("_ROUNDINGS = 4 ", "_ROUNDINGS = 4e6 "),
    ],
    ROWS + "torch_row.py": [
        ("return sides if wider.output_size(problem.size) == problem.output_size else None", "return sides"),
        ("if min(sides) < 0 or 0 in problem.size or set(window.input_dilation) != {1}:", "if min(sides) < 0 or set(window.input_dilation) != {1}:"),
        ("return tuple(n + 2 * p - extent - s * (m - 1) for", "return tuple(n + 2 * p - extent - s * m for"),
        ("with_bias(unpad(_full_transposed(problem, y, w), window.padding, window.input_dilation), bias)", "unpad(_full_transposed(problem, y, w), window.padding, window.input_dilation)"),
        ("    problem = problem.normalise()\n    padding = _symmetric(problem)\n    if padding is None or problem.role", "    padding = _symmetric(problem)\n    if padding is None or problem.role"),
    ],
    ROWS + "reference.py": [
        ("(..., *(j * s + t * d for j, s, t, d in steps))", "(..., *(j * s + t for j, s, t, d in steps))"),
        ("\"ngc,ngk->gkc\"", "\"ngc,ngk->gkc\", x[position], y[output]) * 0.5 + 0.25 * torch.einsum(\"ngc,ngk->gkc\""),
        ("x[position] += torch.einsum(", "x[position] = torch.einsum("),
    ],
}  # fmt: skip


def _tests(fault: Fault) -> list[str]:
    """The files that hold the fault's own tests first: a run stops at its first failure."""
    _, problem, conv, algorithms, generated = FAST
    if fault.file == "geometry.py":
        return FAST
    if fault.file == "problem.py":
        return [problem, conv, generated, algorithms]
    if fault.file in ("ops/rule.py", "ops/export.py"):
        return [*DOORS, conv, generated]
    if fault.file in ("ops/choose.py", "ops/precision.py", "ops/bounds.py") or "fft" in fault.file:
        return [algorithms, conv, *DOORS, generated]
    if "fourier" in fault.file or "butterflies" in fault.file:
        return ["tests/ops/test_fourier_kernels.py"]
    if "images_winograd" in fault.file:
        return ["tests/ops/test_images_winograd.py"]
    if "pointwise_sums" in fault.file:
        return ["tests/ops/test_pointwise_sums.py"]
    if "separable" in fault.file or "minimal" in fault.file:
        return [algorithms, conv, generated]
    if any(word in fault.file for word in ("vector", "scratch", "planes", "filters", "positions", "direct_call")):
        return ["tests/ops/test_direct_rows.py"]
    if "phases" in fault.file or "winograd_gradient" in fault.file:
        return ["tests/ops/test_winograd_phases.py", "tests/ops/test_winograd_gradient.py"]
    if "winograd" in fault.file:
        return ["tests/ops/test_winograd_phases.py", algorithms, conv, generated]
    return [conv, generated, algorithms, *DOORS, problem]


def _run(fault: Fault, copy: Path) -> None:
    """In a forked child: plant, run the tests, and end with their exit code."""
    path = copy / "src/convolve" / fault.file
    original = path.read_text(encoding="utf-8")
    assert original.count(fault.old) >= 1, f"{fault.file} no longer says {fault.old!r}"
    path.write_text(original.replace(fault.old, fault.new, 1), encoding="utf-8")
    os.chdir(copy)
    signal.alarm(SECONDS)  # an endless loop is noticed too
    silence = os.open(copy / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", REWRITTEN, *_tests(fault)])))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="plant only faults whose file or text holds this word")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/faults.json")
    options = parser.parse_args()
    nothing = Fault("geometry.py", "", "", 0)  # the tests must pass where no fault is planted
    faults = [nothing, *(f for f in _table() if options.only in f.file or options.only in f.old)]
    started = time.monotonic()
    survivors: list[Fault] = []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        for part in ("src", "tests"):
            shutil.copytree(PROJECT / part, whole / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "pyproject.toml", whole)
        waiting, running = list(reversed(faults)), dict[int, tuple[Fault, Path]]()
        while waiting or running:
            while waiting and len(running) < options.workers:
                fault = waiting.pop()
                copy = Path(folder) / str(fault.number)
                shutil.copytree(whole, copy)
                child = os.fork()
                if child == 0:
                    try:
                        _run(fault, copy)
                    finally:
                        os._exit(70)  # never back into the parent's code, whatever happened
                running[child] = fault, copy
            child, status = os.wait()
            fault, copy = running.pop(child)
            survived, endless = status == 0, os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
            if fault is nothing:
                if not survived:
                    print((copy / "output").read_text(encoding="utf-8")[-2000:])
                    raise SystemExit("the tests fail without any fault: nothing can be learnt")
                faults.remove(nothing)
                continue
            shutil.rmtree(copy)
            word = "SURVIVED" if survived else "ENDLESS " if endless else "noticed "
            print(f"{fault.number:>4} {word} {fault.file}: {fault.old!r}", flush=True)
            survivors += [fault] if survived else []
    share = 1 - len(survivors) / max(1, len(faults))
    print(f"{len(faults) - len(survivors)} of {len(faults)} noticed ({share:.1%})")
    if not options.only:
        result = {
            "command": f"python tools/{Path(sys.argv[0]).name}",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "seconds": round(time.monotonic() - started),
            "planted": len(faults),
            "noticed": len(faults) - len(survivors),
            "survivors": [asdict(fault) for fault in survivors],
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if share >= WANTED else 4


if __name__ == "__main__":
    sys.exit(main())
