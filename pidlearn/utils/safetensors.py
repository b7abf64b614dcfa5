"""Files of this library: tensors as safetensors, text in the header, and a digest of the numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from pidlearn.utils.files import write_atomically

__all__ = ["HEADER_LIMIT", "OtherFormatError", "digest_of", "read", "to_bytes", "write"]

HEADER_LIMIT = 100_000_000
"""Bytes of header, the text included, beyond which the safetensors package refuses to read a file."""

DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
"""The names of dtypes in the header."""

READERS = {"pidlearn student": "pidlearn.load reads students", "pidlearn teacher": "load_teacher reads teachers"}


class OtherFormatError(ValueError):
    """A safetensors file that is of another format than the one asked for."""


def write(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write tensors, text and the digest of the tensors to one file, whole or not at all; return its path.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(path)
    write_atomically(path, to_bytes(tensors, metadata))
    return path


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, digest: bool = True) -> bytes:
    """Return the contents of a safetensors file with these tensors and this text.

    The format is eight bytes with the header's length, the header in JSON, and the numbers of one tensor after the
    other. Written here rather than by the safetensors package, tensors may share memory, and a large state is copied
    once instead of three times.

    Args:
        tensors: on any device, of any strides.
        metadata: the text by name.
        digest: add the digest of the tensors to the text, for `read` to check.

    Raises:
        ValueError: for tensors that the format does not have, or more text than it can hold.
    """
    plain = {name: _plain(name, tensor) for name, tensor in tensors.items()}
    text = {**metadata, "digest": digest_of(plain)} if digest else dict(metadata)
    header: dict[str, Any] = {"__metadata__": text}
    numbers: list[memoryview] = []
    end = 0
    # Large elements first, so that every tensor starts at a multiple of its element size.
    for name, tensor in sorted(plain.items(), key=lambda item: (-item[1].element_size(), item[0])):
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        numbers.append(_memory(tensor))
    described = json.dumps(header, separators=(",", ":")).encode()
    described += b" " * (-len(described) % 8)
    if len(described) > HEADER_LIMIT:  # reported here, not on reading, when the run would be lost
        raise ValueError(
            f"the header would take {len(described)} bytes, and a safetensors file has room for {HEADER_LIMIT}: keep "
            f"long lists of numbers in tensors"
        )
    return b"".join([len(described).to_bytes(8, "little"), described, *numbers])


def read(path: str | Path, format: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the text of a file; nothing in it is executed.

    Args:
        path: the file.
        format: the value that its text has under "format", such as "pidlearn student 1".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, of another format, or whose numbers do not fit its digest.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            # Clones, whose memory is aligned: kernels round differently on unaligned memory, and the weights of a file
            # shall give the very samples that they gave before.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise
    except Exception as error:  # the errors that a damaged file can lead to cannot be listed
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}") from error
    written = metadata.get("format", "")
    if written != format:
        hint = next((f"; {reader}" for kind, reader in READERS.items() if written.startswith(kind)), "")
        raise OtherFormatError(f"{path} is not a {format} file{hint}")
    if "digest" in metadata and metadata["digest"] != digest_of(tensors):
        raise ValueError(f"{path} is damaged: its numbers have changed since it was written")
    return tensors, metadata


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names and numbers, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(_memory(tensors[name]))
    return digest.hexdigest()


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, not copied."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _plain(name: str, tensor: Tensor) -> Tensor:
    """The tensor as a contiguous one on the CPU, copied only if it is not."""
    if tensor.layout != torch.strided or tensor.dtype not in DTYPES:
        raise ValueError(
            f"{name} is a {tensor.layout} tensor of {tensor.dtype}; files hold dense tensors of "
            f"{', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES)}"
        )
    return tensor.detach().cpu().resolve_neg().contiguous()
