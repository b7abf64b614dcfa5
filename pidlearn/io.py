"""Students as files: safetensors for the numbers, JSON in its header for how to build the network again."""

from __future__ import annotations

from torch import nn

from pidlearn import nets

__all__ = ["load", "save"]

FORMAT = "pidlearn student 1"
NETWORKS: dict[str, type[nn.Module]] = {"MLP": nets.MLP, "SongUNet": nets.SongUNet}
