"""Distillation end to end, on problems small enough for a blink; what stops it, and what is kept."""

from __future__ import annotations

import errno
import json
import math
import pickle
import signal
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.students import files
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.training import checkpoints
from pidlearn.training.history import Step
from pidlearn.training.loop import DivergedError
from pidlearn.training.trainer import Trainer
from pidlearn.utils.safetensors import write

TINY_LOOP = {"steps": 20, "batch_size": 8, "n": 10}
TINY = {**TINY_LOOP, "progress": False}


def net(d: int = 2, **options: Any) -> pid.nets.MLP:
    torch.manual_seed(5)
    return pid.nets.MLP(d, **{"width": 8, "depth": 1, "fourier": 4, **options})


def image_network(**options: Any) -> pid.nets.SongUNet:
    torch.manual_seed(5)
    small = {"model_channels": 4, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": []}
    return pid.nets.SongUNet(4, 1, 1, **{**small, **options})


def box(n: int, generator: torch.Generator | None = None) -> Tensor:
    return torch.rand(n, 2, generator=generator)


def box_of_the_process(n: int, generator: torch.Generator | None = None) -> Tensor:
    return torch.rand(n, 2)


def decay(x: Tensor, t: Tensor) -> Tensor:
    return -x


ODE = {"prior": box, "t_start": 0.0, "t_end": 1.0, "windows": 3}


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def tiny_ring(**options: Any) -> pid.Result:
    return pid.distill(pid.toy("ring"), **{"student": net(), **TINY, **options})


def tiny_ode(**options: Any) -> pid.Result:
    return pid.distill(pid.VelocityODE(decay), **{**TINY, **ODE, **options})


def test_a_long_run_takes_no_memory_before_its_steps() -> None:
    def begin(steps: int) -> None:
        next(pid.steps(pid.toy("ring"), net(), **{**TINY_LOOP, "steps": steps}))

    begin(20)  # imports what the first step needs
    tracemalloc.start()
    begin(5 * 10**7)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


class TestWhatComesBack:
    @pytest.mark.parametrize("distil", [tiny_ring, tiny_ode])
    def test_result(self, distil: Callable[..., pid.Result]) -> None:
        result = distil(track_error=16)
        assert result.stopped is None
        assert result.config.steps == 20
        assert {name: len(column) for name, column in result.history.items()} == {
            "loss": 20, "lr": 20, "seconds": 20, "error": 20, "error_step": 20
        }  # fmt: skip
        assert not result.student.training
        assert result.sample(5, generator=torch.Generator().manual_seed(0)).shape == (5, 2)
        figures = result.evaluate(64)
        assert figures["rmse"] > 0
        assert all(math.isfinite(value) for value in figures.values())

    def test_error_is_the_distance_to_the_teachers_own_solver(self) -> None:
        result = tiny_ring(track_error=50, seed=4)
        generator = torch.Generator().manual_seed(5)
        z = 80 * torch.randn(50, 2, generator=generator)
        exact = pid.solve(pid.DenoiserODE(pid.toy("ring")), z, pid.karras_grid(10))[-1]
        with torch.no_grad():
            ours = result.student(z, 0.002)
        assert result.history["error"][-1] == pytest.approx((ours - exact).square().mean().sqrt().item(), rel=1e-5)

    def test_it_learns(self) -> None:
        result = tiny_ring(steps=250, batch_size=32, lr=0.02, track_error=200)
        assert result.history["error"][-1] < 0.5 * result.history["error"][0]
        path = tiny_ode(steps=300, batch_size=32, n=5)
        assert path.evaluate(64)["relative_rmse"] < 0.02

    def test_averages(self) -> None:
        result = tiny_ring(ema=(0.5, 0.9))
        assert list(result.averages) == [0.5, 0.9]
        assert result.student is result.averages[0.5]
        z = torch.randn(4, 2)
        assert not torch.equal(*(student(z, 1.0) for student in result.averages.values()))

    def test_choices_arrive(self) -> None:
        result = tiny_ring(lr=0.1, spacing="log", t_start=40.0, t_end=0.01)
        config = result.config
        assert (config.lr, config.spacing, config.t_max, config.t_min) == (0.1, "log", 40.0, 0.01)
        assert (result.student.t_max, result.student.t_min) == (40.0, 0.01)
        given = pid.Config(steps=3, batch_size=4, n=7, seed=9)
        result = pid.distill(pid.toy("ring"), net(), config=given, progress=False)
        ours, recipe = vars(result.config), vars(pid.distill(pid.toy("ring"), net(), **TINY).config)
        assert {k: v for k, v in ours.items() if v != recipe[k]} == {"steps": 3, "batch_size": 4, "n": 7, "seed": 9}
        assert pid.distill(pid.toy("ring"), net(), config=result.config, progress=False).config == result.config
        assert pid.distill(pid.toy("ring"), net(), config=result.config, n=None, progress=False).config.n == 250
        assert pid.distill(pid.toy("ring"), net(), config=given, steps=2, progress=False).config.steps == 2

    def test_what_a_config_leaves_out_is_the_recipes(self) -> None:
        ode = pid.VelocityODE(decay)
        given = pid.Config(steps=20, batch_size=8, windows=3)
        config = pid.distill(ode, prior=box, t_start=0.0, t_end=1.0, config=given, progress=False).config
        assert config == pid.distill(ode, **{**TINY, **ODE, "n": 13}).config
        assert (config.derivative, config.stop_gradient, config.time_sampling) == ("trapezoid", False, "uniform")
        assert (config.t_max, config.t_min) == (0.0, 1.0)
        with pytest.raises(ValueError, match="without prior or span"):
            pid.distill(ode, prior=box, config=given)
        spanned = pid.Config(steps=20, batch_size=8, windows=3, t_max=0.0, t_min=1.0)
        assert pid.distill(ode, prior=box, config=spanned, progress=False).config == config

    def test_numbers_of_other_libraries(self, tmp_path: Path) -> None:
        result = tiny_ring(t_start=torch.tensor(40.0), steps=np.int64(3), ema=[np.float32(0.5)])
        assert pid.load(result.save(tmp_path / "a")).config == result.config

    def test_span_of_a_system_can_be_replaced(self) -> None:
        result = pid.distill(pid.system("logistic"), t_end=2.0, windows=2, **TINY)
        assert (result.student.t_max, result.student.t_min) == (0.0, 2.0)
        assert (result.config.t_max, result.config.t_min) == (0.0, 2.0)
        whole = pid.distill(pid.system("logistic"), config=pid.Config(steps=15, batch_size=8, n=4, windows=2))
        assert (whole.config.t_max, whole.config.t_min) == (0.0, 8.0)

    def test_last_backward_asks_the_last_point_too(self) -> None:
        seen: list[float] = []

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            if len(x) == 40:  # a batch
                seen.append(sigma.min().item())
            return 0 * x

        for last in ("drop", "backward"):
            pid.distill(denoiser, net(), event_shape=(2,), last_interval=last, **{**TINY, "batch_size": 40})
        assert min(seen[:20]) > 0.002
        assert min(seen[20:]) == pytest.approx(0.002)

    def test_a_student_of_ones_own(self) -> None:
        class Own(nn.Module):
            t_max = 80.0

            def __init__(self) -> None:
                super().__init__()
                self.inner = net()

            def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
                t = torch.as_tensor(t, dtype=torch.float32).expand(len(z))
                return z * (t / 80)[:, None] + (1 - t / 80)[:, None] * self.inner(z / 80, t.log() / 4)

        own = Own()
        result = pid.distill(pid.toy("ring"), own, **TINY)
        assert result.student is own
        assert result.sample(3).shape == (3, 2)

    def test_a_trajectory_learns_its_shape(self) -> None:
        student = tiny_ring(student=pid.Trajectory(net())).student
        assert student.sample(3).shape == (3, 2)

    def test_windows_of_ones_own_keep_their_weights_and_may_differ(self) -> None:
        student = PiecewiseTrajectory([window(0.0, 0.3), window(0.3, 1.0, width=16)])
        before = [flat(w).clone() for w in student.windows]
        run = pid.steps(pid.VelocityODE(decay), student, prior=box, t_start=0.0, t_end=1.0, steps=20, batch_size=8)
        for _ in range(10):
            next(run)
        assert not torch.equal(flat(student.windows[0]), before[0])
        assert torch.equal(flat(student.windows[1]), before[1])
        assert next(run).lr == pytest.approx(1.6e-2 / (0.2 * 11))
        assert torch.allclose(flat(student.windows[1]), before[1], atol=0.02)

    def test_a_convolutional_teachers_network_is_where_a_student_starts(self) -> None:
        torch.manual_seed(0)
        teacher = pid.nets.EDMPrecond(4, 1, model_channels=4, channel_mult=[1], num_blocks=1, attn_resolutions=[])
        before = flat(teacher).clone()
        result = pid.distill(teacher, **{**TINY, "steps": 1, "lr": 1e-12})
        assert torch.allclose(flat(result.student), before, atol=1e-6)
        pid.distill(teacher, **TINY)
        assert torch.equal(flat(teacher), before)

    def test_an_mlp_teachers_student_is_a_new_one(self) -> None:
        teacher = pid.nets.Preconditioned(net())
        result = pid.distill(teacher, **TINY)
        assert isinstance(result.student.network, pid.nets.MLP)
        assert flat(result.student).numel() > flat(teacher).numel()


class TestSeeds:
    @pytest.mark.parametrize("distil", [tiny_ring, tiny_ode])
    def test_same_seed_same_weights(self, distil: Callable[..., pid.Result]) -> None:
        one, same, other = (distil(seed=seed) for seed in (3, 3, 4))
        assert torch.equal(flat(one.student), flat(same.student))
        assert np.array_equal(one.history["loss"], same.history["loss"])
        assert not torch.equal(flat(one.student), flat(other.student))

    def test_steps_are_those_of_distill_and_train_in_place(self) -> None:
        config = pid.Config(steps=20, batch_size=8, n=10, seed=3)
        student = pid.Trajectory(net(), sigma_data=pid.toy("ring").std, event_shape=(2,))
        steps = list(pid.steps(pid.toy("ring"), student, config))
        result = pid.distill(pid.toy("ring"), net(), config=config, progress=False)
        assert torch.equal(flat(student), flat(result.student))
        assert [step.loss for step in steps] == result.history["loss"].tolist()

    def test_steps_of_an_ode(self) -> None:
        span = {"prior": box, "t_start": 0.0, "t_end": 1.0}
        config = pid.distill(pid.VelocityODE(decay), **{**TINY, **ODE}).config
        ours = [step.loss for step in pid.steps(pid.VelocityODE(decay), config=config, **span)]
        assert ours == tiny_ode().history["loss"].tolist()

    def test_steps_are_a_run(self) -> None:
        run = pid.steps(pid.toy("ring"), net(), steps=20, batch_size=8, n=10, ema=(0.5,))
        assert run.config.steps == 20
        assert [step.number for step in run] == list(range(1, 21))
        result = run.result()
        assert result.stopped is None
        assert torch.equal(flat(result.averages[0.5]), flat(tiny_ring(ema=(0.5,)).student))
        with pytest.raises(ValueError, match="unknown setting stride"):
            pid.steps(pid.toy("ring"), stride=3)  # at once, not at the first step

    def test_the_callers_random_numbers_stay(self) -> None:
        torch.manual_seed(7)
        expected = torch.randn(3)
        torch.manual_seed(7)
        pid.distill(pid.toy("ring"), **TINY)
        pid.distill(pid.VelocityODE(decay), **TINY, **ODE)
        pid.train_denoiser(torch.randn(9, 2, generator=torch.Generator()), steps=2, progress=False)
        assert torch.equal(torch.randn(3), expected)

    def test_the_callers_random_numbers_do_not_matter(self) -> None:
        one = pid.distill(pid.toy("ring"), **TINY)
        torch.randn(17)
        assert torch.equal(flat(one.student), flat(pid.distill(pid.toy("ring"), **TINY).student))


class TestOwnEquation:
    """An ODE that the library has never heard of."""

    @pytest.mark.parametrize("span", [(0.0, 1.5), (1.5, 0.0)])
    def test_of_matrices_with_explicit_time(self, span: tuple[float, float]) -> None:
        def f(x: Tensor, t: Tensor) -> Tensor:
            assert x.shape[1:] == (2, 3)
            return x.flip(1) * t.cos()[:, None, None] - 0.2 * x

        def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
            return 3 + 0.5 * torch.randn(n, 2, 3, generator=generator)

        start, end = span
        result = pid.distill(
            pid.VelocityODE(f), prior=prior, t_start=start, t_end=end,
            steps=500, batch_size=32, n=6, windows=4, progress=False,
        )  # fmt: skip
        z = prior(32, torch.Generator().manual_seed(0))
        grid = torch.linspace(start, end, 7).double()
        path = result.student.trajectory(z, grid)
        assert torch.equal(path[0], z)
        # In u = x_1 + x_2 and v = x_1 - x_2 it is solved by hand.
        turn, age = (grid.sin() - math.sin(start)), (grid - start)
        sums, differences = z[:, 0] + z[:, 1], z[:, 0] - z[:, 1]
        u = (turn - 0.2 * age).exp()[:, None, None] * sums
        v = (-turn - 0.2 * age).exp()[:, None, None] * differences
        exact = torch.stack([(u + v) / 2, (u - v) / 2], 2)
        assert (path - exact).square().mean().sqrt() < 0.15 * (z - exact).square().mean().sqrt()
        assert result.sample(4).shape == (4, 2, 3)
        assert result.evaluate(16)["rmse"] < 0.15 * (z - exact).square().mean().sqrt()

    def test_starts_in_double_precision(self) -> None:
        result = tiny_ode(prior=lambda n, generator=None: box(n, generator).double(), track_error=8)
        assert result.sample(3).dtype == torch.float64
        assert result.evaluate(16)["relative_rmse"] < 1

    def test_a_network_as_its_field(self) -> None:
        class Field(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(2, 2)

            def forward(self, x: Tensor, t: Tensor) -> Tensor:
                return self.linear(x)

        field = Field()
        before = flat(field).clone()
        result = pid.distill(pid.VelocityODE(field), **{**TINY, **ODE})
        assert not result.config.stop_gradient
        assert all(p.grad is None for p in field.parameters())
        assert result.evaluate(16)["relative_rmse"] < 1
        assert torch.equal(flat(field), before)

    def test_one_window_of_ones_own(self) -> None:
        student = pid.Trajectory(net(), 0.0, t_min=1.0, boundary="increment", time="linear", c_in=1.0)
        assert tiny_ode(student=student, windows=1).student is student
        assert tiny_ode(student=net(), windows=None).student.t_min == 1.0
        # It is asked at times enough for the field, and not only at a window's.
        config = pid.steps(pid.system("pendulum"), net()).config
        assert (config.windows, config.n) == (1, 769)


class TestWhatStopsIt:
    def test_a_callback(self) -> None:
        heard: list[list[int]] = [[], []]

        def first(step: Step) -> bool:
            heard[0].append(step.number)
            return step.number == 7

        result = tiny_ring(callbacks=[first, lambda step: heard[1].append(step.number)])
        assert heard == [list(range(1, 8))] * 2
        assert result.stopped == "a callback stopped the run at step 7"
        assert len(result.history["loss"]) == 7

    def test_a_limit_of_samples(self) -> None:
        result = tiny_ring(max_images=50)  # of 8 a step
        assert result.stopped == "max_images, 50, were done at step 7"
        assert len(result.history["loss"]) == 7
        stopped = tiny_ring(callbacks=[lambda step: step.number == 7])
        assert torch.equal(flat(result.student), flat(stopped.student))
        for more in (160, 1000):  # all that there is to do
            assert tiny_ring(max_images=more).stopped is None

    def test_a_limit_of_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr("pidlearn.training.driver.time.monotonic", lambda: now)

        def later(step: Step) -> None:
            nonlocal now
            now += 2.0

        result = tiny_ring(max_time=5.0, callbacks=[later])
        assert result.stopped == "max_time, 5.0 s, was over at step 3"
        assert result.sample(3).isfinite().all()
        assert tiny_ring(max_time=1e6, callbacks=[later]).stopped is None

    def test_a_checkpoint_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            if saved.count(True) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            saved.append(True)

        saved: list[bool] = []
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "write_atomically", full)
            result = tiny_ring(checkpoints=tmp_path, save_every=4)
            assert str(result.stopped).startswith("a checkpoint could not be written ([Errno 28] No space left on")
            assert str(result.stopped).endswith("at step 12")
            stopped = tiny_ring(callbacks=[lambda step: step.number == 12])
            assert torch.equal(flat(result.student), flat(stopped.student))
            # One that is due to a limit, too.
            limited = tiny_ring(checkpoints=tmp_path, max_images=24)
            assert "could not be written" in str(limited.stopped)
            assert len(limited.history["loss"]) == 3

    def test_a_folder_in_use(self, tmp_path: Path) -> None:
        def another(step: Step) -> None:
            with pytest.raises(ValueError, match="another run uses"):
                tiny_ring(checkpoints=tmp_path)

        tiny_ring(steps=1, checkpoints=tmp_path, callbacks=[another])

    def test_limits_that_are_none(self) -> None:
        for name in ("max_time", "max_images", "save_every"):
            for value in (0, -1, math.nan, "12h", True):
                with pytest.raises(ValueError, match=rf"got {name} = {value!r}, but {name} must be a"):
                    tiny_ring(**{name: value})

    @pytest.mark.parametrize(
        ("number", "says"),
        [(signal.SIGTERM, "the process received SIGTERM at step 7"), (signal.SIGINT, "interrupted at step 7")],
    )
    def test_signals(self, number: signal.Signals, says: str, tmp_path: Path) -> None:
        before = signal.getsignal(number)

        def tell(step: Step) -> None:
            if step.number == 7:
                signal.raise_signal(number)

        result = tiny_ring(callbacks=[tell], checkpoints=tmp_path)
        assert result.stopped == says
        stopped = tiny_ring(callbacks=[lambda step: step.number == 7])
        assert torch.equal(flat(result.student), flat(stopped.student))
        assert signal.getsignal(number) is before
        assert [path.name[:14] for path in tmp_path.glob("step-*")] == ["step-000000007"]

    def test_a_second_interrupt_does_not_wait(self) -> None:
        heard: list[int] = []

        def tell(step: Step) -> None:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
            heard.append(step.number)

        assert tiny_ring(callbacks=[tell]).stopped == "interrupted at step 1"
        assert heard == []

    def test_an_interrupt_of_ones_own_stays(self) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            assert tiny_ring(callbacks=[lambda step: signal.raise_signal(signal.SIGINT)]).stopped is None
        finally:
            signal.signal(signal.SIGINT, before)

    def test_handlers_of_ones_own_are_kept(self) -> None:
        heard: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        try:
            asked = [lambda step: step.number == 3 and signal.raise_signal(signal.SIGTERM)]
            assert tiny_ring(callbacks=asked).stopped is None
        finally:
            signal.signal(signal.SIGTERM, before)
        assert heard == [signal.SIGTERM]

    def test_sigterm_is_for_others_again_whatever_ended_the_run(self) -> None:
        with pytest.raises(ZeroDivisionError):
            tiny_ring(callbacks=[lambda step: 1 / 0])
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def test_in_a_thread_nobody_listens_to_signals(self) -> None:
        found: list[Any] = []
        heard: list[Any] = []
        before = signal.getsignal(signal.SIGTERM)

        def work() -> None:
            try:
                listen = [lambda step: heard.append(signal.getsignal(signal.SIGTERM))]
                found.append(tiny_ring(max_images=50, callbacks=listen))
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found[0].stopped == "max_images, 50, were done at step 7"
        assert heard == [before] * 7

    def test_before_the_first_step(self) -> None:
        assert len(pid.steps(pid.toy("ring"), net(), steps=5).result().plot().get_axes()) == 2

    def test_only_true_stops(self) -> None:
        assert tiny_ring(callbacks=[lambda step: 1, lambda step: np.ones(2), lambda step: "no"]).stopped is None
        assert "callback" in str(tiny_ring(callbacks=[lambda step: np.bool_(True)]).stopped)

    def test_an_interrupted_loop_can_be_taken_up_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        inner, calls = Trainer.set_learning_rate, []

        def interrupted(self: Trainer) -> float:
            calls.append(1)
            if len(calls) == 8:
                raise KeyboardInterrupt
            return inner(self)

        monkeypatch.setattr(Trainer, "set_learning_rate", interrupted)
        run = pid.steps(pid.toy("ring"), net(), steps=20, batch_size=8, n=10)
        with pytest.raises(KeyboardInterrupt):
            list(run)
        assert run.result().stopped == "taken at step 7 of 20"
        assert [step.number for step in run] == list(range(8, 21))
        assert torch.equal(flat(run.result().student), flat(tiny_ring().student))

    def test_an_interrupt_keeps_what_there_is(self) -> None:
        def interrupt(step: Step) -> None:
            if step.number == 7:
                raise KeyboardInterrupt

        result = tiny_ring(callbacks=[interrupt])
        assert result.stopped == "interrupted at step 7"
        stopped = tiny_ring(callbacks=[lambda step: step.number == 7])
        assert torch.equal(flat(result.student), flat(stopped.student))

    def test_other_errors_of_a_callback_are_the_callers(self) -> None:
        with pytest.raises(ZeroDivisionError):
            tiny_ring(callbacks=[lambda step: 1 / 0])

    def test_averages_have_the_last_update_wherever_a_run_stops(self) -> None:
        weights: list[Tensor] = []
        run = pid.steps(pid.toy("ring"), net(), ema=(0.5,), **{k: v for k, v in TINY.items() if k != "progress"})
        for step in run:
            weights.append(flat(run.student).clone())
            if step.number == 3:
                break
        expected = 0.5 * (0.5 * weights[0] + 0.5 * weights[1]) + 0.5 * weights[2]
        torch.testing.assert_close(flat(run.result().student), expected)
        assert tiny_ring(ema=(0.5,), max_images=1).history["loss"].shape == (1,)

    @pytest.mark.parametrize("ema", [(), (0.9,)])
    def test_a_teacher_that_turns_nan(self, ema: tuple[float, ...]) -> None:
        calls = 0

        def teacher(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return 0 * x if calls <= 110 + 10 else x * math.nan  # 10 before training, which look at the teacher

        with pytest.warns(RuntimeWarning, match="training stopped at step 111: the teacher returned NaN"):
            result = pid.distill(teacher, net(), event_shape=(2,), ema=ema, **{**TINY, "steps": 200})
        assert result.stopped is not None
        assert result.stopped.startswith("training stopped at step 111")
        assert len(result.history["loss"]) == 110
        good = pid.distill(
            lambda x, sigma: 0 * x, net(), event_shape=(2,), ema=ema, **{**TINY, "steps": 200},
            callbacks=[lambda step: step.number == (109 if ema else 100)],
        )  # fmt: skip
        assert torch.equal(flat(result.student), flat(good.student))  # the averages, or the newest snapshot

    @pytest.mark.parametrize("distil", [tiny_ring, tiny_ode])
    @pytest.mark.parametrize("ema", [(), (0.9,)])
    def test_a_rate_that_is_far_too_large(self, distil: Callable[..., pid.Result], ema: tuple[float, ...]) -> None:
        with pytest.warns(RuntimeWarning, match="a smaller lr"):
            result = distil(lr=1e30, constant=True, ema=ema)
        assert result.stopped is not None
        assert result.sample(9).isfinite().all()

    def test_steps_raise_where_distill_returns(self) -> None:
        student = pid.Trajectory(net(), sigma_data=pid.toy("ring").std)
        with pytest.raises(DivergedError, match="smaller lr"):
            list(pid.steps(pid.toy("ring"), student, pid.Config(lr=1e30, steps=20, batch_size=8, n=10)))
        assert flat(student).isfinite().all()


def test_what_cannot_be_trained() -> None:
    teacher = pid.nets.Preconditioned(net(label_dim=3))
    with pytest.raises(
        ValueError, match=r"\(3 classes\) but the student's network is unconditional: build it with label_dim=3"
    ):
        pid.steps(teacher, net())
    with torch.no_grad(), pytest.raises(ValueError, match=r"outside of torch\.no_grad"):
        tiny_ring()


class TestFiles:
    def test_of_a_trajectory(self, tmp_path: Path) -> None:
        result = tiny_ring(ema=(0.9,), track_error=8, callbacks=[lambda step: step.number == 15])
        loaded = pid.load(result.save(tmp_path / "student.safetensors"), pid.toy("ring"))
        z = 80 * torch.randn(9, 2)
        for t in (80.0, 3.0, 0.002, torch.linspace(80, 0.002, 9)):
            assert torch.equal(loaded.student(z, t), result.student(z, t))
        assert loaded.config == result.config
        assert loaded.stopped == "a callback stopped the run at step 15"
        assert loaded.history.keys() == result.history.keys()
        assert all(np.array_equal(loaded.history[name], result.history[name]) for name in result.history)
        assert loaded.evaluate(32) == result.evaluate(32)
        one, two = (r.sample(5, generator=torch.Generator().manual_seed(3)) for r in (result, loaded))
        assert torch.equal(one, two)
        assert [path.name for path in tmp_path.iterdir()] == ["student.safetensors"]

    def test_of_windows(self, tmp_path: Path) -> None:
        result = tiny_ode(t_start=1.0, t_end=0.0)
        path = result.save(tmp_path / "student.safetensors")
        loaded = pid.load(path, pid.VelocityODE(decay), prior=box)
        assert isinstance(loaded.student, PiecewiseTrajectory)
        z, t = torch.rand(11, 2), torch.linspace(1, 0, 11).double()
        assert torch.equal(loaded.student(z, t), result.student(z, t))
        assert loaded.evaluate(16) == result.evaluate(16)
        with pytest.raises(ValueError, match="without its teacher"):
            pid.load(path).sample(3)
        with pytest.raises(ValueError, match="prior="):
            pid.load(path, pid.VelocityODE(decay))

    def test_of_a_system(self, tmp_path: Path) -> None:
        result = pid.distill(pid.system("logistic"), t_end=2.0, windows=2, **TINY)
        loaded = pid.load(result.save(tmp_path / "a"), pid.system("logistic"))
        assert loaded.problem is not None
        assert loaded.problem.t_end == 2.0
        assert loaded.evaluate(16) == result.evaluate(16)

    def test_of_double_precision(self, tmp_path: Path) -> None:
        result = tiny_ode(prior=lambda n, generator=None: box(n, generator).double())
        loaded = pid.load(result.save(tmp_path / "a"))
        z = torch.rand(5, 2).double()
        assert torch.equal(loaded.student(z, 0.7), result.student(z, 0.7))

    @pytest.mark.parametrize("kind", ["SongUNet", "DhariwalUNet"])
    def test_of_a_unet_copied_from_its_teacher(self, tmp_path: Path, kind: str) -> None:
        options = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [2]}
        teacher = pid.nets.EDMPrecond(4, 1, model_type=kind, **options)
        result = pid.distill(teacher, event_shape=(1, 4, 4), **{**TINY, "steps": 2})
        loaded = pid.load(result.save(tmp_path / "a"), teacher)
        assert type(loaded.student.network) is getattr(pid.nets, kind)
        z = torch.randn(2, 1, 4, 4)
        assert torch.equal(loaded.student(z, 1.0), result.student(z, 1.0))
        assert loaded.sample(2).shape == (2, 1, 4, 4)

    def test_training_on_from_a_file(self, tmp_path: Path) -> None:
        path = tiny_ring().save(tmp_path / "a")
        student = pid.load(path).student
        before = flat(student).clone()
        assert all(p.requires_grad for p in student.parameters())
        pid.distill(pid.toy("ring"), student, **TINY)
        assert not torch.equal(flat(student), before)

    def own(self) -> nn.Module:
        """A network that the library cannot build, two of whose weights are one."""
        network = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        network["b"].weight = network["a"].weight

        class Own(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.parts = network

            def forward(self, x: Tensor, time: Tensor) -> Tensor:
                return self.parts["b"](self.parts["a"](x).tanh() + time[:, None])

        return Own()

    def test_of_parts_of_ones_own(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        result = pid.distill(pid.toy("ring"), self.own(), **TINY)
        path = result.save(tmp_path / "a")
        with pytest.raises(ValueError, match="pass student="):
            pid.load(path)
        empty = pid.Trajectory(self.own(), sigma_data=pid.toy("ring").std)
        loaded = pid.load(path, student=empty)
        assert loaded.student is empty
        z = torch.randn(4, 2)
        assert torch.equal(loaded.student(z, 1.0), result.student(z, 1.0))
        with pytest.raises(ValueError, match=r"another kind of student than student=, a Trajectory: pass the network"):
            pid.load(path, student=pid.Trajectory(net()))

    @pytest.mark.parametrize("wrap", [lambda network: network, nn.DataParallel])
    def test_the_network_that_distill_got_is_what_load_takes(self, wrap: Callable[..., Any], tmp_path: Path) -> None:
        torch.manual_seed(0)
        z, network = torch.rand(4, 2) + 0.5, self.own()
        decay = pid.VelocityODE(lambda x, t: -x)
        settings: dict[str, Any] = {"prior": lambda n, generator=None: torch.rand(n, 2, generator=generator) + 0.5}
        for teacher, span, others in (
            (pid.toy("ring"), {}, {}),
            (pid.toy("ring"), {"t_max": 20.0, "t_min": 0.01}, {}),
            (decay, {"t_start": 1.0, "t_end": 3.0}, settings),
        ):
            result = pid.distill(teacher, network, **span, **others, **TINY)
            path = result.save(tmp_path / "a")
            loaded = pid.load(path, teacher, student=wrap(self.own()), **others)
            assert torch.equal(loaded.generate(z), result.generate(z))
            assert loaded.evaluate(16) == result.evaluate(16)
            assert (loaded.student.t_max, loaded.student.t_min) == (result.student.t_max, result.student.t_min)

    @pytest.mark.parametrize(
        ("network", "shape"),
        [
            (lambda: pid.nets.MLP(70_000, width=2, depth=1, fourier=1), (70_000,)),
            (lambda: pid.nets.MLP((1,) * 17 + (2,), width=2, depth=1), (1,) * 17 + (2,)),
            (lambda: image_network(resample_filter=[1.5, 1.5]), (1, 4, 4)),
            (lambda: image_network(resample_filter=[-1, 3, 3, -1]), (1, 4, 4)),
            (lambda: image_network(attn_resolutions=list(range(40))), (1, 4, 4)),
            (lambda: image_network(model_channels=np.int64(4), dropout=np.float64(0.1)), (1, 4, 4)),
        ],
    )
    def test_what_can_be_built_can_be_saved_and_loaded(
        self, network: Callable[[], nn.Module], shape: tuple[int, ...], tmp_path: Path
    ) -> None:
        student = pid.Trajectory(network(), event_shape=shape).eval()
        loaded, *_ = files.read(files.save(student, {}, {}, None, tmp_path / "a"))
        z = torch.randn(1, *shape)
        assert torch.equal(loaded(z, 1.0), student(z, 1.0))
        teacher = pid.nets.Preconditioned(network()).eval()
        assert torch.equal(pid.load_teacher(pid.save_teacher(teacher, tmp_path / "b"))(z, 1.0), teacher(z, 1.0))

    @pytest.mark.parametrize("whole", [True, False])
    @pytest.mark.parametrize("wrap", [partial(torch.compile, backend="eager"), nn.DataParallel])
    def test_a_compiled_or_wrapped_student_is_saved_as_the_plain_one(
        self, wrap: Callable[..., Any], whole: bool, tmp_path: Path
    ) -> None:
        network = net(label_dim=3)
        student = wrap(pid.Trajectory(network)) if whole else pid.Trajectory(wrap(network))
        z, labels = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
        teacher = pid.nets.Preconditioned(net(label_dim=3))
        result = pid.distill(teacher, student, **TINY)
        path = result.save(tmp_path / "a")
        loaded = pid.load(path, teacher)
        assert result.student.sample(3).shape == (3, 2)
        assert type(loaded.student) is pid.Trajectory
        assert torch.equal(loaded.generate(z, labels), result.generate(z, labels))
        assert loaded.student.label_dim == result.problem.label_dim == 3
        # A file of an earlier version has the wrappers' names; and plain files load into wrapped modules.
        tensors = {f"student/{name}": value for name, value in student.state_dict().items()}
        write(tmp_path / "old", tensors, {**contents(path)[1], "student": "null"})
        empty = pid.Trajectory(net(label_dim=3, width=8))
        assert torch.equal(pid.load(tmp_path / "old", teacher, empty).generate(z, labels), result.generate(z, labels))
        again = pid.Trajectory(wrap(net(label_dim=3)))
        assert torch.equal(pid.load(path, teacher, again).generate(z, labels), result.generate(z, labels))

    def test_results_can_be_sent_to_another_process(self) -> None:
        for result in (
            tiny_ring(ema=(0.9,), distance=pid.l1),
            tiny_ode(track_error=4),
            tiny_ode(prior=box_of_the_process),
        ):
            sent = pickle.loads(ForkingPickler.dumps(result))
            z = torch.rand(4, 2)
            assert torch.equal(sent.generate(z), result.generate(z))
            assert sent.config == result.config
            assert sent.evaluate(64) == result.evaluate(64)

    def test_options_that_no_file_may_have_need_a_module_to_load_into(self, tmp_path: Path) -> None:
        options = {"attn_resolutions": list(range(1100))}
        student = pid.Trajectory(image_network(**options), event_shape=(1, 4, 4)).eval()
        path = files.save(student, {}, {}, None, tmp_path / "a")
        with pytest.raises(ValueError, match="pass student="):
            files.read(path)
        other = pid.Trajectory(image_network(**options))
        loaded, *_ = files.read(path, other)
        z = torch.randn(2, 1, 4, 4)
        assert torch.equal(loaded(z, 1.0), student(z, 1.0))

    def test_a_class_that_only_shares_a_name(self, tmp_path: Path) -> None:
        class MLP(nn.Linear):
            def forward(self, x: Tensor, time: Tensor) -> Tensor:
                return super().forward(x)

        path = pid.distill(pid.toy("ring"), MLP(2, 2), **TINY).save(tmp_path / "a")
        with pytest.raises(ValueError, match="pass student="):
            pid.load(path)

    def test_functions_among_the_choices_read_as_defaults(self, tmp_path: Path) -> None:
        result = tiny_ring(weight=lambda t: t**-1, distance=pid.l1)
        with pytest.warns(UserWarning, match="functions of your own for distance, weight, which a file does not hold"):
            config = pid.load(result.save(tmp_path / "a")).config
        assert (config.weight, config.distance, config.steps) == (None, None, 20)  # unset

    def test_what_is_no_student(self, tmp_path: Path) -> None:
        whole = tiny_ring().save(tmp_path / "whole").read_bytes()
        path = tmp_path / "broken"
        for contents in (b"", b"not a student" * 99, whole[:5], whole[: len(whole) // 2], whole[:-1]):
            path.write_bytes(contents)
            with pytest.raises(ValueError, match="broken"):
                pid.load(path)
        safetensors.torch.save_file({"weight": torch.ones(3)}, path)
        with pytest.raises(ValueError, match="not a pidlearn"):
            pid.load(path)
        with pytest.raises(FileNotFoundError, match="absent"):
            pid.load(tmp_path / "absent")

    @pytest.mark.parametrize(
        ("entry", "value", "says"),
        [
            ("student", None, "damaged, or of another version: 'student'"),
            ("config", '{"ema": [], "stps": 3}', "stps"),
            ("student", '{"network": ["X", {}], "t_max": 80}', "class 'X', which is not registered"),
            ("student", "[]", "damaged"),
            ("student", {"t_max": "far"}, "damaged"),
            ("student", {"network": ["MLP", {"event_shape": [2], "width": 60000, "depth": 2}]}, "do not make a MLP"),
            ("student", {"t_min": -5.0}, "'log' needs positive times"),
            ("student", {"c_in": math.nan}, "NaN is not a finite number"),
            ("student", {"sigma_data": math.inf}, "Infinity is not a finite number"),
            ("student", {"event_shape": [2**20]}, r"its samples are \(1048576,\), and those of its network \(2,\)"),
            ("student", {"event_shape": [2**40]}, r"one sample would hold about 10\^12 numbers"),
        ],
    )
    def test_changed_files(self, entry: str, value: Any, says: str, tmp_path: Path) -> None:
        """Changed by someone who has made the digest fit."""
        path = tiny_ring().save(tmp_path / "a")
        tensors, metadata = contents(path)
        del metadata["digest"]
        if value is None:
            del metadata[entry]
        else:
            changed = {**json.loads(metadata[entry]), **value} if isinstance(value, dict) else json.loads(value)
            metadata[entry] = json.dumps(changed)
        write(path, tensors, metadata)
        with pytest.raises(ValueError, match=says) as caught:
            pid.load(path)
        assert str(path) in str(caught.value)

    def test_a_damaged_entry_is_not_the_fault_of_the_student(self, tmp_path: Path) -> None:
        result = tiny_ring()
        path = result.save(tmp_path / "a")
        tensors, metadata = contents(path)
        del metadata["digest"]
        write(path, tensors, metadata | {"calibration": '{"3 calls": NaN}'})
        for student in (None, result.student):
            with pytest.raises(ValueError, match="a is damaged, or of another version: NaN is not a finite number"):
                pid.load(path, student=student)

    def test_every_change_of_a_digit_is_noticed(self, tmp_path: Path) -> None:
        """In the description, the settings and the numbers: every digit of the header, and one bit of a weight."""
        path = tiny_ring().save(tmp_path / "a")
        whole = path.read_bytes()
        header = whole[8 : 8 + int.from_bytes(whole[:8], "little")]
        places = [place for place, byte in enumerate(header, 8) if chr(byte).isdigit()]
        renamed = whole.replace(b'"digest"', b'"digezt"')
        for place in [*places[:: len(places) // 60], len(whole) - 3]:
            changed = bytearray(whole)
            changed[place] ^= 1  # of a digit makes another digit
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=str(path)):
                pid.load(path)
        path.write_bytes(renamed)
        with pytest.raises(ValueError, match="contents have changed"):
            pid.load(path)

    def test_a_file_without_a_digest_is_one_of_the_first_release(self, tmp_path: Path) -> None:
        path = tiny_ring().save(tmp_path / "a")
        tensors, metadata = contents(path)
        del metadata["digest"]
        safetensors.torch.save_file(tensors, path, {**metadata, "format": "pidlearn student 1"})
        with pytest.warns(UserWarning, match=f"{path} is a file of the first release and has no digest"):
            old = pid.load(path)
        old.save(path)
        assert pid.load(path).config == old.config

    def test_a_grid_of_ones_own_is_told(self, tmp_path: Path) -> None:
        path = tiny_ring(spacing=lambda n, t_min, t_max: pid.log_grid(n, t_min, t_max)).save(tmp_path / "a")
        with pytest.warns(
            UserWarning, match="trained with functions of your own for spacing, which a file does not hold.*EDM's grid"
        ):
            pid.load(path)

    def test_of_a_teacher_that_does_not_say_its_shape(self, tmp_path: Path) -> None:
        def teacher(x: Tensor, sigma: Tensor) -> Tensor:
            return 0 * x

        path = pid.distill(teacher, Half(1.0), event_shape=(2,), **TINY).save(tmp_path / "a")
        with pytest.raises(ValueError, match="pass event_shape"):
            pid.load(path, teacher, Half())
        assert pid.load(path, teacher, Half(), event_shape=(2,)).sample(3).shape == (3, 2)

    def test_labels_that_do_not_fit(self) -> None:
        result = pid.distill(pid.nets.Preconditioned(net(label_dim=3)), **TINY)
        assert result.sample(2, torch.tensor([0, 2])).shape == (2, 2)
        for labels, says in (([0, 3], r"0\.\.2"), ([-1, 0], r"0\.\.2"), ([0, 1, 2], "labels")):
            with pytest.raises(ValueError, match=says):
                result.sample(2, torch.tensor(labels))


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the text of a file."""
    with safetensors.safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 - not a dict


class Wide(nn.Linear):
    """(B, 2) to (B, 3)."""

    def __init__(self) -> None:
        super().__init__(2, 3)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x)


class Half(nn.Module):
    """x(z, t) = a z: no boundary is met."""

    t_max = 80.0

    def __init__(self, value: float = 0.5) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(value))

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        return self.a * z


class Tuple(Half):
    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Any:
        return z, z


class Cut(Half):
    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        return z * (1 + 0 * self.a.detach())


def window(start: float, end: float, d: int = 2, **options: Any) -> pid.Trajectory:
    return pid.Trajectory(net(d, **options), start, t_min=end, boundary="increment", time="linear", c_in=1.0)


def frozen() -> nn.Module:
    return net().requires_grad_(False)


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"steps": 0}, "steps"),
            ({"steps": 2.5}, "steps"),
            ({"batch_size": 0}, "batch_size"),
            ({"n": 1}, r"got n = 1, but n must be a whole number of grid points, 2 to 2\^31 - 1"),
            ({"lr": -1.0}, "lr"),
            ({"windows": 0}, "windows"),
            ({"windows": 3, "student": None}, "a diffusion is solved in one window"),
            ({"windows": 3}, "windows = 3, but the student has 1"),
            ({"save_every": 0}, "save_every"),
            ({"save_every": None}, "got save_every = None, but save_every must be a whole number of at least 1"),
            ({"t_start": "80"}, "got t_max = '80', but t_max must be a finite number"),
            ({"rho": "a"}, "rho must be a positive number"),
            ({"boundary_weight": math.nan}, "boundary_weight"),
            ({"weight": 1}, "weight must be one of"),
            ({"ema": None}, "ema"),
            ({"student": net().to("meta")}, "the student is on the meta device"),
            ({"student": Tuple()}, "returned tuple, but must return the shape of z"),
            ({"student": Cut()}, "does not depend on the weights"),
            ({"derivative": "backward"}, "derivative must be one of"),
            ({"distance": "lpips?"}, "distance must be one of"),
            ({"distance": lambda a, b: (a - b).square()}, "one value per sample"),
            ({"distance": "lpips"}, "LPIPS compares two batches of images"),
            ({"weight": "edm"}, "weight must be one of"),
            ({"time_sampling": "often"}, "time_sampling must be one of"),
            ({"time_sampling": lambda t, s: t * 0}, "only zeros"),
            ({"time_sampling": lambda t, s: t - 1}, ">= 0"),
            ({"time_sampling": lambda t, s: t[:3]}, "each of 9 times"),
            ({"spacing": "cubic"}, "spacing must be one of"),
            ({"last_interval": "keep"}, "last_interval"),
            ({"learning_rate": 1e-3}, "learning_rate.*: .* lr,"),
            ({"t_start": 0.1}, "below the standard deviation of the data"),
            ({"t_end": -1.0}, "t_min > 0"),
            ({"prior": box}, "leave prior out"),
            ({"student": Half()}, "does not start at z.*off by"),
            ({"student": Half(math.nan)}, "NaN"),
            ({"student": pid.Trajectory(net(), 40.0)}, "starts at t_max = 40 but the paths at 80"),
            ({"student": pid.Trajectory(net()), "t_end": 0.01}, "ends at t_min = 0.002 but the paths at 0.01"),
            ({"student": pid.Trajectory(net(), boundary="soft")}, "boundary_weight"),
            ({"student": pid.Trajectory(net().double())}, "float64"),
            ({"student": frozen()}, "requires a gradient"),
            ({"student": pid.Trajectory(Wide())}, "keep the shape"),
            ({"student": PiecewiseTrajectory([window(80.0, 1.0), window(1.0, 0.002)])}, "one window"),
            ({"student": net(3)}, r"got \(2,\), but the network takes samples of shape \(3,\)"),
            ({"weight": lambda t: (t - 80) ** -2}, "the weight is inf at t = 80"),
            ({"teacher": lambda x, sigma: x}, "event_shape"),
            ({"teacher": lambda x, sigma: x[:, :1], "event_shape": (2,)}, "must return the shape of x"),
            ({"teacher": lambda x, sigma: None, "event_shape": (2,)}, "NoneType"),
            ({"teacher": lambda x, sigma: x * math.nan, "event_shape": (2,)}, "^the teacher returned NaN"),
        ],
    )
    def test_of_a_diffusion(self, changes: dict[str, Any], says: str) -> None:
        arguments = {"teacher": pid.toy("ring"), "student": net(), **TINY, **changes}
        with pytest.raises(ValueError, match=says):
            pid.distill(**arguments)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"prior": None}, "prior="),
            ({"t_start": None}, "t_start="),
            ({"t_end": 0.0}, "two different, finite times"),
            ({"windows": 10}, "20 steps cannot train 10 windows"),
            ({"teacher": pid.VelocityODE(lambda x, t: x[:, :1])}, r"f\(x, t\) returned .*, but must return the shape"),
            ({"teacher": pid.VelocityODE(lambda x, t: x * math.nan)}, "^the teacher returned NaN"),
            (
                {"teacher": pid.VelocityODE(lambda x, t: x * math.nan), "n": None},
                "^the teacher returned NaN.*paths start",
            ),
            ({"weight": "snr"}, "the weight is inf at t = 0: .* such as 'uniform'"),
            ({"student": window(0.0, 0.5)}, "ends at t_min = 0.5 but the paths at 1"),
            ({"student": window(0.0, 2.0)}, "ends at t_min = 2"),
            ({"student": window(0.1, 1.0)}, "starts at t_max = 0.1 but the paths at 0"),
            ({"student": PiecewiseTrajectory([window(0.0, 0.5), window(0.5, 0.9)])}, "ends at t_min = 0.9"),
            ({"student": pid.Trajectory(net(), 0.0, boundary="increment", time="linear")}, "ends at t_min = 0.002"),
        ],
    )
    def test_of_an_ode(self, changes: dict[str, Any], says: str) -> None:
        arguments = {"teacher": pid.VelocityODE(decay), **TINY, **ODE, **changes}
        if "student" in changes:
            arguments["windows"] = None
        with pytest.raises(ValueError, match=says):
            pid.distill(**arguments)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            (
                {"callbacks": [3]},
                r"got callbacks = \[3\], but callbacks must be a list .* of a Step: pass \[function\]",
            ),
            ({"callbacks": len}, "callbacks must be a list of functions"),
            ({"callbacks": None}, "got callbacks = None, but callbacks must be"),
            ({"teacher": None}, "callable"),
            ({"teacher": "ring"}, "callable"),
            ({"student": lambda z, t: z}, "got a function, but a student is a torch.nn.Module"),
            ({"student": "mlp"}, "got a str, but a student is a torch.nn.Module"),
            ({"config": {"steps": 3}}, "got config of type dict, but config must be a pidlearn.Config"),
            ({"config": {}}, "got config of type dict, but config must be a pidlearn.Config"),
        ],
    )
    def test_of_the_wrong_kind(self, changes: dict[str, Any], says: str) -> None:
        arguments = {"teacher": pid.toy("ring"), "event_shape": (2,), **TINY, **changes}
        with pytest.raises(TypeError, match=says):
            pid.distill(**arguments)

    def test_a_soft_boundary_that_is_taught(self) -> None:
        tiny_ring(student=pid.Trajectory(net(), boundary="soft"), boundary_weight=1.0)
