"""Files as EDM writes them, by classes that imitate what is known of its pickles; and networks small enough for that.

The stand-ins for EDM's modules and functions exist only while a file is written.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import re
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pidlearn import nets

TINY: dict[str, Any] = {
    "img_resolution": 16,
    "img_channels": 3,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
}
VP = TINY | {"model_type": "SongUNet", "augment_dim": 9, "dropout": 0.13, "use_fp16": False, "label_dim": 10}
VE = VP | {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
    "label_dim": 0,
}
SKIP = VP | {"encoder_type": "skip", "decoder_type": "skip", "augment_dim": 0}
ADM = TINY | {"model_channels": 32, "channel_mult": [1, 4], "label_dim": 10, "use_fp16": True}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "vp": ("EDMPrecond", VP),
    "ve": ("EDMPrecond", VE),
    "skip": ("EDMPrecond", SKIP),
    "adm": ("EDMPrecond", ADM),
    "score-sde vp": ("VPPrecond", TINY | {"beta_d": 19.5}),
    "score-sde ve": ("VEPrecond", TINY | {"sigma_max": 90.0}),
    "iddpm": ("iDDPMPrecond", ADM | {"M": 50}),
}


def denoiser(kind: str = "vp") -> Any:
    """A tiny denoiser whose every tensor is drawn at random, filters and tables apart."""
    class_name, options = KINDS[kind]
    module = getattr(nets, class_name)(**options).eval()
    generator = torch.Generator().manual_seed(3)
    for name, tensor in module.state_dict().items():
        if not re.search(r"resample_filter|^u$", name):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return module


class Persistent(nn.Module):
    """An object that EDM's persistence module writes: a call of its function with one dict."""

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit('the source was executed')",
            "class_name": self._edm_class,
            "state": {k: v for k, v in self.__dict__.items() if k != "_edm_class"},
        }
        return (sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,))


class Scalar:
    """A NumPy number, written as an older NumPy would."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        scalar = sys.modules["numpy.core.multiarray"].scalar
        return (scalar, (np.dtype("<f8"), np.float64(self.value).tobytes()))


class EasyDict(dict):
    """A dict subclass of EDM's helper module."""


def persistent(class_name: str, **attributes: Any) -> Persistent:
    out = Persistent()
    out.__dict__ |= {"_edm_class": class_name, **attributes}
    return out


def as_edm(module: nn.Module, class_name: str, options: dict[str, Any]) -> nn.Module:
    """The module as an EDM object: the same tensors under the same names."""
    if isinstance(module, nn.ModuleDict):
        return nn.ModuleDict({k: as_edm(v, type(v).__name__, {}) for k, v in module.items()})
    scale = math.sqrt(0.5)
    out = persistent(class_name, _init_args=(), _init_kwargs=options, skip_scale=np.float64(scale), old=Scalar(scale))
    for name, parameter in module._parameters.items():
        if parameter is None:
            out.__dict__[name] = None
        else:
            out._parameters[name] = parameter
    out._buffers.update(module._buffers)
    if class_name == "Conv2d":
        out._buffers.setdefault("resample_filter", None)
    for name, child in module.named_children():
        if isinstance(child, (nn.Identity, nn.Dropout)):
            out.__dict__[name] = None
        else:
            out._modules[name] = as_edm(child, type(child).__name__, {})
    return out


@contextlib.contextmanager
def edm_modules() -> Iterator[None]:
    """Let the names that the files refer to exist."""

    def module(name: str, **content: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        for key, value in content.items():
            value.__module__, value.__name__, value.__qualname__ = name, key, key
            setattr(made, key, value)
        return made

    made = [
        module("torch_utils"),
        module("torch_utils.persistence", _reconstruct_persistent_obj=lambda meta: None),
        module("dnnlib"),
        module("dnnlib.util", EasyDict=EasyDict),
        module("numpy.core"),
        module("numpy.core.multiarray", scalar=lambda dtype, contents: None),
    ]
    before = {one.__name__: sys.modules.get(one.__name__) for one in made}
    sys.modules.update({one.__name__: one for one in made})
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old


def edm_pickle(module: nn.Module, class_name: str, options: dict[str, Any], **more: Any) -> bytes:
    """The four keys of EDM's training loop, and more."""
    with edm_modules():
        content = {
            "ema": as_edm(module, class_name, options),
            "loss_fn": persistent("EDMLoss", P_mean=-1.2),
            "augment_pipe": None,
            "dataset_kwargs": EasyDict(path="cifar10.zip", use_labels=False, nested=OrderedDict(a=1)),
            **more,
        }
        return pickle.dumps(content, protocol=4)


def write(path: Path, kind: str = "vp") -> Any:
    """Write a tiny denoiser as EDM would, and return it."""
    module = denoiser(kind)
    path.write_bytes(edm_pickle(module, *KINDS[kind]))
    return module
