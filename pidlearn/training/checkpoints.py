"""Checkpoints that survive: written whole or not at all, checked on reading, the one before always kept.

A file is named ``step-<number>-<digest>.pt``; the digest is that of its contents, which `torch.load` reads. A file
cut short by a crash, or changed on the disk, no longer fits its name: it is reported and the one before it used.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pidlearn.utils.files import write_atomically
from pidlearn.utils.fingerprint import digest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

__all__ = ["claimed", "load_newest", "load_run", "restore", "save"]

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


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*.pt") if OURS.fullmatch(path.name)), reverse=True)
