"""Checkpoints of a run: written whole or not at all, checked on reading, the one before always kept.

A file is named ``step-<number>-<digest>.safetensors``, with the digest of its whole contents. A file that a crash cut
short, or that changed on the disk, no longer fits its name: it is reported, and the one before it is used.

The state is nested: dicts with str or int keys, lists, tuples, tensors, numbers, strings, True, False and None. The
tensors are those of the safetensors file; the rest is JSON in its header, with a tensor's name where the tensor was.
"""

from __future__ import annotations

import json
import math
import re
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils import safetensors
from pidlearn.utils.files import write_atomically
from pidlearn.utils.fingerprint import digest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

__all__ = ["OtherRunError", "claimed", "load_newest", "resume", "save"]

FORMAT = "pidlearn checkpoint 1"
NAME = re.compile(r"step-\d{9}-[0-9a-f]{16}\.safetensors")
"""Other files in the folder are the user's."""
NAME_BEFORE = re.compile(r"step-\d{9}-[0-9a-f]{16}\.pt")
"""Checkpoints of pidlearn 0.1, which were pickles."""


class OtherRunError(ValueError):
    """A folder whose checkpoints are those of another run."""


def save(folder: str | Path, number: int, state: dict[str, Any], keep: int = 2, since: int | None = None) -> Path:
    """Write ``state`` as checkpoint ``number`` of ``folder`` and delete all but the newest ``keep``.

    Checkpoints of the same number or a later one are deleted as well: the run came back to here because they are
    damaged. So are those after ``since``, the number of the checkpoint that this run saved or loaded last.

    Raises:
        OSError: if the file cannot be written.
        ValueError: for a state with a part that a checkpoint cannot hold, naming the part.
    """
    folder = Path(folder)
    contents = _to_bytes(state)
    path = folder / f"step-{number:09d}-{digest(contents)}.safetensors"
    write_atomically(path, contents)
    good = number - 1 if since is None else since
    before = [old for old in _newest_first(folder) if _number(old) <= min(good, number - 1) and old.is_file()]
    killed_while_writing = folder.glob(".step-*.part")
    for old in {*_newest_first(folder), *killed_while_writing} - {path, *before[: keep - 1]}:
        if old.is_symlink() or not old.is_dir():  # a folder of that name is not ours
            old.unlink(missing_ok=True)
    return path


@contextmanager
def claimed(folder: str | Path | None, first: bool = True) -> Iterator[None]:
    """Lock the folder for this run, if there is one. Only the ``first`` process of a run locks it.

    The operating system releases the lock of a process that is killed.

    Raises:
        ValueError: if another run has locked it, or if it is a file.
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
            raise ValueError(f"another run uses {folder}: wait for its end, or use another folder") from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile may still have the file open


def load_newest(folder: str | Path) -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint of ``folder``, or None; warn of each damaged one by name.

    Raises:
        ValueError: if ``folder`` is a file or holds checkpoints of pidlearn 0.1, or if an undamaged checkpoint cannot
            be read.
    """
    return next((state for _, state in _undamaged(folder)), None)


def _undamaged(folder: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the undamaged checkpoints of a folder, newest first; warnings and errors as `load_newest`."""
    _check_folder(folder)
    if old := sorted(path.name for path in Path(folder).glob("step-*.pt") if NAME_BEFORE.fullmatch(path.name)):
        raise ValueError(
            f"{folder} holds checkpoints of pidlearn 0.1 ({old[-1]}), which this version does not read: finish that "
            f"run with pidlearn 0.1, or use another folder"
        )
    for path in _newest_first(Path(folder)):
        if path.is_file() and path.stem.endswith(f"-{digest(path.read_bytes())}"):
            try:
                state = _from_file(path)
            except Exception as error:  # such as one of a later version: to pass over it would lose the run
                raise ValueError(
                    f"checkpoint {path} is whole but cannot be read ({error!r:.200}): use another folder"
                ) from error
            if state:
                yield path, state
                continue
        _warn(path, "is damaged")  # or a folder, a link to nothing, or empty


def _warn(path: Path, problem: str) -> None:
    warnings.warn(f"checkpoint {path} {problem} and was passed over", stacklevel=3)


def _check_folder(folder: str | Path) -> None:
    if Path(folder).is_file():
        raise ValueError(f"{folder} is a file, but checkpoints go into a folder of their own: pass one")


def resume(folder: str | Path, settings: dict[str, str], load: Callable[[dict[str, Any]], None]) -> None:
    """Pass the newest usable checkpoint of ``folder`` to ``load``, if there is one.

    A checkpoint that ``load`` fails on is passed over like a damaged one if an older one can be loaded.

    Raises:
        ValueError: as `load_newest`; if its run has other settings or another teacher; or if none can be loaded,
            because they are of another network.
    """
    failed: dict[Path, Exception] = {}
    for path, state in _undamaged(folder):
        try:
            saved = state["settings"]
            different = [f"{k} = {v}, here {settings.get(k)}" for k, v in saved.items() if settings.get(k) != v]
            if different:
                raise OtherRunError(
                    f"{folder} holds a run with other settings ({'; '.join(different)}): use another folder"
                )
            load(state)
        except (OtherRunError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:  # the errors that tensors of another shape can lead to cannot be listed
            failed[path] = error
        else:
            for other in failed:
                _warn(other, "does not fit the run")
            return
    if failed:
        path, cause = next(iter(failed.items()))
        raise ValueError(
            f"{folder} holds a run of another network, or no run that can be continued ({path.name}: {cause!s:.300}): "
            f"use another folder"
        ) from cause


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), reverse=True)


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])


def _to_bytes(state: dict[str, Any]) -> bytes:
    tensors: dict[str, Tensor] = {}
    metadata = {"format": FORMAT, "state": json.dumps(_encode(state, "state", tensors))}
    return safetensors.to_bytes(tensors, metadata, digest=False)  # the file's name has one


def _from_file(path: Path) -> Any:
    tensors, metadata = safetensors.read(path, FORMAT, digest=False)
    return _decode(json.loads(metadata["state"]), tensors)


def _encode(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON has it; put its tensors into ``tensors`` by their place in the state.

    What JSON does not have is a dict of one entry, whose key is the type: {"tuple": [1, 2]}.
    """
    if isinstance(value, Tensor):
        name = where
        while name in tensors:  # of two places that read the same, such as the keys 1 and "1"
            name += "'"
        # Not every version of safetensors has complex dtypes: (..., 2) real numbers instead.
        tensors[name] = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
        return {"complex" if value.is_complex() else "tensor": name}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        # repr gives the same bits back for every finite number; of NaN and infinity JSON has none.
        return float(value) if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{where}/{i}", tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict) and all(type(key) in (str, int) for key in value):
        # As pairs, for the keys of JSON's own objects are strings.
        pairs = [[key, _encode(item, f"{where}/{key}", tensors)] for key, item in value.items()]
        versions = getattr(value, "_metadata", None)  # which a module's load_state_dict may look at
        return {"dict": pairs} if versions is None else {"state dict": [pairs, _encode(versions, where, tensors)]}
    raise ValueError(
        f"{where} is a {type(value).__name__}, but a checkpoint holds dicts with str or int keys, lists, tuples, "
        f"tensors, numbers and strings"
    )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value that `_encode` wrote."""
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content].clone()  # in memory of its own, for the file may be deleted
    if kind == "complex":
        return torch.view_as_complex(tensors[content].clone())
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "state dict":
        state = OrderedDict(_decode({"dict": content[0]}, tensors))
        state._metadata = _decode(content[1], tensors)  # type: ignore[attr-defined]  # as torch's own state dicts have
        return state
    return {key: _decode(item, tensors) for key, item in content}
