"""EDM's ``.pkl`` files, read without running anything that they hold.

Such a file is a pickle, and a pickle is a program: the ordinary unpickler imports and calls what it names, and EDM's
files even carry Python source for it. Here the program runs on a stack machine of our own which knows the few opcodes
of such files. What the pickle calls a global never becomes a Python object: it stays a name, and a name outside the
table below is refused. A call of one builds plain numbers, dicts, tensors and records, and nothing else.

The weights stand in the pickle in torch's old storage format, which holds pickles again. A second machine reads them,
with one global, `torch.FloatStorage`; `torch.load` is not involved.

Whatever a file claims, memory and time stay in proportion to its size: no opcode allocates by a number that it is
given, the storages together are no larger than the file, views lie within their storage, and what a file refers to
many times is visited once. So values that a file made up are never printed or compared whole: they may be short in the
file and endless on paper.
"""

from __future__ import annotations

import io
import math
import mmap
import pickletools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["Pickled", "read", "unpickle"]

MAX_OPCODES = 2_000_000
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

STORAGE_MAGIC = 119547037146038801333356
STORAGE_VERSION = 1001


class RefusedError(ValueError):
    """What this module has to say of a file, told from the errors that Python and torch raise within."""


class Pickled(NamedTuple):
    """What an EDM pickle says of its network ``ema``."""

    class_name: str
    options: dict[str, Any]
    """What the constructor was called with; its defaults are not among them."""
    tensors: dict[str, Tensor]
    """The state dict: float32, on the CPU."""


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


@dataclass(eq=False)
class Record:
    """An object of the pickle: the name of its class and its attributes. Those of a ModuleDict follow with BUILD."""

    class_name: str
    state: dict[str, Any] | None


class DType:
    """A float64, the one dtype of the numbers in such files."""


@dataclass
class Storage:
    """The numbers that tensors are views of: (n,) float32."""

    values: Tensor


@dataclass
class Reference:
    """A persistent id: the storage of ``length`` numbers that the file goes on to list."""

    key: str
    length: int


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
            self.stack[-TUPLES[name] :] = [_exactly(self.stack[-TUPLES[name] :], TUPLES[name])]
        elif name in self.operations:
            self.operations[name](argument)
        else:
            shown = "" if argument is None else f" with {argument!r:.80}"
            raise RefusedError(f"it uses the opcode {name}{shown}, which EDM's files do not have")

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
        _of_type(self.stack[-1], list).append(item)

    def appends(self, _: Any) -> None:
        """Add a run of items to a list."""
        items = self.marked()
        _of_type(self.stack[-1], list).extend(items)

    def setitem(self, _: Any) -> None:
        """Set one item of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        _of_type(self.stack[-1], dict)[_of_type(key, str)] = value

    def setitems(self, _: Any) -> None:
        """Set a run of items of a dict."""
        items = self.marked()
        target = _of_type(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Names only: hashing a tuple nested a million deep would overflow the C stack.
            target[_of_type(key, str)] = value

    def additems(self, _: Any) -> None:
        """Add a run of names to a set."""
        items = self.marked()
        _of_type(self.stack[-1], set).update(_of_type(item, str) for item in items)

    def memoize(self, _: Any) -> None:
        """Remember the top of the stack under the next number."""
        self.memo.append(self.stack[-1])

    def get(self, number: Any) -> None:
        """Push what was remembered under a number."""
        self.stack.append(self.memo[number])


class NetworkMachine(Machine):
    """The outer pickle. ``budget`` is how many bytes of storage the file can hold."""

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.budget = budget
        self.operations |= {
            "STACK_GLOBAL": self.stack_global,
            "REDUCE": self.reduce,
            "NEWOBJ": self.newobj,
            "BUILD": self.build,
        }
        self.calls: dict[Global, Callable[..., Any]] = {
            Global("torch_utils.persistence", "_reconstruct_persistent_obj"): self.record,
            Global("collections", "OrderedDict"): self.ordered_dict,
            Global("torch._utils", "_rebuild_parameter"): lambda tensor, *_: _of_type(tensor, Tensor),
            Global("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            Global("torch.storage", "_load_from_bytes"): self.storage,
            Global("numpy.core.multiarray", "scalar"): self.number,
            Global("numpy._core.multiarray", "scalar"): self.number,
            Global("numpy", "dtype"): self.dtype,
        }
        self.classes: dict[Global, Callable[[], Any]] = {
            Global("torch.nn.modules.container", "ModuleDict"): lambda: Record("ModuleDict", None),
            Global("dnnlib.util", "EasyDict"): dict,
        }

    def stack_global(self, _: Any) -> None:
        """Push the name of a global, if it is one of ours."""
        name, module = self.stack.pop(), self.stack.pop()
        asked = Global(_of_type(module, str), _of_type(name, str))
        if asked not in self.calls and asked not in self.classes:
            raise RefusedError(f"it asks for {str(asked)!r:.120}, which EDM's networks do not need")
        self.stack.append(asked)

    def reduce(self, _: Any) -> None:
        """Replace a global and its arguments by what we make of them."""
        arguments, function = _of_type(self.stack.pop(), tuple), _of_type(self.stack.pop(), Global)
        if len(arguments) > MAX_ARGUMENTS:
            raise RefusedError(f"it calls {function} with {len(arguments)} arguments")
        self.stack.append(self.calls[function](*arguments))

    def newobj(self, _: Any) -> None:
        """Replace the name of a class by an empty record or dict."""
        arguments, cls = self.stack.pop(), self.stack.pop()
        _exactly(_of_type(arguments, tuple), 0)
        self.stack.append(self.classes[_of_type(cls, Global)]())

    def build(self, _: Any) -> None:
        """Give a ModuleDict its attributes, once; what NumPy and EasyDict add to their objects is of no use here."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record) and target.state is None:
            target.state = _of_type(state, dict)
        elif isinstance(target, DType):
            if _of_type(state, tuple)[1] != "<":
                raise RefusedError("it holds NumPy numbers that are not little-endian")
        elif type(target) is not dict:
            raise RefusedError(f"it sets the state of a {type(target).__name__}, which EDM's files do not do")

    def ordered_dict(self) -> dict[str, Any]:
        """An empty dict: what is in it follows."""
        return {}

    def record(self, meta: Any) -> Record:
        """An object of EDM's: the name of its class and its attributes. The source code beside them is ignored."""
        meta = _of_type(meta, dict)
        return Record(_of_type(meta["class_name"], str), _of_type(meta["state"], dict))

    def storage(self, contents: Any) -> Storage:
        """A storage, if the file is large enough for it beside those before it."""
        self.budget -= len(_of_type(contents, bytes))
        if self.budget < 0:
            raise RefusedError("its storages hold more numbers than the file has room for")
        return read_storage(contents)

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        """A view of a storage that lies within it."""
        values = _of_type(storage, Storage).values
        size, stride = _of_type(size, tuple), _of_type(stride, tuple)
        numbers = (offset, *size, *stride)
        last = -1
        if len(size) == len(stride) <= MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in numbers):
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if not 0 <= last < len(values) or not 0 < math.prod(size) <= len(values):
            raise RefusedError(f"it has a tensor whose size, stride and offset lead out of its {len(values)} numbers")
        return values.as_strided(size, stride, offset)

    def dtype(self, kind: Any, *_: Any) -> DType:
        """float64, and no other."""
        if kind != "f8":
            raise RefusedError("it holds a NumPy number that is not of type f8")
        return DType()

    def number(self, dtype: Any, contents: Any) -> float:
        """A NumPy scalar as a float."""
        _of_type(dtype, DType)
        return float(struct.unpack("<d", _of_type(contents, bytes))[0])


class StorageMachine(Machine):
    """The pickles within a storage: plain values, and one reference to ``torch.FloatStorage``."""

    def __init__(self) -> None:
        super().__init__()
        self.operations |= {"GLOBAL": self.global_, "BINPERSID": self.reference, "BINPUT": self.put}

    def global_(self, name: Any) -> None:
        """Push the name of the one kind of storage."""
        if name != "torch FloatStorage":
            asked = str(name).replace(" ", ".")
            raise RefusedError(f"one of its storages asks for {asked!r:.120} where torch.FloatStorage was expected")
        self.stack.append(Global("torch", "FloatStorage"))

    def reference(self, _: Any) -> None:
        """Push a reference to the storage that follows."""
        kind, dtype, key, _location, length, _view = _exactly(_of_type(self.stack.pop(), tuple), 6)
        if kind != "storage" or not isinstance(dtype, Global):
            raise RefusedError("one of its storages has a persistent id that is not torch's")
        self.stack.append(Reference(_of_type(key, str), _of_type(length, int)))

    def put(self, number: Any) -> None:
        """Remember the top of the stack under a number, which is always the next one."""
        if number != len(self.memo):
            raise RefusedError(f"one of its storages remembers value {number} after {len(self.memo)} others")
        self.memo.append(self.stack[-1])


def read(path: Path) -> Pickled:
    """Read the network ``ema`` of an EDM pickle.

    Raises:
        ValueError: for a file that is anything else, naming what it tried. Nothing in it is executed.
    """
    if not path.stat().st_size:
        raise RefusedError(f"{path} is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        try:
            return unpickle(contents, len(contents))
        except RefusedError as error:
            raise RefusedError(
                f"{path} is not an EDM network that can be read safely: {error}. Nothing in it was executed"
            ) from error


def unpickle(stream: Stream, size: int) -> Pickled:
    """Read the network ``ema`` of a pickle of ``size`` bytes.

    Raises:
        ValueError: whatever is wrong.
    """
    try:
        pickled = _network(NetworkMachine(size).run(stream))
    except RefusedError:
        raise
    except Exception as error:  # what a damaged pickle can lead to is not to be listed
        raise RefusedError(f"it is damaged ({error!r:.200})") from error
    if 4 * sum(tensor.numel() for tensor in pickled.tensors.values()) > size:
        raise RefusedError("its tensors hold more numbers than the file has room for")
    return pickled


def read_storage(contents: bytes) -> Storage:
    """Numbers in torch's format of before version 1.6: five pickles, a count and the raw little-endian values."""
    stream = io.BytesIO(contents)
    magic, version, system, reference, keys = (StorageMachine().run(stream) for _ in range(5))
    if (magic, version) != (STORAGE_MAGIC, STORAGE_VERSION) or _of_type(system, dict)["little_endian"] is not True:
        raise RefusedError("one of its storages is not in torch's little-endian format 1001")
    length = _of_type(reference, Reference).length
    count = int.from_bytes(stream.read(8), "little")
    start = stream.tell()
    if keys != [reference.key] or count != length or length < 1 or len(contents) - start != 4 * length:
        raise RefusedError(
            f"one of its storages announces {length} and {count} numbers in {len(contents) - start} bytes, "
            f"which are {(len(contents) - start) / 4:g}"
        )
    values = np.frombuffer(contents, "<f4", offset=start)
    return Storage(torch.from_numpy(values.astype(np.float32)))  # a copy, for tensors must be writable


def _opcodes(stream: Stream) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """The opcodes up to STOP, with their arguments and positions."""
    try:
        yield from pickletools.genops(stream)  # type: ignore[arg-type]  # a mmap is no IO to typeshed
    except Exception as error:
        raise RefusedError(f"it is damaged or cut short ({error!s:.200})") from error


def _network(content: Any) -> Pickled:
    """The network among what the pickle holds."""
    if type(content) is not dict or not isinstance(content.get("ema"), Record):
        raise RefusedError("it holds no network under the name 'ema'")
    ema = content["ema"]
    if not isinstance(ema.state, dict) or ema.state.get("_init_args", ()) != ():
        raise RefusedError("its network does not say which options it was made with")
    options = _of_type(ema.state["_init_kwargs"], dict)
    tensors: dict[str, Tensor] = {}
    _collect(ema, "", tensors, set())
    return Pickled(ema.class_name, options, tensors)


def _collect(record: Record, prefix: str, tensors: dict[str, Tensor], seen: set[int]) -> None:
    """Add a module's tensors and its children's: parameters, then buffers that belong in a state dict."""
    state = _of_type(record.state, dict)
    parameters, buffers, modules = (_of_type(state[key], dict) for key in ("_parameters", "_buffers", "_modules"))
    for part in (record, parameters, buffers, modules):
        if id(part) in seen:
            raise RefusedError(f"it lists the module {prefix!r:.80} twice")
        seen.add(id(part))
    not_saved = _of_type(state["_non_persistent_buffers_set"], set)
    saved = {name: value for name, value in buffers.items() if name not in not_saved}
    for name, value in [*parameters.items(), *saved.items()]:
        if value is not None:
            if prefix + name in tensors:
                raise RefusedError(f"it holds two tensors named {prefix + name!r:.120}")
            tensors[prefix + name] = _of_type(value, Tensor)
    for name, child in modules.items():
        if child is not None:
            _collect(_of_type(child, Record), f"{prefix}{name}.", tensors, seen)


def _of_type(value: Any, expected: type) -> Any:
    """The value, once it is of a type."""
    if not isinstance(value, expected):
        raise RefusedError(f"it has a {type(value).__name__} where a {expected.__name__} was expected")
    return value


def _exactly(items: Any, n: int) -> tuple[Any, ...]:
    """The items as a tuple, once they are n."""
    if len(items) != n:
        raise RefusedError(f"it has {len(items)} values where {n} were expected")
    return tuple(items)
