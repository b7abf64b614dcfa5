"""Checkpoints that survive: written whole or not at all, checked on reading, the one before always kept.

A file is named ``step-<number>-<digest>.pt``; the digest is that of its contents, which `torch.load` reads. A file
cut short by a crash, or changed on the disk, no longer fits its name: it is reported and the one before it used.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

__all__ = ["load_newest", "save"]


OURS = re.compile(r"step-\d{9}-[0-9a-f]{16}\.pt")
"""Other files in the folder are the user's."""


def save(folder: str | Path, number: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write ``state`` as checkpoint ``number`` of ``folder`` and drop all but the newest ``keep``.

    Others of the same number or a later one are dropped too: the run has come back to here because they are damaged.
    """
    folder = Path(folder)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    contents = buffer.getvalue()
    path = folder / f"step-{number:09d}-{_digest(contents)}.pt"
    write_atomically(path, contents)
    before = [old for old in _newest_first(folder) if old.name < path.name[: len("step-000000000")]]
    killed_while_writing = folder.glob(".step-*.part")
    for old in {*_newest_first(folder), *killed_while_writing} - {path, *before[: keep - 1]}:
        old.unlink()
    return path


def load_newest(folder: str | Path) -> dict[str, Any] | None:
    """The newest checkpoint of ``folder`` that is whole, or None. Warns of each damaged one, by name.

    Raises:
        ValueError: if ``folder`` is a file.
    """
    if Path(folder).is_file():
        raise ValueError(f"{folder} is a file: checkpoints go into a folder of their own")
    for path in _newest_first(Path(folder)):
        contents = path.read_bytes()
        if path.stem.endswith(f"-{_digest(contents)}"):
            return torch.load(io.BytesIO(contents), weights_only=True)
        warnings.warn(f"checkpoint {path} is damaged and was passed over", stacklevel=2)
    return None


def write_atomically(path: Path, contents: bytes) -> None:
    """Write a file so that, whatever happens, either all of it or none of it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # where a folder can be synced, its new entry survives a power cut too
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*.pt") if OURS.fullmatch(path.name)), reverse=True)


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:16]
