"""Published weights of other networks: found where torch keeps them, fetched where there is a network.

They are looked for before any work starts. Where a file is missing and cannot be fetched, the error names the file,
the folder and the address.
"""

from __future__ import annotations

import pickle
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["Published"]

PATIENCE = 10.0
"""Seconds to wait for an address to answer at all."""


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
        if not path.exists():
            self._fetch(path)
        return path

    def load(self, given: str | Path | None = None) -> dict[str, Tensor]:
        """The state dict in `find`'s file; nothing in the file is executed.

        Raises:
            ValueError: as `find`, and for a file that holds something else.
        """
        path = self.find(given)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged, or not {self.what} ({self.file}): {error}") from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError(f"{path} does not hold {self.what} ({self.file}), a state dict of tensors")
        return state

    def _fetch(self, path: Path) -> None:
        digits = re.search(r"-([0-9a-f]{8,})\.", self.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # torch's own download waits for minutes where nothing answers: ask first whether anything does.
            urllib.request.urlopen(urllib.request.Request(self.url, method="HEAD"), timeout=PATIENCE).close()
            torch.hub.download_url_to_file(self.url, str(path), digits and digits[1])
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{self.what} are not in {path.parent}, and could not be fetched ({error}). Download {self.url} where "
                f"there is a network and put it there as {self.file}, or pass the path of the file as weights="
            ) from error
