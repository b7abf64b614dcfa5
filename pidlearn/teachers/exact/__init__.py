"""Teachers with closed-form denoisers: Gaussian mixtures and data sets. The zoo of ODE systems is here by name too."""

from pidlearn.equations.systems import SYSTEMS, System, system
from pidlearn.teachers.exact.empirical import EmpiricalDenoiser
from pidlearn.teachers.exact.mixture import GaussianMixture
from pidlearn.teachers.exact.presets import PRESETS, toy
from pidlearn.teachers.exact.subspace import SubspaceMixture

__all__ = [
    "PRESETS",
    "SYSTEMS",
    "EmpiricalDenoiser",
    "GaussianMixture",
    "SubspaceMixture",
    "System",
    "system",
    "toy",
]
