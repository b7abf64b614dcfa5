"""The loss: the reference values to the last digit, Theorem 1, the digits of float32, and bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.losses.distances import Distance
from pidlearn.losses.lpips import LPIPS
from tests.reference import load_student_network, load_teacher, tensor
from tests.strategies import Table, grids, mixtures, noise, random_network


def features(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of the features of an injective network: an invertible layer, then a leaky ReLU."""
    d = a.shape[1]
    layer = torch.eye(d, dtype=a.dtype) + torch.ones(d, d, dtype=a.dtype).tril(-1)
    return pid.l2(*(nn.functional.leaky_relu(x @ layer, 0.5) for x in (a, b)))


def perceptual(a: Tensor, b: Tensor) -> Tensor:
    """In small what LPIPS + l2 is: unit features of two layers that forget, and l2, which does not."""
    total = pid.l2(a, b)
    for width in (3, 2):
        layer = torch.linspace(-1, 2, a.shape[1] * width, dtype=a.dtype).sin().reshape(a.shape[1], width)
        a, b = (a @ layer).relu(), (b @ layer).relu()
        total = total + pid.l2(*(x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in (a, b)))
    return total


METRICS = ["l1", "l2", "pseudo_huber", features, perceptual]
"""Zero only where both sides are equal, which is all that Theorem 1 asks; plain LPIPS is not among them."""


@pytest.fixture(scope="module")
def parts() -> tuple[pid.Trajectory, pid.DenoiserODE]:
    return pid.Trajectory(load_student_network(torch.float64)), pid.DenoiserODE(load_teacher(torch.float64))


class TestReferenceValues:
    """Against the official implementation's numbers (tests/data/README.md)."""

    @pytest.mark.parametrize(
        ("distance", "weight"),
        [("l2", "uniform"), ("l1", "uniform"), ("l2", "snr"), ("l2", "karras"), ("l2", "truncated_snr")],
    )
    def test_loss_and_gradient(self, parts, distance: str, weight: str) -> None:
        trajectory, ode = parts
        key = f"N10/{distance}_{weight.replace('_', '-')}"
        z, index = tensor("pid_loss", "z"), tensor("pid_loss", "N10/indices", torch.int64)
        loss = pid.pid_loss(
            trajectory, ode, z, pid.karras_grid(10), index, distance=distance, weight=weight, last_interval="backward"
        )
        torch.testing.assert_close(loss, tensor("pid_loss", f"{key}/loss64"), rtol=1e-10, atol=1e-10)
        trajectory.zero_grad()
        loss.mean().backward()
        grads = [p.grad for p in trajectory.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for g in grads]).norm()
        torch.testing.assert_close(norm, tensor("pid_loss", f"{key}/grad_norm64"), rtol=1e-10, atol=0)

    def test_grid_and_path(self, parts) -> None:
        trajectory, _ = parts
        index = tensor("pid_loss", "N10/indices", torch.int64)
        t = pid.karras_grid(10)[index]
        torch.testing.assert_close(t, tensor("pid_loss", "N10/t"), rtol=1e-12, atol=0)
        x = trajectory(tensor("pid_loss", "z"), t)
        torch.testing.assert_close(x, tensor("pid_loss", "N10/x_t"), rtol=1e-12, atol=1e-12)

    def test_weight_as_a_function_of_t(self, parts) -> None:
        z, index = tensor("pid_loss", "z"), tensor("pid_loss", "N10/indices", torch.int64)
        args = (*parts, z, pid.karras_grid(10), index)
        by_name = pid.pid_loss(*args, weight="snr", last_interval="backward")
        by_hand = pid.pid_loss(*args, weight=lambda t: 1 / t**2, last_interval="backward")
        assert torch.equal(by_name, by_hand)


class TestTheorem1:
    """Zero loss at every index <=> the grid values are Euler's."""

    @given(mixtures(), grids(), st.sampled_from(METRICS))
    @settings(max_examples=40)
    def test_euler_has_zero_loss(self, mixture, grid: Tensor, metric: str | Distance) -> None:
        ode = pid.DenoiserODE(mixture)
        table = Table(pid.solve(ode, noise(mixture, grid[0].item()), grid), grid)
        assert table.every_index(ode, distance=metric).max() <= 1e-10

    @given(mixtures(), grids(), st.sampled_from(METRICS), st.data())
    @settings(max_examples=40)
    def test_any_other_path_has_not(self, mixture, grid: Tensor, metric: str | Distance, data: st.DataObject) -> None:
        ode = pid.DenoiserODE(mixture)
        path = pid.solve(ode, noise(mixture, grid[0].item()), grid)
        i = data.draw(st.integers(1, len(grid) - 1))
        path[i] += data.draw(st.sampled_from([-1.0, 1.0])) * data.draw(st.floats(1e-3, 1.0))
        before = Table(path, grid).every_index(ode, distance=metric)[i - 1]
        assert (before > 1e-9).all()

    @given(mixtures(), grids(16), st.sampled_from(METRICS))
    @settings(max_examples=20)
    def test_solving_for_zero_loss_walks_euler(self, mixture, grid: Tensor, metric: str | Distance) -> None:
        # The other direction, built and not assumed: from an arbitrary table, set each value in turn to the one
        # number at which the loss before it vanishes, found from the loss's own two sides.
        ode, z = pid.DenoiserODE(mixture), noise(mixture, grid[0].item())
        path = torch.zeros(len(grid), *z.shape, dtype=z.dtype)
        path[0] = z
        for i in range(len(grid) - 1):
            t, t_next = grid[i], grid[i + 1]
            # lhs is affine in the next value: lhs(v) = lhs(0) + gain v.
            at_zero = ode.lhs(path[i], path[i] / (t - t_next), t)
            gain = ode.lhs(torch.zeros_like(z), -torch.ones_like(z) / (t - t_next), t)
            path[i + 1] = (ode.rhs(path[i], t) - at_zero) / gain
        assert Table(path, grid).every_index(ode, distance=metric).max() <= 1e-9
        torch.testing.assert_close(path, pid.solve(ode, z, grid), rtol=1e-8, atol=1e-9)

    def test_of_images_under_lpips(self) -> None:
        """LPIPS + l2 holds both ways. Plain LPIPS promises the first alone: it is a pseudo-metric, blind to what its
        layers forget, so zero loss under it need not mean Euler's path (`tests.test_perceptual` has such a pair).
        """
        generator = torch.Generator().manual_seed(0)
        images = 2 * torch.rand(3, 1, 32, 32, generator=generator, dtype=torch.float64) - 1
        ode, grid = pid.DenoiserODE(pid.EmpiricalDenoiser(images)), pid.karras_grid(6)
        lpips = LPIPS("alex", weights="random", resize=None)
        z = 80 * torch.randn(2, 1, 32, 32, generator=generator, dtype=torch.float64)
        path = pid.solve(ode, z, grid)

        def with_l2(a: Tensor, b: Tensor) -> Tensor:
            return lpips(a, b) + pid.l2(a, b)

        for distance in (lpips, with_l2):
            assert Table(path, grid).every_index(ode, distance=distance).max() <= 1e-10
        for i in range(1, len(grid)):
            other = path.clone()
            other[i] += 1e-3 * torch.randn(2, 1, 32, 32, generator=generator, dtype=torch.float64)
            assert (Table(other, grid).every_index(ode, distance=with_l2)[i - 1] > 1e-9).all()

    @given(mixtures(), grids())
    @settings(max_examples=40)
    def test_eq9_is_t_times_eq8(self, mixture, grid: Tensor) -> None:
        def norm(a: Tensor, b: Tensor) -> Tensor:
            return (a - b).flatten(1).norm(dim=1)

        z = noise(mixture, grid[0].item())
        table = Table(torch.randn(len(grid), *z.shape, dtype=z.dtype), grid)
        eq9 = table.every_index(pid.DenoiserODE(mixture), distance=norm)
        eq8 = table.every_index(pid.VelocityODE(pid.DenoiserODE(mixture).velocity), distance=norm)
        torch.testing.assert_close(eq9, grid[:-1, None] * eq8, rtol=1e-8, atol=1e-10)

    def test_trapezoid_of_a_velocity_is_the_trapezoidal_rule(self) -> None:
        # x' = -x: the rule's solution is known, x_{i+1} = x_i (1 - h/2) / (1 + h/2).
        grid, z = pid.linear_grid(9, 0.0, 2.0), torch.ones(1, 1, dtype=torch.float64)
        h = grid[0] - grid[1]
        table = Table((((1 + h / 2) / (1 - h / 2)) ** torch.arange(9.0, dtype=torch.float64))[:, None, None], grid)
        assert table.every_index(pid.VelocityODE(lambda x, t: -x), derivative="trapezoid").max() < 1e-28
        assert z.shape == table.values.shape[1:]


class TestDigits:
    """z is 80 times the data and must not eat the digits of the residual (float32)."""

    @pytest.mark.parametrize("n", [250, 1000])
    def test_network_space_keeps_them_and_x_space_does_not(self, n: int) -> None:
        torch.manual_seed(0)
        network = random_network(2)
        ode = pid.DenoiserODE(lambda x, sigma: torch.zeros_like(x))
        grid, index = pid.karras_grid(n), torch.arange(n - 1)
        z = (80 * torch.randn(1, 2, dtype=torch.float64)).float().double().expand(n - 1, 2)

        def residual(a: Tensor, b: Tensor) -> Tensor:
            return (a - b).abs().amax(1)

        def error(trajectory, wrap) -> Tensor:
            """|residual in float32 - residual in float64|, from a signed distance."""
            sides = [
                pid.pid_loss(
                    wrap(trajectory.to(dtype)), ode, z.to(dtype), grid, index, distance=lambda a, b, k=k: a[:, k]
                )
                for dtype in (torch.float64, torch.float32)
                for k in (0, 1)
            ]
            return torch.stack([(sides[k] - sides[k + 2].double()).abs() for k in (0, 1)]).amax(0)

        class InXSpace:
            t_max = 80.0

            def __init__(self, inner: pid.Trajectory) -> None:
                self.inner = inner

            def __call__(self, z: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
                return self.inner(z, t)

        trajectory = pid.Trajectory(network)
        with torch.no_grad():
            size = network.double()(trajectory.c_in * z, grid[:-1].log() / 4).abs().amax()
        t, t_next = grid[:-1], grid[1:]
        beta = t_next * (1 - t / 80) / (t - t_next)
        bound = 8 * (2 * beta + 1) * torch.finfo(torch.float32).eps * size
        assert (error(trajectory, lambda s: s) <= bound).all()
        assert (error(trajectory, InXSpace) > bound).float().mean() > 0.2

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_differences_are_named(self, dtype: torch.dtype) -> None:
        trajectory = pid.Trajectory(pid.nets.MLP(2, width=8, depth=1)).to(dtype)
        ode = pid.DenoiserODE(lambda x, sigma: torch.zeros_like(x))
        args = (trajectory, ode, torch.ones(3, 2, dtype=dtype), pid.karras_grid(), torch.tensor([0, 9, 99]))
        with pytest.warns(UserWarning, match=r"multiply its rounding by about 4\d"):
            loss = pid.pid_loss(*args)
        assert loss.dtype == torch.float32
        pid.pid_loss(*args, derivative="exact")  # would fail: warnings are errors here

    def test_half_precision_of_an_ode_is_named_without_a_diffusions_factor(self) -> None:
        trajectory = pid.Trajectory(lambda x, t: x, 0.0, t_min=1.0, boundary="increment", time="linear").bfloat16()
        z, grid = torch.ones(2, 2, dtype=torch.bfloat16), torch.linspace(0, 1, 9)
        with pytest.warns(UserWarning, match="multiply its rounding much: run the student in float32"):
            pid.pid_loss(trajectory, pid.VelocityODE(lambda x, t: x), z, grid, torch.tensor([0, 7]))


class TestSwitches:
    def test_stop_gradient_holds_the_teacher(self) -> None:
        calls: list[bool] = []

        def f(x: Tensor, t: Tensor) -> Tensor:
            calls.append(x.requires_grad)
            return -x

        trajectory = pid.Trajectory(pid.nets.MLP(2, width=8, depth=1))
        args = (trajectory, pid.VelocityODE(f), torch.ones(3, 2), pid.karras_grid(8), torch.tensor([0, 1, 5]))
        pid.pid_loss(*args)
        pid.pid_loss(*args, stop_gradient=False)
        assert calls == [False, True]

    def test_soft_boundary_must_be_taught(self) -> None:
        z = 80 * torch.randn(5, 2)
        network = random_network(2)
        assert pid.boundary_loss(pid.Trajectory(network), z).max() == 0
        assert pid.boundary_loss(pid.Trajectory(network, boundary="soft"), z).min() > 0

    def test_labels_reach_teacher_and_student(self) -> None:
        seen = []

        def denoiser(x, sigma, class_labels=None):
            seen.append(class_labels)
            return x

        def network(x, time, class_labels=None):
            seen.append(class_labels)
            return x

        labels = torch.tensor([3, 1])
        index = torch.tensor([0, 1])
        trajectory = pid.Trajectory(network)
        pid.pid_loss(
            trajectory, pid.DenoiserODE(denoiser), torch.ones(2, 3), pid.karras_grid(5), index, class_labels=labels
        )
        assert seen[0].tolist() == [3, 1, 3, 1]  # both evaluations in one call
        assert seen[1].tolist() == [3, 1]


class Embedding(nn.Module):
    """A network with five classes that says of none."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(5, 2)

    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor) -> Tensor:
        return x + self.rows(class_labels)


class Pair:
    """A trajectory that returns two things."""

    t_max = 80.0

    def __call__(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return z, z


def labelled() -> pid.Trajectory:
    return pid.Trajectory(random_network(2, label_dim=3)).float()


class TestBadInput:
    def arguments(self) -> dict:
        return {
            "trajectory": pid.Trajectory(pid.nets.MLP(2, width=8, depth=1)),
            "ode": pid.DenoiserODE(lambda x, sigma: torch.zeros_like(x)),
            "z": torch.ones(3, 2),
            "grid": pid.karras_grid(8),
            "index": torch.tensor([0, 1, 5]),
        }

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"z": torch.ones(0, 2), "index": torch.zeros(0, dtype=torch.int64)}, "B >= 1"),
            ({"z": torch.ones(3)}, "B, "),
            ({"z": torch.ones(3, 2, dtype=torch.int64)}, "floating"),
            ({"z": torch.ones(3, 2, dtype=torch.float64)}, "float64"),
            ({"index": torch.tensor([0, 1])}, "index"),
            ({"index": torch.tensor([0.0, 1.0, 2.0])}, "int64"),
            ({"index": torch.tensor([0, 1, 7])}, "0..6"),
            ({"index": torch.tensor([0, 1, -1])}, "0..6"),
            ({"grid": pid.karras_grid(8).flip(0)}, "flip it"),
            ({"grid": pid.karras_grid(8)[:1]}, "N >= 2"),
            ({"grid": torch.tensor([80.0, 1.0, 1.0])}, "monotone"),
            ({"grid": pid.linear_grid(8, -1.0, 80.0)}, "t_min > 0"),
            ({"derivative": "backward"}, "derivative must be one of"),
            ({"distance": "lpips?"}, "distance must be one of"),
            ({"weight": "edm"}, "weight must be one of"),
            ({"last_interval": "keep"}, "last_interval"),
            ({"distance": lambda a, b: (a - b).square()}, "one value per sample"),
            ({"class_labels": torch.tensor([0, 1])}, "class_labels"),
            ({"class_labels": [0, 1, 2]}, "got list for class_labels, but class_labels must be an int64 tensor"),
            ({"class_labels": torch.tensor([0, 1, 2])}, "label_dim = 0"),
            ({"z": torch.tensor([[1.0, 1.0], [math.nan, 1.0], [1.0, 1.0]])}, "z holds NaN"),
            (
                {"trajectory": pid.Trajectory(Embedding()), "class_labels": torch.tensor([0, 9, 1])},
                "index out of range",
            ),
            (
                {"trajectory": labelled(), "class_labels": torch.tensor([0, 9, 1])},
                r"got class labels 0\.\.9, but class labels must lie in 0\.\.2",
            ),
            ({"grid": pid.karras_grid(8).to("meta")}, "grid is on the meta device"),
            ({"z": torch.ones(3, 2, device="meta"), "grid": pid.karras_grid(8)}, "z is on the meta device"),
            ({"grid": torch.tensor([80, 10, 1])}, "floating tensor of N >= 2"),
            ({"distance": ["l2"]}, "distance must be one of"),
            ({"trajectory": Pair()}, "returned tuple, but must return a tensor of the shape of z"),
            ({"z": torch.ones(3, 3)}, r"got \(3,\), but the network takes samples of shape \(2,\)"),
            (
                {"trajectory": pid.Trajectory(lambda x, t: x @ torch.ones(5, 5))},
                r"student fails on x \(3, 2\) torch.float32",
            ),
            ({"trajectory": pid.Trajectory(lambda x, t: x * math.nan)}, "the student returned NaN"),
            (
                {"trajectory": pid.Trajectory(lambda x, t: x, 1.0, t_min=0.1)},
                "but it must start at t_max = 1,",
            ),
            ({"weight": lambda t: 1 / (t - 80)}, "the weight is inf at t = 80"),
            ({"weight": lambda t: t.mean()}, "one value per time"),
            ({"ode": pid.VelocityODE(lambda x, t: x @ torch.ones(2, 2).double())}, "field f fails on x .*float32"),
            ({"ode": pid.DenoiserODE(lambda x, sigma: x[:, :1])}, "denoiser"),
            ({"ode": pid.VelocityODE(lambda x, t: x[0])}, r"f\(x, t\)"),
            ({"ode": pid.DenoiserODE(lambda x, sigma: x / 0)}, "teacher returned NaN"),
            ({"trajectory": pid.Trajectory(lambda x, t: x[:, :1])}, "keep the shape"),
        ],
    )
    def test_says_what_came(self, changes: dict, says: str) -> None:
        arguments = {**self.arguments(), **changes}
        with pytest.raises(ValueError, match=says):
            pid.pid_loss(**arguments)

    def test_a_students_nan_is_its_own_though_the_teacher_hides_it(self) -> None:
        student = pid.Trajectory(lambda x, t: x * math.nan)
        hides = pid.DenoiserODE(lambda x, sigma: torch.zeros_like(x))
        with pytest.raises(ValueError, match="the student returned NaN"):
            pid.pid_loss(**{**self.arguments(), "trajectory": student, "ode": hides})

    def test_a_grid_that_leaves_the_start_out_warns(self) -> None:
        with pytest.warns(UserWarning, match="starts at 40 but the paths at t_max = 80"):
            pid.pid_loss(**{**self.arguments(), "grid": pid.karras_grid(8, t_max=40.0)})

    def test_a_grid_in_single_precision_is_one(self) -> None:
        student = pid.Trajectory(pid.nets.MLP(2, width=8, depth=1), 0.7)
        grid = pid.karras_grid(8, t_max=0.7)
        single = {**self.arguments(), "trajectory": student, "grid": grid.float()}
        assert torch.allclose(pid.pid_loss(**single), pid.pid_loss(**{**single, "grid": grid}), rtol=1e-4)

    def test_a_student_of_ones_own_is_told_what_t_is(self) -> None:
        class Own(nn.Module):
            t_max = 80.0

            def __init__(self, convert: bool) -> None:
                super().__init__()
                self.linear, self.convert = nn.Linear(3, 2), convert

            def forward(self, z: Tensor, t: Tensor) -> Tensor:  # no labels, so none are passed
                assert t.dtype == torch.float64
                t = t.to(z.dtype) if self.convert else t
                return z + self.linear(torch.cat([z, t[:, None]], 1).to(t.dtype))

        assert pid.pid_loss(**{**self.arguments(), "trajectory": Own(True)}).shape == (3,)
        with pytest.raises(ValueError, match=r"convert t to torch.float32 first"):
            pid.pid_loss(**{**self.arguments(), "trajectory": Own(False)})

    def test_a_trajectory_without_t_max(self) -> None:
        with pytest.raises(TypeError, match="t_max"):
            pid.pid_loss(**{**self.arguments(), "trajectory": lambda z, t, class_labels=None: z})

    @pytest.mark.parametrize("wrong", [None, "ring", pid.toy("ring"), pid.system("pendulum")])
    def test_what_is_no_equation(self, wrong: object) -> None:
        with pytest.raises(TypeError, match="ode must be a DenoiserODE"):
            pid.pid_loss(**{**self.arguments(), "ode": wrong})

    @pytest.mark.parametrize("wrong", [None, 3.0, "ring"])
    def test_a_teacher_that_cannot_be_called(self, wrong: object) -> None:
        with pytest.raises(TypeError, match="callable"):
            pid.DenoiserODE(wrong)
        with pytest.raises(TypeError, match="callable"):
            pid.VelocityODE(wrong)
