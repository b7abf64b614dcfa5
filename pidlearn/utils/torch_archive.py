"""Files that `torch.save` wrote, read without executing anything that they hold.

Since torch 1.6 such a file is a zip archive: one member is a pickle that describes tensors, the others are their
numbers. Before, it was one stream: five pickles, the fourth of which describes the tensors, then the numbers of each
storage. torchvision still publishes weights in the old format. `torch.load` would read both, but even with
``weights_only=True`` it allocates whatever a few bytes claim, and older versions execute code or corrupt memory.
"""

from __future__ import annotations

import io
import mmap
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.pickle_machine import Builder, Global, Machine, RefusedError, Storage, Stream, exactly, of_type

__all__ = ["LEGACY", "LegacyMachine", "read", "read_content", "read_legacy"]

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9"
"""The first bytes of a file that torch before 1.6 wrote."""

MAGIC = 119547037146038801333356
VERSION = 1001

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
ORDERED_DICT = Global("collections", "OrderedDict")
PARAMETER = Global("torch.nn.parameter", "Parameter")
PICKLE = "/data.pkl"
BLOCK = 2**24
"""Bytes that are read at a time."""


def protocol_2(machine: Machine) -> dict[str, Callable[[Any], None]]:
    """Return the opcodes of pickle protocol 2, which torch writes: a numbered memo, and Python 2's byte strings."""
    return {
        "BINPUT": machine.put,
        "LONG_BINPUT": machine.put,
        "BINSTRING": machine.push,
        "SHORT_BINSTRING": machine.push,
    }


class PlainMachine(Machine):
    """The pickles of the old format that hold plain values."""

    def __init__(self) -> None:
        super().__init__()
        self.operations |= protocol_2(self)


class TensorMachine(Builder):
    """The pickle that describes tensors. Where the numbers of a storage come from is a matter of the subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[str, Storage] = {}
        self.kinds = {Global("torch", name): dtype for name, dtype in DTYPES.items()}
        self.classes = {PARAMETER}
        self.operations |= protocol_2(self)
        self.operations |= {
            "GLOBAL": self.global_,
            "BINPERSID": self.persistent,
            "NEWOBJ": self.new_parameter,
            "BUILD": self.build,
        }
        self.calls |= {
            ORDERED_DICT: self.dict_of_pairs,
            Global("torch._utils", "_rebuild_tensor"): self.tensor,  # as torch before 0.4 wrote tensors
        }

    def global_(self, name: Any) -> None:
        """Push the name of a global if it is in one of the tables."""
        wanted = Global(*name.split(" ", 1))
        if wanted not in self.calls and wanted not in self.kinds and wanted not in self.classes:
            raise RefusedError(f"it refers to {str(wanted)!r:.120}, which tensors by name do not need")
        self.stack.append(wanted)

    def key(self, value: Any) -> Any:
        """Return a key of a dict, a string or, as in an optimizer's state, a whole number."""
        return value if type(value) is int else super().key(value)

    def dict_of_pairs(self, pairs: Any = None) -> dict[str, Any]:
        """Return a dict: empty, as later opcodes set its items, or of a list of pairs, as Python 2 wrote it."""
        items = [] if pairs is None else [exactly(of_type(pair, list), 2) for pair in of_type(pairs, list)]
        return {of_type(key, str): value for key, value in items}

    def new_parameter(self, _: Any) -> None:
        """Replace the name of the parameter class and a tensor by that tensor, as torch before 0.4 wrote parameters."""
        arguments, cls = of_type(self.stack.pop(), tuple), of_type(self.stack.pop(), Global)
        if cls not in self.classes:
            raise RefusedError(f"it makes an object of {cls}, which tensors by name do not need")
        self.stack.append(of_type(exactly(arguments, 1)[0], Tensor))

    def build(self, _: Any) -> None:
        """Drop a state: a state dict's versions of its modules, or whether a parameter needs a gradient."""
        self.stack.pop()
        if not isinstance(self.stack[-1], (dict, Tensor)):
            raise RefusedError(f"it sets the state of a {type(self.stack[-1]).__name__}")

    def persistent(self, _: Any) -> None:
        """Push the storage that a persistent id names."""
        kind, type_, key, _location, length, *view = of_type(self.stack.pop(), tuple)
        if kind != "storage" or of_type(type_, Global) not in self.kinds or any(item is not None for item in view):
            raise RefusedError("it has a persistent id that does not name a storage")
        if of_type(key, str) not in self.storages:
            self.storages[key] = self.storage(key, self.kinds[type_], of_type(length, int))
        self.stack.append(self.storages[key])

    def storage(self, key: str, dtype: torch.dtype, length: int) -> Storage:
        """Return the storage of that key, of ``length`` numbers."""
        raise NotImplementedError


class ZipMachine(TensorMachine):
    """The pickle of a zip archive: a storage's numbers are a member of the archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__()
        self.archive, self.folder = archive, folder

    def storage(self, key: str, dtype: torch.dtype, length: int) -> Storage:
        """Read a member of the archive."""
        member = self.archive.getinfo(f"{self.folder}/data/{key}")
        if member.file_size != length * dtype.itemsize:
            raise RefusedError(f"it announces {length} numbers of {dtype} where it has {member.file_size} bytes")
        values = torch.empty(length, dtype=dtype)
        with self.archive.open(member) as file:
            _fill(values, file)
        return Storage(values)


class LegacyMachine(TensorMachine):
    """The pickle of the old format: the numbers follow it, so storages are allocated here and filled later.

    Args:
        budget: bytes that all storages together may take, no more than the file has.
    """

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.budget = budget

    def storage(self, key: str, dtype: torch.dtype, length: int) -> Storage:
        """Allocate a storage if the file has room for its numbers."""
        self.budget -= length * dtype.itemsize
        if length < 1 or self.budget < 0:
            raise RefusedError(f"it announces {length} numbers of {dtype}, more than it has room for, or none")
        return Storage(torch.empty(length, dtype=dtype))


def read(path: Path) -> dict[str, Tensor]:
    """Read a dict of tensors by name, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is anything else, saying what it holds. Nothing in it is executed, and memory stays
            in proportion to its size.
    """
    content = read_content(path)
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(f"{path} does not hold a dict of tensors by name: save the state_dict of a network")
    return content


def read_content(path: Path) -> Any:
    """Read tensors, plain values, lists and dicts of these, such as the state of a training, as `read` does.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is anything else, saying what it holds.
    """
    with path.open("rb") as file:
        legacy = file.read(len(LEGACY)) == LEGACY
    try:
        return _read_stream(path) if legacy else _read_zip(path)
    except Exception as error:  # the errors that a damaged file can lead to cannot be listed
        raise ValueError(
            f"{path} is not a file of tensors that torch.save wrote: {error!s:.300}. Nothing in it was executed: load "
            f"it with the code that wrote it, and save the network's state_dict alone"
        ) from error


def _read_zip(path: Path) -> Any:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > size:
            raise RefusedError("its contents are compressed, which torch.save does not do")
        pickles = [member.filename for member in members if member.filename.endswith(PICKLE)]
        if len(pickles) != 1:
            raise RefusedError(f"it has {len(pickles)} members data.pkl where torch.save writes one")
        folder = pickles[0].removesuffix(PICKLE)
        order = f"{folder}/byteorder"
        if (archive.read(order).decode() if order in archive.namelist() else "little") != sys.byteorder:
            raise RefusedError(f"its numbers are not {sys.byteorder}-endian, as on this machine")
        content = ZipMachine(archive, folder).run(io.BytesIO(archive.read(pickles[0])))
    _check_size(content, size)
    return content


def _read_stream(path: Path) -> Any:
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        content = read_legacy(contents, LegacyMachine(size))
    _check_size(content, size)
    return content


def read_legacy(stream: Stream, machine: LegacyMachine) -> Any:
    """Read the format of torch before 1.6 from its first byte to its last; return what the fourth pickle describes.

    The pickles are: a magic number, the version, the writer's system, the content, and the keys of the storages. Then
    come, for each key, an int64 count and that many numbers.

    Args:
        stream: the file, or the bytes of one.
        machine: the interpreter of the content; its tables say which globals it may name.

    Raises:
        RefusedError: for anything else.
    """
    magic, version, system = (PlainMachine().run(stream) for _ in range(3))
    if (magic, version) != (MAGIC, VERSION) or of_type(system, dict).get("little_endian") is not True:
        raise RefusedError(f"it is not in torch's little-endian format {VERSION}")
    content = machine.run(stream)
    waiting = dict(machine.storages)
    for key in of_type(PlainMachine().run(stream), list):
        if of_type(key, str) not in waiting:
            raise RefusedError(f"it lists the numbers of a storage {key!r:.80} that no tensor uses, or twice")
        values = waiting.pop(key).values
        count = int.from_bytes(stream.read(8), "little", signed=True)
        if count != len(values):
            raise RefusedError(f"it announces {len(values)} numbers for a storage and then {count}")
        _fill(values, stream)
    if waiting:
        raise RefusedError(f"it lacks the numbers of {len(waiting)} storages")
    if stream.read(1):
        raise RefusedError("it goes on after its last number")
    return content


def _fill(values: Tensor, stream: Any) -> None:
    """Read a storage's numbers, (n,) of any dtype, in place: blocks keep a second copy of a large one away."""
    memory = values.view(torch.uint8).numpy()
    done = 0
    while done < len(memory):
        block = stream.read(min(BLOCK, len(memory) - done))
        if not block:
            raise RefusedError(
                f"it announces {len(values)} numbers in {done} bytes, which are {done / values.element_size():g}"
            )
        memory[done : done + len(block)] = bytearray(block)
        done += len(block)


def _check_size(content: Any, size: int) -> None:
    """Refuse a few numbers that many names share: a caller may copy each of them."""
    parts = [content, *content.values()] if isinstance(content, dict) else []
    for part in {id(part): part for part in parts if isinstance(part, dict)}.values():  # each once
        tensors = [value for value in part.values() if isinstance(value, Tensor)]
        if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > size:
            raise RefusedError("it claims more numbers than it has room for")
