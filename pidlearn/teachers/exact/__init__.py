"""Teachers that are known exactly: densities with closed-form denoisers, and a zoo of ordinary systems."""

from pidlearn.equations.systems import SYSTEMS, System, system
from pidlearn.teachers.exact.empirical import EmpiricalDenoiser
from pidlearn.teachers.exact.mixture import GaussianMixture, SubspaceMixture, toy

__all__ = [
    "SYSTEMS",
    "EmpiricalDenoiser",
    "GaussianMixture",
    "SubspaceMixture",
    "System",
    "system",
    "toy",
]
