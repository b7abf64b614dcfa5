"""Pickles, read without running anything that they hold.

A pickle is a program: the ordinary unpickler imports and calls what it names. Here it runs on a stack machine of our
own which knows the few opcodes of networks' files. What the pickle calls a global never becomes a Python object: it
stays a name, and a name outside a machine's table is refused. A call of one builds plain numbers, dicts, tensors and
records, and nothing else.

Whatever a file claims, memory and time stay in proportion to its size: no opcode allocates by a number that it is
given, the storages together are no larger than the file, views lie within their storage, and what a file refers to
many times is visited once. So values that a file made up are never printed or compared whole: they may be short in the
file and endless on paper.
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
"""EDM's largest network takes some 60 thousand; an opcode of one byte can ask for 200 bytes of memory."""

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
    """What these modules have to say of a file, told from the errors that Python and torch raise within."""


class Stream(Protocol):
    """What `pickletools.genops` reads: an `io.BytesIO` or a `mmap.mmap`, which never read beyond their end."""

    def read(self, n: int | None = ..., /) -> bytes: ...

    def readline(self) -> bytes: ...


@dataclass(frozen=True)
class Global:
    """A global as the pickle names it. It cannot be called."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Storage:
    """The numbers that tensors are views of: (n,)."""

    values: Tensor


class Machine:
    """A stack machine for what both kinds of pickle have in common: plain values, containers and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark: nothing above a mark reaches beneath it
        self.memo: list[Any] = []
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
        """The value that the pickle at the stream's position describes; the stream is left behind it."""
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
        """Carry out one opcode."""
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
            raise RefusedError(f"it uses the opcode {name}{shown}, which such files do not have")

    def ignore(self, _: Any) -> None:
        """Protocol and frame sizes say nothing about the values."""

    def mark(self, _: Any) -> None:
        """Begin a run of items."""
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """End a run of items, and return it."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def tuple_of_marked(self, _: Any) -> None:
        """Make a tuple of a run."""
        items = self.marked()
        self.stack.append(tuple(items))

    def append(self, _: Any) -> None:
        """Add one item to a list."""
        item = self.stack.pop()
        of_type(self.stack[-1], list).append(item)

    def appends(self, _: Any) -> None:
        """Add a run of items to a list."""
        items = self.marked()
        of_type(self.stack[-1], list).extend(items)

    def setitem(self, _: Any) -> None:
        """Set one item of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        of_type(self.stack[-1], dict)[of_type(key, str)] = value

    def setitems(self, _: Any) -> None:
        """Set a run of items of a dict."""
        items = self.marked()
        target = of_type(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Names only: hashing a tuple nested a million deep would overflow the C stack.
            target[of_type(key, str)] = value

    def additems(self, _: Any) -> None:
        """Add a run of names to a set."""
        items = self.marked()
        of_type(self.stack[-1], set).update(of_type(item, str) for item in items)

    def memoize(self, _: Any) -> None:
        """Remember the top of the stack under the next number."""
        self.memo.append(self.stack[-1])

    def get(self, number: Any) -> None:
        """Push what was remembered under a number."""
        self.stack.append(self.memo[number])


class Builder(Machine):
    """A machine that makes tensors: it answers the calls in its table."""

    def __init__(self) -> None:
        super().__init__()
        self.operations |= {"REDUCE": self.reduce}
        self.calls: dict[Global, Callable[..., Any]] = {
            Global("collections", "OrderedDict"): self.ordered_dict,
            Global("torch._utils", "_rebuild_parameter"): lambda tensor, *_: of_type(tensor, Tensor),
            Global("torch._utils", "_rebuild_tensor_v2"): self.tensor,
        }

    def reduce(self, _: Any) -> None:
        """Replace a global and its arguments by what we make of them."""
        arguments, function = of_type(self.stack.pop(), tuple), of_type(self.stack.pop(), Global)
        if len(arguments) > MAX_ARGUMENTS:
            raise RefusedError(f"it calls {function} with {len(arguments)} arguments")
        self.stack.append(self.calls[function](*arguments))

    def ordered_dict(self) -> dict[str, Any]:
        """An empty dict: what is in it follows."""
        return {}

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any = None, hooks: Any = None, more: Any = None
    ) -> Tensor:
        """A view of a storage that lies within it."""
        if more:  # such as that its sign is the other one
            raise RefusedError("it has a tensor that is more than a view of numbers")
        values = of_type(storage, Storage).values
        size, stride = of_type(size, tuple), of_type(stride, tuple)
        numbers = (offset, *size, *stride)
        last = -1
        if len(size) == len(stride) <= MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in numbers):
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if not 0 <= last < len(values) or not 0 < math.prod(size) <= len(values):
            raise RefusedError(f"it has a tensor whose size, stride and offset lead out of its {len(values)} numbers")
        return values.as_strided(size, stride, offset)


def of_type(value: Any, expected: type) -> Any:
    """The value, once it is of a type."""
    if not isinstance(value, expected):
        raise RefusedError(f"it has a {type(value).__name__} where a {expected.__name__} was expected")
    return value


def exactly(items: Any, n: int) -> tuple[Any, ...]:
    """The items as a tuple, once they are n."""
    if len(items) != n:
        raise RefusedError(f"it has {len(items)} values where {n} were expected")
    return tuple(items)


def _opcodes(stream: Stream) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """The opcodes up to STOP, with their arguments and positions."""
    try:
        yield from pickletools.genops(stream)  # type: ignore[arg-type]  # a mmap is no IO to typeshed
    except Exception as error:
        raise RefusedError(f"it is damaged or cut short ({error!s:.200})") from error
