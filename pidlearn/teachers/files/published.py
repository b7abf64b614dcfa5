"""EDM's published networks by name, downloaded once into a folder.

NVIDIA publishes them under CC BY-NC-SA 4.0, without checksums. Three SHA-256 sums below are those that other public
repositories pin for the same addresses. A file without one is checked by its structure, and its sum is remembered next
to it, so that later damage is noticed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pidlearn.teachers.files import edm_pickle
from pidlearn.teachers.files.build import build
from pidlearn.utils.downloads import Published

__all__ = ["NAMED", "PublishedTeacher", "find", "folder", "load"]


def folder() -> Path:
    """Return the folder of published networks: PIDLEARN_CACHE, or else ``pidlearn`` in torch.hub's folder."""
    cache = os.environ.get("PIDLEARN_CACHE")
    return Path(cache).expanduser() if cache else Path(torch.hub.get_dir()) / "pidlearn"


@dataclass(frozen=True)
class PublishedTeacher:
    """A published network.

    Attributes:
        file: its EDM pickle.
        network: the class of its network.
        parameters: how many it has.
    """

    file: Published
    network: str
    parameters: int

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.file.name.removesuffix(".pkl")

    @property
    def short(self) -> str:
        """The name without the resolution."""
        maker, data, _, *kind = self.name.split("-")
        return "-".join([maker, data, *kind])


def _edm(name: str, network: str, parameters: int, sha256: str = "") -> PublishedTeacher:
    file = Published(
        f"https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/{name}.pkl",
        name,
        sha256,
        folder,
        otherwise="set PIDLEARN_CACHE to a folder that holds it",
    )
    return PublishedTeacher(file, network, parameters)


NAMED = (
    _edm(
        "edm-cifar10-32x32-uncond-vp",
        "SongUNet",
        55_733_891,
        "4d5dcc1f1d0d41c8934ad21626eeddbdc0460182becf9fc059a0631b1eedb4da",
    ),
    _edm(
        "edm-cifar10-32x32-cond-vp",
        "SongUNet",
        55_735_299,
        "b27385e4f2f8d4d1e2e2c03864c5a9574a0c58ba81eb11625ae6d15c401f4796",
    ),
    _edm("edm-cifar10-32x32-uncond-ve", "SongUNet", 56_397_827),
    _edm("edm-cifar10-32x32-cond-ve", "SongUNet", 56_400_643),
    _edm(
        "edm-ffhq-64x64-uncond-vp",
        "SongUNet",
        61_805_571,
        "f6f8f24a2b46ae79807b0f919e2550c6ed37cc3f8b7a2100629092cad9b5d2f5",
    ),
    _edm("edm-ffhq-64x64-uncond-ve", "SongUNet", 62_761_091),
    _edm("edm-afhqv2-64x64-uncond-vp", "SongUNet", 61_805_571),
    _edm("edm-afhqv2-64x64-uncond-ve", "SongUNet", 62_761_091),
    _edm("edm-imagenet-64x64-cond-adm", "DhariwalUNet", 295_899_267),
)


def find(name: str) -> PublishedTeacher | None:
    """Return the published network of that name, long or short."""
    return next((one for one in NAMED if name in (one.name, one.short)), None)


def load(published: PublishedTeacher) -> nn.Module:
    """Return a published network as a denoiser, in eval mode and frozen; download it if it is not there yet.

    Raises:
        FileNotFoundError: if it is not there and cannot be downloaded, saying what to do.
        ValueError: for a file that is not the published one, or damaged.
    """
    path = published.file.find()
    try:
        published.file.verify()
    except ValueError as error:
        raise ValueError(
            f"{error}; load_teacher({str(path)!r}) reads it without this check, and executes nothing in it"
        ) from error
    try:
        pickled = edm_pickle.read(path)
        denoiser = build(*pickled)
    except ValueError as error:
        raise ValueError(f"{path} is not {published.name}: {error}. Delete it to have it downloaded again") from error
    held = (pickled.class_name, type(denoiser.model).__name__, sum(p.numel() for p in denoiser.parameters()))
    if held != ("EDMPrecond", published.network, published.parameters):
        raise ValueError(
            f"{path} holds {held[0]} over {held[1]} with {held[2]:,} parameters and is not {published.name}, "
            f"EDMPrecond over {published.network} with {published.parameters:,}. Delete it to have it downloaded again"
        )
    published.file.remember()
    return denoiser
