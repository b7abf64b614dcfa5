"""Answers do not depend on the units of x or t, and problems whose scale does not fit lead to a warning."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.equations.diffusion import default_span
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.students.validate import check_path_student
from pidlearn.utils.broadcast import expand_like


def box(scale: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A prior uniform between the scale of each coordinate and twice it."""
    size = torch.as_tensor(scale, dtype=dtype)

    def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
        return size * (1 + torch.rand(n, len(size), generator=generator, dtype=dtype))

    return prior


def decay(rate: float) -> pid.VelocityODE:
    return pid.VelocityODE(lambda x, t: -rate * x)


UNITS = [(300.0, 300.0), (300.0, 1e-3), (1e3, 1e-8), (1e-15, 1e-15), (1e-17, 1e-17)]


class TestCoordinates:
    @pytest.mark.parametrize("units", [*UNITS, (1e3, 1e-13), (1e10, 1e-20)])
    def test_each_is_measured_in_its_own_unit(self, units: tuple[float, float]) -> None:
        unit = problem_from_teacher(decay(1.0), 0.0, 2.0, box((1.0, 1.0)))
        problem = problem_from_teacher(decay(1.0), 0.0, 2.0, box(units))
        expected = [std * u for std, u in zip(unit.std.tolist(), units, strict=True)]
        assert problem.std.tolist() == pytest.approx(expected, rel=1e-5, abs=0)
        assert problem.coarse_error(20) == pytest.approx(unit.coarse_error(20), rel=1e-3)

    def test_a_constant_one_is_measured_in_the_rounding_of_its_size(self) -> None:
        def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
            varied = torch.rand(n, generator=generator)
            return torch.stack([varied, torch.full((n,), 7e4), torch.zeros(n)], 1)

        problem = problem_from_teacher(decay(0.0), 0.0, 1.0, prior)
        assert problem.std.tolist() == pytest.approx([math.sqrt(1 / 12), 0.7, 7e-8], rel=0.1, abs=0)

    @pytest.mark.parametrize("units", [UNITS[1], *(pytest.param(u, marks=pytest.mark.slow) for u in UNITS[2:])])
    def test_students_learn_in_any(self, units: tuple[float, float]) -> None:
        options: dict[str, Any] = {"t_start": 0, "t_end": 1, "steps": 60, "windows": 2, "n": 9, "progress": False}
        here, there = (pid.distill(decay(1.0), prior=box(u), **options).evaluate(64) for u in (units, (1.0, 1.0)))
        assert here["worst_coordinate"] == pytest.approx(there["worst_coordinate"], rel=0.2)

    def test_the_reference_is_exact_in_each(self) -> None:
        problem = problem_from_teacher(decay(1.0), 0.0, 2.0, box((300.0, 1e-9), torch.float64))
        z = problem.sample_prior(8, torch.Generator().manual_seed(0))
        grid = torch.linspace(0, 2, 5, dtype=torch.float64)
        torch.testing.assert_close(problem.reference(z, grid), z * (-grid).exp()[:, None, None], rtol=1e-7, atol=0)

    def test_a_start_that_is_off_in_a_small_one_is_noticed(self) -> None:
        class Off(torch.nn.Module):
            t_max = 0.0

            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(1))

            def forward(self, z: Tensor, t: Tensor) -> Tensor:
                return z + torch.tensor([0.0, 2e-3]) + self.weight

        problem = problem_from_teacher(decay(1.0), 0.0, 2.0, box((300.0, 1e-3)))
        with pytest.raises(ValueError, match="does not start at z"):
            check_path_student(Off(), problem, soft_boundary=False)

    def test_a_users_network_that_sees_them_as_they_are_is_told(self) -> None:
        options: dict[str, Any] = {"t_start": 0, "t_end": 1, "n": 9, "steps": 3}
        with pytest.warns(
            UserWarning, match=r"sizes from 0\.001\d? to 3.*leave student out; .* is fine: warnings.filterwarnings"
        ):
            pid.steps(decay(1.0), pid.nets.MLP(2, width=8), prior=box((300.0, 1e-3)), **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pid.steps(decay(1.0), pid.nets.MLP(2, width=8), prior=box((3.0, 0.1)), **options)
            warnings.filterwarnings("ignore", message="the coordinates have sizes")  # the line of the message
            pid.steps(decay(1.0), pid.nets.MLP(2, width=8), prior=box((300.0, 1e-3)), **options)


class TestTeachersOfARun:
    """A checkpoint is resumed with the teacher that it was made with, whatever its units."""

    @pytest.mark.parametrize("rate", [1e-5, pytest.param(1.0, marks=pytest.mark.slow), 1e5])
    def test_of_an_ode(self, rate: float, tmp_path: Path) -> None:
        options: dict[str, Any] = {
            "prior": box((0.5,)),
            "t_start": 0,
            "t_end": 1 / rate,
            "steps": 26,
            "progress": False,
        }
        options |= {"windows": 2, "n": 5, "checkpoints": tmp_path}
        pid.distill(decay(rate), **options)
        with pytest.raises(ValueError, match="another teacher of the same kind"):
            pid.distill(decay(5 * rate), **options)
        assert pid.distill(decay(rate), **options).stopped is None

    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    @pytest.mark.filterwarnings("ignore:the data have a standard deviation of")
    def test_of_a_diffusion(self, scale: float, tmp_path: Path) -> None:
        data = scale * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
        options: dict[str, Any] = {"steps": 3, "batch_size": 8, "n": 8, "checkpoints": tmp_path, "progress": False}
        pid.distill(pid.EmpiricalDenoiser(data), **options)
        with pytest.raises(ValueError, match="another teacher of the same kind"):
            pid.distill(pid.EmpiricalDenoiser(data.flip(1)), **options)
        assert pid.distill(pid.EmpiricalDenoiser(data), **options).stopped is None


class TestTeachersOfAFile:
    """A student's file is loaded with the teacher that it was trained with, whatever the prior."""

    SPAN: ClassVar[dict[str, Any]] = {"steps": 26, "windows": 2, "n": 5, "progress": False, "t_start": 0, "t_end": 1}

    def test_of_an_ode(self, tmp_path: Path) -> None:
        prior = box((0.5, 2.0), torch.float64)
        path = pid.distill(decay(1.0), prior=prior, **self.SPAN).save(tmp_path / "student")
        assert pid.load(path, decay(1.0), prior=prior).problem is not None
        assert pid.load(path, decay(1.0), prior=box((0.3, 0.1))).problem is not None  # from other starts
        for rate in (-1.0, 1.01):
            for start in (prior, box((0.3, 0.1))):
                with pytest.raises(ValueError, match="holds the student of another teacher"):
                    pid.load(path, decay(rate), prior=start)

    def test_of_a_field_that_explodes(self, tmp_path: Path) -> None:
        """Its own scale would make any other teacher look the same."""
        options = {**self.SPAN, "prior": box((0.5,)), "checkpoints": tmp_path / "run"}
        path = pid.distill(decay(20.0), **options).save(tmp_path / "student")
        for other in (decay(-20.0), decay(-40.0)):
            with pytest.raises(ValueError, match="holds the student of another teacher"):
                pid.load(path, other, prior=box((0.5,)))
        with pytest.raises(ValueError, match="another teacher of the same kind"):
            pid.distill(decay(-20.0), **options)
        ring = pid.distill(pid.toy("ring"), steps=1, batch_size=4, progress=False).save(tmp_path / "ring")
        with pytest.raises(ValueError, match="holds the student of another teacher"):
            pid.load(ring, decay(1.0), prior=box((0.5, 0.5)))

    @pytest.mark.parametrize("name", ["van_der_pol", "lorenz", pytest.param("lotka_volterra", marks=pytest.mark.slow)])
    def test_of_the_zoo(self, name: str, tmp_path: Path) -> None:
        brief: dict[str, Any] = {"steps": 26, "windows": 2, "n": 5, "progress": False}
        path = pid.distill(pid.system("pendulum"), **brief).save(tmp_path / "student")
        assert pid.load(path, pid.system("pendulum")).problem is not None
        with pytest.raises(ValueError, match="holds the student of another teacher"):
            pid.load(path, pid.system(name))
        path = pid.distill(pid.toy("ring"), steps=1, batch_size=4, progress=False).save(tmp_path / "ring")
        with pytest.raises(ValueError, match="holds the student of another teacher"):
            pid.load(path, pid.system(name))


class TestFingerprints:
    """Teachers differ wherever their paths go, not only at the initial values and in the middle of the span."""

    @staticmethod
    def problem(f: Any) -> Any:
        return problem_from_teacher(pid.VelocityODE(f), 0.0, 2.0, box((0.5,)))

    @pytest.mark.parametrize("where", ["beyond the prior", "first tenth", "last tenth", "start", "end"])
    def test_of_odes_that_differ_in_places(self, where: str) -> None:
        places: dict[str, Any] = {
            "beyond the prior": lambda x, t: x > 2,  # paths go from 0.5 .. 1 to 2.5 .. 3
            "first tenth": lambda x, t: t < 0.2,
            "last tenth": lambda x, t: t > 1.8,
            "start": lambda x, t: t == 0,
            "end": lambda x, t: t == 2,
        }
        place = places[where]
        one = self.problem(lambda x, t: torch.ones_like(x))
        other = self.problem(lambda x, t: 1 + 0.5 * place(x, t[:, None]))
        assert one.has_identity(one.identity())
        assert not one.has_identity(other.identity())
        assert not other.has_identity(one.identity())

    @pytest.mark.parametrize("level", [0.01, 60.0])
    def test_of_diffusions_that_differ_at_an_end(self, level: float) -> None:
        mixture = pid.toy("ring")
        one = problem_from_teacher(mixture)
        differs = (lambda t: t < level) if level < 1 else (lambda t: t > level)
        other = problem_from_teacher(
            lambda x, t: mixture(x, t) + 0.3 * differs(t)[:, None], event_shape=(2,), t_start=80.0, t_end=0.002
        )
        assert one.has_identity(one.identity())
        assert not one.has_identity(other.identity())
        assert not other.has_identity(one.identity())

    def test_points_are_stored(self) -> None:
        """Chaos amplifies 1e-7 of the starts by 1e4: solved anew, another machine's points would be others."""
        lorenz = problem_from_teacher(pid.system("lorenz"))
        there = dict(lorenz.identity())
        assert there["points"].shape == (17 * 4 + 256, 3)
        assert there["times"].tolist()[:68:4] == lorenz.plot_grid(17).tolist()
        moved = there["points"] * (1 + 1e-4)  # points that another machine found
        there["points"], there["fingerprint"] = moved, lorenz.ode.rhs(moved, there["times"])
        assert lorenz.has_identity(there)
        there["fingerprint"] = lorenz.ode.rhs(moved * 1.01, there["times"])
        assert not lorenz.has_identity(there)

    def test_of_a_stiff_field_do_not_depend_on_rounding(self) -> None:
        """float32 rounds x - cos t to 6e-8, and so -1e6 (x - cos t) to 0.06."""
        one = self.problem(lambda x, t: -1e6 * (x - t[:, None].cos()))
        other = self.problem(lambda x, t: -1e6 * (x - (t[:, None] * (1 + 1e-15)).cos()))
        assert one.has_identity(other.identity())

    @pytest.mark.parametrize(
        "force",
        [
            lambda t: (400 * math.pi * t).sin(),  # 0 at all of 401 equally spaced times
            lambda t: 5 * (-(((t - 1.33) / 0.0125) ** 2)).exp(),  # seen in a 40th of the span
        ],
    )
    def test_of_odes_that_differ_between_regular_times(self, force: Any) -> None:
        one, other = (self.problem(lambda x, t, f=f: -x + f * force(t)[:, None]) for f in (1.0, 5.0))
        assert one.has_identity(one.identity())
        assert not one.has_identity(other.identity())
        assert not other.has_identity(one.identity())

    def test_of_an_ode_are_no_denoisers(self) -> None:
        """The one of single points is not defined at the ODE's time 0."""
        denoiser = problem_from_teacher(pid.EmpiricalDenoiser(torch.tensor([[-0.5], [0.5]])))
        assert not denoiser.has_identity(self.problem(lambda x, t: -x).identity())

    def test_of_denoisers_that_differ_at_middle_levels(self) -> None:
        """Experts for different noise levels, of which one is another: EDM's five times are 80, 17, 2.5, .17, .002."""
        mixture = pid.toy("ring")

        def problem(shift: float) -> Any:
            def teacher(x: Tensor, sigma: Tensor) -> Tensor:
                return mixture(x, sigma) + shift * ((sigma > 0.3) & (sigma < 2))[:, None]

            return problem_from_teacher(teacher, 80.0, 0.002, event_shape=(2,))

        assert problem(0.0).has_identity(problem(0.0).identity())
        assert not problem(0.0).has_identity(problem(0.1).identity())

    @pytest.mark.parametrize("classes", [3, 10, 64])
    def test_of_teachers_that_differ_in_one_class(self, classes: int) -> None:
        means = torch.randn(classes, 2, generator=torch.Generator().manual_seed(0))

        def problem(moved: int | None, shift: float = 0.1) -> Any:
            def teacher(x: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
                mean = means + shift * torch.arange(classes).eq(-1 if moved is None else moved)[:, None]
                return mean[class_labels] + (x - mean[class_labels]) * (0.1 / (0.1 + sigma**2))[:, None]

            teacher.label_dim = classes  # type: ignore[attr-defined]
            return problem_from_teacher(teacher, 80.0, 0.002, event_shape=(2,))

        saved = problem(None).identity()
        assert problem(None).has_identity(saved)
        for moved in range(classes):
            assert not problem(moved).has_identity(saved)
        if classes == 10:  # a file before it: four labels, drawn with seed 0 after the points, for every four points
            labels = problem(None).sample_labels(4, _after_starts(problem(None)))
            points, times = saved["points"][:40], saved["times"][:40]
            outputs = problem(None).ode.rhs(points, times, labels.repeat(10))
            before = {"points": points, "times": times, "fingerprint": outputs, "scale": saved["scale"]}
            assert problem(None).has_identity(before)
            assert not problem(labels[0].item()).has_identity(before)

    @pytest.mark.parametrize(("dtype", "stds"), [(torch.bfloat16, (0.5, 0.65)), (torch.float16, (0.5, 0.51))])
    def test_of_teachers_in_half_precision(self, dtype: torch.dtype, stds: tuple[float, float]) -> None:
        """The denoiser of N(0, std^2) and a predictor of its noise, as modules and as functions around them."""

        class Denoiser(torch.nn.Module):
            std = 0.5

            def __init__(self, std: float, dtype: torch.dtype, predicts_noise: bool) -> None:
                super().__init__()
                self.variance = torch.nn.Parameter(torch.tensor(std**2, dtype=dtype))
                self.predicts_noise = predicts_noise

            def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
                y, s = x.to(self.variance), sigma.to(self.variance)[:, None]
                out = y * (s if self.predicts_noise else self.variance) / (self.variance + s**2)
                return x - sigma[:, None] * out.to(x) if self.predicts_noise else out.to(x)

        def problem(std: float, dtype: torch.dtype, predicts_noise: bool, bare: bool) -> Any:
            module = Denoiser(std, dtype, predicts_noise)
            teacher = module if bare else pid.DenoiserODE(lambda x, sigma: module(x, sigma))
            return problem_from_teacher(teacher, 80.0, 0.002, event_shape=(2,))

        for kind in itertools.product((False, True), (False, True)):
            one, other = (problem(std, dtype, *kind) for std in stds)
            assert not one.has_identity(other.identity())
            assert not other.has_identity(one.identity())
            # Float32 rounds otherwise, as other kernels do, whichever of both is in the file.
            exact = problem(stds[0], torch.float32, *kind)
            assert one.has_identity(exact.identity())
            assert exact.has_identity(one.identity())

    def test_of_files_before_it_hold_four_starts(self) -> None:
        """Their twelve rows are the right-hand sides at the starts, at a quarter, a half and three quarters."""
        starts, scale = torch.tensor([[0.5], [0.6], [0.7], [0.8]]), torch.tensor([0.1], dtype=torch.float64)
        rows = torch.cat([-starts * t for t in (0.5, 1.0, 1.5)])
        before = {"starts": starts, "fingerprint": rows, "scale": scale}
        one, other = self.problem(lambda x, t: -x * t[:, None]), self.problem(lambda x, t: -1.1 * x * t[:, None])
        assert one.has_identity(before)
        assert not other.has_identity(before)
        ring = problem_from_teacher(pid.toy("ring"))
        starts = ring.sample_prior(4, torch.Generator().manual_seed(0))
        # On the line to the origin at equal steps of ln t: shares 1/4, 1/2, 3/4 of ln(80 / 0.002).
        times = [80 * (0.002 / 80) ** share for share in (0.25, 0.5, 0.75)]
        before = {
            "starts": starts,
            "fingerprint": torch.cat([pid.toy("ring")(starts * t / 80, torch.full((4,), t)) for t in times]),
        }
        assert ring.has_identity(before)
        assert not problem_from_teacher(pid.toy("moons")).has_identity(before)


def _after_starts(problem: Any) -> torch.Generator:
    generator = torch.Generator().manual_seed(0)
    problem.sample_prior(4, generator)
    return generator


class TestSpans:
    @pytest.mark.parametrize(
        ("std", "span"),
        [(0.5, (80, 0.002)), (0.06, (80, 0.002)), (4, (80, 0.002)), (1e-3, (0.16, 4e-6)), (50, (8e3, 0.2))],
    )
    def test_follow_the_scale_of_the_data(self, std: float, span: tuple[float, float]) -> None:
        assert default_span(pid.GaussianMixture([[0.0, 0.0]], std**2)) == pytest.approx(span)

    def test_noise_levels_of_the_teacher_are_not_left(self) -> None:
        teacher = pid.GaussianMixture([[0.0, 0.0]], 1e-6)
        teacher.sigma_min, teacher.sigma_max = 1e-5, 0.1
        assert default_span(teacher) == (0.1, 1e-5)

    def test_that_do_not_fit_are_told(self) -> None:
        small = pid.GaussianMixture([[0.0, 0.0]], 1e-6)
        unusual = pytest.warns(
            UserWarning, match=r"recipes and students are designed for about 0\.5.*divide the data by 0\.002"
        )
        with unusual, pytest.warns(UserWarning, match="noise still hides the data"):
            pid.steps(small, t_max=1.0, t_min=0.002)
        far = pid.GaussianMixture([[1000.0, 0.0], [1001.0, 0.0]], 0.1)
        with pytest.warns(UserWarning, match=r"mean is 70[67] away from 0.*raise t_max to"):
            pid.steps(far)

    def test_a_thin_coordinate_is_named(self) -> None:
        """Samples at t_min = 0.002 are 2.2 times as wide as data of 0.001, though the data as a whole are not small."""
        normal = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        for std in (1e-3, 5e-3):
            problem = problem_from_teacher(pid.EmpiricalDenoiser(normal * torch.tensor([1.0, std])))
            says = r"coordinate 1 .* standard deviation of about (\S+), .* t_min = 0\.002 still.*lower t_min to (\S+),"
            with pytest.warns(UserWarning, match=says) as caught:
                problem.check_teacher(249)
            about, t_min = map(float, re.search(says, str(caught[0].message)).groups())  # type: ignore[union-attr]
            assert about == pytest.approx(std, abs=1e-3)
            assert t_min < std / 100
            problem = problem_from_teacher(problem.teacher, t_end=t_min)
            problem.check_teacher(249)  # says nothing
        problem_from_teacher(pid.EmpiricalDenoiser(normal * torch.tensor([1.0, 0.02]))).check_teacher(249)

    @pytest.mark.parametrize("std", [1e-3, 30.0])
    def test_a_function_that_states_no_scale(self, std: float) -> None:
        exact = pid.GaussianMixture([[0.0, 0.0]], std**2)

        def teacher(x: Tensor, sigma: Tensor) -> Tensor:
            return exact(x, sigma)

        with pytest.warns(
            UserWarning, match=r"states no standard deviation .* set the teacher's attribute std"
        ) as caught:
            problem_from_teacher(teacher, event_shape=(2,)).check_teacher(249)
        about = float(re.search(r"have one of (\S+),", str(caught[0].message))[1])  # type: ignore[index]
        assert about == pytest.approx(math.hypot(std, 0.002), rel=0.2)
        teacher.std = std  # type: ignore[attr-defined]
        with pytest.warns(UserWarning, match="divide the data by"):
            problem_from_teacher(teacher, event_shape=(2,)).check_teacher(249)
        with pytest.warns(UserWarning, match=r"return the denoised x from D\(x, sigma\)"):  # it predicts the noise
            problem_from_teacher(lambda x, sigma: (x - exact(x, sigma)) / sigma[:, None], event_shape=2).check_teacher(
                249
            )

    @pytest.mark.parametrize(("std", "value"), [(torch.tensor(3.0), 3.0), (torch.tensor([[1.0], [7.0]]), 5.0)])
    def test_a_standard_deviation_may_be_a_tensor(self, std: Tensor, value: float) -> None:
        teacher = pid.nets.Preconditioned(pid.nets.MLP(2, width=8))
        teacher.register_buffer("std", std)
        assert problem_from_teacher(teacher).sigma_data == pytest.approx(value)

    @pytest.mark.parametrize("t", [0.0, -1.0, math.nan, 200.0, torch.tensor([1.0, 81.0])])
    def test_no_time_outside_is_answered(self, t: Any) -> None:
        student = pid.Trajectory(pid.nets.MLP(2, width=8), event_shape=(2,))
        with pytest.raises(ValueError, match=r"this student is defined for t from 80 to 0\.002"):
            student(torch.randn(2, 2), t)
        ends = torch.tensor([80.0, 0.002])  # rounded to float32
        assert student(torch.randn(2, 2), ends).isfinite().all()

    def test_no_time_outside_a_very_long_span_is_answered(self) -> None:
        student = pid.Trajectory(pid.nets.MLP(2, width=8), event_shape=(2,), t_min=5e-5)
        for t in (0.0, -1e-5, 4.9e-5, torch.tensor([80.001, 1.0])):  # 1e-6 t_max is 8e-5, more than t_min
            with pytest.raises(ValueError, match=r"this student is defined for t from 80 to 5e-05"):
                student(torch.randn(2, 2), t)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize(
        ("t_max", "t_min"), [(80.0, 0.002), (77.7, 3e-6), (1.0, 0.0), (0.0, 0.3), (-0.7, 0.7), (-0.5, 1e-17)]
    )
    def test_rounded_ends_are_accepted(self, dtype: torch.dtype, t_max: float, t_min: float) -> None:
        options: dict[str, Any] = {"boundary": "increment", "time": "linear"}
        student = pid.Trajectory(pid.nets.MLP(2, width=8), t_max, t_min=t_min, **options)
        ends = torch.tensor([t_min, t_max], dtype=torch.float64)
        assert student(torch.randn(2, 2), ends.to(dtype)).isfinite().all()
        assert student(torch.randn(2, 2), ends.float().double()).isfinite().all()
        if t_min == 0.0:
            assert student(torch.randn(2, 2), -1e-7).isfinite().all()

    @pytest.mark.filterwarnings("ignore:the data have a standard deviation of")
    def test_samples_of_small_data_are_as_wide_as_they(self) -> None:
        data = 1e-3 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        problem = problem_from_teacher(pid.EmpiricalDenoiser(data))
        z = problem.sample_prior(500, torch.Generator().manual_seed(1))
        samples = problem.reference_samples(z, pid.karras_grid(60, problem.t_end, problem.t_start))
        assert samples.std().item() == pytest.approx(data.std().item(), rel=0.1)  # with EDM's span 2.2 times as much


class TestTime:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_too_coarse_for_the_span_is_told(self, dtype: torch.dtype) -> None:
        start, ode = 1.7e9, pid.VelocityODE(lambda x, t: torch.cos(t - 1.7e9)[:, None] - 0.3 * x)
        options: dict[str, Any] = {"prior": box((1.0,), dtype), "t_start": start, "t_end": start + 6}
        if dtype == torch.float64:
            pid.steps(ode, windows=2, n=5, **options)
            return
        with pytest.warns(UserWarning, match="times near 1.7e"):
            pid.steps(ode, windows=2, n=5, **options)

    @pytest.mark.parametrize("method", ["euler", "heun", "dopri5"])
    def test_too_coarse_for_a_solver_is_told(self, method: str) -> None:
        """x' = cos(t - t0) from 0, so that x(t0 + 6) = sin(6): float32's times near 1.7e9 are 128 apart."""
        ode = pid.VelocityODE(lambda x, t: torch.cos(t - 1.7e9)[:, None].expand_as(x))
        grid = 1.7e9 + torch.linspace(0, 6, 101, dtype=torch.float64)
        with pytest.warns(UserWarning, match=r"times near 1\.7e\+09 are [\d.e+]+ apart in torch\.float32.*float64"):
            pid.solve(ode, torch.zeros(1, 1), grid, method)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            end = pid.solve(ode, torch.zeros(1, 1, dtype=torch.float64), grid, method)[-1]
        assert end.item() == pytest.approx(math.sin(6), abs=0.05)

    def test_it_is_the_step_that_they_must_resolve(self) -> None:
        """At t0 = 1e4 times of float32 are 0.001 apart: little for a hundred steps of 1, half of a step of 0.002."""
        options: dict[str, Any] = {"prior": box((1.0,)), "t_start": 1e4, "t_end": 1e4 + 100, "steps": 60}
        seasonal = pid.VelocityODE(lambda x, t: -0.01 * x * torch.cos(t / 10)[:, None])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pid.steps(decay(0.01), windows=10, n=5001, **options)  # a field that does not use the time
            pid.steps(seasonal, windows=2, n=51, **options)
        with pytest.warns(UserWarning, match=r"too coarse for steps of 0\.002"):
            pid.steps(seasonal, windows=10, n=5001, **options)

    def test_a_field_is_not_called_outside_its_span(self) -> None:
        def table(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            assert ((t >= 1e6 - 100) & (t <= 1e6)).all()
            return -0.01 * x * torch.cos(t / 10)[:, None]

        for dtype in (torch.float32, torch.float64):
            for grid in (torch.linspace(1e6, 1e6 - 100, 5001, dtype=torch.float64), torch.tensor([1e6, 1e6 - 100])):
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    pid.solve(pid.VelocityODE(table), torch.ones(1, 1, dtype=dtype), grid[:40], "heun")
                assert bool(told) == (dtype == torch.float32 and len(grid) > 2)

    def test_every_start_tells_whether_a_field_uses_the_time(self) -> None:
        starts, grid = torch.linspace(0, 1, 5)[:, None], [1.7e9, 1.7e9 + 6]  # x' = 0 at the first
        with pytest.warns(UserWarning, match="too coarse"):
            pid.solve(pid.VelocityODE(lambda x, t: x * torch.cos(t - 1.7e9)[:, None]), starts, grid, "dopri5")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pid.solve(pid.VelocityODE(lambda x, t: -x), starts, grid, "dopri5")

    @pytest.mark.parametrize("span", [6.0, 300.0])  # less than the spacing of float32 at 1.7e9, which is 128, and more
    def test_fields_of_float32_alone(self, span: float) -> None:
        """Where no two times of the span differ in float32, only a gradient tells whether a field uses the time."""
        turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        grid = torch.linspace(1.7e9, 1.7e9 + span, 9, dtype=torch.float64)
        start, network = torch.eye(2), torch.nn.Linear(3, 2)

        def without_graph(x: Tensor, t: Tensor) -> Tensor:
            assert x.dtype == torch.float32
            return torch.from_numpy(-x.detach().numpy())

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for still in (lambda x, t: x @ turn, without_graph):
                pid.solve(pid.VelocityODE(still), start, grid, "heun")
            problem = problem_from_teacher(pid.VelocityODE(lambda x, t: x @ turn), 1.7e9, 1.7e9 + span, box((1.0, 1.0)))
            problem.check_teacher(10)
            problem.coarse_error(20)
        moving = (
            lambda x, t: (x @ turn) * torch.cos(t - 1.7e9)[:, None],
            lambda x, t: 1e-9 * network(torch.cat([x, t[:, None]], 1)),
        )
        for field in moving:
            with pytest.warns(UserWarning, match="too coarse .*: measure time from the start of the span$"):
                pid.solve(pid.VelocityODE(field), start, grid, "heun")

    @pytest.mark.parametrize("error", [AssertionError, KeyError])
    def test_whatever_a_field_raises_in_float64(self, error: type[Exception]) -> None:
        def field(x: Tensor, t: Tensor) -> Tensor:
            if x.dtype == torch.float64:
                raise error
            return -x

        grid = torch.linspace(1e6, 1e6 + 1, 201, dtype=torch.float64)
        end = pid.solve(pid.VelocityODE(field), torch.ones(3, 1), grid, "heun")[-1]
        torch.testing.assert_close(end, torch.full((3, 1), math.exp(-1)), rtol=1e-4, atol=0)
        problem = problem_from_teacher(pid.VelocityODE(field), 0.0, 1.0, box((1.0,)))
        assert problem.exact_dtype == torch.float32

    def test_students_are_mapped_over_times(self) -> None:
        student, z = pid.Trajectory(pid.nets.MLP(2, width=8, depth=1)), torch.randn(3, 2)
        mapped = torch.vmap(lambda z, t: student(z[None], t[None])[0])(z, torch.full((3,), 5.0))
        torch.testing.assert_close(mapped, student(z, 5.0))

    @pytest.mark.parametrize("n", [18, 1000])
    def test_of_diffusions_are_fine_enough(self, n: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            to_zero = torch.cat([pid.karras_grid(n), torch.zeros(1, dtype=torch.float64)])
            for grid in (to_zero, to_zero[:-1].flip(0), pid.linear_grid(n, 0.0, 80.0)[:-1]):
                pid.solve(pid.VelocityODE(lambda x, t: x), torch.zeros(1, 2), grid)
            pid.steps(pid.toy("ring"), n=n)


@pytest.mark.parametrize("name", ["ring", "moons", "checkerboard", "grid", "spiral", "anisotropic"])
def test_good_teachers_are_not_suspected(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pid.steps(pid.toy(name))
        pid.steps(pid.EmpiricalDenoiser(pid.toy(name).sample(50)))


@pytest.mark.parametrize("t_end", [0.095, 0.1])
def test_coordinates_that_are_alike_are_not_called_thin(t_end: float) -> None:
    teacher = pid.GaussianMixture(torch.zeros(1, 2), 0.25 * torch.eye(2)[None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pid.steps(teacher, t_start=2.5, t_end=t_end)
    uneven = pid.GaussianMixture(torch.zeros(1, 2), torch.diag(torch.tensor([0.43, 0.04]))[None])
    with pytest.warns(UserWarning, match=r"coordinate 1 .* similar scales"):
        pid.steps(uneven, t_start=2.5, t_end=0.09)


def test_a_denoiser_that_was_trained_here_is_not_suspected() -> None:
    images, _ = pid.data.digits()
    teacher = pid.train_denoiser(images, steps=3, progress=False)
    torch.nn.init.normal_(teacher.model.body.out.weight)  # as far off at high noise as after long training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pid.steps(teacher)


def test_attributes_that_are_none_are_absent() -> None:
    teacher, plain = pid.toy("ring"), pid.toy("ring")
    for name in ("sigma_min", "sigma_max", "device", "label_dim"):
        setattr(teacher, name, None)
    problem, same = problem_from_teacher(teacher), problem_from_teacher(plain)
    assert (problem.t_start, problem.t_end, problem.label_dim) == (same.t_start, same.t_end, 0)
    assert problem.device == torch.device("cpu")


class TestFlows:
    """A flow whose data lie at the other end leads to a warning: its samples would be those of the inverse map."""

    @staticmethod
    def velocity(mean: float, std: float) -> Any:
        """The exact flow from N(0, 1) at t = 0 to N(mean, std^2) at t = 1, v = E[x0 - n | x_t]."""

        def v(x: Tensor, t: Tensor) -> Tensor:
            t = t[:, None]
            variance = (t * std) ** 2 + (1 - t) ** 2
            return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)

        return v

    def test_data_at(self) -> None:
        options: dict[str, Any] = {"event_shape": (2,), "sigma_data": 0.5}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pid.steps(pid.teachers.from_flow(self.velocity(1.0, 0.5), data_at=1, **options))
        with pytest.warns(UserWarning, match="data_at="):
            pid.steps(pid.teachers.from_flow(self.velocity(1.0, 0.5), data_at=0, **options))

    @pytest.mark.parametrize(("mean", "std"), [(0.0, 1.5), (1.0, 2.0), (0.3, 5.0)])
    def test_data_at_of_few_images(self, mean: float, std: float) -> None:
        flat, shape = self.velocity(mean, std), (4, 16, 16)
        options: dict[str, Any] = {"event_shape": shape, "sigma_data": std}

        def v(x: Tensor, t: Tensor) -> Tensor:
            return flat(x.flatten(1), t).reshape(-1, *shape)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            problem_from_teacher(pid.teachers.from_flow(v, data_at=1, **options)).check_teacher(10)
        with pytest.warns(UserWarning, match="standard deviation") as told:
            problem_from_teacher(pid.teachers.from_flow(v, data_at=0, **options)).check_teacher(10)
        found = re.search(r"a standard deviation of ([\d.]+), but .*data_at=1$", str(told[0].message))
        assert found is not None
        assert float(found[1]) == pytest.approx(1 / std, rel=0.06)

    @pytest.mark.parametrize(("tenths", "noise"), [(1, 0.02), (2, 0.02), (1, 0.05)])
    def test_images_of_a_rare_kind(self, tenths: int, noise: float) -> None:
        """A tenth or two of them are white, the others black, so that eight samples may have no spread."""
        white = (torch.arange(40) < 4 * tenths).float().reshape(-1, 1, 1, 1)
        images = white + noise * torch.randn(40, 1, 32, 32, generator=torch.Generator().manual_seed(1))
        denoiser, options = pid.EmpiricalDenoiser(images), {"event_shape": (1, 32, 32), "sigma_data": images.std()}

        def v(x: Tensor, t: Tensor) -> Tensor:
            t = t.clamp(1e-6, 1 - 1e-6)
            return (denoiser(x / expand_like(t, x), (1 - t) / t) - x) / expand_like(1 - t, x)

        problem = problem_from_teacher(pid.teachers.from_flow(v, data_at=1, **options))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            problem.check_teacher(10)
        with pytest.warns(UserWarning, match="mean|data_at="):
            problem_from_teacher(pid.teachers.from_flow(v, data_at=0, **options)).check_teacher(10)

    def test_sign(self) -> None:
        forward = self.velocity(1.0, 0.5)
        with pytest.warns(UserWarning, match="sign of its velocity"):
            pid.steps(pid.teachers.from_flow(lambda x, t: -forward(x, t), data_at=1, event_shape=(2,)))
