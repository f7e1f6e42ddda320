"""SIMD vectors as a Numba type: a register full of float32 or float64 lanes, and what a processor does to it.

LLVM keeps values of this type in vector registers, which no loop over arrays achieves; where a vector is wider than the
processor's registers, LLVM splits it. Addresses are typed pointers and offsets count elements: `load(p, i)` reads p[i] … p[i + lanes - 1].
Nothing is checked: a kernel owns its bounds. Nothing is reassociated and no value is assumed away: NaN and Inf are data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numba.extending import models, register_model

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_LLVM = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
SCALARS = {"float32": types.float32, "float64": types.float64}
_SUFFIX = {"float32": "f32", "float64": "f64"}

intrinsic: Any = _intrinsic  # Numba types it for functions without code generation


class Vector(types.Type):
    """`lanes` numbers of one dtype in a register."""

    def __init__(self, dtype: str, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        self.llvm = ir.VectorType(_LLVM[dtype], lanes)
        super().__init__(name=f"{dtype}x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    kind = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_INT32, 0))
    mask = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)


@intrinsic
def address(typing: Any, pointer: Any) -> Any:
    """The integer address that a pointer holds."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], _INT64)

    return types.int64(pointer), codegen


@intrinsic
def shift(typing: Any, pointer: Any, count: Any) -> Any:
    """The pointer `count` elements further on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [context.cast(builder, args[1], signature.args[1], types.int64)])

    return pointer(pointer, count), codegen


@intrinsic
def prefetch(typing: Any, pointer: Any, i: Any) -> Any:
    """Ask for the line of p[i] to be brought into the L2 cache; any address will do."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [context.cast(builder, args[1], signature.args[1], types.int64)])
        kind = ir.FunctionType(ir.VoidType(), [place.type, _INT32, _INT32, _INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, ir.Constant(_INT32, 0), ir.Constant(_INT32, 2), ir.Constant(_INT32, 1)])
        return context.get_dummy_value()

    return types.void(pointer, i), codegen


@intrinsic
def call_int(typing: Any, function: Any) -> Any:
    """What the C function `int f(void)` at this address returns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_INT32, [])
        return builder.sext(builder.call(builder.inttoptr(args[0], kind.as_pointer()), []), _INT64)

    return types.int64(types.int64), codegen


@intrinsic
def call(typing: Any, function: Any, arguments: Any) -> Any:
    """Run the kernel whose entry is at this address, or any C function `void f(int64_t *arguments)`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_INT64.as_pointer()])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, arguments), codegen


def _pointer(to: Any) -> Any:
    @intrinsic
    def pointer(typing: Any, integer: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(to)(types.int64), codegen

    return pointer


int64_pointer = _pointer(types.int64)
float32_pointer = _pointer(types.float32)
float64_pointer = _pointer(types.float64)
byte_pointer = _pointer(types.uint8)


@cache
def operations(dtype: str, lanes: int) -> dict[str, Any]:
    """The names that a kernel of this dtype and width is written in."""
    vector: Any = Vector(dtype, lanes)
    scalar: Any = SCALARS[dtype]
    kind, suffix = vector.llvm, f"v{lanes}{_SUFFIX[dtype]}"
    align = 4 if dtype == "float32" else 8
    mask_kind = ir.VectorType(ir.IntType(1), lanes)

    def place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [context.cast(builder, args[1], signature.args[1], types.int64)])

    def as_vector(builder: Any, address: Any) -> Any:
        return builder.bitcast(address, kind.as_pointer())

    def first(builder: Any, count: Any) -> Any:
        """A mask of the first `count` lanes; a count below 0 is none, above `lanes` all."""
        numbers = ir.Constant(ir.VectorType(_INT64, lanes), list(range(lanes)))
        return builder.icmp_signed("<", numbers, _splat(builder, count, lanes))

    def named(builder: Any, name: str, returns: Any, arguments: list[Any]) -> Any:
        return cgutils.get_or_insert_function(builder.module, ir.FunctionType(returns, arguments), name)

    zeros = ir.Constant(kind, [0.0] * lanes)

    def masked_load(builder: Any, where: Any, mask: Any) -> Any:
        function = named(builder, f"llvm.masked.load.{suffix}.p0", kind, [kind.as_pointer(), _INT32, mask_kind, kind])
        return builder.call(function, [where, ir.Constant(_INT32, align), mask, zeros])

    def masked_store(builder: Any, value: Any, where: Any, mask: Any) -> None:
        function = named(
            builder, f"llvm.masked.store.{suffix}.p0", ir.VoidType(), [kind, kind.as_pointer(), _INT32, mask_kind]
        )
        builder.call(function, [value, where, ir.Constant(_INT32, align), mask])

    @intrinsic
    def load(typing: Any, pointer: Any, i: Any) -> Any:
        """p[i], p[i + 1], …: one element for each lane."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(as_vector(builder, place(context, builder, signature, args)))
            value.align = align
            return value

        return vector(pointer, i), codegen

    @intrinsic
    def load_first(typing: Any, pointer: Any, i: Any, count: Any) -> Any:
        """As load, but no element from `count` on is touched: those lanes are 0."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = as_vector(builder, place(context, builder, signature, args))
            return masked_load(builder, where, first(builder, args[2]))

        return vector(pointer, i, types.int64), codegen

    @intrinsic
    def load_between(typing: Any, pointer: Any, i: Any, start: Any, stop: Any) -> Any:
        """As load, but only elements start … stop - 1 of the vector are touched: the other lanes are 0."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = as_vector(builder, place(context, builder, signature, args))
            mask = builder.and_(first(builder, args[3]), builder.not_(first(builder, args[2])))
            return masked_load(builder, where, mask)

        return vector(pointer, i, types.int64, types.int64), codegen

    @intrinsic
    def store(typing: Any, pointer: Any, i: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store(args[2], as_vector(builder, place(context, builder, signature, args))).align = align
            return context.get_dummy_value()

        return types.void(pointer, i, value), codegen

    @intrinsic
    def stream(typing: Any, pointer: Any, i: Any, value: Any) -> Any:
        """As store, past the caches, to an address that is a multiple of the vector's bytes; `fence` comes after the last one."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            stored = builder.store(args[2], as_vector(builder, place(context, builder, signature, args)))
            stored.align = lanes * align
            stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT32, 1)]))
            return context.get_dummy_value()

        return types.void(pointer, i, value), codegen

    @intrinsic
    def fence(typing: Any) -> Any:
        """What was streamed before is written before what follows."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), codegen

    @intrinsic
    def store_first(typing: Any, pointer: Any, i: Any, value: Any, count: Any) -> Any:
        """As store, but nothing is written from element `count` on."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = as_vector(builder, place(context, builder, signature, args))
            masked_store(builder, args[2], where, first(builder, args[3]))
            return context.get_dummy_value()

        return types.void(pointer, i, value, types.int64), codegen

    @intrinsic
    def broadcast(typing: Any, pointer: Any, i: Any) -> Any:
        """p[i] in every lane."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _splat(builder, builder.load(place(context, builder, signature, args)), lanes)

        return vector(pointer, i), codegen

    @intrinsic
    def splat(typing: Any, number: Any) -> Any:
        """The number in every lane."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _splat(builder, args[0], lanes)

        return vector(scalar), codegen

    @intrinsic
    def zero(typing: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return ir.Constant(kind, [0.0] * lanes)

        return vector(), codegen

    @intrinsic
    def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.call(named(builder, f"llvm.fma.{suffix}", kind, [kind] * 3), args)

        return vector(a, b, c), codegen

    @intrinsic
    def fnma(typing: Any, a: Any, b: Any, c: Any) -> Any:
        """c - a b, rounded once."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, b, c = args
            return builder.call(named(builder, f"llvm.fma.{suffix}", kind, [kind] * 3), [builder.fneg(a), b, c])

        return vector(a, b, c), codegen

    @intrinsic
    def absolute(typing: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.call(named(builder, f"llvm.fabs.{suffix}", kind, [kind]), args)

        return vector(a), codegen

    def binary(instruction: Callable[[Any, Any, Any], Any], words: str) -> Any:
        @intrinsic
        def operation(typing: Any, a: Any, b: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return instruction(builder, *args)

            return vector(a, b), codegen

        operation.__doc__ = words
        return operation

    def larger(builder: Any, a: Any, b: Any) -> Any:
        beats = builder.or_(builder.fcmp_ordered(">", b, a), builder.fcmp_unordered("uno", b, b))
        return builder.select(beats, b, a)

    @intrinsic
    def where_larger(typing: Any, a: Any, b: Any, p: Any, q: Any) -> Any:
        """q in the lanes in which larger(a, b) is b, p in the others."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, b, p, q = args
            beats = builder.or_(builder.fcmp_ordered(">", b, a), builder.fcmp_unordered("uno", b, b))
            return builder.select(beats, q, p)

        return vector(a, b, p, q), codegen

    @intrinsic
    def where_equal(typing: Any, a: Any, b: Any, c: Any) -> Any:
        """c in the lanes in which a is b, 0 in the others."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, b, c = args
            return builder.select(builder.fcmp_ordered("==", a, b), c, ir.Constant(kind, [0.0] * lanes))

        return vector(a, b, c), codegen

    @intrinsic
    def add_where_equal(typing: Any, s: Any, a: Any, b: Any, c: Any) -> Any:
        """s + c in the lanes in which a is b, s in the others: one masked addition where the processor has it."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            s, a, b, c = args
            return builder.select(builder.fcmp_ordered("==", a, b), builder.fadd(s, c), s)

        return vector(s, a, b, c), codegen

    def shuffled(numbers: list[int], words: str) -> Any:
        @intrinsic
        def operation(typing: Any, a: Any, b: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return builder.shuffle_vector(*args, ir.Constant(ir.VectorType(_INT32, lanes), numbers))

            return vector(a, b), codegen

        operation.__doc__ = words
        return operation

    single = ir.VectorType(_LLVM["float32"], lanes)

    def masked_single(builder: Any, kinds: list[Any], returns: Any, what: str) -> Any:
        return named(builder, f"llvm.masked.{what}.v{lanes}f32.p0", returns, kinds)

    def widened(builder: Any, value: Any) -> Any:
        return value if kind == single else builder.fpext(value, kind)

    def narrowed(builder: Any, value: Any) -> Any:
        return value if kind == single else builder.fptrunc(value, single)

    @intrinsic
    def load_single(typing: Any, pointer: Any, i: Any) -> Any:
        """As load, of numbers in float32."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = builder.bitcast(place(context, builder, signature, args), single.as_pointer())
            value = builder.load(where)
            value.align = 4
            return widened(builder, value)

        return vector(pointer, i), codegen

    @intrinsic
    def load_single_between(typing: Any, pointer: Any, i: Any, start: Any, stop: Any) -> Any:
        """As load_between, of numbers in float32."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = builder.bitcast(place(context, builder, signature, args), single.as_pointer())
            mask = builder.and_(first(builder, args[3]), builder.not_(first(builder, args[2])))
            function = masked_single(builder, [single.as_pointer(), _INT32, mask_kind, single], single, "load")
            nothing = ir.Constant(single, [0.0] * lanes)
            return widened(builder, builder.call(function, [where, ir.Constant(_INT32, 4), mask, nothing]))

        return vector(pointer, i, types.int64, types.int64), codegen

    @intrinsic
    def store_single(typing: Any, pointer: Any, i: Any, value: Any) -> Any:
        """As store, rounded to float32."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = builder.bitcast(place(context, builder, signature, args), single.as_pointer())
            builder.store(narrowed(builder, args[2]), where).align = 4
            return context.get_dummy_value()

        return types.void(pointer, i, value), codegen

    @intrinsic
    def store_single_first(typing: Any, pointer: Any, i: Any, value: Any, count: Any) -> Any:
        """As store_first, rounded to float32."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = builder.bitcast(place(context, builder, signature, args), single.as_pointer())
            function = masked_single(builder, [single, single.as_pointer(), _INT32, mask_kind], ir.VoidType(), "store")
            mask = first(builder, args[3])
            builder.call(function, [narrowed(builder, args[2]), where, ir.Constant(_INT32, 4), mask])
            return context.get_dummy_value()

        return types.void(pointer, i, value, types.int64), codegen

    @intrinsic
    def as_single(typing: Any, a: Any) -> Any:
        """The numbers, rounded to float32."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return widened(builder, narrowed(builder, args[0]))

        return vector(a), codegen

    bytes_kind = ir.VectorType(ir.IntType(8), lanes)

    @intrinsic
    def load_bytes(typing: Any, pointer: Any, i: Any) -> Any:
        """The bytes p[i], p[i + 1], … as numbers."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = builder.bitcast(place(context, builder, signature, args), bytes_kind.as_pointer())
            value = builder.load(where)
            value.align = 1
            return builder.uitofp(builder.zext(value, ir.VectorType(_INT32, lanes)), kind)

        return vector(pointer, i), codegen

    @intrinsic
    def store_bytes(typing: Any, pointer: Any, i: Any, value: Any) -> Any:
        """Whole numbers from 0 to 255 as bytes."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = builder.bitcast(place(context, builder, signature, args), bytes_kind.as_pointer())
            numbers = builder.fptosi(args[2], ir.VectorType(_INT32, lanes))
            builder.store(builder.trunc(numbers, bytes_kind), where).align = 1
            return context.get_dummy_value()

        return types.void(pointer, i, value), codegen

    @intrinsic
    def total(typing: Any, a: Any) -> Any:
        """The sum of the lanes, as a balanced tree: always in the same order."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value, width = args[0], lanes
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

        return scalar(a), codegen

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

    @intrinsic
    def turned(typing: Any, rows: Any) -> Any:
        """A tuple of LANES vectors, transposed: vector j holds lane j of each."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            columns = transposed(builder, cgutils.unpack_tuple(builder, args[0]))
            return context.make_tuple(builder, signature.return_type, columns)

        return types.UniTuple(vector, lanes)(rows), codegen

    @intrinsic
    def transpose(typing: Any, x: Any, x_step: Any, y: Any, y_step: Any) -> Any:
        """y[j y_step + i] = x[i x_step + j] for i and j below LANES."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def at(pointer: Any, step: Any, i: int) -> Any:
                return as_vector(builder, builder.gep(pointer, [builder.mul(step, ir.Constant(_INT64, i))]))

            rows = [builder.load(at(args[0], args[1], i)) for i in range(lanes)]
            for row in rows:
                row.align = align
            for j, row in enumerate(transposed(builder, rows)):
                builder.store(row, at(args[2], args[3], j)).align = align
            return context.get_dummy_value()

        return types.void(x, types.int64, y, types.int64), codegen

    @intrinsic
    def transpose_first(
        typing: Any, x: Any, x_step: Any, rows: Any, columns: Any, y: Any, y_step: Any, stored: Any
    ) -> Any:
        """y[j y_step + i] = x[i x_step + j] for j < columns and i < stored; 0 for i from `rows` on. Touches nothing else."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, x_step, count, columns, y, y_step, stored = args
            none = ir.Constant(mask_kind, [0] * lanes)
            read, written = first(builder, columns), first(builder, stored)

            def at(pointer: Any, step: Any, i: int) -> Any:
                return as_vector(builder, builder.gep(pointer, [builder.mul(step, ir.Constant(_INT64, i))]))

            def below(mask: Any, i: int, limit: Any) -> Any:
                return builder.select(builder.icmp_signed("<", ir.Constant(_INT64, i), limit), mask, none)

            rows = [masked_load(builder, at(x, x_step, i), below(read, i, count)) for i in range(lanes)]
            for j, row in enumerate(transposed(builder, rows)):
                masked_store(builder, row, at(y, y_step, j), below(written, j, columns))
            return context.get_dummy_value()

        int64 = types.int64
        return types.void(x, int64, int64, int64, y, int64, int64), codegen

    return {
        "LANES": lanes,
        "pointer": _pointer(scalar),
        "number": scalar,  # as a function: the number in this type; `int`, `min` and `max` would be calls, not instructions
        "integer": types.int64,
        "int64_pointer": int64_pointer,
        "float32_pointer": float32_pointer,
        "float64_pointer": float64_pointer,
        "byte_pointer": byte_pointer,
        "address": address,
        "shift": shift,
        "call_int": call_int,
        "call": call,
        "prefetch": prefetch,
        "load": load,
        "load_first": load_first,
        "load_between": load_between,
        "store": store,
        "store_first": store_first,
        "stream": stream,
        "fence": fence,
        "broadcast": broadcast,
        "splat": splat,
        "zero": zero,
        "fma": fma,
        "fnma": fnma,
        "absolute": absolute,
        "add": binary(lambda builder, a, b: builder.fadd(a, b), "a + b"),
        "sub": binary(lambda builder, a, b: builder.fsub(a, b), "a - b"),
        "mul": binary(lambda builder, a, b: builder.fmul(a, b), "a b"),
        "div": binary(lambda builder, a, b: builder.fdiv(a, b), "a / b"),
        "evens": shuffled(list(range(0, 2 * lanes, 2)), "Of the numbers of a, then b: the first, the third, …"),
        "odds": shuffled(list(range(1, 2 * lanes, 2)), "Of the numbers of a, then b: the second, the fourth, …"),
        "zip_first": shuffled(
            [i // 2 + lanes * (i % 2) for i in range(lanes)], "a[0], b[0], a[1], …: the first half of a and b in turns."
        ),
        "zip_last": shuffled(
            [(i + lanes) // 2 + lanes * (i % 2) for i in range(lanes)], "The second half of a and b in turns."
        ),
        "where_larger": where_larger,
        "where_equal": where_equal,
        "add_where_equal": add_where_equal,
        "load_bytes": load_bytes,
        "store_bytes": store_bytes,
        "larger": binary(
            larger, "The larger of a and b: a where they are equal, and NaN where either is, b's where both are."
        ),
        "load_single": load_single,
        "load_single_between": load_single_between,
        "store_single": store_single,
        "store_single_first": store_single_first,
        "as_single": as_single,
        "total": total,
        "turned": turned,
        "transpose": transpose,
        "transpose_first": transpose_first,
    }
