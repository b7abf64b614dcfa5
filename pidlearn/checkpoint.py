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
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, NoneType
from typing import Any

import torch
from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

__all__ = ["claimed", "digest", "identity", "load_newest", "load_run", "restore", "save", "write_atomically"]

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
    path = folder / f"step-{number:09d}-{digest(contents)}.pt"
    write_atomically(path, contents)
    before = [old for old in _newest_first(folder) if old.name < path.name[: len("step-000000000")]]
    killed_while_writing = folder.glob(".step-*.part")
    for old in {*_newest_first(folder), *killed_while_writing} - {path, *before[: keep - 1]}:
        old.unlink()
    return path


@contextmanager
def claimed(folder: str | Path | None, first: bool = True) -> Iterator[None]:
    """Keep the folder, if there is one, for this run; the ``first`` of its processes does. One that is killed lets go.

    Raises:
        ValueError: if another run has it, or if it is a file.
        OSError: if it cannot be written.
    """
    if folder is None or not first:
        yield
        return
    _check_folder(folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with Path(folder, ".lock").open("a") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another run uses {folder}: wait for its end, or take another folder") from error
        except OSError:  # a file system that knows no locks
            pass
        try:
            yield
        finally:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_UN)  # for a process forked meanwhile may hold the file open


def load_newest(folder: str | Path) -> dict[str, Any] | None:
    """The newest checkpoint of ``folder`` that is whole, or None. Warns of each damaged one, by name.

    Raises:
        ValueError: if ``folder`` is a file, or a checkpoint that is whole cannot be read.
    """
    _check_folder(folder)
    for path in _newest_first(Path(folder)):
        contents = path.read_bytes()
        if path.stem.endswith(f"-{digest(contents)}"):
            try:
                return torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
            except Exception as error:  # as of another torch: to pass over it would lose the run
                raise ValueError(
                    f"checkpoint {path} is whole but cannot be read ({error!r:.200}): take another folder"
                ) from error
        warnings.warn(f"checkpoint {path} is damaged and was passed over", stacklevel=2)
    return None


def _check_folder(folder: str | Path) -> None:
    if Path(folder).is_file():
        raise ValueError(f"{folder} is a file: checkpoints go into a folder of their own")


def load_run(folder: str | Path, choices: dict[str, str]) -> dict[str, Any] | None:
    """The newest whole checkpoint of ``folder``, or None.

    Raises:
        ValueError: if its run was made with other ``choices``.
    """
    state = load_newest(folder)
    if state is not None:
        other = [f"{k} = {v}, here {choices.get(k)}" for k, v in state["choices"].items() if choices.get(k) != v]
        if other:
            raise ValueError(f"{folder} holds a run with other choices ({'; '.join(other)}): take another folder")
    return state


def restore(trainer: Any, state: dict[str, Any], folder: str | Path) -> None:
    """Put a `Trainer` where a checkpoint of ``folder`` was taken.

    Raises:
        ValueError: if it trains another network.
    """
    try:
        trainer.load_state_dict(state["trainer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{folder} holds a run of another network: take another folder") from error


def write_atomically(path: Path, contents: bytes) -> None:
    """Write a file so that, whatever happens, either all of it or none of it is there.

    Raises:
        OSError: where it cannot be written, naming the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:  # that of a full disk does not say which file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # where a folder can be synced, its new entry survives a power cut too
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def identity(value: Any, depth: int = 8) -> str:
    """A choice as text: the same in another process, and another for a function or object that differs."""
    inner = partial(identity, depth=depth - 1)
    if isinstance(value, (str, bytes, int, float, NoneType)):
        return repr(value)
    if depth == 0:
        return type(value).__qualname__
    if isinstance(value, Tensor):
        return f"{value.dtype} {digest(value.detach().cpu().double().numpy().tobytes())}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(inner, value))})"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(inner, value)))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{inner(key)}: {inner(item)}' for key, item in value.items())}}}"
    if isinstance(value, partial):
        return f"partial{inner((value.func, value.args, value.keywords))}"
    if isinstance(value, MethodType):
        return f"{inner(value.__func__)} of {inner(value.__self__)}"
    if isinstance(value, CodeType):
        return inner((value.co_code, value.co_names, value.co_consts))
    if isinstance(value, FunctionType):
        around = [cell.cell_contents for cell in value.__closure__ or ()]
        does = inner((value.__code__, value.__defaults__, value.__kwdefaults__, around))
        return f"{value.__name__} {digest(does.encode())}"
    if isinstance(value, (type, BuiltinFunctionType)):
        return value.__qualname__
    return f"{type(value).__qualname__} {digest(inner(getattr(value, '__dict__', {})).encode())}"


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*.pt") if OURS.fullmatch(path.name)), reverse=True)


def digest(contents: bytes) -> str:
    """Sixteen hexadecimal digits that tell contents apart."""
    return hashlib.sha256(contents).hexdigest()[:16]
