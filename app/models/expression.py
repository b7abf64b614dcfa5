"""Equations as a visitor types them: read by a whitelist over Python's own grammar, never evaluated as code.

One line each: an equation for every variable, the box that its starts are drawn from, and the span of time.

    x' = y
    y' = -x - 0.1 * y + sin(2 * t)
    x in [-2, 2]
    y in [-2, 2]
    t in [0, 10]

Numbers, the variables, t, pi and e; + - * / and powers by a number; and `FUNCTIONS`. Nothing else has a meaning.
"""

from __future__ import annotations

import ast
import keyword
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

__all__ = ["FUNCTIONS", "InitialValueProblem", "depends", "read"]

FUNCTIONS = ("abs", "cos", "cosh", "exp", "log", "sin", "sinh", "sqrt", "tan", "tanh")
CONSTANTS = {"pi": math.pi, "e": math.e}
RESERVED = {"t", "state", "torch", "pid", *CONSTANTS, *FUNCTIONS, *keyword.kwlist}
"""Names that a variable cannot have: they mean something here, or in the Python that a visitor takes along."""
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}

VARIABLES, LINE, TEXT = 4, 200, 2000
"""At most so many variables, and characters in a line and in all."""
LARGEST, STEEPEST = 1e6, 10.0
"""Of numbers, and of exponents."""

EQUATION = re.compile(r"\s*([A-Za-z]\w{0,11})\s*'\s*=(.*)", re.ASCII)
INTERVAL = re.compile(r"\s*([A-Za-z]\w{0,11})\s+in\s*\[([^,\[\]]*),([^,\[\]]*)\]\s*", re.ASCII)


@dataclass(frozen=True)
class InitialValueProblem:
    """What was read.

    Attributes:
        fields: variable to the expression of its derivative, of checked parts only.
        box: variable to the interval that its starts are drawn from.
        span: when paths start and end.
    """

    fields: dict[str, str]
    box: dict[str, tuple[float, float]]
    span: tuple[float, float]

    def derivatives(self, names: Mapping[str, Any], functions: ModuleType = math) -> list[Any]:
        """Of each variable, from numbers (`math`) or tensors (`torch`) named as the variables and t."""
        return [value(expression(text, set(self.fields)), names, functions) for text in self.fields.values()]


def read(text: str) -> InitialValueProblem:
    """Read equations, box and span.

    Raises:
        ValueError: with the line and what is wrong with it.
    """
    if len(text) > TEXT:
        raise ValueError(f"{len(text):,} characters are more than the {TEXT:,} that are read")
    equations: dict[str, str] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if len(line) > LINE:
            raise ValueError(f"a line of {len(line)} characters is longer than the {LINE} that are read")
        if found := EQUATION.fullmatch(line):
            name, derivative = found.groups()
            if name in equations:
                raise ValueError(f"there are two equations for {name}'")
            if name in RESERVED:
                raise ValueError(f"{name} has a meaning already: call the variable otherwise")
            equations[name] = derivative.strip()
        elif found := INTERVAL.fullmatch(line):
            name, low, high = found.groups()
            if name in intervals:
                raise ValueError(f"there are two intervals for {name}")
            intervals[name] = interval(name, low, high)
        else:
            raise ValueError(f"{line!r} is neither like x' = y nor like x in [-2, 2]")
    if not 1 <= len(equations) <= VARIABLES:
        raise ValueError(f"there must be 1 to {VARIABLES} equations like x' = y, found {len(equations)}")
    missing = [name for name in [*equations, "t"] if name not in intervals]
    if missing:
        raise ValueError(f"say where {' and '.join(missing)} lies: {missing[0]} in [0, 1]")
    unknown = sorted(intervals.keys() - equations.keys() - {"t"})
    if unknown:
        raise ValueError(f"{unknown[0]} has an interval but no equation {unknown[0]}' = …")
    fields = {name: ast.unparse(expression(right, set(equations))) for name, right in equations.items()}
    return InitialValueProblem(fields, {name: intervals[name] for name in equations}, intervals["t"])


def interval(name: str, low: str, high: str) -> tuple[float, float]:
    """Two numbers that rise."""
    a, b = (constant(ast_of(text), text) for text in (low, high))
    if b - a < 1e-6 * max(abs(a), abs(b)) and a < b:
        raise ValueError(f"{name} in [{low.strip()}, {high.strip()}]: the two numbers are too close to each other")
    if not a < b:
        raise ValueError(f"{name} in [{low.strip()}, {high.strip()}]: the first number must be below the second")
    return a, b


def ast_of(text: str) -> ast.expr:
    """Python's tree of an expression, not yet checked."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text.strip()!r} is not an expression") from error


def constant(node: ast.expr, text: str) -> float:
    """The number that an expression without variables is."""
    found = signed(checked(node, set()))
    if found is None:
        raise ValueError(f"{text.strip()!r} is not a number")
    return found


def expression(text: str, variables: set[str]) -> ast.expr:
    """The tree of an expression, of checked parts only, its constant parts computed.

    Raises:
        ValueError: for anything that has no meaning here.
    """
    return checked(ast_of(text), variables)


def checked(node: ast.expr, variables: set[str]) -> ast.expr:
    """The node, of known parts only; a number where no variable is in it."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return number(float(node.value))  # type: ignore[arg-type]  # of int or float
    if isinstance(node, ast.Name):
        if node.id in CONSTANTS:
            return number(CONSTANTS[node.id])
        if node.id in variables or node.id == "t":
            return node
        raise ValueError(f"{node.id!r} is no variable: there are {', '.join(sorted(variables | {'t'}))}, pi and e")
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        inner = checked(node.operand, variables)
        return folded(ast.UnaryOp(node.op, inner), inner)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = checked(node.left, variables), checked(node.right, variables)
        if isinstance(node.op, ast.Pow):
            exponent = signed(right)
            if exponent is None or abs(exponent) > STEEPEST:
                raise ValueError(f"{ast.unparse(node)!r}: a power must be a number of at most {STEEPEST:g}")
        return folded(ast.BinOp(left, node.op, right), left, right)
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            raise ValueError(f"{ast.unparse(node.func)!r} is no function here: there are {', '.join(FUNCTIONS)}")
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise ValueError(f"{node.func.id} takes one value")
        inner = checked(node.args[0], variables)
        return folded(ast.Call(node.func, [inner], []), inner)
    raise ValueError(f"{ast.unparse(node)!r} has no meaning here: only numbers, variables, + - * / ** and functions")


def number(value: float) -> ast.expr:
    """A number as a node; a negative one as Python writes it."""
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"{value:g} is larger than the {LARGEST:g} that numbers may be")
    size = ast.Constant(int(abs(value)) if value == int(value) else abs(value))
    return ast.UnaryOp(ast.USub(), size) if value < 0 else size


def signed(node: ast.expr) -> float | None:
    """The number that a node is."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -float(node.operand.value)  # type: ignore[arg-type]  # numbers only
    return float(node.value) if isinstance(node, ast.Constant) else None  # type: ignore[arg-type]  # numbers only


def folded(node: ast.expr, *parts: ast.expr) -> ast.expr:
    """The number that a node of numbers is, else the node."""
    if any(signed(part) is None for part in parts):
        return node
    try:
        found = float(value(node, {}))  # a complex number is a TypeError
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ValueError(f"{ast.unparse(node)!r} is not a number") from error
    return number(found)


def depends(text: str) -> bool:
    """Whether an expression that was read depends on anything."""
    return signed(ast_of(text)) is None


def value(node: ast.expr, names: Mapping[str, Any], functions: ModuleType = math) -> Any:
    """A checked tree of named numbers or tensors; ``functions`` is `math` or `torch`."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](value(node.operand, names, functions))
    if isinstance(node, ast.BinOp):
        sides = (value(side, names, functions) for side in (node.left, node.right))
        return OPERATORS[type(node.op)](*sides)
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    inner = value(node.args[0], names, functions)
    return abs(inner) if node.func.id == "abs" else getattr(functions, node.func.id)(inner)
