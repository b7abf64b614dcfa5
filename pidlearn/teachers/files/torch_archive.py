"""Tensors in a `torch.save` archive, read without running anything that it holds.

Such an archive is a zip file whose pickle describes tensors and whose other members are their numbers. `torch.load`
would read it with ``weights_only``, but would allocate what a few bytes ask it to.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidlearn.teachers.files.pickle_machine import Builder, Global, RefusedError, Storage, exactly, of_type

__all__ = ["LEGACY", "read"]

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9"
"""How files of torch before 1.6 begin, which are no archives."""

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
}
PICKLE = "/data.pkl"


class ArchiveMachine(Builder):
    """The pickle of an archive: names, and tensors that are views of the members beside it."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__()
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Storage] = {}
        self.operations |= {
            "GLOBAL": self.global_,
            "BINPERSID": self.storage,
            "BINPUT": self.put,
            "LONG_BINPUT": self.put,
            "BUILD": self.build,
        }
        self.kinds = {Global("torch", name): dtype for name, dtype in DTYPES.items()}

    def global_(self, name: Any) -> None:
        """Push the name of a global, if it is one of ours."""
        asked = Global(*name.split(" ", 1))
        if asked not in self.calls and asked not in self.kinds:
            raise RefusedError(f"it asks for {str(asked)!r:.120}, which tensors by name do not need")
        self.stack.append(asked)

    def storage(self, _: Any) -> None:
        """Push a member's numbers."""
        kind, type_, key, _location, length = exactly(of_type(self.stack.pop(), tuple), 5)
        if kind != "storage" or of_type(type_, Global) not in self.kinds:
            raise RefusedError("it has a persistent id that is not torch's")
        if of_type(key, str) not in self.storages:
            dtype = self.kinds[type_]
            numbers = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
            if len(numbers) != of_type(length, int) * dtype.itemsize:
                raise RefusedError(f"it announces {length} numbers of {dtype} where it has {len(numbers)} bytes")
            self.storages[key] = Storage(torch.frombuffer(numbers, dtype=dtype))
        self.stack.append(self.storages[key])

    def put(self, number: Any) -> None:
        """Remember the top of the stack under a number, which is always the next one."""
        if number != len(self.memo):
            raise RefusedError(f"it remembers value {number} after {len(self.memo)} others")
        self.memo.append(self.stack[-1])

    def build(self, _: Any) -> None:
        """What torch notes beside a state dict, the versions of its modules, is of no use here."""
        self.stack.pop()
        of_type(self.stack[-1], dict)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of an archive by name, on the CPU.

    Raises:
        ValueError: for anything else, saying what it tried. Nothing in it is executed, and nothing unpacked beyond its
            size.
    """
    with path.open("rb") as file:
        if file.read(len(LEGACY)) == LEGACY:
            raise ValueError(
                f"{path} is not a torch.save archive, but what torch wrote before 1.6: torch.load it with "
                f"weights_only=True and torch.save it again. Nothing in it was executed"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            content = _content(archive, path.stat().st_size)
    except Exception as error:  # what a damaged archive can lead to is not to be listed
        raise ValueError(
            f"{path} is not a torch.save archive of tensors: {error!s:.300}. Nothing in it was executed"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(f"{path} does not hold tensors by name, as the official PID code writes them")
    return content


def _content(archive: zipfile.ZipFile, size: int) -> Any:
    members = archive.infolist()
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > size:
        raise RefusedError("its contents are compressed, which torch.save does not do")
    pickles = [member.filename for member in members if member.filename.endswith(PICKLE)]
    if len(pickles) != 1:
        raise RefusedError(f"it has {len(pickles)} members data.pkl, where torch.save writes one")
    folder = pickles[0].removesuffix(PICKLE)
    order = f"{folder}/byteorder"
    if (archive.read(order).decode() if order in archive.namelist() else "little") != sys.byteorder:
        raise RefusedError(f"its numbers are not {sys.byteorder}-endian, as this machine's are")
    content = ArchiveMachine(archive, folder).run(io.BytesIO(archive.read(pickles[0])))
    if isinstance(content, dict):
        tensors = [value for value in content.values() if isinstance(value, Tensor)]
        if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > size:
            raise RefusedError("it claims more numbers than it has room for")
    return content
