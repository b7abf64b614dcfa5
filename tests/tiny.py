"""Small image networks for tests of what is large in earnest."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pidlearn.nets import EDMPrecond

OPTIONS = {
    "img_resolution": 8,
    "img_channels": 1,
    "model_type": "SongUNet",
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}


def teacher(**options: object) -> EDMPrecond:
    """A denoiser of random weights, the same every time, whose last layers are not nearly zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = EDMPrecond(**OPTIONS | options)
        for name, parameter in denoiser.named_parameters():
            if name.endswith(("conv1.weight", "proj.weight", "aux_conv.weight", "out_conv.weight")):
                nn.init.normal_(parameter, std=0.05)
    return denoiser.eval().requires_grad_(False)


RECIPE = """
[teacher]
data = "digits"
labels = true

[teacher.network]
model_channels = 8
channel_mult = [1]
num_blocks = 1
attn_resolutions = []
dropout = 0.0

[teacher.training]
steps = 3
batch_size = 8

[config]
steps = 6
batch_size = 8
n = 10
lr = 1e-3
ema = [0.9]
"""
"""A recipe that is done in the blink of an eye, and teaches nothing."""


def recipe(folder: Path, name: str = "tiny", text: str = RECIPE) -> Path:
    """A recipe's file."""
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path
