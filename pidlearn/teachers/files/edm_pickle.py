"""EDM's ``.pkl`` files, read without executing anything that they hold.

Each is a pickle with Python source code for Python's own unpickler; `NetworkMachine` reads it and ignores the source.
The weights are byte strings inside the pickle, each a file in the format of torch before 1.6, which holds pickles
again: `StorageMachine` reads those, with no globals but torch's storages, such as `torch.FloatStorage`.
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pidlearn.utils.pickle_machine import Builder, Global, RefusedError, Storage, Stream, exactly, of_type
from pidlearn.utils.torch_archive import LegacyMachine, read_legacy

__all__ = ["Pickled", "read", "unpickle"]


class Pickled(NamedTuple):
    """The network ``ema`` of an EDM pickle."""

    class_name: str
    options: dict[str, Any]
    """The arguments of the constructor's call, without the defaults."""
    tensors: dict[str, Tensor]
    """The state dict, on the CPU in the dtype of the file."""


@dataclass(eq=False)
class Record:
    """An object of the pickle: its class's name and its attributes. A ModuleDict gets its attributes with BUILD."""

    class_name: str
    state: dict[str, Any] | None


class DType:
    """float64, the only dtype of NumPy scalars in these files."""


class NetworkMachine(Builder):
    """The outer pickle: modules, their options and tensors.

    Args:
        budget: bytes that all storages together may take, no more than the file has.
    """

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
        """Push the name of a global if it is in one of the tables."""
        name, module = self.stack.pop(), self.stack.pop()
        wanted = Global(of_type(module, str), of_type(name, str))
        if wanted not in self.calls and wanted not in self.classes:
            raise RefusedError(f"it refers to {str(wanted)!r:.120}, which EDM's networks do not need")
        self.stack.append(wanted)

    def newobj(self, _: Any) -> None:
        """Replace the name of a class by an empty record or dict."""
        arguments, cls = self.stack.pop(), self.stack.pop()
        exactly(of_type(arguments, tuple), 0)
        self.stack.append(self.classes[of_type(cls, Global)]())

    def build(self, _: Any) -> None:
        """Set the attributes of a ModuleDict, once; drop the state of NumPy scalars and EasyDicts."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record) and target.state is None:
            target.state = of_type(state, dict)
        elif isinstance(target, DType):
            if of_type(state, tuple)[1] != "<":
                raise RefusedError("it holds NumPy numbers that are not little-endian")
        elif type(target) is not dict:
            raise RefusedError(f"it sets the state of a {type(target).__name__}, which EDM's files do not do")

    def record(self, meta: Any) -> Record:
        """Return one of EDM's objects as its class's name and its attributes; ignore the source code in it."""
        meta = of_type(meta, dict)
        return Record(of_type(meta["class_name"], str), of_type(meta["state"], dict))

    def storage(self, contents: Any) -> Storage:
        """Return a storage if the file has room for it and for those before it."""
        self.budget -= len(of_type(contents, bytes))
        if self.budget < 0:
            raise RefusedError("its storages hold more numbers than the file has room for")
        try:
            storage = of_type(read_legacy(io.BytesIO(contents), StorageMachine(len(contents))), Storage)
        except RefusedError as error:
            raise RefusedError(f"one of its storages cannot be read: {error}") from error
        # The memo keeps these bytes, and the call's arguments, for which no network asks again: without them, weights
        # are in memory once.
        for number in list(self.memo)[-2:]:
            if self.memo[number] is contents or self.memo[number] == (contents,):
                self.memo[number] = None
        return storage

    def dtype(self, kind: Any, *_: Any) -> DType:
        """Return the dtype float64; refuse any other."""
        if kind != "f8":
            raise RefusedError("it holds a NumPy number that is not of type f8")
        return DType()

    def number(self, dtype: Any, contents: Any) -> float:
        """Return a NumPy scalar as a float."""
        of_type(dtype, DType)
        return float(struct.unpack("<d", of_type(contents, bytes))[0])


class StorageMachine(LegacyMachine):
    """The pickle of a storage: nothing but a reference to one in float32, float16 or bfloat16."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self.calls, self.classes = {}, set()
        names = ("FloatStorage", "HalfStorage", "BFloat16Storage")
        self.kinds = {kind: dtype for kind, dtype in self.kinds.items() if kind.name in names}


def read(path: Path) -> Pickled:
    """Read the network ``ema`` of an EDM pickle.

    Raises:
        ValueError: for a file that is anything else, saying what it holds. Nothing in it is executed.
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
        ValueError: for anything else.
    """
    try:
        pickled = _network(NetworkMachine(size).run(stream))
    except RefusedError:
        raise
    except Exception as error:  # the errors that a damaged pickle can lead to cannot be listed
        raise RefusedError(f"it is damaged ({error!r:.200})") from error
    if sum(tensor.nbytes for tensor in pickled.tensors.values()) > size:
        raise RefusedError("its tensors hold more numbers than the file has room for")
    return pickled


def _network(content: Any) -> Pickled:
    """Find the network in the pickle's content."""
    if type(content) is not dict or not isinstance(content.get("ema"), Record):
        raise RefusedError("it holds no network under the name 'ema'")
    ema = content["ema"]
    if not isinstance(ema.state, dict) or ema.state.get("_init_args", ()) != ():
        raise RefusedError("its network does not say which options it was built with")
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
