"""What each method of the table does: trains on points and images, with classes, is saved, loaded and resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.data import TensorDataset

import pidlearn as pid
from pidlearn.cli.main import main
from pidlearn.methods import METHODS
from tests.tiny import RECIPE
from tests.tiny import teacher as image_teacher

RING = pid.toy("ring")
BRIEF: dict[str, dict[str, Any]] = {
    "pd": {"calls": 2, "teacher_steps": 4},
    "endpoint": {"pairs": 40},
    "reflow": {"pairs": 40},
    "dsno": {"pairs": 40},
}
"""Settings that make a method's preparation short."""


def distill(method: str, teacher: Any = RING, **options: Any) -> pid.Result:
    brief = {"steps": 8, "batch_size": 8, "n": 9, "lr": 1e-3, "ema": (0.9,), "progress": False}
    return pid.distill(teacher, method=method, **brief | BRIEF.get(method, {}) | options)


def weights(student: torch.nn.Module) -> list[Tensor]:
    return list(student.state_dict().values())


@pytest.mark.parametrize("method", METHODS)
def test_it_is_resumed_bit_for_bit(method: str, tmp_path: Path) -> None:
    whole = distill(method)
    distill(method, checkpoints=tmp_path, save_every=2, callbacks=[lambda step: step.number == 5])
    numbers: list[int] = []
    resumed = distill(method, checkpoints=tmp_path, callbacks=[lambda step: numbers.append(step.number)])
    assert numbers == [6, 7, 8]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole.student), weights(resumed.student), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_it_is_saved_drawn_and_evaluated(method: str, tmp_path: Path) -> None:
    result = distill(method, steps=2)
    again, z = pid.load(result.save(tmp_path / "student"), RING), 80 * torch.randn(5, 2)
    assert torch.equal(again.generate(z), result.generate(z))
    assert again.config == result.config
    assert result.evaluate(64)["rmse"] > 0
    assert result.watch(starts=2).panels


@pytest.mark.parametrize("method", METHODS)
def test_the_kind_of_its_student_is_public_and_trained_in_place(method: str) -> None:
    built = pid.steps(RING, method=method, **BRIEF.get(method, {})).student
    assert type(built).__name__ in pid.__all__
    assert f"`{type(built).__name__}`" in str(pid.distill.__doc__)
    before = [weight.clone() for weight in weights(built)]
    distill(method, student=built)
    assert not all(map(torch.equal, weights(built), before))


def test_a_bare_network_is_trained_in_place_but_by_pd() -> None:
    for method in ("cd", "pd", "endpoint"):
        network = pid.nets.MLP(2, width=8, depth=1)
        before = [weight.clone() for weight in weights(network)]
        distill(method, student=network, steps=4)
        assert all(map(torch.equal, weights(network), before)) == (method == "pd"), method


class RandomNumbers(TorchFunctionMode):
    """Counts draws, and checks that each names its generator's device, without which no generator of a GPU works."""

    draws = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        generator = (kwargs or {}).get("generator")
        if generator is not None:
            self.draws += 1
            assert torch.device(kwargs.get("device", "meta")) == generator.device, f"{func} names no device"
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("method", [*METHODS, "eulerian", "semigroup"])
def test_random_numbers_are_drawn_where_the_generator_is(method: str) -> None:
    options = {"method": "flow_map", "identity": method} if method in ("eulerian", "semigroup") else {"method": method}
    options |= BRIEF.get(method, {}) | ({"points": "data"} if options["method"] == "flow_map" else {})
    if METHODS[options["method"]](**{k: v for k, v in options.items() if k == "points"}).needs == "data":
        options["data"] = lambda n, generator=None: torch.ones(n, 2)
    run = pid.steps(RING, **options, n=9, steps=8, batch_size=8)
    with RandomNumbers() as numbers:
        for _ in run:
            pass
    assert numbers.draws >= 8


class OwnNetwork(torch.nn.Module):
    """A user's network, which no file can describe."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.times = torch.linspace(0, 1, 4)  # a name of its own, which means nothing to the library

    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return self.layer(torch.cat([x, time[:, None]], 1))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("flow_map", "dsno")])
def test_a_network_of_ones_own_is_saved_and_loaded(method: str, tmp_path: Path) -> None:
    result = distill(method, student=OwnNetwork(), steps=4)
    again = pid.load(result.save(tmp_path / "student"), RING, OwnNetwork())
    z = 80 * torch.randn(5, 2)
    assert torch.equal(again.generate(z), result.generate(z))


@pytest.mark.filterwarnings("ignore:the teacher states no standard deviation")
@pytest.mark.parametrize("method", METHODS)
def test_it_trains_a_copy_of_a_class_conditional_network(method: str, tmp_path: Path) -> None:
    teacher, x, labels = image_teacher(label_dim=3), torch.randn(20, 1, 8, 8).clamp(-1, 1), torch.arange(20) % 3
    data = {"data": (x, labels)} if METHODS[method]().needs == "data" else {}
    result = distill(method, teacher, steps=2, batch_size=4, micro_batch=2, **data)
    student: Any = result.student
    assert type(getattr(student, "stages", [student])[-1].network) is type(teacher.model)
    assert result.sample(4).shape == (4, 1, 8, 8)
    z, classes = 80 * torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
    assert not torch.equal(result.generate(z, classes), result.generate(z, classes.flip(0)))
    again = pid.load(result.save(tmp_path / "student"), teacher)
    assert torch.equal(again.generate(z, classes), result.generate(z, classes))


@pytest.mark.parametrize("method", [name for name in METHODS if "time_sampling" in METHODS[name]().uses])
def test_frequencies_and_weights_are_checked(method: str) -> None:
    with pytest.raises(ValueError, match=r"time_sampling returned .* a finite number >= 0"):
        distill(method, time_sampling=lambda t, sigma_data: -t)
    if "weight" in METHODS[method]().uses:
        with pytest.raises(ValueError, match=r"the weight is -.* choose one that is finite and at least 0"):
            distill(method, weight=lambda t: -t)


@pytest.mark.parametrize("method", [name for name in METHODS if "weight" in METHODS[name]().uses])
def test_weights_are_checked_at_all_times_before_the_first_step(method: str) -> None:
    """One in 256 times is seldom in a batch of one."""
    infinite_at = 0.002 if method == "freeflow" else 80.0  # which does not visit t_max, where b = 0

    def weight(t: Tensor) -> Tensor:
        return torch.where((t - infinite_at).abs() < 1e-9, math.inf, torch.ones_like(t))

    reached: list[int] = []
    options = {"teacher_steps": 128} if method == "pd" else {}  # 257 times
    with pytest.raises(ValueError, match=rf"the weight is inf at t = {infinite_at:g}"):
        distill(method, weight=weight, n=257, batch_size=1, callbacks=[lambda s: reached.append(s.number)], **options)
    assert not reached


def test_freeflow_takes_a_weight_that_is_infinite_where_it_does_not_go() -> None:
    assert distill("freeflow", weight=lambda t: 1 / (80.0 - t)).stopped is None


@pytest.mark.parametrize("method", ["cd", "boot"])
def test_recipes_are_distilled_by_it(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits.toml").write_text(RECIPE)
    assert main(["distill", "digits.toml", "--out", "run", "--method", method, "--set", "steps=2"]) == 0
    result = pid.load("run/student.safetensors", pid.load_teacher("run/teacher.safetensors"))
    assert result.config.method == method
    assert result.sample(2).shape == (2, 1, 8, 8)


def test_a_teacher_of_a_file_is_distilled_with_data_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pid.save_teacher(image_teacher(label_dim=3), "teacher.safetensors")
    np.savez("images.npz", images=np.zeros((6, 8, 8, 1), np.uint8), labels=np.arange(6) % 3)
    Path("own.toml").write_text('teacher = "teacher.safetensors"\n[config]\nmethod = "cd"\nsteps = 2\nbatch_size = 4\n')
    assert main(["distill", "own.toml"]) == 1
    assert "needs real images, but the recipe own has a teacher without them: pass --data" in capsys.readouterr().err
    np.savez("plain.npz", images=np.zeros((6, 8, 8, 1), np.uint8))
    np.savez("large.npz", images=np.zeros((6, 9, 9, 1), np.uint8))
    np.savez("strange.npz", images=np.zeros((6, 8, 8, 1), np.uint8), labels=np.arange(6) % 4)
    for file, words in (
        ("strange", "have class labels 0..3, but the teacher has 3 classes: number them 0..2"),
        ("plain", "images in plain.npz have no labels, but the teacher has 3 classes: add a dataset.json"),
        ("large", "images in large.npz are (1, 9, 9), but the teacher's are (1, 8, 8): resize them"),
    ):
        assert main(["distill", "own.toml", "--data", f"{file}.npz"]) == 1
        assert words in capsys.readouterr().err
    assert main(["distill", "own.toml", "--method", "pid", "--data", "plain.npz"]) == 1
    assert "method = 'pid' needs no data: leave --data out" in capsys.readouterr().err
    assert main(["distill", "own.toml", "--data", "images.npz"]) == 0
    assert pid.load("runs/own/student.safetensors").config.method == "cd"


def test_training_on_the_cpu_next_to_a_gpu_is_worth_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match=r"training, is on the CPU: for the GPU pass teacher.to\(.cuda.\)"):
        distill("pid", image_teacher(), steps=1)
    distill("pid", steps=1)  # of a toy: the CPU is faster, and warnings are errors


def test_data_sets_of_many_kinds() -> None:
    x = torch.randn(20, 2)
    for data in (TensorDataset(x), [(row,) for row in x], [(row, "cat") for row in x], [(row, None) for row in x]):
        assert distill("cd", data=data, steps=1).stopped is None
    teacher, images = image_teacher(label_dim=3), torch.randn(20, 1, 8, 8)
    for labels in (["cat"] * 20, [float("nan")] * 20, list(torch.eye(20))):
        with pytest.raises(ValueError, match=r"got data with the class label .*, but the teacher has 3 classes"):
            distill("cd", teacher, data=list(zip(images, labels, strict=True)))


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name]().needs == "data"])
def test_data_need_the_classes_of_the_teacher(method: str) -> None:
    with pytest.raises(ValueError, match="got data without labels, but the teacher is class-conditional"):
        distill(method, image_teacher(label_dim=3), data=torch.randn(20, 1, 8, 8))
    with pytest.raises(ValueError, match=r"got data \(20, 3\) .*, but this teacher's are a floating tensor \(M, 2\)"):
        distill(method, data=torch.randn(20, 3))


def test_the_grid_of_consistency_training_is_at_its_finest_before_a_correction() -> None:
    finest = [
        len(run.trainer.method.before.grid) - 1
        for run in [pid.steps(RING, method="corrector", first="ct", steps=50, batch_size=8)]
        for _ in run
    ]
    assert finest[:30:6] == [10, 20, 40, 80, 160]  # 30 steps of its own, in five stretches


def test_all_labels_of_a_tensor_are_checked_before_anything_is_trained() -> None:
    labels = torch.zeros(5000, dtype=torch.long)
    labels[4321] = 7
    with pytest.raises(ValueError, match=r"class labels must lie in 0\.\.1"):
        pid.steps(image_teacher(label_dim=2), method="cd", data=(torch.zeros(5000, 1, 8, 8), labels))


@pytest.mark.parametrize(
    ("settings", "n"),
    [
        ({"method": "pid", "n": 10}, 10),  # learns Euler's path on its own grid
        ({"method": "boot", "n": 10}, 10),
        ({"method": "cd"}, 250),  # learns the ODE's ends by 17 steps of Heun's method
        ({"method": "flow_map", "n": 400}, 400),
    ],
)
def test_students_are_compared_with_what_they_learn(settings: dict[str, Any], n: int) -> None:
    teacher = pid.toy("ring")
    run = pid.steps(teacher, **settings, steps=1, batch_size=4)
    next(run)
    result = run.result()
    assert result.config.reference_n == n
    generator = torch.Generator().manual_seed(1)
    z = result.problem.sample_prior(16, generator)
    euler = pid.solve(pid.DenoiserODE(teacher), z, pid.karras_grid(n))[-1]
    assert result.evaluate(16)["rmse"] == pytest.approx(pid.metrics.rmse(result.generate(z), euler), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_data_may_have_another_dtype(dtype: torch.dtype) -> None:
    points = torch.randn(20, 2).to(dtype)
    run = pid.steps(pid.toy("ring"), method="cd", data=points, steps=1, batch_size=4, n=5)
    assert next(iter(run)).loss > 0
