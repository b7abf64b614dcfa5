"""A distillation method in one file: it trains, saves, resumes and evaluates like PID."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn import recipes
from pidlearn.methods import METHODS, Batch, Context, Method, Stage
from pidlearn.methods.pid import method as pid_method
from pidlearn.utils.settings import COUNT, Rule


@dataclass
class Endpoint(Method[Context]):
    """Endpoint regression (knowledge distillation): match the ends of the teacher's Euler paths."""

    pairs: int = 256

    uses: ClassVar[Sequence[str]] = ("distance",)

    def begin(self, context: Context, first: bool) -> None:
        generator = torch.Generator().manual_seed(context.seed)
        self.z = context.problem.sample_prior(self.pairs, generator)
        self.x = context.problem.reference_samples(self.z, context.time_grid())

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        which = torch.randint(self.pairs, (n,), generator=generator, device=generator.device).to(self.z.device)
        return self.z[which], self.x[which]

    def loss(self, context: Context, batch: Batch) -> Tensor:
        z, x = batch
        return context.distance(context.student(z, context.problem.t_end), x)


@dataclass
class Configured(Endpoint):
    """The same with settings of several kinds: one that is shared, with a default of its own, and one with a rule."""

    n: int = 12
    ladder: tuple[float, ...] = (1.0, 2.0)

    def rules(self) -> dict[str, Rule]:
        return {"pairs": COUNT}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "endpoint", Endpoint)
    monkeypatch.setitem(METHODS, "configured", Configured)


def net() -> pid.nets.MLP:
    torch.manual_seed(5)
    return pid.nets.MLP(2, width=32, depth=2, fourier=16)


def distill(method: Any = "endpoint", **options: Any) -> pid.Result:
    brief = {"steps": 60, "batch_size": 32, "n": 20, "lr": 0.01, "progress": False, **options}
    return pid.distill(pid.toy("ring"), net(), method=method, **brief)


@pytest.mark.usefixtures("endpoint")
class TestOneInAFile:
    def test_it_learns_and_is_evaluated(self) -> None:
        result = distill(steps=400, track_error=200)
        assert result.history["error"][-1] < 0.3 * result.history["error"][0]
        figures = result.evaluate(500)
        assert figures["rmse"] < 0.4
        assert result.sample(3).shape == (3, 2)

    def test_it_is_saved_and_loaded(self, tmp_path: Path) -> None:
        result = distill()
        loaded = pid.load(result.save(tmp_path / "student"), pid.toy("ring"))
        assert loaded.config == result.config
        assert loaded.config.method == "endpoint"
        assert loaded.evaluate(64) == result.evaluate(64)

    def test_it_is_resumed_bit_for_bit(self, tmp_path: Path) -> None:
        stopped = distill(checkpoints=tmp_path, callbacks=[lambda step: step.number == 23])
        assert stopped.stop_reason is not None
        numbers: list[int] = []
        resumed = distill(checkpoints=tmp_path, callbacks=[lambda step: numbers.append(step.number)])
        assert numbers[0] == 24
        whole = distill()
        pairs = zip(resumed.student.state_dict().values(), whole.student.state_dict().values(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)
        assert np.array_equal(resumed.history["loss"], whole.history["loss"])

    def test_an_instance_has_settings_of_its_own(self, tmp_path: Path) -> None:
        method = Endpoint(pairs=8)
        few = distill(method, checkpoints=tmp_path)
        assert not hasattr(method, "z")  # the run worked on a copy
        assert not np.array_equal(few.history["loss"], distill().history["loss"])
        with pytest.raises(ValueError, match=r"other settings.*method"):
            distill(Endpoint(pairs=9), checkpoints=tmp_path)
        loaded = pid.load(few.save(tmp_path / "student"))
        assert loaded.config == few.config
        assert loaded.config.method == method
        again = pid.distill(pid.toy("ring"), net(), config=loaded.config, progress=False)
        assert np.array_equal(again.history["loss"], few.history["loss"])
        METHODS.pop("endpoint")
        with pytest.warns(
            UserWarning, match="the method endpoint of the student in .* is not in pidlearn.methods.METHODS"
        ):
            assert pid.load(tmp_path / "student").student.sample(3).shape == (3, 2)

    def test_its_settings_are_set_by_name(self, tmp_path: Path) -> None:
        by_name = distill(pairs=8)
        assert by_name.config.method == Endpoint(pairs=8)
        assert np.array_equal(by_name.history["loss"], distill(Endpoint(pairs=8)).history["loss"])
        assert distill(Endpoint(pairs=9), pairs=8).config == by_name.config
        with pytest.raises(ValueError, match=r"unknown setting pair \(did you mean pairs\?\).*Endpoint \(pairs\)"):
            distill(pair=8)
        with pytest.raises(ValueError, match="unknown setting pairs"):
            distill("pid", pairs=8)
        path = tmp_path / "own.toml"
        path.write_text('teacher = "edm-cifar10-uncond-vp"\n[config]\nmethod = "endpoint"\npairs = 8\n')
        assert recipes.read(path).config.method == Endpoint(pairs=8)
        path.write_text('teacher = "edm-cifar10-uncond-vp"\n[config]\npairs = 8\n')
        with pytest.raises(ValueError, match=r"\[config\] of .*unknown setting pairs"):
            recipes.read(path)

    def test_an_argument_beats_the_object_and_its_class(self) -> None:
        brief: dict[str, Any] = {"steps": 1, "batch_size": 8}

        def config(**options: Any) -> pid.Config:
            return pid.steps(pid.toy("ring"), net(), **brief, **options).config

        assert config(method="configured").n == 12
        assert config(method="configured", n=9).n == 9
        assert config(method=Configured(n=10), n=9).n == 9
        assert config(config=pid.Config(method=Configured(), n=9)).n == 9
        with pytest.raises(ValueError, match="n is set both in the method and in the configuration"):
            config(config=pid.Config(method=Configured(n=10), n=9))
        weighted = pid.methods.PID(boundary_weight=5.0, last_interval="backward")
        plain = config(method=weighted, boundary_weight=0.0, last_interval="drop", n=9)
        assert (plain.boundary_weight, plain.last_interval) == (0.0, "drop")
        again = config(config=pid.Config(method=Configured(pairs=8)), method="configured", n=9)
        assert again.method == Configured(pairs=8, n=9)

    def test_settings_of_any_kind_come_back(self, tmp_path: Path) -> None:
        result = pid.distill(
            pid.toy("ring"), net(), method="configured", ladder=[3, 4.5], steps=2, batch_size=8, progress=False
        )
        assert result.config.method.ladder == (3, 4.5)
        loaded = pid.load(result.save(tmp_path / "student"), pid.toy("ring"))
        assert loaded.config == result.config

    @pytest.mark.parametrize("pairs", [0, "many", 2.5])
    def test_rules_of_its_own(self, pairs: Any) -> None:
        with pytest.raises(ValueError, match="but pairs must be a whole number of at least 1"):
            pid.steps(pid.toy("ring"), net(), method="configured", pairs=pairs)

    def test_defaults_may_be_partial_but_not_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Endpoint, "defaults", lambda self, problem, given: {"steps": 3})
        assert pid.steps(pid.toy("ring"), net(), method="endpoint").config.steps == 3
        monkeypatch.setattr(Endpoint, "defaults", lambda self, problem, given: {"setps": 3})
        with pytest.raises(ValueError, match=r"defaults returned \['setps'\], but must return fields of Config"):
            pid.steps(pid.toy("ring"), net(), method="endpoint")

    def test_a_stage_of_any_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Endpoint, "stages", lambda self, context, n: [Stage(context.student.network, n)])
        assert len(distill(steps=3).history["loss"]) == 3
        for stages in ([Stage(net(), -1)], [Stage(net(), 1.5)], [net()]):
            monkeypatch.setattr(Endpoint, "stages", lambda self, context, n, stages=stages: stages)
            with pytest.raises(TypeError, match=r"Endpoint.stages returned .* must return Stages of a module"):
                distill(steps=3)

    def test_files_of_methods_that_cannot_be_rebuilt_load(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        @dataclass
        class Needy(Endpoint):
            scale: float = field(kw_only=True)

        monkeypatch.setitem(METHODS, "needy", Needy)
        assert distill("needy", scale=2.0, steps=1).config.method == Needy(scale=2.0)
        with pytest.raises(TypeError, match=r"got method = 'needy' without settings that it needs .*scale"):
            distill("needy")
        for method in (Needy(scale=float("inf")), Needy(scale=2.0)):
            path = distill(method, steps=1).save(tmp_path / "student")
            if method.scale == 2:
                assert pid.load(path).config.method == method
                METHODS.pop("needy")
            with pytest.warns(
                UserWarning, match="the method needy of the student in .*: to train so again, pass method="
            ):
                assert pid.load(path).student.sample(3).shape == (3, 2)

    def test_a_fault_of_its_own_is_no_divergence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        draw = Endpoint.draw

        def failing(self: Any, context: Context, n: int, generator: torch.Generator) -> Batch:
            if context.step == 3:
                raise error
            return draw(self, context, n, generator)

        monkeypatch.setattr(Endpoint, "draw", failing)
        error: Exception = ValueError("my own")
        with pytest.raises(ValueError, match="my own"):
            distill()
        error = StopIteration()
        with pytest.raises(ValueError, match="the data ended at step 4, but must last for any number of steps"):
            distill()

    def test_a_check_may_look_at_the_grid(self, monkeypatch: pytest.MonkeyPatch) -> None:
        grids = []
        monkeypatch.setattr(Endpoint, "check", lambda self, context: grids.append(context.time_grid()))
        config = distill(steps=1).config
        assert torch.equal(grids[0], config.grid())

    def test_what_the_recipe_leaves_out_has_defaults(self) -> None:
        config = pid.steps(pid.toy("ring"), net(), method="endpoint").config
        assert (config.steps, config.batch_size, config.n) == (6000, 256, 250)

    def test_methods_that_need_data_get_them(self) -> None:
        class Data(Endpoint):
            needs = "data"

            def begin(self, context: Context, first: bool) -> None:
                assert context.data is not None
                self.drawn, _ = context.data(7, torch.Generator().manual_seed(0))
                super().begin(context, first)

        run = pid.steps(pid.toy("ring"), net(), method=Data(), steps=1, n=9, batch_size=4)
        next(run)
        assert run.trainer.method.drawn.shape == (7, 2)
        own = pid.steps(pid.toy("ring"), net(), method=Data(), data=torch.full((3, 2), 5.0), steps=1, n=9, batch_size=4)
        next(own)
        assert (own.trainer.method.drawn == 5).all()
        with pytest.raises(ValueError, match="this method needs them: pass data="):
            pid.steps(lambda x, sigma: 0 * x, net(), event_shape=(2,), method=Data())

    @pytest.mark.parametrize(
        ("part", "does", "says"),
        [
            (
                "loss",
                lambda self, context, batch: batch[0].square().mean(),
                r"loss is \(\) .* one value per sample, \(32,\)",
            ),
            ("loss", lambda self, context, batch: batch[0].square().mean(1)[:3], r"loss is \(3,\)"),
            ("loss", lambda self, context, batch: None, "loss is NoneType"),
            ("loss", lambda self, context, batch: torch.ones(32, dtype=torch.int64), "loss is torch.int64"),
            ("loss", lambda self, context, batch: torch.ones(32, dtype=torch.complex64), "loss is torch.complex64"),
            ("draw", lambda self, context, n, generator: torch.zeros(n, 2), r"drew \(32, 2\) .* tuple of tensors"),
            ("draw", lambda self, context, n, generator: (torch.zeros(5, 2), None), "tensors of 32 rows each"),
            ("draw", lambda self, context, n, generator: {"z": 1}, "drew dict"),
        ],
    )
    def test_what_a_method_returns_is_checked(self, part: str, does: Any, says: str, monkeypatch: Any) -> None:
        monkeypatch.setattr(Endpoint, part, does)
        with pytest.raises(TypeError, match=says):
            distill(steps=2)

    @pytest.mark.parametrize(
        "setting",
        [
            *(
                {"derivative": "exact"},
                {"stop_gradient": False},
                {"last_interval": "backward"},
                {"boundary_weight": 5.0},
            ),
            *({"boundary_weight": 5.0}, {"weight": "snr"}, {"time_sampling": "lognormal"}),
        ],
    )
    def test_settings_of_another_method_are_refused(self, setting: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"got {next(iter(setting))}, which Endpoint does not use"):
            distill(**setting)

    def test_the_configuration_of_another_method_is_taken_as_the_message_says(self) -> None:
        config = pid.distill(pid.toy("ring"), steps=1, progress=False).config
        with pytest.raises(ValueError, match="time_sampling=None, derivative=None, stop_gradient=None"):
            distill(config=config)
        again = distill(config=config, time_sampling=None, derivative=None, stop_gradient=None)
        assert again.config.time_sampling == "uniform"

    def test_it_needs_what_there_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Endpoint, "needs", "pairs")
        with pytest.raises(
            ValueError, match=r"got Endpoint.needs = 'pairs', but it must be one of \('noise', 'data', 'paths'\)"
        ):
            distill()

        monkeypatch.setattr(Endpoint, "needs", "noise")
        monkeypatch.setattr(Endpoint, "uses", ("distnace",))
        with pytest.raises(ValueError, match=r"Endpoint.uses = \('distnace',\), but it holds some of \('distance', "):
            distill()

    def test_networks_that_it_builds_depend_on_the_seed_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        begin = Endpoint.begin

        def building(self: Any, context: Context, first: bool) -> None:
            begin(self, context, first)
            self.x = torch.nn.Linear(2, 2)(self.x).detach()

        monkeypatch.setattr(Endpoint, "begin", building)
        found = []
        for seed in (1, 2):
            student = net()
            torch.manual_seed(seed)
            options: dict[str, Any] = {"steps": 3, "batch_size": 8, "n": 9, "method": "endpoint"}
            found.append([step.loss for step in pid.steps(pid.toy("ring"), student, **options)])
        assert found[0] == found[1]


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"got method = 'no', but method must be one of \[.*'pid'.*\] or a pidlearn.methods.Method"
    ):
        pid.distill(pid.toy("ring"), method="no")


def test_pid_by_name_resumes_pid_as_an_object(tmp_path: Path) -> None:
    distill("pid", derivative="central", checkpoints=tmp_path)
    assert distill(pid.methods.PID(derivative="central"), checkpoints=tmp_path).stopped is None
    with pytest.raises(ValueError, match="other settings"):
        distill(pid.methods.PID(derivative="can"), checkpoints=tmp_path)


def test_pid_by_name_and_as_an_object_are_the_same() -> None:
    by_name = distill("pid", derivative="central", stop_gradient=False)
    as_object = distill(pid.methods.PID(derivative="central", stop_gradient=False))
    assert np.array_equal(by_name.history["loss"], as_object.history["loss"])
    assert as_object.config.derivative == "central"


def test_six_calls_from_distill_to_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[str] = []
    real = pid_method.pid_loss

    def spy(*args: Any, **options: Any) -> Tensor:
        frames.extend(frame.function for frame in inspect.stack()[1:])
        return real(*args, **options)

    monkeypatch.setattr(pid_method, "pid_loss", spy)
    pid.distill(pid.toy("ring"), net(), steps=1, batch_size=4, n=9, progress=False)
    assert frames[: frames.index("distill")] == ["loss", "batch_loss", "train", "__next__", "drive"]


def test_a_student_makes_use_of_one_call() -> None:
    result = distill("pid", steps=3)
    z = result.problem.sample_prior(4)
    assert torch.equal(result.generate(z), result.student.generate(z))
    with pytest.raises(
        ValueError, match="a Trajectory has no multi-step sampler: leave calls out, or pass the teacher"
    ):
        result.student.sample(3, calls=2)


def test_stages_must_add_up_to_the_run() -> None:
    class Short(Endpoint):
        def stages(self, context: Context, steps: int) -> list[Stage]:
            return [Stage(context.student, steps - 1)]

    with pytest.raises(ValueError, match="the stages of Short have 59 steps in total, but the run has 60"):
        distill(Short())


def test_a_stage_resumes_before_the_method_s_state_is_restored(tmp_path: Path) -> None:
    """A method builds its networks in `begin`, and finds them there when its state comes back."""

    @dataclass
    class Target(Endpoint):
        def begin(self, context: Context, first: bool) -> None:
            super().begin(context, first)
            self.target = copy.deepcopy(context.student)
            self.numbers = [context.step]

        def after_update(self, context: Context) -> None:
            self.numbers.append(context.step)
            with torch.no_grad():
                for slow, new in zip(self.target.parameters(), context.student.parameters(), strict=True):
                    slow.lerp_(new, 0.1)

        def state_dict(self) -> dict[str, Any]:
            return {"target": self.target.state_dict()}

        def load_state_dict(self, state: Any) -> None:
            self.target.load_state_dict(state["target"])

    def run(stop: int) -> pid.distillation.Run:
        brief = {"steps": 9, "batch_size": 8, "n": 9}
        run = pid.steps(pid.toy("ring"), net(), method=Target(pairs=8), **brief)
        run.resume(tmp_path)
        run.time_steps(2)  # undone, also before the first step, when the method has no state yet
        while run.trainer.step < stop:
            next(run)
        return run

    run(0).save(tmp_path)
    run(4).save(tmp_path)
    resumed = run(9)
    for path in tmp_path.iterdir():
        path.unlink()
    whole = run(9)
    assert (resumed.trainer.method.numbers, whole.trainer.method.numbers) == ([4, *range(4, 9)], [0, *range(9)])
    targets = [run.trainer.method.target.state_dict().values() for run in (resumed, whole)]
    assert all(torch.equal(one, two) for one, two in zip(*targets, strict=True))
    whole.save(tmp_path)
    assert run(9).result().stopped is None


def test_a_soft_boundary_with_a_network_that_encodes() -> None:
    def box(n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 2, generator=generator)

    span = {"prior": box, "t_start": 0.0, "t_end": 1.0, "steps": 3, "batch_size": 8, "windows": 1, "n": 5}
    ode = pid.VelocityODE(lambda x, t: -x)
    plain, weighted = (next(pid.steps(ode, boundary_weight=weight, **span)).loss for weight in (0.0, 0.1))
    assert weighted == pytest.approx(plain, rel=1e-6)  # the hard boundary is met


def test_what_is_no_teacher_is_named() -> None:
    with pytest.raises(TypeError, match=r"got a teacher of type str, but .*: did you mean pidlearn.toy\('ring'\)"):
        pid.distill("ring")
    with pytest.raises(ValueError, match=r"unknown setting derivativ \(did you mean derivative\?\)"):
        pid.distill(pid.toy("ring"), derivativ="exact")
