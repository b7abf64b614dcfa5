"""Networks. They know arrays and labels, and nothing of diffusion but the scalings of `Preconditioned`."""

from pidlearn.nets.edm import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from pidlearn.nets.mlp import MLP, ChebyshevMLP
from pidlearn.nets.preconditioning import Preconditioned
from pidlearn.nets.unets import DhariwalUNet, SongUNet

__all__ = [
    "MLP",
    "ChebyshevMLP",
    "DhariwalUNet",
    "EDMPrecond",
    "Preconditioned",
    "SongUNet",
    "VEPrecond",
    "VPPrecond",
    "iDDPMPrecond",
]
