"""A restricted interpreter for pickles: it reads them without executing anything that they hold.

A pickle is a program: Python's own unpickler imports and calls what it names. Here it runs on a stack machine that has
only the few opcodes found in files of networks. What the pickle calls a global never becomes a Python object: it stays
a name, and a name that is not in the machine's table is refused. A call of a global builds plain numbers, dicts,
tensors and records, and nothing else.

Whatever a file claims, memory and time stay in proportion to its size: no opcode allocates by a number in the file,
the storages together are no larger than the file, every view lies within its storage, and an object that a file refers
to many times is visited once. Values from a file are never printed or compared whole: a few bytes can describe a value
that is endless when written out.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

__all__ = ["Builder", "Global", "Machine", "RefusedError", "Storage", "exactly", "of_type"]

MAX_OPCODES = 300_000
"""EDM's largest network takes about 60 thousand. One byte of opcode can allocate 200 bytes."""

MAX_ARGUMENTS = 8
MAX_DIMENSIONS = 4

LITERALS = {
    *("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
CONTAINERS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedError(ValueError):
    """A reader refuses a file. Distinguishes our reasons from the errors that Python and torch raise inside."""


class Stream(Protocol):
    """What `pickletools.genops` reads: an `io.BytesIO` or a `mmap.mmap`.

    Both return at most what is left when a length in the file claims more; a buffered file would allocate the claim.
    """

    def read(self, n: int | None = ..., /) -> bytes: ...

    def readline(self) -> bytes: ...

    def tell(self) -> int: ...


@dataclass(frozen=True)
class Global:
    """The name of a global in a pickle. It cannot be called."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Storage:
    """The memory that tensors are views of, one-dimensional."""

    values: Tensor


class Machine:
    """The stack machine for what all these pickles share: plain values, containers and the memo.

    A subclass adds opcodes to ``operations``, by name; `step` refuses every other opcode.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark: no opcode above a mark reaches beneath it
        self.memo: dict[int, Any] = {}  # a dict, so that a large number in the file allocates nothing
        self.operations: dict[str, Callable[[Any], None]] = {
            "PROTO": self.ignore,
            "FRAME": self.ignore,
            "MARK": self.mark,
            "TUPLE": self.tuple_of_marked,
            "APPEND": self.append,
            "APPENDS": self.appends,
            "SETITEM": self.setitem,
            "SETITEMS": self.setitems,
            "ADDITEMS": self.additems,
            "MEMOIZE": self.memoize,
            "BINGET": self.get,
            "LONG_BINGET": self.get,
        }

    def run(self, stream: Stream) -> Any:
        """Return the value of the pickle that starts at the stream's position; leave the stream just after it.

        Raises:
            RefusedError: for an opcode that the machine does not have, or that makes no sense where it stands.
        """
        for count, (opcode, argument, position) in enumerate(_opcodes(stream)):
            if count >= MAX_OPCODES:
                raise RefusedError(f"it has more than {MAX_OPCODES} opcodes, far more than a network needs")
            if opcode.name == "STOP":
                return self.stack.pop()
            try:
                self.step(opcode.name, argument)
            except RefusedError:
                raise
            except Exception as error:
                raise RefusedError(f"its opcode {opcode.name} at byte {position} makes no sense ({error!r})") from error
        raise RefusedError("it ends before its STOP opcode")

    def step(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        if name in LITERALS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in CONTAINERS:
            self.stack.append(CONTAINERS[name]())
        elif name in TUPLES:
            self.stack[-TUPLES[name] :] = [exactly(self.stack[-TUPLES[name] :], TUPLES[name])]
        elif name in self.operations:
            self.operations[name](argument)
        else:
            shown = "" if argument is None else f" with {argument!r:.80}"
            raise RefusedError(f"it uses the opcode {name}{shown}, which files of this kind do not contain")

    def ignore(self, _: Any) -> None:
        """Skip protocol and frame sizes, which do not affect the values."""

    def mark(self, _: Any) -> None:
        """Begin a run of items."""
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """End a run of items and return it."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def tuple_of_marked(self, _: Any) -> None:
        """Make a tuple of a run."""
        items = self.marked()
        self.stack.append(tuple(items))

    def append(self, _: Any) -> None:
        """Append one item to a list."""
        item = self.stack.pop()
        of_type(self.stack[-1], list).append(item)

    def appends(self, _: Any) -> None:
        """Append a run of items to a list."""
        items = self.marked()
        of_type(self.stack[-1], list).extend(items)

    def setitem(self, _: Any) -> None:
        """Set one item of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        of_type(self.stack[-1], dict)[self.key(key)] = value

    def setitems(self, _: Any) -> None:
        """Set a run of items of a dict."""
        items = self.marked()
        target = of_type(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def key(self, value: Any) -> Any:
        """Return a key of a dict, a string: hashing a tuple nested a million deep would overflow the C stack."""
        return of_type(value, str)

    def additems(self, _: Any) -> None:
        """Add a run of strings to a set."""
        items = self.marked()
        of_type(self.stack[-1], set).update(of_type(item, str) for item in items)

    def memoize(self, _: Any) -> None:
        """Store the top of the stack in the memo under the next number."""
        self.put(len(self.memo))

    def put(self, number: Any) -> None:
        """Store the top of the stack in the memo under a number."""
        self.memo[number] = self.stack[-1]

    def get(self, number: Any) -> None:
        """Push the memo's entry of a number."""
        self.stack.append(self.memo[number])

    def push(self, value: Any) -> None:
        """Push the opcode's own argument."""
        self.stack.append(value)


class Builder(Machine):
    """A machine that also builds tensors: it evaluates calls of the globals in its table ``calls``."""

    def __init__(self) -> None:
        super().__init__()
        self.operations |= {"REDUCE": self.reduce}
        self.calls: dict[Global, Callable[..., Any]] = {
            Global("collections", "OrderedDict"): self.ordered_dict,
            Global("torch._utils", "_rebuild_parameter"): lambda tensor, *_: of_type(tensor, Tensor),
            Global("torch._utils", "_rebuild_tensor_v2"): self.tensor,
        }

    def reduce(self, _: Any) -> None:
        """Replace a global and its arguments by the result of our own function for that global."""
        arguments, function = of_type(self.stack.pop(), tuple), of_type(self.stack.pop(), Global)
        if len(arguments) > MAX_ARGUMENTS:
            raise RefusedError(f"it calls {function} with {len(arguments)} arguments")
        self.stack.append(self.calls[function](*arguments))

    def ordered_dict(self) -> dict[str, Any]:
        """Return an empty dict; later opcodes set its items."""
        return {}

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any = None, hooks: Any = None, more: Any = None
    ) -> Tensor:
        """Return a view of a storage that lies within it."""
        if more:  # such as a conjugate or negative bit
            raise RefusedError("it has a tensor that is more than a plain view of its numbers")
        values = of_type(storage, Storage).values
        size, stride = of_type(size, tuple), of_type(stride, tuple)
        numbers = (offset, *size, *stride)
        last = -1
        if len(size) == len(stride) <= MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in numbers):
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if not 0 <= last < len(values) or not 0 < math.prod(size) <= len(values):
            raise RefusedError(f"it has a tensor whose size, stride and offset reach outside its {len(values)} numbers")
        return values.as_strided(size, stride, offset)


def of_type(value: Any, expected: type) -> Any:
    """Return the value if it is of that type, else refuse the file."""
    if not isinstance(value, expected):
        raise RefusedError(f"it has a {type(value).__name__} where a {expected.__name__} was expected")
    return value


def exactly(items: Any, n: int) -> tuple[Any, ...]:
    """Return the items as a tuple if there are n of them, else refuse the file."""
    if len(items) != n:
        raise RefusedError(f"it has {len(items)} values where {n} were expected")
    return tuple(items)


def _opcodes(stream: Stream) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """Yield the opcodes up to STOP with their arguments and positions."""
    try:
        yield from pickletools.genops(stream)  # type: ignore[arg-type]  # typeshed does not count mmap as IO
    except Exception as error:
        raise RefusedError(f"it is damaged or cut short ({error!s:.200})") from error
