"""EDM's published networks by name, kept in a folder and downloaded into it where there is a network.

NVIDIA publishes them under CC BY-NC-SA 4.0, with no checksums. Three SHA-256 sums below are those that other public
repositories pin for the same addresses. A file without one is checked by its structure, and its sum is written beside
it, so that damage is seen from then on.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pidlearn.teachers.files import edm_pickle
from pidlearn.teachers.files.build import build
from pidlearn.utils.downloads import fetch
from pidlearn.utils.files import write_atomically

__all__ = ["NAMED", "Published", "find", "folder", "load"]

ADDRESS = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"


@dataclass(frozen=True)
class Published:
    """A published network: its name, its class, how many parameters it has, and the file's SHA-256 if known."""

    name: str
    network: str
    parameters: int
    sha256: str | None = None

    @property
    def short(self) -> str:
        """The name without the resolution."""
        maker, data, _, *kind = self.name.split("-")
        return "-".join([maker, data, *kind])

    @property
    def path(self) -> Path:
        """Where the file is kept."""
        return folder() / f"{self.name}.pkl"

    @property
    def remembered(self) -> Path:
        """Where the SHA-256 of a file is kept, if none is known."""
        return folder() / f"{self.name}.pkl.sha256"


NAMED = (
    Published(
        "edm-cifar10-32x32-uncond-vp",
        "SongUNet",
        55_733_891,
        "4d5dcc1f1d0d41c8934ad21626eeddbdc0460182becf9fc059a0631b1eedb4da",
    ),
    Published(
        "edm-cifar10-32x32-cond-vp",
        "SongUNet",
        55_735_299,
        "b27385e4f2f8d4d1e2e2c03864c5a9574a0c58ba81eb11625ae6d15c401f4796",
    ),
    Published("edm-cifar10-32x32-uncond-ve", "SongUNet", 56_397_827),
    Published("edm-cifar10-32x32-cond-ve", "SongUNet", 56_400_643),
    Published(
        "edm-ffhq-64x64-uncond-vp",
        "SongUNet",
        61_805_571,
        "f6f8f24a2b46ae79807b0f919e2550c6ed37cc3f8b7a2100629092cad9b5d2f5",
    ),
    Published("edm-ffhq-64x64-uncond-ve", "SongUNet", 62_761_091),
    Published("edm-afhqv2-64x64-uncond-vp", "SongUNet", 61_805_571),
    Published("edm-afhqv2-64x64-uncond-ve", "SongUNet", 62_761_091),
    Published("edm-imagenet-64x64-cond-adm", "DhariwalUNet", 295_899_267),
)


def find(name: str) -> Published | None:
    """The published network of that name, long or short."""
    return next((one for one in NAMED if name in (one.name, one.short)), None)


def folder() -> Path:
    """Where published networks are kept: the environment's PIDLEARN_CACHE, or ``pidlearn`` in torch.hub's folder."""
    given = os.environ.get("PIDLEARN_CACHE")
    return Path(given).expanduser() if given else Path(torch.hub.get_dir()) / "pidlearn"


def load(published: Published) -> nn.Module:
    """A published network as a denoiser, in eval mode and frozen. Downloads it if it is not there yet.

    Raises:
        FileNotFoundError: if it is not there and cannot be downloaded, saying what to do.
        ValueError: for a file that is not the published one, or damaged.
    """
    path = published.path
    if not path.is_file():
        _download(published)
    sha256 = _sha256(path)
    known = published.sha256 or _remembered(published)
    if known is not None and sha256 != known:
        says = "" if published.sha256 else f" as {published.remembered.name} says"
        raise ValueError(
            f"{path} is damaged or not the published file: its SHA-256 is {sha256}, not {known!r:.80}{says}. Delete it "
            f"to have it downloaded again; load_teacher({str(path)!r}) reads it unchecked, and executes nothing in it"
        )
    try:
        pickled = edm_pickle.read(path)
        denoiser = build(*pickled)
    except ValueError as error:
        raise ValueError(f"{path} is not {published.name}: {error}. Delete it to have it downloaded again") from error
    found = (pickled.class_name, type(denoiser.model).__name__, sum(p.numel() for p in denoiser.parameters()))
    if found != ("EDMPrecond", published.network, published.parameters):
        raise ValueError(
            f"{path} is not {published.name}, an EDMPrecond over a {published.network} with {published.parameters:,} "
            f"parameters: it holds {found[0]} over {found[1]} with {found[2]:,}. Delete it to have it downloaded again"
        )
    if known is None:
        with suppress(OSError):  # a folder that is shared may not be ours to write to
            write_atomically(published.remembered, f"{sha256}  {path.name}\n".encode())
    return denoiser


def _download(published: Published) -> None:
    """Fetch a published file into the folder, and forget what is remembered of one before it."""
    path, address = published.path, f"{ADDRESS}{published.name}.pkl"
    try:
        published.remembered.unlink(missing_ok=True)
        fetch(address, path, published.sha256 or "")
    except OSError as error:  # of the network, or of the disk
        raise FileNotFoundError(
            f"{published.name} is not in {path.parent} and could not be downloaded ({error}). Fetch {address} where "
            f"there is a network and put it at {path}, or set PIDLEARN_CACHE to a folder that holds it"
        ) from error
    except ValueError as error:
        raise ValueError(f"what {address} sent is not the file that others know by that name: {error}") from error


def _remembered(published: Published) -> str | None:
    """The SHA-256 of a file as it was first read; of a damaged note whatever it says."""
    if not published.remembered.is_file():
        return None
    return published.remembered.read_text(errors="replace").strip().split(" ")[0]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
