"""The student that fits a teacher, for users who pass none."""

from __future__ import annotations

import copy
import math
import warnings
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.initial_value import InitialValueProblem
from pidlearn.equations.ode import DenoiserODE
from pidlearn.equations.problem import Problem
from pidlearn.nets import MLP, ChebyshevMLP, Preconditioned
from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.nets.edm import NoisePredictor
from pidlearn.nets.noise_parametrization import NoiseParametrization
from pidlearn.nets.unets import UNet
from pidlearn.students.base import Student
from pidlearn.students.directions import principal_directions
from pidlearn.students.flow_map import FlowMap
from pidlearn.students.operator import NeuralOperator
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.trajectory import Trajectory
from pidlearn.teachers.adapters.base import AdaptedDenoiser
from pidlearn.teachers.exact import EmpiricalDenoiser, GaussianMixture, SubspaceMixture
from pidlearn.utils.wrappers import unwrapped

__all__ = [
    "as_flow_map",
    "as_operator",
    "as_trajectory",
    "build_flow_map",
    "build_operator",
    "build_student",
    "network_of",
]

EXACT = (EmpiricalDenoiser, GaussianMixture, SubspaceMixture)
"""Teachers in closed form: they have no network that a student could copy."""

DIRECTIONS = 128
"""Number of principal directions that an MLP takes; samples of at most as many dimensions are taken as they are."""


def build_student(problem: Problem, init: str = "teacher", windows: int = 1) -> Student:
    """A student to train: a copy of the teacher's network if that is convolutional, else an MLP; for an ODE, windows.

    Args:
        problem: what it shall solve.
        init: how a copy starts: "teacher" | "official" | "random"; see `pidlearn.Config`.
        windows: number of windows of an initial value problem.
    """
    teacher = network_of(problem)
    if teacher is not None and not isinstance(teacher, MLP):
        return as_trajectory(_copy(teacher, problem, init), problem)
    if init == "official":
        warnings.warn(
            'got init="official", a start for copied U-Nets, but this teacher has none that a student can copy, so its '
            'student is a new network with random weights: set init="teacher", or distill the network itself with '
            "pidlearn.teachers.from_network if the teacher is a function around one",
            stacklevel=2,
        )
    if isinstance(problem, InitialValueProblem):
        return _piecewise(problem, windows)
    return as_trajectory(_mlp(problem, teacher), problem)


def build_flow_map(
    problem: Problem, init: str = "teacher", kind: type[FlowMap] = FlowMap, *, end_time: bool
) -> FlowMap:
    """A flow map to train: over a copy of the teacher's network if that is convolutional, else over an MLP.

    A copy starts as X(x; s -> 0) = D(x, s).

    Args:
        problem: a diffusion.
        init: "teacher", or "random" for weights of its own.
        kind: the class of the student.
        end_time: whether its network takes the time t at which a step ends, and not only s.

    Raises:
        ValueError: an ODE from given initial values, or a teacher's network that cannot take an end time.
    """
    teacher = _denoiser(problem)
    original: Any = getattr(teacher, "model", getattr(teacher, "network", None))
    if init == "official":
        warnings.warn(
            'got init="official", a start of paths x(z, t), but the student of this method is none: set init="teacher"',
            stacklevel=2,
        )
    if isinstance(teacher, Preconditioned | AdaptedDenoiser) and not isinstance(original, MLP):
        network, noise = _copied(original, problem, init, end_time), teacher.noise_parametrization
    else:
        network, noise = _mlp(problem, original if isinstance(original, MLP) else None, end_time=end_time), None
    return as_flow_map(network, problem, kind, noise)


def as_flow_map(
    network: nn.Module,
    problem: Problem,
    kind: type[FlowMap] = FlowMap,
    noise_parametrization: NoiseParametrization | None = None,
) -> FlowMap:
    """A network F(x, c_noise, class_labels=None, end_time=None) as a student of the problem, a diffusion."""
    if not isinstance(problem, Diffusion):
        raise ValueError(
            "got an ODE from given initial values, but this method trains a student of a diffusion: use the method pid"
        )
    return kind(
        network,
        problem.t_start,
        t_min=problem.t_end,
        sigma_data=problem.sigma_data,
        noise_parametrization=noise_parametrization,
        event_shape=problem.event_shape,
    )


def _copied(original: nn.Module, problem: Problem, init: str, end_time: bool) -> nn.Module:
    """A copy of a denoiser's network, which may take an end time besides."""
    if not isinstance(original, UNet):
        _check_init(init)
        if end_time:
            raise ValueError(
                f"got a teacher whose network, {_name(original)}, takes one time, but this method's student takes two: "
                f"pass a student, FlowMap(network) with a network that takes end_time"
            )
        return copy.deepcopy(original).requires_grad_(True)
    network = _extended(original, init, end_time=end_time)
    network.keep_outputs(original.event_shape[0])  # iDDPM's networks predict a variance, too
    return network.requires_grad_(True)


def _extended(original: UNet, init: str, **options: Any) -> UNet:
    """A network with other options, whose layers are the original's where it has them, or all random."""
    network = type(original)(**{**original.options, **options}).to(next(original.parameters()))
    if init != "random":
        # Layers that only the new options have are zero: the copy returns what the original does.
        network.load_state_dict({**network.state_dict(), **original.state_dict()})
    return network


def build_operator(problem: Problem, init: str, times: int) -> NeuralOperator:
    """An operator to train, at the times of Karras' grid.

    Its network is that of `build_student` with temporal layers, which are zero at first.

    Args:
        problem: a diffusion.
        init: how a copy of the teacher's network starts, as in `build_student`.
        times: number of times, without t_max.

    Raises:
        ValueError: an ODE from given initial values, or a teacher's network that cannot take temporal layers.
    """
    teacher = network_of(problem)
    if teacher is None or isinstance(teacher, MLP):
        return as_operator(_mlp(problem, teacher, times=times), problem, times)
    network: Any = _copy(teacher, problem, init)
    is_adapted = isinstance(network, AdaptedStudent)
    original = network.network if is_adapted else network
    if not isinstance(original, UNet):
        raise ValueError(
            f"got a teacher whose network, {_name(original)}, has no temporal layers, but this method's student needs "
            f"them: pass a network of your own as student, such as SongUNet(times={times})"
        )
    extended = _extended(original, "teacher", times=times).requires_grad_(True)
    if is_adapted:
        network.network = extended
    return as_operator(network if is_adapted else extended, problem, times)


def as_operator(network: nn.Module, problem: Problem, times: int) -> NeuralOperator:
    """A network F(x, time, class_labels=None) that takes several times of each sample as a student of the problem.

    The times are those of Karras' grid without t_max.
    """
    if not isinstance(problem, Diffusion):
        raise ValueError("got an ODE from given initial values, but an operator is of a diffusion: use the method pid")
    return NeuralOperator(
        network,
        problem.t_start,
        times=problem.plot_grid(times + 1)[1:].tolist(),
        sigma_data=problem.sigma_data,
        event_shape=problem.event_shape,
    )


def as_trajectory(network: nn.Module, problem: Problem) -> Trajectory:
    """A network F(x, time, class_labels=None) as a student of the problem."""
    if isinstance(problem, InitialValueProblem) and not isinstance(unwrapped(network), ChebyshevMLP):
        _warn_of_units(problem)
    if not isinstance(problem, Diffusion):
        # z enters unscaled (c_in = 1): the coordinates of an ODE share no scale.
        return Trajectory(network, problem.t_start, t_min=problem.t_end, boundary="increment", time="linear", c_in=1.0)
    return Trajectory(
        network,
        problem.t_start,
        t_min=problem.t_end,
        sigma_data=problem.sigma_data,
        event_shape=problem.event_shape,
    )


def _warn_of_units(problem: InitialValueProblem) -> None:
    """Warn that a user's network sees coordinates of different size as they are: it learns the large ones only."""
    sizes = torch.hypot(problem.mean, problem.std)  # (*event), root mean square; the default student standardises
    sizes = sizes[sizes > 1e-11 * sizes.max()]  # coordinates that are zero have no size
    if sizes.max() > 100 * sizes.min():
        warnings.warn(
            f"the coordinates have sizes from {sizes.min():.2g} to {sizes.max():.2g}, but a network of your own takes "
            f"them as they are: choose units in which they are of order 1, or leave student out; one that divides by "
            f'scales of its own is fine: warnings.filterwarnings("ignore", message="the coordinates have sizes")',
            stacklevel=2,
        )


def network_of(problem: Problem) -> nn.Module | None:
    """The teacher's network as a student's network, if it is one of this library or an adapted one on images."""
    teacher = _denoiser(problem)
    if isinstance(teacher, AdaptedDenoiser | NoisePredictor):
        copyable = len(problem.event_shape) > 1 and next(teacher.parameters(), None) is not None
        return teacher.as_student(problem.t_start) if copyable else None
    return teacher.model if isinstance(teacher, Preconditioned) else None


def _denoiser(problem: Problem) -> Any:
    return unwrapped(problem.ode.denoiser) if isinstance(problem.ode, DenoiserODE) else None


def _copy(teacher: nn.Module, problem: Problem, init: str) -> nn.Module:
    """A copy of the teacher's network that starts as ``init`` says.

    The student's network returns an image. EDM's F is related to one by D(z, T) = c_skip z + c_out F, where c_skip z
    has standard deviation sigma_data^2 / T = 0.003, so that c_out F is nearly D.
    """
    network = copy.deepcopy(teacher).requires_grad_(True)
    body = network.network if isinstance(network, AdaptedStudent) else network
    if not isinstance(body, UNet):  # third-party or the user's own: its last layer is unknown
        if body is not network:
            _check_init(init)
        elif init != "teacher":
            warnings.warn(
                f"got init={init!r}, a start for this library's U-Nets, but the teacher's network is a "
                f'{type(network).__name__}, so the student starts as a copy of it: set init="teacher", or pass a '
                f"network of your own as student=",
                stacklevel=2,
            )
        return network
    body.keep_outputs(body.event_shape[0])  # iDDPM's networks predict a variance, too
    if init == "random":
        return type(body)(**body.options).to(next(body.parameters()))
    # At t = T both networks take c_in z and ln(T) / 4; only D's factor c_out, about sigma_data, is missing.
    if init == "teacher" and body is network:
        at = torch.tensor([problem.t_start], dtype=torch.float64)
        body.scale_output(_denoiser(problem).coefficients(at).c_out.item())
    return body if init == "official" else network


def _name(network: nn.Module) -> str:
    """The class of a network, or of what an adapter holds."""
    return str(getattr(network, "name", type(network).__name__))


def _check_init(init: str) -> None:
    """Check the start of a third-party network, whose last layer is unknown."""
    if init != "teacher":
        raise ValueError(f'got init={init!r}, but a third-party network can only start with init="teacher"')


def _mlp(problem: Problem, teacher: MLP | None, **further: Any) -> MLP:
    """A new MLP; for an MLP teacher a larger one with the teacher's input frequencies.

    They set where the teacher's output can vary quickly: in many dimensions a student with other frequencies ends with
    a fifth more error, while starting from the teacher's weights does not help (python -m benchmarks.images).
    For any other teacher, it takes the principal directions of the samples if these are few of many dimensions.
    """
    options: dict[str, Any] = {"label_dim": problem.label_dim, **further}
    if not problem.is_low_dimensional:
        options |= {"width": 384, "depth": 4, "norm": teacher is None}
    if teacher is None:
        basis = None
        if isinstance(problem, Diffusion) and math.prod(problem.event_shape) > DIRECTIONS:
            basis = principal_directions(problem, DIRECTIONS)
        if basis is not None:
            options["directions"] = DIRECTIONS
        network = MLP(problem.event_shape, **options)
        _warn_of_mlp(network, problem)
        if basis is not None:
            network.orient(basis)
        return network
    # W is (d, fourier), as the teacher's.
    network = MLP(problem.event_shape, fourier=teacher.frequencies.shape[1], **options)
    network.frequencies.copy_(teacher.frequencies)
    return network


def _warn_of_mlp(network: nn.Module, problem: Problem) -> None:
    """Warn that a teacher of images whose network is out of sight gets a student that knows nothing of it."""
    is_small = len(problem.event_shape) == 1 or problem.is_low_dimensional
    if is_small or isinstance(_denoiser(problem), EXACT):
        return
    size = sum(p.numel() for p in network.parameters()) / 1e6
    warnings.warn(
        f"the teacher is a bare function or module D(x, sigma) of images {problem.event_shape}, so its student is a "
        f"new MLP with {size:.1f} million weights: for a copy of the teacher's network, distill "
        f'pidlearn.teachers.from_network(network, "edm" | "vp" | "ve" | "flow" | alphas_cumprod), or pass a network '
        f"of your own as student=",
        stacklevel=2,
    )


def _piecewise(problem: InitialValueProblem, windows: int) -> PiecewiseTrajectory:
    # windows + 1 times, from start to end.
    edges = torch.linspace(problem.t_start, problem.t_end, windows + 1, dtype=torch.float64).tolist()
    mean, std = problem.mean.flatten(), problem.std.flatten()  # (d,) each
    chain = []
    for start, end in pairwise(edges):
        network = ChebyshevMLP(problem.event_shape)
        # The network's output is a mean velocity: one standard deviation per window is its natural unit.
        network.standardise(mean, std, std / abs(end - start))
        chain.append(Trajectory(network, start, t_min=end, boundary="increment", time="linear", c_in=1.0))
    student = PiecewiseTrajectory(chain)
    if (size := sum(p.numel() for p in student.parameters())) > 20e6:
        warnings.warn(
            f"the default student of an ODE of shape {problem.event_shape} has {size / 1e6:.0f} million weights, since "
            f"it is made for few dimensions: pass a network of your own as student; for the velocity of a "
            f"flow-matching model, distill pidlearn.teachers.from_flow(velocity) instead",
            stacklevel=2,
        )
    return student
