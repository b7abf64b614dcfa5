"""Published weights of other networks: found where torch keeps them, fetched where there is a network.

They are looked for before any work starts. Where a file is missing and cannot be fetched, the error names the file,
the folder and the address.
"""

from __future__ import annotations

import hashlib
import re
import urllib.request
import uuid
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

__all__ = ["Published", "fetch"]

PATIENCE = 10.0
"""Seconds of silence after which an address counts as out of reach."""


def fetch(url: str, path: Path, sha256: str = "") -> None:
    """Download a file, whole or not at all; its SHA-256 must begin with those digits.

    Raises:
        OSError: of the network, which may fall silent at any time, or of the disk.
        ValueError: if another file came.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # several machines may fetch it into one folder
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
                raise OSError(f"only {file.tell()} of {length} bytes came")
        if not digest.hexdigest().startswith(sha256):
            raise ValueError(f"its SHA-256 is {digest.hexdigest()}, not {sha256}")
        part.replace(path)
    except HTTPException as error:
        raise OSError(f"the answer makes no sense: {error!r}") from error
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Published:
    """A file of weights that somebody published; digits in its name are the beginning of its SHA-256.

    Attributes:
        url: where it is published; the last part is the file's name.
        what: whose weights they are, for messages.
    """

    url: str
    what: str

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]

    def find(self, given: str | Path | None = None) -> Path:
        """The file: the one given, else the one in torch's cache, else fetched into it.

        Raises:
            ValueError: if it is not there and cannot be fetched.
        """
        if given is not None:
            if not Path(given).is_file():
                raise ValueError(f"{self.what} should be in {given}, but there is no such file")
            return Path(given)
        path = Path(torch.hub.get_dir(), "checkpoints", self.file)
        if path.exists():
            return path
        digits = re.search(r"-([0-9a-f]{8,})\.", self.file)
        try:
            fetch(self.url, path, digits[1] if digits else "")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.what} are not in {path.parent}, and could not be fetched ({error}). Download {self.url} where "
                f"there is a network and put it there as {self.file}, or give the path of the file"
            ) from error
        return path

    def load(self, given: str | Path | None = None) -> dict[str, Tensor]:
        """The state dict in `find`'s file; nothing in the file is executed.

        Raises:
            ValueError: as `find`, and for a file that holds something else.
        """
        path = self.find(given)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what chance bytes can lead torch's unpickler to is not to be listed
            raise ValueError(f"{path} is damaged, or not {self.what} ({self.file}): {error!r:.300}") from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError(f"{path} does not hold {self.what} ({self.file}), a state dict of tensors")
        return state
