"""Parse equations that a visitor types: a whitelist over Python's syntax tree; the text is never evaluated as code.

One line each: an equation per variable, the interval that its starts are drawn from, and the time span.

    x' = y
    y' = -x - 0.1 * y + sin(2 * t)
    x in [-2, 2]
    y in [-2, 2]
    t in [0, 10]

Allowed are numbers, the variables, t, pi and e; + - * / and powers with a constant exponent; and `FUNCTIONS`.
Everything else is an error.
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

__all__ = ["FUNCTIONS", "InitialValueProblem", "is_constant", "parse_problem"]

FUNCTIONS = ("abs", "cos", "cosh", "exp", "log", "sin", "sinh", "sqrt", "tan", "tanh")
CONSTANTS = {"pi": math.pi, "e": math.e}
RESERVED = {"t", "state", "torch", "pid", *CONSTANTS, *FUNCTIONS, *keyword.kwlist}
"""Names that a variable cannot have: they have a meaning here, or in the Python that the page shows."""
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}

MAX_VARIABLES, MAX_LINE, MAX_TEXT = 4, 200, 2000
"""Limits of variables, characters per line and characters in total."""
MAX_NUMBER, MAX_EXPONENT = 1e6, 10.0
"""Limits of the absolute value of numbers and exponents."""

EQUATION = re.compile(r"\s*([A-Za-z]\w{0,11})\s*'\s*=(.*)", re.ASCII)
INTERVAL = re.compile(r"\s*([A-Za-z]\w{0,11})\s+in\s*\[([^,\[\]]*),([^,\[\]]*)\]\s*", re.ASCII)


@dataclass(frozen=True)
class InitialValueProblem:
    """A parsed initial-value problem.

    Attributes:
        fields: each variable's derivative, as a checked expression.
        box: each variable's interval, from which starts are drawn.
        span: start and end time.
    """

    fields: dict[str, str]
    box: dict[str, tuple[float, float]]
    span: tuple[float, float]

    def derivatives(self, names: Mapping[str, Any], functions: ModuleType = math) -> list[Any]:
        """Return each variable's derivative; ``names`` holds the variables and t, as numbers or as tensors.

        Args:
            names: the values of the variables and t.
            functions: `math` for numbers, `torch` for tensors.
        """
        return [evaluate(expression(text, set(self.fields)), names, functions) for text in self.fields.values()]


def parse_problem(text: str) -> InitialValueProblem:
    """Parse equations, intervals and time span.

    Raises:
        ValueError: says which line is wrong, and why.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"the text has {len(text):,} characters: at most {MAX_TEXT:,} are allowed")
    equations: dict[str, str] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if len(line) > MAX_LINE:
            raise ValueError(f"a line has {len(line)} characters: at most {MAX_LINE} are allowed")
        if match := EQUATION.fullmatch(line):
            name, derivative = match.groups()
            if name in equations:
                raise ValueError(f"there are two equations for {name}': keep one")
            if name in RESERVED:
                raise ValueError(f"{name} is a reserved name: give the variable a different one")
            equations[name] = derivative.strip()
        elif match := INTERVAL.fullmatch(line):
            name, low, high = match.groups()
            if name in intervals:
                raise ValueError(f"there are two intervals for {name}: keep one")
            intervals[name] = interval(name, low, high)
        else:
            raise ValueError(f"{line!r} is neither an equation like x' = y nor an interval like x in [-2, 2]")
    if not 1 <= len(equations) <= MAX_VARIABLES:
        raise ValueError(f"there are {len(equations)} equations: write 1 to {MAX_VARIABLES} like x' = y")
    missing = [name for name in [*equations, "t"] if name not in intervals]
    if missing:
        raise ValueError(f"there is no interval for {' and '.join(missing)}: add a line like {missing[0]} in [0, 1]")
    unknown = sorted(intervals.keys() - equations.keys() - {"t"})
    if unknown:
        raise ValueError(f"{unknown[0]} has an interval but no equation: add {unknown[0]}' = …")
    fields = {name: ast.unparse(expression(right, set(equations))) for name, right in equations.items()}
    return InitialValueProblem(fields, {name: intervals[name] for name in equations}, intervals["t"])


def interval(name: str, low: str, high: str) -> tuple[float, float]:
    """Parse the ends of an interval."""
    a, b = (constant(ast_of(text), text) for text in (low, high))
    # In single precision hardly any number would lie between them.
    if b - a < 1e-6 * max(abs(a), abs(b)) and a < b:
        raise ValueError(f"{name} in [{low.strip()}, {high.strip()}]: the two numbers are too close to each other")
    if not a < b:
        raise ValueError(f"{name} in [{low.strip()}, {high.strip()}]: the first number must be below the second")
    return a, b


def ast_of(text: str) -> ast.expr:
    """Return Python's syntax tree of an expression, unchecked."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text.strip()!r} is not a valid expression") from error


def constant(node: ast.expr, text: str) -> float:
    """Return the value of an expression without variables."""
    result = literal(checked(node, set()))
    if result is None:
        raise ValueError(f"{text.strip()!r} is not a number: variables and t are not allowed here")
    return result


def expression(text: str, variables: set[str]) -> ast.expr:
    """Parse and check an expression; its constant parts are evaluated.

    Raises:
        ValueError: the expression has a part that is not allowed.
    """
    return checked(ast_of(text), variables)


def checked(node: ast.expr, variables: set[str]) -> ast.expr:
    """Rebuild a syntax tree from allowed nodes only; a subtree without variables becomes a number."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return number(float(node.value))
    if isinstance(node, ast.Name):
        if node.id in CONSTANTS:
            return number(CONSTANTS[node.id])
        if node.id in variables or node.id == "t":
            return node
        raise ValueError(f"{node.id!r} is not a variable: use {', '.join(sorted(variables | {'t'}))}, pi or e")
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        inner = checked(node.operand, variables)
        return fold(ast.UnaryOp(node.op, inner), inner)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = checked(node.left, variables), checked(node.right, variables)
        if isinstance(node.op, ast.Pow):
            exponent = literal(right)
            if exponent is None or abs(exponent) > MAX_EXPONENT:
                limit = f"from {-MAX_EXPONENT:g} to {MAX_EXPONENT:g}"
                raise ValueError(f"{ast.unparse(node)!r}: the exponent must be a number {limit}")
        return fold(ast.BinOp(left, node.op, right), left, right)
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            raise ValueError(f"{ast.unparse(node.func)!r} is not a function here: use {', '.join(FUNCTIONS)}")
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise ValueError(f"{ast.unparse(node)!r}: {node.func.id} takes exactly one argument")
        inner = checked(node.args[0], variables)
        return fold(ast.Call(node.func, [inner], []), inner)
    raise ValueError(f"{ast.unparse(node)!r} is not allowed: use numbers, variables, + - * / ** and functions")


def number(value: float) -> ast.expr:
    """Return a number as a node; Python writes a negative one as a unary minus."""
    if not math.isfinite(value) or abs(value) > MAX_NUMBER:
        raise ValueError(f"{value:g} is too large: the limit is {MAX_NUMBER:g}")
    size = ast.Constant(int(abs(value)) if value == int(value) else abs(value))
    return ast.UnaryOp(ast.USub(), size) if value < 0 else size


def literal(node: ast.expr) -> float | None:
    """Return the value of a number node, and None for any other."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = literal(node.operand)
        return None if value is None else -value
    return float(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else None


def fold(node: ast.expr, *parts: ast.expr) -> ast.expr:
    """Return the node, evaluated to a number if all its parts are numbers."""
    if any(literal(part) is None for part in parts):
        return node
    try:
        result = float(evaluate(node, {}))  # a complex result raises TypeError
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ValueError(f"{ast.unparse(node)!r} is not a real number") from error
    return number(result)


def is_constant(text: str) -> bool:
    """Return whether a checked expression is just a number."""
    return literal(ast_of(text)) is not None


def evaluate(node: ast.expr, names: Mapping[str, Any], functions: ModuleType = math) -> Any:
    """Evaluate a checked tree for given variables; ``functions`` is `math` or `torch`."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](evaluate(node.operand, names, functions))
    if isinstance(node, ast.BinOp):
        sides = (evaluate(side, names, functions) for side in (node.left, node.right))
        return OPERATORS[type(node.op)](*sides)
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    inner = evaluate(node.args[0], names, functions)
    return abs(inner) if node.func.id == "abs" else getattr(functions, node.func.id)(inner)
