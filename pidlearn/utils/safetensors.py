"""Files of this library: tensors as safetensors, text in the header, and a digest of both."""

from __future__ import annotations

import hashlib
import json
import warnings
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
    """Write tensors, text and the digest of both to one file, whole or not at all; return its path.

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
        digest: add the digest of tensors and text to the text, for `read` to check.

    Raises:
        ValueError: for tensors that the format does not have, or more text than it can hold.
    """
    plain = {name: _plain(name, tensor) for name, tensor in tensors.items()}
    text = {**metadata, "digest": digest_of(plain, metadata)} if digest else dict(metadata)
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


def read(
    path: str | Path, format: str, before: str | None = None, *, digest: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the text of a file; nothing in it is executed.

    Args:
        path: the file.
        format: the value that its text has under "format", such as "pidlearn student 2".
        before: the format of the first release, whose digest was of the numbers alone or missing.
        digest: check the digest; False for files whose name has one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, of another format, or whose contents do not fit its digest.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: pass the path of a file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            # Clones, whose memory is aligned: kernels round differently on unaligned memory, and the weights of a file
            # shall give the very samples that they gave before.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}: check the path") from error
    except Exception as error:  # the errors that a damaged file can lead to cannot be listed
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}") from error
    written = metadata.get("format", "")
    if written not in (format, before):
        hint = next((f"; {reader}" for kind, reader in READERS.items() if written.startswith(kind)), "")
        raise OtherFormatError(f"{path} is not a {format} file{hint}")
    if digest:
        _check_digest(path, tensors, metadata, text=written == format)
    return tensors, metadata


def _check_digest(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], text: bool) -> None:
    """Compare a file's digest with its contents; with ``text`` it must have one, which covers its text, too."""
    if not text and "digest" not in metadata:
        warnings.warn(
            f"{path} is a file of the first release and has no digest, so that damage to it would go unnoticed: load "
            f"it and save it again to give it one",
            stacklevel=5,
        )
        return
    if metadata.get("digest") != digest_of(tensors, metadata if text else None):
        raise ValueError(f"{path} is damaged: its contents have changed since it was written. Use another copy of it")


def digest_of(tensors: Mapping[str, Tensor], text: Mapping[str, str] | None = None) -> str:
    """Return the SHA-256 of everything in a file: tensors with their names, dtypes and shapes, and the text.

    Without ``text``, that of names and numbers alone, as the first release wrote it.
    """
    digest = hashlib.sha256()
    if text is not None:
        shapes = {name: [DTYPES[tensor.dtype], list(tensor.shape)] for name, tensor in tensors.items()}
        described = {name: part for name, part in text.items() if name != "digest"}
        digest.update(json.dumps([described, shapes], sort_keys=True).encode())
    for name in sorted(tensors):
        if text is None:
            digest.update(name.encode())
        digest.update(_memory(tensors[name]))
    return digest.hexdigest()


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, not copied."""
    # An empty tensor may have stride 0, which cannot be viewed as bytes.
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")


def _plain(name: str, tensor: Tensor) -> Tensor:
    """The tensor as a contiguous one on the CPU, copied only if it is not."""
    if tensor.layout != torch.strided or tensor.dtype not in DTYPES:
        raise ValueError(
            f"{name} is a {tensor.layout} tensor of {tensor.dtype}, but files hold dense tensors of "
            f"{', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES)}"
        )
    return tensor.detach().cpu().resolve_neg().contiguous()
