"""The public names. `import pidlearn` provides them, and imports this module when the first of them is used."""

from pidlearn import methods, nets, teachers
from pidlearn.config import Config
from pidlearn.denoising import train_denoiser
from pidlearn.distillation import distill, steps
from pidlearn.equations.grids import karras_grid, linear_grid, log_grid
from pidlearn.equations.ode import DenoiserODE, VelocityODE
from pidlearn.equations.picard import picard
from pidlearn.equations.solvers import solve
from pidlearn.equations.systems import System, system
from pidlearn.losses.distances import l1, l2, pseudo_huber
from pidlearn.losses.lpips import LPIPS
from pidlearn.methods.pid.loss import boundary_loss, pid_loss
from pidlearn.result import Result, load
from pidlearn.students.flow_map import ConsistencyFunction, FlowMap
from pidlearn.students.official_pid import load_official_student
from pidlearn.students.operator import NeuralOperator
from pidlearn.students.progressive import ProgressiveStudent
from pidlearn.students.trajectory import Trajectory
from pidlearn.teachers import load_teacher, save_teacher
from pidlearn.teachers.exact import EmpiricalDenoiser, GaussianMixture, SubspaceMixture, toy
from pidlearn.utils.citation import citation
from pidlearn.viewer.build import watch

__all__ = [
    "LPIPS",
    "Config",
    "ConsistencyFunction",
    "DenoiserODE",
    "EmpiricalDenoiser",
    "FlowMap",
    "GaussianMixture",
    "NeuralOperator",
    "ProgressiveStudent",
    "Result",
    "SubspaceMixture",
    "System",
    "Trajectory",
    "VelocityODE",
    "boundary_loss",
    "citation",
    "distill",
    "karras_grid",
    "l1",
    "l2",
    "linear_grid",
    "load",
    "load_official_student",
    "load_teacher",
    "log_grid",
    "methods",
    "nets",
    "picard",
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
