"""The language of kernels says what Python says: each text is run as machine code and by Python itself."""

from __future__ import annotations

import ctypes
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convolve.kernels import cache
from convolve.kernels.compile import object_code
from convolve.kernels.language import LanguageError, translate
from convolve.kernels.vector import operations

ROOM = 64


def compiled(body: str, functions: str = "") -> Callable[[np.ndarray, int, int], None]:
    """`body` over (memory, a, b) as machine code; memory is float64 or int64, as the body takes it."""
    source = f"""
def kernel(arguments):
    whole, real = int64_pointer(arguments[0]), float64_pointer(arguments[0])
    a, b = arguments[1], arguments[2]
{_indented(body)}
"""
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(cache._link(object_code("test", "float32", source, functions)))

    def run(memory: np.ndarray, a: int, b: int) -> None:
        arguments = np.array([memory.ctypes.data, a, b], dtype=np.int64)
        entry(arguments.ctypes.data)

    return run


def interpreted(body: str, functions: str = "") -> Callable[[np.ndarray, int, int], None]:
    """The same, by Python."""
    names: dict[str, Any] = {}
    exec(f"{functions}\ndef kernel(whole, real, a, b):\n{_indented(body)}", names)
    return lambda memory, a, b: names["kernel"](memory, memory, a, b)


def _indented(body: str) -> str:
    return "\n".join("    " + line for line in body.strip("\n").splitlines())


def agree(body: str, cases: list[tuple[int, int]], functions: str = "", dtype: type = np.int64) -> None:
    ours, pythons = compiled(body, functions), interpreted(body, functions)
    for a, b in cases:
        found, expected = np.full(ROOM, -7, dtype), np.full(ROOM, -7, dtype)
        ours(found, a, b)
        pythons(expected, a, b)
        assert np.array_equal(found, expected), (a, b, found, expected)
        assert (expected != -7).any()


SIGNED = list(itertools.product((-9, -4, -1, 0, 1, 5, 8), (-7, -2, -1, 1, 2, 4, 11)))


@pytest.mark.parametrize("op", ["+", "-", "*", "//", "%", "&", "|", "<", "<=", ">", ">=", "==", "!="])
def test_integers_are_pythons_also_below_zero(op: str) -> None:
    agree(f"whole[0] = a {op} b\nwhole[1] = (a {op} 3) - (-5 {op} 4)\nwhole[2] = -a {op} b", SIGNED)


def test_shifts_min_max_and_conditions_are_pythons() -> None:
    agree(
        """
whole[0], whole[1] = a >> 2, (a * a) << 3
whole[2], whole[3] = min(a, b, 3), max(a, b, -2)
whole[4] = a if a > b and not b == 2 else 10 * b
whole[5], whole[6] = (a, b) if a < b or a == 5 else (b, 1)
whole[7] = (a > 0) + 2 * (b > 0)
a, b = b, a
(whole[8], c), whole[9] = (a, b), a
whole[11] = c
whole[10] = 0
whole[10] += 3 * a
""",
        SIGNED,
    )


def test_the_second_condition_is_asked_only_where_it_counts() -> None:
    agree(
        "whole[0] = 1 if b != 0 and a // b > 1 else 0\nwhole[1] = 1 if b == 0 or a % b == 0 else 0",
        [(7, 0), (7, 3), (6, 3)],
    )


def test_loops_are_pythons() -> None:
    agree(
        """
at = 0
for i in range(a, b, 3):
    if i % 4 == 1:
        continue
    for j in range(i):
        if j > 2:
            break
        whole[at % 60] = i * 10 + j
        at += 1
    i = 99  # changes nothing for the next round
n = a
while n < b:
    n += 2
    if n == 8:
        break
for last in range(3):
    pass
whole[61], whole[62], whole[63] = at, n, last
""",
        [(0, 20), (-5, 9), (4, 4), (9, 2), (1, 30)],
    )


def test_functions_return_values_and_call_one_another() -> None:
    functions = """
def square(x):
    return x * x

def sum_of_squares(x, y):
    if x > y:
        return square(x)
    return square(x) + square(y)

def fill(to, count, value):
    for i in range(count):
        if i == 5:
            return
        to[i] = value
"""
    agree("fill(whole, a, sum_of_squares(a, b))\nwhole[9] = square(b)", [(3, 4), (8, 2), (0, 1)], functions)
    agree("fill(real, a, 0.5)\nfill(real, 1, b)", [(3, 4), (8, 2)], functions, np.float64)


def test_integers_and_floats_meet_in_float64() -> None:
    agree(
        """
x = 0.1 * a
real[0], real[1], real[2] = x + b, a / b, x / 3.0 - 2
real[3] = x if x > 0.25 else b
real[4], real[5] = min(x, b), max(1.5, a)
x -= 1
real[6], real[7] = -x, x * x
real[8] = 1 if x == x and x != 0.3 else 0
""",
        SIGNED,
        dtype=np.float64,
    )


def test_single_numbers_are_rounded_as_numpys() -> None:
    run = compiled(
        "x = number(real[0])\nreal[0], real[1], real[2] = x, x * number(0.1), x * 0.1\nwhole[3] = integer(real[3])"
    )
    memory = np.array([1 / 3, 0, 0, -2.75])
    run(memory, 0, 0)
    x = np.float32(1 / 3)
    assert memory[:3].tolist() == [float(x), float(x * np.float32(0.1)), float(x) * 0.1]
    assert memory[3:].view(np.int64)[0] == -2


def test_generated_expressions_are_pythons() -> None:
    draw = random.Random(3)

    def expression(depth: int) -> str:
        if depth == 0:
            return draw.choice(["a", "b", str(draw.randint(-4, 9))])
        left, right = expression(depth - 1), expression(depth - 1)
        return draw.choice([
            f"({left} {draw.choice('+-*')} {right})",
            f"({left} {draw.choice(['//', '%'])} (1 + {right} * {right}))",
            f"{draw.choice(['min', 'max'])}({left}, {right})",
            f"({left} if {right} {draw.choice(['<', '==', '>='])} {expression(0)} else {expression(depth - 1)})",
        ])  # fmt: skip

    agree("\n".join(f"whole[{i}] = {expression(3)}" for i in range(40)), SIGNED)


def test_a_name_may_take_another_type_where_that_is_clear() -> None:
    agree(
        """
x = a
real[0] = x
x = 0.5
real[1] = x
for i in range(3):
    x = i + 1
    real[2 + i] = x
if a > b:
    y = 1.5
else:
    y = 2
    y = 2.5
real[5] = y
""",
        [(1, 2), (2, 1)],
        dtype=np.float64,
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x = 1\nfor i in range(a):\n    whole[0] = x\n    x = 0.5", "x has another type at the loop's end"),
        ("if a > b:\n    x = 1\nelse:\n    x = 0.5\nwhole[0] = x", "x has no value, or not the same type everywhere"),
        ("whole[0] = nobody", "nobody has no value"),
        ("nobody(a)", "there is no operation nobody"),
        ("whole[0] = load", "load is a function"),
        ("whole[0] = whole + 1", "numbers meet numbers"),
        ("whole[0.5] = 1", "an index is an integer"),
        ("a, b = 1, 2, 3", "zip"),
        ("for x in whole:\n    pass", "no such statement"),
        ("for x in range(3):\n    pass\nelse:\n    pass", "no such statement"),
        ("whole[0] = 'one'", "no such expression"),
        ("whole[0] = 0 < a < b", "no such expression"),
        ("with a:\n    pass", "no such statement"),
    ],
)
def test_what_the_language_has_no_words_for_is_said_with_its_line(body: str, words: str) -> None:
    with pytest.raises(LanguageError, match=f"{words}.*received .* in line"):
        translate(
            f"def kernel(arguments):\n    whole, a, b = int64_pointer(arguments[0]), arguments[1], arguments[2]\n{_indented(body)}",
            operations("float32", 8),
            "entry",
        )
