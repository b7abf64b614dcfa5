"""Small image networks for tests of what is large in earnest."""

from __future__ import annotations

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
