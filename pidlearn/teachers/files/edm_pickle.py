"""EDM's ``.pkl`` files, read without running anything that they hold.

They are pickles and carry Python source for the ordinary unpickler; here they run on the machine of
`pickle_machine`. The weights stand in the pickle in torch's old storage format, which holds pickles again.
A second machine reads them, with one global, `torch.FloatStorage`; `torch.load` is not involved.
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pidlearn.teachers.files.pickle_machine import (
    Builder,
    Global,
    Machine,
    RefusedError,
    Storage,
    Stream,
    exactly,
    of_type,
)

__all__ = ["Pickled", "read", "unpickle"]

STORAGE_MAGIC = 119547037146038801333356
STORAGE_VERSION = 1001


class Pickled(NamedTuple):
    """What an EDM pickle says of its network ``ema``."""

    class_name: str
    options: dict[str, Any]
    """What the constructor was called with; its defaults are not among them."""
    tensors: dict[str, Tensor]
    """The state dict: float32, on the CPU."""


@dataclass(eq=False)
class Record:
    """An object of the pickle: the name of its class and its attributes. Those of a ModuleDict follow with BUILD."""

    class_name: str
    state: dict[str, Any] | None


class DType:
    """A float64, the one dtype of the numbers in such files."""


@dataclass
class Reference:
    """A persistent id: the storage of ``length`` numbers that the file goes on to list."""

    key: str
    length: int


class NetworkMachine(Builder):
    """The outer pickle. ``budget`` is how many bytes of storage the file can hold."""

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.budget = budget
        self.operations |= {
            "STACK_GLOBAL": self.stack_global,
            "NEWOBJ": self.newobj,
            "BUILD": self.build,
        }
        self.calls |= {
            Global("torch_utils.persistence", "_reconstruct_persistent_obj"): self.record,
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
        asked = Global(of_type(module, str), of_type(name, str))
        if asked not in self.calls and asked not in self.classes:
            raise RefusedError(f"it asks for {str(asked)!r:.120}, which EDM's networks do not need")
        self.stack.append(asked)

    def newobj(self, _: Any) -> None:
        """Replace the name of a class by an empty record or dict."""
        arguments, cls = self.stack.pop(), self.stack.pop()
        exactly(of_type(arguments, tuple), 0)
        self.stack.append(self.classes[of_type(cls, Global)]())

    def build(self, _: Any) -> None:
        """Give a ModuleDict its attributes, once; what NumPy and EasyDict add to their objects is of no use here."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record) and target.state is None:
            target.state = of_type(state, dict)
        elif isinstance(target, DType):
            if of_type(state, tuple)[1] != "<":
                raise RefusedError("it holds NumPy numbers that are not little-endian")
        elif type(target) is not dict:
            raise RefusedError(f"it sets the state of a {type(target).__name__}, which EDM's files do not do")

    def record(self, meta: Any) -> Record:
        """An object of EDM's: the name of its class and its attributes. The source code beside them is ignored."""
        meta = of_type(meta, dict)
        return Record(of_type(meta["class_name"], str), of_type(meta["state"], dict))

    def storage(self, contents: Any) -> Storage:
        """A storage, if the file is large enough for it beside those before it."""
        self.budget -= len(of_type(contents, bytes))
        if self.budget < 0:
            raise RefusedError("its storages hold more numbers than the file has room for")
        return read_storage(contents)

    def dtype(self, kind: Any, *_: Any) -> DType:
        """float64, and no other."""
        if kind != "f8":
            raise RefusedError("it holds a NumPy number that is not of type f8")
        return DType()

    def number(self, dtype: Any, contents: Any) -> float:
        """A NumPy scalar as a float."""
        of_type(dtype, DType)
        return float(struct.unpack("<d", of_type(contents, bytes))[0])


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
        kind, dtype, key, _location, length, _view = exactly(of_type(self.stack.pop(), tuple), 6)
        if kind != "storage" or not isinstance(dtype, Global):
            raise RefusedError("one of its storages has a persistent id that is not torch's")
        self.stack.append(Reference(of_type(key, str), of_type(length, int)))

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
    if (magic, version) != (STORAGE_MAGIC, STORAGE_VERSION) or of_type(system, dict)["little_endian"] is not True:
        raise RefusedError("one of its storages is not in torch's little-endian format 1001")
    length = of_type(reference, Reference).length
    count = int.from_bytes(stream.read(8), "little")
    start = stream.tell()
    if keys != [reference.key] or count != length or length < 1 or len(contents) - start != 4 * length:
        raise RefusedError(
            f"one of its storages announces {length} and {count} numbers in {len(contents) - start} bytes, "
            f"which are {(len(contents) - start) / 4:g}"
        )
    values = np.frombuffer(contents, "<f4", offset=start)
    return Storage(torch.from_numpy(values.astype(np.float32)))  # a copy, for tensors must be writable


def _network(content: Any) -> Pickled:
    """The network among what the pickle holds."""
    if type(content) is not dict or not isinstance(content.get("ema"), Record):
        raise RefusedError("it holds no network under the name 'ema'")
    ema = content["ema"]
    if not isinstance(ema.state, dict) or ema.state.get("_init_args", ()) != ():
        raise RefusedError("its network does not say which options it was made with")
    options = of_type(ema.state["_init_kwargs"], dict)
    tensors: dict[str, Tensor] = {}
    _collect(ema, "", tensors, set())
    return Pickled(ema.class_name, options, tensors)


def _collect(record: Record, prefix: str, tensors: dict[str, Tensor], seen: set[int]) -> None:
    """Add a module's tensors and its children's: parameters, then buffers that belong in a state dict."""
    state = of_type(record.state, dict)
    parameters, buffers, modules = (of_type(state[key], dict) for key in ("_parameters", "_buffers", "_modules"))
    for part in (record, parameters, buffers, modules):
        if id(part) in seen:
            raise RefusedError(f"it lists the module {prefix!r:.80} twice")
        seen.add(id(part))
    not_saved = of_type(state["_non_persistent_buffers_set"], set)
    saved = {name: value for name, value in buffers.items() if name not in not_saved}
    for name, value in [*parameters.items(), *saved.items()]:
        if value is not None:
            if prefix + name in tensors:
                raise RefusedError(f"it holds two tensors named {prefix + name!r:.120}")
            tensors[prefix + name] = of_type(value, Tensor)
    for name, child in modules.items():
        if child is not None:
            _collect(of_type(child, Record), f"{prefix}{name}.", tensors, seen)
