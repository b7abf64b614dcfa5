"""Files of this library: tensors as safetensors, text in the header, and a digest of the numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pidlearn.utils.files import write_atomically

__all__ = ["HEADER_LIMIT", "digest_of", "read", "to_bytes", "write"]

HEADER_LIMIT = 100_000_000
"""Bytes of header, the text included, beyond which the safetensors package refuses to read a file."""

READERS = {"pidlearn student": "pidlearn.load reads students", "pidlearn teacher": "load_teacher reads teachers"}


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

    Args:
        tensors: on any device, of any strides.
        metadata: the text by name.
        digest: add the digest of the tensors to the text, for `read` to check.

    Raises:
        ValueError: for tensors that the format does not have, or more text than it can hold.
    """
    plain = {name: _plain(name, tensor) for name, tensor in tensors.items()}
    text = {**metadata, "digest": digest_of(plain)} if digest else dict(metadata)
    contents = safetensors.torch.save(plain, text)
    header = int.from_bytes(contents[:8], "little")
    if header > HEADER_LIMIT:  # found out here, not on reading, when the run is lost
        raise ValueError(
            f"the header would take {header} bytes where a safetensors file has room for {HEADER_LIMIT}: keep long "
            f"lists of numbers in tensors"
        )
    return contents


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
    found = metadata.get("format", "")
    if found != format:
        hint = next((f"; {reader}" for kind, reader in READERS.items() if found.startswith(kind)), "")
        raise ValueError(f"{path} is not a {format} file{hint}")
    if "digest" in metadata and metadata["digest"] != digest_of(tensors):
        raise ValueError(f"{path} is damaged: its numbers have changed since it was written")
    return tensors, metadata


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names and numbers, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(name: str, tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU; safetensors refuses tensors that share memory."""
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
        raise ValueError(
            f"{name} is a {tensor.layout} tensor of {tensor.dtype}; files hold dense tensors of real dtype"
        )
    return tensor.detach().cpu().resolve_neg().clone(memory_format=torch.contiguous_format)
