"""Networks F(x, time, class_labels=None), and the denoisers D(x, sigma, class_labels=None) made from them."""

from pidlearn.nets.chebyshev import ChebyshevMLP
from pidlearn.nets.edm import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from pidlearn.nets.mlp import MLP
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
