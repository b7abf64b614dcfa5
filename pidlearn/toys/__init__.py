"""Teachers that are known exactly: densities with closed-form denoisers, and a zoo of ordinary systems."""

from pidlearn.toys.empirical import EmpiricalDenoiser
from pidlearn.toys.mixture import GaussianMixture, SubspaceMixture, toy
from pidlearn.toys.systems import SYSTEMS, System, system

__all__ = [
    "SYSTEMS",
    "EmpiricalDenoiser",
    "GaussianMixture",
    "SubspaceMixture",
    "System",
    "system",
    "toy",
]
