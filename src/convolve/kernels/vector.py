"""SIMD vectors in the language of kernels: a register full of float32 or float64 lanes, and what a processor does to it.

An operation is a function of LLVM's builder and values that adds its instructions; language.py calls it where a kernel does. LLVM keeps
vectors in registers; where one is wider than the processor's, LLVM splits it. Addresses are typed pointers and offsets count
elements: `load(p, i)` reads p[i] … p[i + lanes - 1]. Nothing is checked: a kernel owns its bounds. Nothing is reassociated and no value is
assumed away: NaN and Inf are data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir

BOOL, INT8, INT64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
FLOATS = (FLOAT, DOUBLE)
SCALARS = {"float32": FLOAT, "float64": DOUBLE}
_INT32, _VOID = ir.IntType(32), ir.VoidType()
_SUFFIX = {"float32": "f32", "float64": "f64"}


def convert(builder: Any, value: Any, kind: Any) -> Any:
    """The number in another type; an integer is taken as signed."""
    if value.type == BOOL and kind != BOOL:
        value = builder.zext(value, INT64)
    if value.type == kind:
        return value
    if isinstance(value, ir.Constant) and kind in FLOATS:
        return ir.Constant(kind, float(value.constant))
    if kind in FLOATS:
        if value.type in FLOATS:
            return builder.fpext(value, kind) if kind == DOUBLE else builder.fptrunc(value, kind)
        return builder.sitofp(value, kind)
    if value.type in FLOATS:
        return builder.fptosi(value, kind)
    return builder.trunc(value, kind)


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    kind = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_INT32, 0))
    mask = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)


def _named(builder: Any, name: str, returns: Any, arguments: list[Any]) -> Any:
    """LLVM's own function of this name."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(returns, arguments), name)


def address(builder: Any, p: Any) -> Any:
    """The integer address that a pointer holds."""
    return builder.ptrtoint(p, INT64)


def shift(builder: Any, p: Any, count: Any) -> Any:
    """The pointer `count` elements further on."""
    return builder.gep(p, [count])


def prefetch(builder: Any, p: Any, i: Any) -> None:
    """Ask for the line of p[i] to be brought into the L2 cache; any address will do."""
    place = builder.gep(p, [i])
    function = _named(builder, "llvm.prefetch.p0", _VOID, [place.type, _INT32, _INT32, _INT32])
    builder.call(function, [place, ir.Constant(_INT32, 0), ir.Constant(_INT32, 2), ir.Constant(_INT32, 1)])


def call_int(builder: Any, function: Any) -> Any:
    """What the C function `int f(void)` at this address returns."""
    kind = ir.FunctionType(_INT32, [])
    return builder.sext(builder.call(builder.inttoptr(function, kind.as_pointer()), []), INT64)


def call(builder: Any, function: Any, arguments: Any) -> None:
    """Run the kernel whose entry is at this address, or any C function `void f(int64_t *arguments)`."""
    kind = ir.FunctionType(_VOID, [INT64.as_pointer()])
    builder.call(builder.inttoptr(function, kind.as_pointer()), [arguments])


def _pointer(to: Any) -> Any:
    return lambda builder, integer: builder.inttoptr(integer, to.as_pointer())


def _converted(kind: Any) -> Any:
    return lambda builder, value: convert(builder, value, kind)


@cache
def operations(dtype: str, lanes: int) -> dict[str, Any]:
    """The names that a kernel of this dtype and width is written in."""
    scalar = SCALARS[dtype]
    kind, suffix = ir.VectorType(scalar, lanes), f"v{lanes}{_SUFFIX[dtype]}"
    align = 4 if dtype == "float32" else 8
    mask_kind = ir.VectorType(ir.IntType(1), lanes)
    bytes_kind = ir.VectorType(INT8, lanes)
    zeros = ir.Constant(kind, [0.0] * lanes)

    def at(builder: Any, p: Any, i: Any, what: Any = kind) -> Any:
        return builder.bitcast(builder.gep(p, [i]), what.as_pointer())

    def first(builder: Any, count: Any) -> Any:
        """A mask of the first `count` lanes; a count below 0 is none, above `lanes` all."""
        numbers = ir.Constant(ir.VectorType(INT64, lanes), list(range(lanes)))
        return builder.icmp_signed("<", numbers, _splat(builder, count, lanes))

    def masked_load(builder: Any, where: Any, mask: Any) -> Any:
        function = _named(builder, f"llvm.masked.load.{suffix}.p0", kind, [kind.as_pointer(), _INT32, mask_kind, kind])
        return builder.call(function, [where, ir.Constant(_INT32, align), mask, zeros])

    def masked_store(builder: Any, value: Any, where: Any, mask: Any) -> None:
        takes = [kind, kind.as_pointer(), _INT32, mask_kind]
        function = _named(builder, f"llvm.masked.store.{suffix}.p0", _VOID, takes)
        builder.call(function, [value, where, ir.Constant(_INT32, align), mask])

    def load(builder: Any, p: Any, i: Any) -> Any:
        """p[i], p[i + 1], …: one element for each lane."""
        return builder.load(at(builder, p, i), align=align)

    def load_first(builder: Any, p: Any, i: Any, count: Any) -> Any:
        """As load, but no element from `count` on is touched: those lanes are 0."""
        return masked_load(builder, at(builder, p, i), first(builder, count))

    def load_between(builder: Any, p: Any, i: Any, start: Any, stop: Any) -> Any:
        """As load, but only elements start … stop - 1 of the vector are touched: the other lanes are 0."""
        mask = builder.and_(first(builder, stop), builder.not_(first(builder, start)))
        return masked_load(builder, at(builder, p, i), mask)

    def store(builder: Any, p: Any, i: Any, value: Any) -> None:
        builder.store(value, at(builder, p, i), align=align)

    def stream(builder: Any, p: Any, i: Any, value: Any) -> None:
        """As store, past the caches, to an address that is a multiple of the vector's bytes; `fence` comes after the last one."""
        stored = builder.store(value, at(builder, p, i), align=lanes * align)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT32, 1)]))

    def fence(builder: Any) -> None:
        """What was streamed before is written before what follows."""
        builder.fence("seq_cst")

    def store_first(builder: Any, p: Any, i: Any, value: Any, count: Any) -> None:
        """As store, but nothing is written from element `count` on."""
        masked_store(builder, value, at(builder, p, i), first(builder, count))

    def broadcast(builder: Any, p: Any, i: Any) -> Any:
        """p[i] in every lane."""
        return _splat(builder, builder.load(builder.gep(p, [i])), lanes)

    def splat(builder: Any, number: Any) -> Any:
        """The number in every lane."""
        return _splat(builder, convert(builder, number, scalar), lanes)

    def zero(builder: Any) -> Any:
        return zeros

    def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once."""
        return builder.call(_named(builder, f"llvm.fma.{suffix}", kind, [kind] * 3), [a, b, c])

    def fnma(builder: Any, a: Any, b: Any, c: Any) -> Any:
        """c - a b, rounded once."""
        return fma(builder, builder.fneg(a), b, c)

    def absolute(builder: Any, a: Any) -> Any:
        return builder.call(_named(builder, f"llvm.fabs.{suffix}", kind, [kind]), [a])

    def add(builder: Any, a: Any, b: Any) -> Any:
        return builder.fadd(a, b)

    def sub(builder: Any, a: Any, b: Any) -> Any:
        return builder.fsub(a, b)

    def mul(builder: Any, a: Any, b: Any) -> Any:
        return builder.fmul(a, b)

    def div(builder: Any, a: Any, b: Any) -> Any:
        return builder.fdiv(a, b)

    def beats(builder: Any, a: Any, b: Any) -> Any:
        return builder.or_(builder.fcmp_ordered(">", b, a), builder.fcmp_unordered("uno", b, b))

    def larger(builder: Any, a: Any, b: Any) -> Any:
        """The larger of a and b: a where they are equal, and NaN where either is, b's where both are."""
        return builder.select(beats(builder, a, b), b, a)

    def where_larger(builder: Any, a: Any, b: Any, p: Any, q: Any) -> Any:
        """q in the lanes in which larger(a, b) is b, p in the others."""
        return builder.select(beats(builder, a, b), q, p)

    def where_equal(builder: Any, a: Any, b: Any, c: Any) -> Any:
        """c in the lanes in which a is b, 0 in the others."""
        return builder.select(builder.fcmp_ordered("==", a, b), c, zeros)

    def add_where_equal(builder: Any, s: Any, a: Any, b: Any, c: Any) -> Any:
        """s + c in the lanes in which a is b, s in the others: one masked addition where the processor has it."""
        return builder.select(builder.fcmp_ordered("==", a, b), builder.fadd(s, c), s)

    def shuffled(numbers: list[int], words: str) -> Any:
        mask = ir.Constant(ir.VectorType(_INT32, lanes), numbers)

        def operation(builder: Any, a: Any, b: Any) -> Any:
            return builder.shuffle_vector(a, b, mask)

        operation.__doc__ = words
        return operation

    def thirds(builder: Any, a: Any, b: Any, c: Any) -> Any:
        """Of the numbers of a, then b, then c: the first, the fourth, …"""
        places = range(0, 3 * lanes, 3)
        early = [i if i < 2 * lanes else 0 for i in places]
        both = [j if i < 2 * lanes else i - lanes for j, i in enumerate(places)]
        masks = [ir.Constant(ir.VectorType(_INT32, lanes), numbers) for numbers in (early, both)]
        return builder.shuffle_vector(builder.shuffle_vector(a, b, masks[0]), c, masks[1])

    single = ir.VectorType(FLOAT, lanes)

    def widened(builder: Any, value: Any) -> Any:
        return value if kind == single else builder.fpext(value, kind)

    def narrowed(builder: Any, value: Any) -> Any:
        return value if kind == single else builder.fptrunc(value, single)

    def load_single(builder: Any, p: Any, i: Any) -> Any:
        """As load, of numbers in float32."""
        return widened(builder, builder.load(at(builder, p, i, single), align=4))

    def load_single_between(builder: Any, p: Any, i: Any, start: Any, stop: Any) -> Any:
        """As load_between, of numbers in float32."""
        mask = builder.and_(first(builder, stop), builder.not_(first(builder, start)))
        takes = [single.as_pointer(), _INT32, mask_kind, single]
        function = _named(builder, f"llvm.masked.load.v{lanes}f32.p0", single, takes)
        nothing = ir.Constant(single, [0.0] * lanes)
        return widened(
            builder, builder.call(function, [at(builder, p, i, single), ir.Constant(_INT32, 4), mask, nothing])
        )

    def store_single(builder: Any, p: Any, i: Any, value: Any) -> None:
        """As store, rounded to float32."""
        builder.store(narrowed(builder, value), at(builder, p, i, single), align=4)

    def store_single_first(builder: Any, p: Any, i: Any, value: Any, count: Any) -> None:
        """As store_first, rounded to float32."""
        takes = [single, single.as_pointer(), _INT32, mask_kind]
        function = _named(builder, f"llvm.masked.store.v{lanes}f32.p0", _VOID, takes)
        where, mask = at(builder, p, i, single), first(builder, count)
        builder.call(function, [narrowed(builder, value), where, ir.Constant(_INT32, 4), mask])

    def as_single(builder: Any, a: Any) -> Any:
        """The numbers, rounded to float32."""
        return widened(builder, narrowed(builder, a))

    def load_bytes(builder: Any, p: Any, i: Any) -> Any:
        """The bytes p[i], p[i + 1], … as numbers."""
        value = builder.load(at(builder, p, i, bytes_kind), align=1)
        return builder.uitofp(builder.zext(value, ir.VectorType(_INT32, lanes)), kind)

    def store_bytes(builder: Any, p: Any, i: Any, value: Any) -> None:
        """Whole numbers from 0 to 255 as bytes."""
        numbers = builder.fptosi(value, ir.VectorType(_INT32, lanes))
        builder.store(builder.trunc(numbers, bytes_kind), at(builder, p, i, bytes_kind), align=1)

    def total(builder: Any, value: Any) -> Any:
        """The sum of the lanes, as a balanced tree: always in the same order."""
        width = lanes
        while width > 1:
            width //= 2
            none = ir.Constant(value.type, ir.Undefined)
            halves = [
                builder.shuffle_vector(
                    value, none, ir.Constant(ir.VectorType(_INT32, width), list(range(start, start + width)))
                )
                for start in (0, width)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(_INT32, 0))

    def transposed(builder: Any, rows: list[Any]) -> list[Any]:
        """The rows of the transposed square, by exchanging ever larger blocks across the diagonal."""
        distance = 1
        while distance < lanes:
            upper = [i if not i & distance else i - distance + lanes for i in range(lanes)]
            lower = [i + distance if not i & distance else i + lanes for i in range(lanes)]
            masks = [ir.Constant(ir.VectorType(_INT32, lanes), places) for places in (upper, lower)]
            for i in range(lanes):
                if not i & distance:
                    pair = rows[i], rows[i + distance]
                    rows[i], rows[i + distance] = (builder.shuffle_vector(*pair, mask) for mask in masks)
            distance *= 2
        return rows

    def turned(builder: Any, rows: tuple[Any, ...]) -> list[Any]:
        """LANES vectors, transposed: vector j holds lane j of each."""
        return transposed(builder, list(rows))

    def row_at(builder: Any, p: Any, step: Any, i: int) -> Any:
        return at(builder, p, builder.mul(step, ir.Constant(INT64, i)))

    def transpose(builder: Any, x: Any, x_step: Any, y: Any, y_step: Any) -> None:
        """y[j y_step + i] = x[i x_step + j] for i and j below LANES."""
        rows = [builder.load(row_at(builder, x, x_step, i), align=align) for i in range(lanes)]
        for j, row in enumerate(transposed(builder, rows)):
            builder.store(row, row_at(builder, y, y_step, j), align=align)

    def transpose_first(
        builder: Any, x: Any, x_step: Any, count: Any, columns: Any, y: Any, y_step: Any, stored: Any
    ) -> None:
        """y[j y_step + i] = x[i x_step + j] for j < columns and i < stored; 0 for i from `count` on. Touches nothing else."""
        none = ir.Constant(mask_kind, [0] * lanes)
        read, written = first(builder, columns), first(builder, stored)

        def below(mask: Any, i: int, limit: Any) -> Any:
            return builder.select(builder.icmp_signed("<", ir.Constant(INT64, i), limit), mask, none)

        rows = [masked_load(builder, row_at(builder, x, x_step, i), below(read, i, count)) for i in range(lanes)]
        for j, row in enumerate(transposed(builder, rows)):
            masked_store(builder, row, row_at(builder, y, y_step, j), below(written, j, columns))

    named: list[Callable[..., Any]] = [
        *(address, shift, prefetch, call_int, call, load, load_first, load_between, store, stream, fence, store_first),
        *(broadcast, splat, zero, fma, add, sub, mul, div, larger, where_larger, where_equal, add_where_equal),
        thirds,
        *(load_bytes, store_bytes, total, turned, transpose, transpose_first),
        *(fnma, absolute, load_single, load_single_between, store_single, store_single_first, as_single),
    ]
    return {
        "LANES": lanes,
        "pointer": _pointer(scalar),
        "int64_pointer": _pointer(INT64),
        "float32_pointer": _pointer(FLOAT),
        "float64_pointer": _pointer(DOUBLE),
        "byte_pointer": _pointer(INT8),
        "number": _converted(scalar),
        "integer": _converted(INT64),
        **{operation.__name__: operation for operation in named},
        "evens": shuffled(list(range(0, 2 * lanes, 2)), "Of the numbers of a, then b: the first, the third, …"),
        "odds": shuffled(list(range(1, 2 * lanes, 2)), "Of the numbers of a, then b: the second, the fourth, …"),
        "zip_first": shuffled(
            [i // 2 + lanes * (i % 2) for i in range(lanes)], "a[0], b[0], a[1], …: the first half of a and b in turns."
        ),
        "zip_last": shuffled(
            [(i + lanes) // 2 + lanes * (i % 2) for i in range(lanes)], "The second half of a and b in turns."
        ),
    }
