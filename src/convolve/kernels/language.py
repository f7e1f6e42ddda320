"""The language of kernels and its translation to LLVM: Python's syntax for a machine's numbers.

    numbers      int64 (// and % round down; nothing overflows), float32 and float64 (never reassociated), vectors, pointers to numbers
    statements   assignment, also of several names at once, += and its like, if, while, for ... in range(...), continue, break, return
    expressions  + - * / // % << >> & |, comparisons, and, or, not, x if c else y, min, max, p[i], calls
    calls        of the operations of vector.py, and of functions in the same text: one copy of machine code for each set of types

As NumPy has it, integers and floats meet in float64, and a float literal is one. A name takes the type of what it is given; it may be given
another type, but in a loop or in branches that meet again all must agree. Bytes are integers once they are read. A step of `range` is
positive. Nobody divides by zero, runs over the end of memory or reads a name that the branch taken has not set.

Every name is a place on the stack, which LLVM turns into registers.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir

from convolve.kernels.vector import BOOL, DOUBLE, FLOATS, INT8, INT64, convert

_COMPARED = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_FOLDED: dict[type, Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
}
_INTEGERS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.LShift: "shl",
    ast.RShift: "ashr",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
}
_FLOATING = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}


class LanguageError(TypeError):
    """The text of a kernel says what this language has no words for: a mistake of ours, never of a user."""


def translate(text: str, operations: Mapping[str, Any], entry: str) -> ir.Module:
    """The module of `kernel(arguments)` in `text`, as `void entry(int64_t *arguments)`, and of what it calls.

    `operations` are numbers and functions of a builder and values (vector.py).
    """
    program = _Program(text, operations)
    kernel = ir.Function(program.module, ir.FunctionType(ir.VoidType(), [INT64.as_pointer()]), entry)
    _Function(program, "kernel", kernel).translate()
    return program.module


class _Program:
    def __init__(self, text: str, operations: Mapping[str, Any]) -> None:
        self.text, self.operations = text, operations
        self.module = ir.Module()
        self.definitions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        self._functions: dict[tuple[str, ...], ir.Function] = {}

    def function(self, name: str, types: list[Any]) -> ir.Function:
        """The function for arguments of these types, translated where it is called first."""
        key = (name, *(_spelled(kind) for kind in types))
        if key not in self._functions:
            kind = ir.FunctionType(self._returned(name, types), types)
            function = ir.Function(self.module, kind, f"{name}.{len(self._functions)}")
            function.linkage = "internal"
            # Shared functions run once for many multiply-adds: inlined, they would double the time to compile.
            function.attributes.add("noinline")
            self._functions[key] = function
            _Function(self, name, function).translate()
        return self._functions[key]

    def _returned(self, name: str, types: list[Any]) -> Any:
        """What the function returns: what its first `return` of a value is found to have on trial."""
        if not any(isinstance(node, ast.Return) and node.value for node in ast.walk(self.definitions[name])):
            return ir.VoidType()
        trial = _Program(self.text, self.operations)
        function = _Function(trial, name, ir.Function(trial.module, ir.FunctionType(ir.VoidType(), types), name))
        function.translate()
        return function.returned


class _Function:
    """The translation of one function, statement after statement."""

    def __init__(self, program: _Program, name: str, function: ir.Function) -> None:
        self.program, self.function = program, function
        self.node = program.definitions[name]
        self.returned: Any = ir.VoidType()
        self.stack = ir.IRBuilder(function.append_basic_block())
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.names: dict[str, Any] = {}  # the place of each
        self.places: dict[tuple[str, str], Any] = {}  # by name and type
        self.reads: list[Any] = []  # the places, in order
        self.loops: list[tuple[Any, Any, dict[str, Any], set[str]]] = []  # see `loop`

    def translate(self) -> None:
        first = self.builder.block
        for argument, value in zip(self.node.args.args, self.function.args, strict=True):
            self.assign(argument.arg, value)
        self.block(self.node.body)
        if not self.builder.block.is_terminated:
            self.builder.ret_void()
        self.stack.branch(first)

    # Statements

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self.builder.block.is_terminated:
                return  # nobody comes here
            try:
                self.statement(statement)
            except LanguageError:
                raise
            except (TypeError, AttributeError, KeyError, ValueError, AssertionError) as error:
                raise self.not_understood(statement, str(error)) from error

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Tuple() as target], value=ast.IfExp(test=test, body=body, orelse=orelse)):
                self.branches(ast.If(test, [ast.Assign([target], body)], [ast.Assign([target], orelse)]))
            case ast.Assign(targets=[target], value=value):
                self.set(target, self.value(value))
            case ast.AugAssign(target=target, op=op, value=value):
                self.set(target, self.arithmetic(op, self.value(target), self.value(value)))
            case ast.Expr(value=ast.Call() as call):
                self.value(call)
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.If():
                self.branches(node)
            case ast.While(test=test, body=body, orelse=[]):
                head = self.begin()
                self.loop(lambda: self.truth(test), body, head)
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=bounds), orelse=[]):
                self.count(name, [self.value(bound) for bound in bounds], node.body)
            case ast.Continue():
                self.leave(0)
            case ast.Break():
                self.leave(1)
            case ast.Return(value=ast.expr() as value):
                result = self.value(value)
                self.returned = result.type
                self.builder.ret(result)
            case ast.Return():
                self.builder.ret_void()
            case ast.Pass():
                pass
            case _:
                raise self.not_understood(node, "no such statement")

    def set(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self.assign(name, value)
            case ast.Tuple(elts=targets):
                for one, its in zip(targets, value, strict=True):
                    self.set(one, its)
            case ast.Subscript(value=array, slice=index):
                pointer = self.value(array)
                kind = pointer.type.pointee
                place = self.builder.gep(pointer, [self.integer(index)])
                self.builder.store(convert(self.builder, value, kind), place)
            case _:
                raise self.not_understood(target, "no such target")

    def assign(self, name: str, value: Any) -> None:
        key = (name, _spelled(value.type))
        if key not in self.places:
            self.places[key] = self.stack.alloca(value.type)
        self.names[name] = self.places[key]
        self.builder.store(value, self.places[key])

    def branches(self, node: ast.If) -> None:
        then, otherwise, after = (self.function.append_basic_block() for _ in range(3))
        self.builder.cbranch(self.truth(node.test), then, otherwise)
        before, ends = self.names, []
        for start, body in ((then, node.body), (otherwise, node.orelse)):
            self.builder.position_at_end(start)
            self.names = dict(before)
            self.block(body)
            if not self.builder.block.is_terminated:
                self.builder.branch(after)
                ends.append(self.names)
        self.builder.position_at_end(after)
        self.names = _met(ends)
        if not ends:
            self.builder.unreachable()

    def count(self, name: str, bounds: list[Any], body: list[ast.stmt]) -> None:
        """A loop over a range."""
        start, stop, step = {1: (_int(0), *bounds, _int(1)), 2: (*bounds, _int(1)), 3: tuple(bounds)}[len(bounds)]
        counter = self.stack.alloca(INT64)
        self.builder.store(start, counter)
        head, following = self.begin(), self.function.append_basic_block()

        def more() -> Any:
            return self.builder.icmp_signed("<", self.builder.load(counter), stop)

        self.loop(more, body, following, lambda: self.assign(name, self.builder.load(counter)))
        after = self.builder.block
        self.builder.position_at_end(following)
        self.builder.store(self.builder.add(self.builder.load(counter), step, flags=["nsw"]), counter)
        self.builder.branch(head)
        self.builder.position_at_end(after)

    def begin(self) -> Any:
        head = self.function.append_basic_block()
        self.builder.branch(head)
        self.builder.position_at_end(head)
        return head

    def loop(
        self,
        more: Callable[[], Any],
        body: list[ast.stmt],
        following: Any,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """While more(): first(), the body; from its end, or `continue`, to `following`.

        A name that has another type at an end than at the beginning is lost behind the loop, and must not be read in it as it was.
        """
        inside, after = self.function.append_basic_block(), self.function.append_basic_block()
        before, changed, reads = self.names, set[str](), len(self.reads)
        self.names = dict(before)
        self.builder.cbranch(more(), inside, after)
        self.builder.position_at_end(inside)
        self.loops.append((following, after, before, changed))
        first()
        self.block(body)
        if not self.builder.block.is_terminated:
            self.leave(0)
        self.loops.pop()
        self.builder.position_at_end(after)
        for name in changed:
            if any(place is before[name] for place in self.reads[reads:]):
                raise TypeError(f"{name} has another type at the loop's end than at its beginning")
        self.names = {name: place for name, place in {**self.names, **before}.items() if name not in changed}

    def leave(self, where: int) -> None:
        """For the next round of the loop, or for good."""
        *leads, before, changed = self.loops[-1]
        changed.update(name for name, place in before.items() if self.names.get(name) is not place)
        self.builder.branch(leads[where])

    # Expressions

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() as value):
                return ir.Constant(BOOL, int(value))
            case ast.Constant(value=int() as value):
                return _int(value)
            case ast.Constant(value=float() as value):
                return ir.Constant(DOUBLE, value)
            case ast.Name(id=name):
                return self.read(name)
            case ast.BinOp(left=left, op=op, right=right):
                return self.arithmetic(op, self.value(left), self.value(right))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=float() as value)):
                return ir.Constant(DOUBLE, -value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.negative(self.value(operand))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.builder.not_(self.truth(operand))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self.comparison(op, self.value(left), self.value(right))
            case ast.BoolOp(op=op, values=[first, *rest]):
                result = self.truth(first)
                for other in rest:
                    yes = (lambda node=other: self.truth(node)) if isinstance(op, ast.And) else None
                    no = (lambda node=other: self.truth(node)) if isinstance(op, ast.Or) else None
                    result = self.either(result, yes or _always(True), no or _always(False))
                return result
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.either(self.truth(test), lambda: self.value(body), lambda: self.value(orelse))
            case ast.Subscript(value=array, slice=index):
                read = self.builder.load(self.builder.gep(self.value(array), [self.integer(index)]))
                return self.builder.zext(read, INT64) if read.type == INT8 else read
            case ast.Tuple(elts=elements):
                return tuple(self.value(element) for element in elements)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self.call(name, [self.value(argument) for argument in arguments])
            case _:
                raise self.not_understood(node, "no such expression")

    def read(self, name: str) -> Any:
        if name in self.names:
            self.reads.append(self.names[name])
            return self.builder.load(self.names[name])
        number = self.program.operations.get(name)
        if not isinstance(number, int):
            raise TypeError(
                f"{name} is a function" if number else f"{name} has no value, or not the same type everywhere"
            )
        return _int(number)

    def integer(self, node: ast.expr) -> Any:
        value = self.value(node)
        if value.type != INT64:
            raise TypeError(f"an index is an integer, not {value.type}")
        return value

    def truth(self, node: ast.expr) -> Any:
        value = self.value(node)
        return value if value.type == BOOL else self.builder.icmp_signed("!=", value, _int(0))

    def negative(self, value: Any) -> Any:
        if value.type in FLOATS:
            return self.builder.fneg(value)
        return self.arithmetic(ast.Sub(), _int(0), value)

    def either(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        """One of two values, of which only that one is computed."""
        then, otherwise, after = (self.function.append_basic_block() for _ in range(3))
        self.builder.cbranch(condition, then, otherwise)
        found = []
        for start, value in ((then, yes), (otherwise, no)):
            self.builder.position_at_end(start)
            found.append((value(), self.builder.block))
        kinds = [value.type for value, _ in found]
        kind = kinds[0] if kinds[0] == kinds[1] else _common(*kinds)
        self.builder.position_at_end(after)
        phi = self.builder.phi(kind)
        for value, block in found:
            self.builder.position_at_end(block)
            phi.add_incoming(convert(self.builder, value, kind), block)
            self.builder.branch(after)
        self.builder.position_at_end(after)
        return phi

    def arithmetic(self, op: ast.operator, a: Any, b: Any) -> Any:
        a, b = self.alike(a, b)
        if isinstance(op, ast.Div) and a.type == INT64:
            a, b = convert(self.builder, a, DOUBLE), convert(self.builder, b, DOUBLE)
        if a.type != INT64:
            return getattr(self.builder, _FLOATING[type(op)])(a, b)
        if isinstance(op, ast.FloorDiv | ast.Mod):
            return self.division(op, a, b)
        if type(op) in _FOLDED and isinstance(a, ir.Constant) and isinstance(b, ir.Constant):
            return _int(_FOLDED[type(op)](a.constant, b.constant))
        # Nothing overflows, so that LLVM may reckon with places as with numbers.
        flags = ("nsw",) if type(op) in _FOLDED else ()
        return getattr(self.builder, _INTEGERS[type(op)])(a, b, flags=flags)

    def division(self, op: ast.operator, a: Any, b: Any) -> Any:
        """Rounded down, where the processor rounds towards zero."""
        builder = self.builder
        quotient, rest = builder.sdiv(a, b), builder.srem(a, b)
        signs_differ = builder.icmp_signed("<", builder.xor(rest, b), _int(0))
        below = builder.and_(signs_differ, builder.icmp_signed("!=", rest, _int(0)))
        if isinstance(op, ast.Mod):
            return builder.select(below, builder.add(rest, b), rest)
        return builder.select(below, builder.sub(quotient, _int(1)), quotient)

    def comparison(self, op: ast.cmpop, a: Any, b: Any) -> Any:
        a, b = self.alike(a, b)
        words = _COMPARED[type(op)]
        if a.type == INT64:
            return self.builder.icmp_signed(words, a, b)
        compare = self.builder.fcmp_unordered if words == "!=" else self.builder.fcmp_ordered
        return compare(words, a, b)

    def alike(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Both numbers in the type in which they meet."""
        kind = _common(a.type, b.type)
        return convert(self.builder, a, kind), convert(self.builder, b, kind)

    def call(self, name: str, values: list[Any]) -> Any:
        if name in ("min", "max"):
            chosen, *others = values
            for value in others:
                chosen, other = self.alike(chosen, value)
                better = self.comparison(ast.Lt() if name == "min" else ast.Gt(), other, chosen)
                chosen = self.builder.select(better, other, chosen)
            return chosen
        if name in self.program.definitions:
            function = self.program.function(name, [value.type for value in values])
            return self.builder.call(function, values)
        if name not in self.program.operations:
            raise TypeError(f"there is no operation {name}")
        return self.program.operations[name](self.builder, *values)

    def not_understood(self, node: ast.AST, why: str) -> LanguageError:
        line = getattr(node, "lineno", 0)
        return LanguageError(
            f"{why}; received {ast.unparse(node)[:200]!r} in line {line}; {__name__} says what a kernel may say"
        )


def _int(value: int) -> Any:
    return ir.Constant(INT64, value)


def _always(value: bool) -> Callable[[], Any]:
    return lambda: ir.Constant(BOOL, int(value))


def _spelled(kind: Any) -> str:
    """A type in letters; LLVM calls all pointers the same."""
    return f"{kind.pointee}*" if kind.is_pointer else str(kind)


def _common(a: Any, b: Any) -> Any:
    """The type in which two numbers meet."""
    if a == b and a in FLOATS:
        return a
    if a in (BOOL, INT64) and b in (BOOL, INT64):
        return INT64
    if all(kind in (BOOL, INT64, *FLOATS) for kind in (a, b)):
        return DOUBLE
    raise TypeError(f"numbers meet numbers, not {a} and {b}")


def _met(ends: list[dict[str, Any]]) -> dict[str, Any]:
    """The names where branches meet: those that no two of them hold in different places."""
    places: dict[str, set[int]] = {}
    for names in ends:
        for name, place in names.items():
            places.setdefault(name, set()).add(id(place))
    return {name: place for names in ends for name, place in names.items() if len(places[name]) == 1}
