"""Published files: looked up in a folder, downloaded into it once, and checked against their SHA-256.

Files are looked up before any work starts. The error for one that is missing and cannot be downloaded names the file,
the folder and the address.
"""

from __future__ import annotations

import hashlib
import re
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from pidlearn.utils import torch_archive
from pidlearn.utils.files import write_atomically

__all__ = ["MissingFileError", "Published", "download", "torch_folder"]

PATIENCE = 10.0
"""Seconds without an answer after which an address counts as unreachable."""


class MissingFileError(FileNotFoundError, ValueError):
    """A published file that is not there and cannot be downloaded."""


def torch_folder() -> Path:
    """Return the folder where torchvision keeps downloaded weights, too."""
    return Path(torch.hub.get_dir(), "checkpoints")


@dataclass(frozen=True)
class Published:
    """A published file: where to get it, where to keep it, and how to check it.

    Attributes:
        url: its address; the last part is the file's name.
        title: its content, for messages.
        sha256: its SHA-256 or the first digits of it; "" for the digits in the file's name, if there are any.
        folder: returns the folder to keep it in.
        otherwise: what else a user can do where it cannot be downloaded, for messages.
    """

    url: str
    title: str
    sha256: str = ""
    folder: Callable[[], Path] = torch_folder
    otherwise: str = "pass the path of the file"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]

    @property
    def path(self) -> Path:
        """The file's place in the folder."""
        return self.folder() / self.name

    @property
    def note(self) -> Path:
        """The file that remembers the SHA-256 of a file for which none is published."""
        return self.path.with_name(f"{self.name}.sha256")

    def find(self, file: str | Path | None = None) -> Path:
        """Return ``file`` if it is not None, else the path in the folder; download the file if it is not there.

        Raises:
            MissingFileError: if it is not there and cannot be downloaded.
            ValueError: if the address sent another file.
        """
        if file is not None:
            if not Path(file).is_file():
                raise MissingFileError(f"there is no file {file}, which should hold {self.title}")
            return Path(file)
        if not self.path.is_file():
            self.fetch()
        return self.path

    def fetch(self) -> None:
        """Download the file into the folder, and forget the remembered SHA-256 of an earlier one.

        Raises:
            MissingFileError: if that fails.
            ValueError: if the address sent another file.
        """
        path = self.path
        try:
            if not self._published_digits():
                self.note.unlink(missing_ok=True)
            download(self.url, path, self._published_digits())
        except OSError as error:
            raise MissingFileError(
                f"{path} ({self.title}) is missing and could not be downloaded ({error}). Download {self.url} on a "
                f"machine with a network and save it there, or {self.otherwise}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.url} sent a file that is not {self.title}: {error}") from error

    def verify(self) -> None:
        """Compare the SHA-256 of the file in the folder with the published one, or else the remembered one.

        Raises:
            ValueError: if they differ.
        """
        published = self._published_digits()
        if not published and not self.note.is_file():
            return
        # A damaged note is compared, too: it fits no file.
        known = published or self.note.read_text(errors="replace").strip().split(" ")[0]
        digest = _sha256(self.path)
        if not (digest.startswith(published) if published else digest == known):
            source = "" if published else f" as {self.note.name} says"
            raise ValueError(
                f"{self.path} is damaged or not the published file: its SHA-256 is {digest}, not {known!r:.80}"
                f"{source}. Delete it to have it downloaded again"
            )

    def remember(self) -> None:
        """Write down the SHA-256 of the file in the folder, if none is published, for `verify` to compare later."""
        if not self._published_digits() and not self.note.is_file():
            with suppress(OSError):  # a shared folder may not be writable
                write_atomically(self.note, f"{_sha256(self.path)}  {self.name}\n".encode())

    def load(self, file: str | Path | None = None) -> dict[str, Tensor]:
        """Return the state dict that `find`'s file holds, on the CPU; nothing in the file is executed.

        Raises:
            ValueError: as `find`, and for a file of anything else.
        """
        path = self.find(file)
        try:
            return torch_archive.read(path)
        except ValueError as error:
            raise ValueError(f"{path} is damaged or does not hold {self.title} ({self.name}): {error}") from error

    def _published_digits(self) -> str:
        in_name = re.search(r"-([0-9a-f]{8,})\.", self.name)
        return self.sha256 or (in_name[1] if in_name else "")


def download(url: str, path: Path, sha256: str = "") -> None:
    """Download a file, whole or not at all.

    Args:
        url: its address.
        path: where to put it.
        sha256: the first digits of its SHA-256.

    Raises:
        OSError: for an error of the network or the disk, and after `PATIENCE` seconds without an answer.
        ValueError: if the SHA-256 is another.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # several machines may share the folder
    request = urllib.request.Request(url, headers={"User-Agent": "pidlearn"})
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer, part.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            with tqdm(total=length or None, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
                while block := answer.read(2**20):
                    file.write(block)
                    digest.update(block)
                    bar.update(len(block))
            if file.tell() < length:
                raise OSError(f"the connection ended after {file.tell()} of {length} bytes")
        if not digest.hexdigest().startswith(sha256):
            raise ValueError(f"its SHA-256 is {digest.hexdigest()}, not {sha256}")
        part.replace(path)
    except HTTPException as error:
        raise OSError(f"the server's answer is not HTTP: {error!r}") from error
    finally:
        part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
