"""Networks. They know arrays and labels, and nothing of diffusion but the scalings of `Preconditioned`."""

from pidlearn.nets.edm import EDMPrecond, SongUNet
from pidlearn.nets.mlp import MLP, ChebyshevMLP
from pidlearn.nets.precond import Preconditioned

__all__ = ["MLP", "ChebyshevMLP", "EDMPrecond", "Preconditioned", "SongUNet"]
