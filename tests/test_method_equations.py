"""The losses of all methods but PID against their equations, written out; those of PID are in `test_loss.py`.

Values, and gradients for all weights, in float64. Equal gradients also mean that the same parts of a loss are held
constant.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.methods import BOOT, CD, CT, PD, SCM, Batch, Context, Endpoint, FlowMapping, FreeFlow, Reflow
from pidlearn.students.flow_map import ConsistencyFunction, FlowMap
from pidlearn.students.progressive import ProgressiveStudent

RING = pid.toy("ring")
PROBLEM = problem_from_teacher(RING)
T, T_MIN, SD, N = 80.0, 0.002, 0.7, 9  # SD differs from every default, and N - 1 is a power of 2
GRID = pid.karras_grid(N)


def weight(t: Tensor) -> Tensor:
    """Another weight at each time."""
    return 1 / (1 + t)


class Recording(Context):
    """A context that keeps the data and the noise that it drew last."""

    def noised(self, s: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        self.parts = super().noised(s, generator)
        return self.parts


def context(student: Any, weight: Callable[[Tensor], Tensor] = weight) -> Recording:
    return Recording(
        student,
        problem=PROBLEM,
        n=N,
        spacing=pid.karras_grid,
        distance=pid.l2,
        weight=weight,
        time_sampling=lambda t, _: torch.ones_like(t),
        data=lambda n, generator: (RING.sample(n, generator).double(), None),
    )


def mlp(end_time: bool = False) -> pid.nets.MLP:
    network = pid.nets.MLP(2, width=16, depth=2, fourier=8, end_time=end_time).double()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return network


def flow_map() -> FlowMap:
    return FlowMap(mlp(end_time=True), sigma_data=SD)


def path(boundary: str = "hard") -> pid.Trajectory:
    return pid.Trajectory(mlp(), sigma_data=SD, boundary=boundary)


def column(t: Tensor) -> Tensor:
    return t[:, None]


def normal(n: int) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64)


def neighbours() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Data, noise, and two grid times in a row: every interval of the grid, five times."""
    index = torch.arange(5 * (N - 1)) % (N - 1)
    return RING.sample(len(index)).double(), normal(len(index)), GRID[index], GRID[index + 1]


def drawn(method: FlowMapping, student: FlowMap, n: int = 60) -> Batch:
    """A batch of the method, in float64, whose grid is then that of the context."""
    here = context(student)
    method.begin(here, first=True)
    batch = method.draw(here, n, torch.Generator().manual_seed(1))
    return tuple(v.double() if v is not None and v.is_floating_point() else v for v in batch)


# The equations' terms, in plain torch.


def D(x: Tensor, t: Tensor) -> Tensor:
    return RING.denoise(x, t)


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """The probability flow of the teacher."""
    return (x - D(x, t)) / column(t)


def G(student: FlowMap, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The network of a flow map with EDM's preconditioning."""
    scale = column((s**2 + SD**2).sqrt())
    end = {"end_time": t.log() / 4} if student.network.end_time else {}
    out: Tensor = student.network(x / scale, s.log() / 4, **end)
    return SD**2 / scale**2 * x + column(s) * SD / scale * out


def X(student: FlowMap, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The flow map, from x at s to t."""
    return column(t / s) * x + column(1 - t / s) * G(student, x, s, t)


def F(student: pid.Trajectory, z: Tensor, t: Tensor) -> Tensor:
    """The network of a path from z."""
    out: Tensor = student.network(z / (T**2 + SD**2) ** 0.5, t.log() / 4)
    return out


class FromThePrior:
    """X(z; T -> t), as `pid_loss` calls a path."""

    t_max = T

    def __init__(self, student: FlowMap) -> None:
        self.student = student

    def __call__(self, z: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return X(self.student, z, torch.full_like(t, T), t)


def slope(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """The derivative of each row of a function of time, by reverse-mode automatic differentiation; a constant."""
    t = t.clone().requires_grad_()
    columns = function(t).unbind(1)
    return torch.stack([torch.autograd.grad(values.sum(), t, retain_graph=True)[0] for values in columns], 1)


def mean_square(residual: Tensor) -> Tensor:
    return residual.square().mean(1)


def gradient(losses: Tensor, student: torch.nn.Module) -> Tensor:
    parts = torch.autograd.grad(losses.sum(), list(student.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def assert_same(ours: Tensor, value: Tensor, student: torch.nn.Module, differentiated: Tensor | None = None) -> None:
    """Equal values and gradients; those of ``differentiated``, if the equation has another function for them."""
    torch.testing.assert_close(ours, value, rtol=1e-10, atol=1e-12)
    expected = gradient(value if differentiated is None else differentiated, student)
    largest = expected.abs().max().item()
    assert largest > 1e-3
    torch.testing.assert_close(gradient(ours, student), expected, rtol=1e-10, atol=1e-12 * largest)


class TestConsistency:
    def next_on_the_path(self, method: Any, x0: Tensor, noise: Tensor, s: Tensor, u: Tensor) -> Tensor:
        if isinstance(method, CT):
            return x0 + column(u) * noise
        x, h = x0 + column(s) * noise, column(u - s)
        euler = x + h * velocity(x, s)
        return euler if method.solver == "euler" else x + h * (velocity(x, s) + velocity(euler, u)) / 2

    @pytest.mark.parametrize("method", [CD("euler"), CD("heun"), CT()], ids=["cd-euler", "cd-heun", "ct"])
    def test_a_point_has_the_end_of_the_next_one_on_its_path(self, method: Any) -> None:
        student = ConsistencyFunction(mlp(), sigma_data=SD)
        x0, noise, s, u = neighbours()
        end = torch.full_like(s, T_MIN)
        target = X(student, self.next_on_the_path(method, x0, noise, s, u), u, end).detach()
        expected = weight(s) * mean_square(X(student, x0 + column(s) * noise, s, end) - target)
        assert_same(method.loss(context(student), (x0, noise, s, u, None)), expected, student)

    @pytest.mark.parametrize("c", [0.1, 3.0])
    def test_continuous_time_descends_along_the_derivative_of_the_end(self, c: float) -> None:
        student = ConsistencyFunction(mlp(), sigma_data=SD)
        x0, noise, s, u = neighbours()
        x, end = x0 + column(s) * noise, torch.full_like(s, T_MIN)
        v = velocity(x, s)
        unit = column(s / (s**2 + SD**2).sqrt())
        g = column(s) * slope(lambda t: X(student, x + column(t - s) * v, t, end), s) / unit
        g = g / (column(mean_square(g).sqrt()) + c)
        f = X(student, x, s, end) / unit
        ours = SCM(c).loss(context(student), (x0, noise, s, u, None))
        # d/dw |f - (f - g)|^2 with the second f and g held constant is 2 g df/dw.
        assert_same(ours, weight(s) * mean_square(g), student, weight(s) * 2 * (g * f).mean(1))

    def test_continuous_time_is_distillation_between_neighbours_that_coincide(self) -> None:
        student = ConsistencyFunction(mlp(), sigma_data=SD)
        x0, noise, s, _ = neighbours()
        c, h = 1e9, 1e-5  # with a c that large nothing is normalised
        continuous = context(student, weight=torch.ones_like)
        in_units = context(student, weight=lambda s: 1 + SD**2 / s**2)
        limit = c * SCM(c).loss(continuous, (x0, noise, s, s, None))
        quotient = CD("euler").loss(in_units, (x0, noise, s, s * (1 - h), None)) / h
        theirs = gradient(limit, student)
        assert (gradient(quotient, student) - theirs).norm() < 1e-3 * theirs.norm()


class TestFlowMap:
    def lagrangian(self, student: FlowMap, x: Tensor, s: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """X - t dX/dt - D(X, t)."""
        X_t = X(student, x, s, t)
        return X_t - column(t / (t - u)) * (X_t - X(student, x, s, u)) - D(X_t.detach(), t)

    def eulerian(self, student: FlowMap, x: Tensor, s: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """X(x; s -> t) - X(x'; u -> t) in units of 1 - t/s, with the teacher's Euler step x' from x."""
        target = X(student, x + column(u - s) * velocity(x, s), u, t).detach()
        return (X(student, x, s, t) - target) / column(1 - t / s)

    def semigroup(
        self, student: FlowMap, x: Tensor, s: Tensor, m: Tensor, t: Tensor, is_short: Tensor, within: Tensor
    ) -> Tensor:
        """X(x; s -> t) - X(X(x; s -> m); m -> t) in units of 1 - t/s; the teacher's steps of Heun where it is short."""
        steps = x
        for a, b in pairwise(within.unbind(1)):
            before = velocity(steps, a)
            after = velocity(steps + column(b - a) * before, b)
            steps = steps + column(b - a) * (before + after) / 2
        own = X(student, X(student, x, s, m), m, t)
        target = torch.where(column(is_short), steps, own).detach()
        return (X(student, x, s, t) - target) / column(1 - t / s)

    def meanflow(self, student: FlowMap, x: Tensor, s: Tensor, _: Tensor, t: Tensor) -> Tensor:
        """u - (v - (s - t) du/ds), in units of 1/s, for the mean velocity u and the teacher's v."""
        v = velocity(x, s)

        def u(time: Tensor) -> Tensor:
            there = x + column(time - s) * v
            return (there - X(student, there, time, t)) / column(time - t)

        return column(s) * (u(s) - (v - column(s - t) * slope(u, s)).detach())

    @pytest.mark.parametrize("points", ["own", "data"])
    @pytest.mark.parametrize("identity", ["lagrangian", "eulerian", "semigroup", "meanflow"])
    def test_an_identity_from_own_points_or_from_data(self, identity: str, points: str) -> None:
        student, method = flow_map(), FlowMapping(identity, points)
        batch = drawn(method, student)
        x, labels, s, *others = batch
        assert labels is None
        assert (s < T).any()
        start = X(student, x, torch.full_like(s, T), s).detach() if points == "own" else x
        expected = weight(s) * mean_square(getattr(self, identity)(student, start, s, *others))
        assert_same(method.loss(context(student), batch), expected, student)

    @pytest.mark.parametrize("identity", ["lagrangian", "eulerian", "semigroup", "meanflow"])
    def test_points_from_data_are_data_with_noise_of_their_time(self, identity: str) -> None:
        student, method = flow_map(), FlowMapping(identity, "data")
        here = context(student)
        method.begin(here, first=True)
        x, _, s, *_ = method.draw(here, 2000, torch.Generator().manual_seed(1))
        x0, noise, _ = here.parts
        torch.testing.assert_close(x, x0 + column(s) * noise, rtol=1e-12, atol=1e-12)
        assert noise.std().item() == pytest.approx(1, rel=0.05)

    def test_from_the_prior_it_has_the_loss_of_pid_with_the_forward_difference(self) -> None:
        student, ode, n = flow_map(), pid.DenoiserODE(RING), N - 1
        z, index, start = T * normal(n), torch.arange(n), torch.full((n,), T).double()
        here = context(student, weight=torch.ones_like)
        ours = FlowMapping("lagrangian").loss(here, (z, None, start, GRID[:-1], GRID[1:]))
        theirs = pid.pid_loss(FromThePrior(student), ode, z, GRID, index, derivative="forward", distance="l2")
        assert_same(ours, theirs, student)

    def test_from_the_prior_it_tends_to_the_loss_of_pid_with_the_exact_derivative(self) -> None:
        student, ode, n = flow_map(), pid.DenoiserODE(RING), N - 1
        z, index, start = T * normal(n), torch.arange(n), torch.full((n,), T).double()
        here = context(student, weight=torch.ones_like)
        exact = pid.pid_loss(FromThePrior(student), ode, z, GRID, index, derivative="exact", distance="l2")
        limit, errors = gradient(exact, student), []
        for h in (1e-3, 5e-4):
            losses = FlowMapping("lagrangian").loss(here, (z, None, start, GRID[:-1], GRID[:-1] * (1 - h)))
            errors.append((gradient(losses, student) - limit).norm().item())
        assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)

    def test_the_eulerian_identity_to_the_end_is_consistency_distillation(self) -> None:
        """Of G instead of X, whose difference is 1 - t/s times as large."""
        student = flow_map()
        x0, noise, s, u = neighbours()
        end = torch.full_like(s, T_MIN)
        here = context(student, weight=lambda s: (1 - T_MIN / s) ** 2)
        ours = FlowMapping("eulerian", "data").loss(here, (x0 + column(s) * noise, None, s, u, end))
        theirs = CD("euler").loss(context(student, weight=torch.ones_like), (x0, noise, s, u, None))
        assert_same(ours, theirs, student)

    def test_meanflow_has_the_change_of_the_end_along_the_teachers_path(self) -> None:
        """s (dX/ds + J v) with the Jacobian J of X in x: the derivative that the Eulerian identity sets to zero."""
        student = flow_map()
        x0, noise, s, m = neighbours()
        x, t = x0 + column(s) * noise, m / 2 + T_MIN / 2
        v = velocity(x, s)
        of_time = slope(lambda time: X(student, x, time, t), s)
        _, of_x = torch.func.jvp(lambda x: X(student, x, s, t), (x,), (v,))
        ours = FlowMapping("meanflow", "data").loss(context(student), (x, None, s, m, t))
        residual = column(s) * (of_time + of_x)
        torch.testing.assert_close(ours, weight(s) * mean_square(residual), rtol=1e-10, atol=1e-12)

    def test_in_the_time_of_its_paper_meanflow_has_a_residual_of_another_size(self) -> None:
        """Over time tau = s / (1 + s) on the paths y = x / (1 + s), by u = v - (tau - r) du/dtau."""
        student = flow_map()
        x0, noise, s, m = neighbours()
        x, t = x0 + column(s) * noise, m / 2 + T_MIN / 2
        tau, r, y = s / (1 + s), t / (1 + t), x / column(1 + s)
        v = (y - D(x, s)) / column(tau)

        def u(time: Tensor) -> Tensor:
            there, noise_level = y + column(time - tau) * v, time / (1 - time)
            end = X(student, there * column(1 + noise_level), noise_level, t) / column(1 + t)
            return (there - end) / column(time - r)

        residual = u(tau) - (v - column(tau - r) * slope(u, tau)).detach()
        ours = FlowMapping("meanflow", "data").loss(context(student), (x, None, s, m, t))
        # The residual is (1 + s) / (1 + t) / tau times ours, and u changes by dG / tau.
        ratio = (1 + t) / (1 + s)
        scaled = weight(s) * tau**2 * mean_square(residual)
        assert_same(ours, ratio**2 * scaled, student, ratio * scaled)


class TestOwnPath:
    @pytest.mark.parametrize("boundary_weight", [0.0, 0.3])
    def test_boot_steps_from_its_own_signal_and_starts_at_the_denoised_noise(self, boundary_weight: float) -> None:
        student = path("signal" if boundary_weight else "hard")
        _, noise, t, u = neighbours()
        z = T * noise

        def y(time: Tensor) -> Tensor:
            return F(student, z, time) * (1 if boundary_weight else column(1 - time / T))

        step = column(1 - u / t)
        target = column(u / t) * y(t) + step * D(column(t / T) * z + y(t), t)
        start = torch.full_like(t, T)
        expected = weight(t) * mean_square((y(u) - target.detach()) / step)
        if boundary_weight:
            expected = expected + boundary_weight * mean_square(F(student, z, start) - D(z, start))
        assert_same(BOOT(boundary_weight).loss(context(student), (z, t, u, None)), expected, student)

    def test_freeflow_predicts_what_the_teacher_and_its_own_change_say(self) -> None:
        student = path()
        _, noise, _, t = neighbours()
        z = T * noise
        prediction, b = F(student, z, t), column(1 - t / T)
        change = slope(lambda t: F(student, z, t), t)
        target = D(column(t / T) * z + b * prediction, t) + column(t) * b * change
        expected = weight(t) * mean_square(prediction - target.detach())
        assert_same(FreeFlow().loss(context(student), (z, t, None)), expected, student)

    def test_freeflow_in_mean_velocities_has_a_residual_of_another_size(self) -> None:
        """U = v - (t - T) dU/dt for the mean velocity U from T to t: its residual is ours over t, and dU = dF / T."""
        student = path()
        _, noise, _, t = neighbours()
        z = T * noise

        def x(time: Tensor) -> Tensor:
            return column(time / T) * z + column(1 - time / T) * F(student, z, time)

        def U(time: Tensor) -> Tensor:
            return (x(time) - z) / column(time - T)

        residual = U(t) - (velocity(x(t), t) - column(t - T) * slope(U, t)).detach()
        scaled = weight(t) * t * mean_square(residual)
        assert_same(FreeFlow().loss(context(student), (z, t, None)), t * scaled, student, T * scaled)


class TestProgressive:
    @pytest.mark.parametrize("stage", [0, 1, 2])
    def test_a_stage_has_the_end_of_several_steps_of_the_one_before(self, stage: int) -> None:
        """G'' with X'' = t/s x + (1 - t/s) G'', where X'' is the end of the steps; the first are the teacher's."""
        method = PD(calls=4, teacher_steps=2)
        parts = [FlowMap(mlp(), sigma_data=SD) for _ in method.numbers]
        student: Any = ProgressiveStudent(parts, method.numbers)
        here = context(student)
        here.stage_index, here.stage = stage, method.stages(here, 30)[stage]
        method.begin(here, first=False)
        x, times, labels = method.draw(here, 40, torch.Generator().manual_seed(1))
        x, end = x.double(), x.double()
        for s, u in pairwise(times.unbind(1)):
            end = end + column(u - s) * velocity(end, s) if stage == 0 else X(parts[stage - 1], end, s, u)
        s, t = times[:, 0], times[:, -1]
        target = (end - column(t / s) * x) / column(1 - t / s)
        expected = weight(s) * mean_square(G(parts[stage], x, s, t) - target.detach())
        assert_same(method.loss(here, (x, times, labels)), expected, parts[stage])

    def test_a_stage_begins_with_the_weights_of_the_one_before(self) -> None:
        method = PD(calls=2, teacher_steps=2)
        student: Any = ProgressiveStudent([FlowMap(mlp(), sigma_data=SD) for _ in method.numbers], method.numbers)
        here = context(student)
        here.stage_index, here.stage = 1, method.stages(here, 30)[1]
        method.begin(here, first=True)
        weights = [torch.cat([p.flatten() for p in part.parameters()]) for part in student.stages]
        assert torch.equal(*weights)


class TestEndpoint:
    def regression(self, student: Any, x0: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The loss on a batch that the method draws, and what it should be of the ends x0 of each start."""
        here, method = context(student), Endpoint(pairs=40)
        method.begin(here, first=True)
        z, end, labels = method.draw(here, 40, torch.Generator().manual_seed(1))
        z, end = z.double(), end.double()
        expected = mean_square(student(z, torch.full((40,), T_MIN, dtype=torch.float64)) - x0(z))
        return method.loss(here, (z, end, labels)), expected

    def ends(self, z: Tensor) -> Tensor:
        """Where Euler's steps along the grid lead from z."""
        for s, u in pairwise(GRID):
            z = z + (u - s) * velocity(z, s.expand(len(z)))
        return z

    def test_the_end_of_its_path_is_that_of_the_solver(self) -> None:
        student = path()
        ours, expected = self.regression(student, self.ends)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)  # the pairs are kept in float32
        ours_slope, slope_expected = gradient(ours, student), gradient(expected, student)
        torch.testing.assert_close(ours_slope, slope_expected, rtol=1e-5, atol=1e-5 * slope_expected.abs().max().item())

    @pytest.mark.parametrize("off", [0.0, 1e-2])
    def test_the_solvers_end_is_a_zero(self, off: float) -> None:
        class Solver(torch.nn.Module):
            t_max = T

            def forward(_, z: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
                return self.ends(z) + off

        losses, _ = self.regression(Solver(), self.ends)
        assert losses.min() > 1e-5 if off else losses.max() < 1e-8


class TestReflow:
    def test_its_velocity_is_that_of_the_line(self) -> None:
        """Over tau, of y = tau z/T + (1 - tau) x0 = m x with m = 1 - tau + tau/T; the student's is (y - G) / tau."""
        student = FlowMap(mlp(), sigma_data=SD)
        z, x0, tau = T * normal(40), normal(40), torch.linspace(0.01, 1, 40, dtype=torch.float64)
        start = z / T
        y, m = column(tau) * start + column(1 - tau) * x0, 1 - tau + tau / T
        own = (y - G(student, y / column(m), tau / m, tau / m)) / column(tau)
        assert_same(Reflow().loss(context(student), (z, x0, None, tau)), mean_square(own - (start - x0)), student)

    @pytest.mark.parametrize("off", [0.0, 1e-3])
    def test_lines_that_do_not_cross_are_a_zero(self, off: float) -> None:
        """Those of Gaussian data: their paths end at k z, so that the line from z is at (s/T + (1 - s/T) k) z."""
        k = ((SD**2 + T_MIN**2) / (SD**2 + T**2)) ** 0.5

        class Lines(FlowMap):
            def denoised(self, x: Tensor, s: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
                return x * column((k + off) / (s / T + (1 - s / T) * k))

        student, z, tau = Lines(mlp()), T * normal(40), torch.linspace(0.01, 1, 40, dtype=torch.float64)
        losses = Reflow().loss(context(student), (z, k * z, None, tau))
        if off:
            assert losses.mean() > 1e-3
        else:
            assert losses.max() < 1e-24
            torch.testing.assert_close(student.end(z), k * z + T_MIN / T * (1 - k) * z)
