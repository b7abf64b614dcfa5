"""The public names, gathered. `import pidlearn` gives them, and comes here when the first of them is asked for."""

from pidlearn import nets, teachers
from pidlearn.config import Config
from pidlearn.denoiser import train_denoiser
from pidlearn.distance import l1, l2, pseudo_huber
from pidlearn.distillation import distill, steps
from pidlearn.grid import karras_grid, linear_grid, log_grid
from pidlearn.loss import boundary_loss, pid_loss
from pidlearn.ode import DenoiserODE, VelocityODE
from pidlearn.perceptual import LPIPS
from pidlearn.result import Result, load
from pidlearn.scenes import watch
from pidlearn.solvers import solve
from pidlearn.teachers import load_official_student, load_teacher, save_teacher
from pidlearn.toys import EmpiricalDenoiser, GaussianMixture, SubspaceMixture, System, system, toy
from pidlearn.trajectory import Trajectory

__all__ = [
    "LPIPS",
    "Config",
    "DenoiserODE",
    "EmpiricalDenoiser",
    "GaussianMixture",
    "Result",
    "SubspaceMixture",
    "System",
    "Trajectory",
    "VelocityODE",
    "boundary_loss",
    "distill",
    "karras_grid",
    "l1",
    "l2",
    "linear_grid",
    "load",
    "load_official_student",
    "load_teacher",
    "log_grid",
    "nets",
    "pid_loss",
    "pseudo_huber",
    "save_teacher",
    "solve",
    "steps",
    "system",
    "teachers",
    "toy",
    "train_denoiser",
    "watch",
]
