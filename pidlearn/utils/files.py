"""Files that are written whole or not at all."""

from __future__ import annotations

import glob
import os
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, contents: bytes) -> None:
    """Write a file completely or, whatever happens, not at all. A symbolic link stays one, and its target is written.

    Raises:
        OSError: a file that cannot be written; the message names it.
        ValueError: a path that is something else than a file, such as a folder or a device.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device, FIFO or socket, which a file would replace"
        raise ValueError(f"{path} is a {kind}: pass the path of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_parts_of_killed_processes(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:  # on a full disk the error does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # once the folder is synced, its new entry survives a power cut, too
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_parts_of_killed_processes(path: Path) -> None:
    """Remove what earlier calls for this path, in processes that no longer exist, left half written."""
    if os.name != "posix":  # elsewhere the signal 0 would end the process
        return
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        number = part.name.removesuffix(".part").rpartition(".")[2]
        if number.isdecimal() and not _is_alive(int(number)):
            part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True
