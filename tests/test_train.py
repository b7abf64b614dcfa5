"""The training loop: what a step does, what survives a stop, and what a loss that turns NaN leaves behind."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pidlearn.methods.base import Batch, Method, Stage, TrainingContext
from pidlearn.training.distributed import Processes
from pidlearn.training.loop import DivergedError, train
from pidlearn.training.optim import OptimizerConfig
from pidlearn.training.trainer import Trainer


class Line(nn.Module):
    """Two parts, so that stages can train one after another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 1)


@dataclass
class Fit(Method[TrainingContext]):
    """Least squares against x_1 + 2 x_2, from random numbers of the run and of the process."""

    lengths: tuple[tuple[int, float], ...] = ()
    wrong: Callable[[int, Tensor], Tensor] = lambda step, losses: losses

    def stages(self, context: TrainingContext, steps: int) -> list[Stage]:
        module: Any = context.student
        if not self.lengths:
            return [Stage(module, steps)]
        return [Stage(part, *rest) for part, rest in zip((module.one, module.two), self.lengths, strict=True)]

    def draw(self, context: TrainingContext, n: int, generator: torch.Generator) -> tuple[Tensor, None]:
        return torch.randn(n, 2, generator=generator) + 0.01 * torch.randn(n, 2), None

    def loss(self, context: TrainingContext, batch: Batch) -> Tensor:
        x, nothing = batch
        assert nothing is None
        assert x is not None
        module: Any = context.student
        losses = (module.two(module.one(x)) - x @ torch.tensor([[1.0], [2.0]])).square().flatten()
        return self.wrong(context.step, losses)


def trainer_of(stages: list[tuple[int, float]] | None = None, wrong: Any = None, **options: Any) -> Trainer:
    module = Line()
    config = OptimizerConfig(**{"steps": 24, "batch_size": 8, "lr": 0.05, **options})
    torch.manual_seed(config.seed)
    method = Fit(tuple(stages or ()), *([wrong] if wrong else []))
    return Trainer(module, method, TrainingContext(module), config)


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_every_process_needs_a_sample() -> None:
    team = Processes()
    team.size = 9
    with pytest.raises(ValueError, match="batch_size = 8 leaves some of 9 processes without a sample"):
        Trainer(Line(), Fit(), TrainingContext(Line()), OptimizerConfig(batch_size=8), processes=team)


def test_it_learns_and_says_what_it_did() -> None:
    trainer = trainer_of(steps=150)
    steps = list(train(trainer))
    assert [s.number for s in steps] == list(range(1, 151))
    assert (steps[-1].steps, steps[-1].samples) == (150, 150 * 8)
    assert np.mean(trainer.history.arrays()["loss"][-10:]) < 1e-2 * np.mean(trainer.history.arrays()["loss"][:10])
    assert [s.loss for s in steps] == trainer.history.arrays()["loss"].tolist()
    assert (np.diff(trainer.history.arrays()["seconds"]) >= 0).all()
    assert all(column.dtype == np.float64 for column in trainer.history.arrays().values())


@pytest.mark.parametrize("micro_batch", [1, 3, 5, 8, 100])
def test_parts_of_a_batch_are_the_batch(micro_batch: int) -> None:
    losses, weights = [], []
    for size in (None, micro_batch):
        trainer = trainer_of(micro_batch=size)
        losses.append([step.loss for step in train(trainer)])
        weights.append(flat(trainer.module))
    np.testing.assert_allclose(*losses, rtol=1e-5)
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_schedule_warms_up_and_falls_to_nothing() -> None:
    rates = np.array([step.lr for step in train(trainer_of(steps=99, warmup=0.2, lr=0.1))])
    assert np.allclose(rates[:19], 0.1 * np.arange(1, 20) / 20)
    share = (np.arange(20, 100) / 100 - 0.2) / 0.8
    assert np.allclose(rates[19:], 0.05 * (1 + np.cos(np.pi * share)))
    held = np.array([step.lr for step in train(trainer_of(steps=99, warmup=0.2, lr=0.1, constant=True))])
    assert np.allclose(held[19:], 0.1)


def test_stages_train_their_part_alone_at_their_rate() -> None:
    trainer = trainer_of([(10, 1.0), (14, 0.5)], warmup=0.0)
    start = copy.deepcopy(trainer.module)
    run = train(trainer)
    for _ in range(10):
        next(run)
    middle = copy.deepcopy(trainer.module)
    assert not torch.equal(flat(middle.one), flat(start.one))
    assert torch.equal(flat(middle.two), flat(start.two))
    last = list(run)
    assert torch.equal(flat(trainer.module.one), flat(middle.one))
    assert not torch.equal(flat(trainer.module.two), flat(middle.two))
    assert last[0].lr == pytest.approx(0.05 * 0.5 * 0.5 * (1 + math.cos(math.pi / 15)))


def test_averages_are_exponential_and_side_by_side() -> None:
    trainer = trainer_of(ema=(0.5, 0.9))
    expected: dict[float, Tensor] = {}
    for _ in train(trainer):
        now = flat(trainer.module)
        expected = {r: r * expected[r] + (1 - r) * now if expected else now for r in (0.5, 0.9)}
    for rate, average in zip((0.5, 0.9), trainer.averaged, strict=True):
        torch.testing.assert_close(flat(average), expected[rate])
    assert trainer.best is trainer.averaged[0]


def momentum(parameters: Any, optimisation: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, optimisation.lr / 10, momentum=0.9)


@pytest.mark.parametrize("optimizer", ["adam", "radam", "muon", momentum])
@pytest.mark.parametrize("stages", [None, [(10, 1.0), (14, 0.5)]])
@pytest.mark.parametrize("cut", [1, 9, 10, 11, 23])
def test_state_carries_all_that_the_rest_depends_on(optimizer: Any, stages: Any, cut: int) -> None:
    options = {"optimizer": optimizer, "ema": (0.5, 0.9)}
    whole = trainer_of(stages, **options)
    list(train(whole))
    first = trainer_of(stages, **options)
    run = train(first)
    for _ in range(cut):
        next(run)
    state = copy.deepcopy(first.state_dict())
    second = trainer_of(stages, **options)
    torch.randn(100)  # what another process drew
    second.load_state_dict(state)
    assert [step.number for step in train(second)] == list(range(cut + 1, 25))
    assert torch.equal(flat(second.module), flat(whole.module))
    for name in ("loss", "lr"):
        assert np.array_equal(second.history.arrays()[name], whole.history.arrays()[name])
    for one, two in zip(second.averaged, whole.averaged, strict=True):
        assert torch.equal(flat(one), flat(two))


def test_gradients_stay_out_of_what_is_not_trained() -> None:
    other = nn.Linear(2, 2)
    trainer = trainer_of(steps=3, wrong=lambda step, losses: losses + other(torch.ones(8, 2)).square().sum(1))
    list(train(trainer))
    assert all(p.grad is None for p in other.parameters())


def test_a_loss_without_the_weights_is_refused() -> None:
    trainer = trainer_of(steps=3, wrong=lambda step, losses: torch.ones(8))
    with pytest.raises(ValueError, match="does not depend on the weights"):
        next(train(trainer))


def test_numbers_of_numpy_become_plain() -> None:
    options = OptimizerConfig(steps=np.int64(7), lr=torch.tensor(0.5), seed=np.int32(3), ema=[np.float32(0.5)])
    assert options.ema == (0.5,)
    assert [type(value) for value in (options.steps, options.lr, options.seed)] == [int, float, int]


def test_same_seed_same_weights() -> None:
    trained = []
    for seed in (0, 0, 1):
        trainer = trainer_of(seed=seed)
        list(train(trainer))
        trained.append(flat(trainer.module))
    one, same, other = trained
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


class TestDivergence:
    def broken(self, at: int, how: str, **options: Any) -> Trainer:
        """A trainer whose loss goes wrong in step ``at``."""
        trainers: list[Trainer] = []

        def wrong(step: int, loss: Tensor) -> Tensor:
            if step + 1 < at:
                return loss
            if how == "raises":
                raise ValueError("the teacher returned NaN")
            if how == "gradient":  # sqrt(0): a finite value with an infinite slope
                weights = torch.cat([p.flatten() for p in trainers[0].module.parameters()])
                return loss + (weights - weights.detach()).sum().sqrt()
            return loss / 0 if how == "infinite" else loss * math.nan

        trainers.append(trainer_of(wrong=wrong, **options))
        return trainers[0]

    def test_only_numbers_get_the_hint_about_the_rate(self) -> None:
        with pytest.raises(DivergedError) as caught:
            list(train(self.broken(3, "raises")))
        assert "smaller lr" not in str(caught.value)
        with pytest.raises(DivergedError, match="smaller lr"):
            list(train(self.broken(3, "nan")))

    @pytest.mark.parametrize("how", ["nan", "infinite", "raises", "gradient"])
    @pytest.mark.parametrize("ema", [(), (0.5,)])
    def test_last_good_weights_are_put_back(self, how: str, ema: tuple[float, ...]) -> None:
        trainer = self.broken(130, how, steps=200, ema=ema)
        with pytest.raises(DivergedError, match=r"training stopped at step 13[01]"):
            list(train(trainer))
        assert trainer.step in (129, 130)
        # Those of the newest snapshot before it; or the averages, which are of weights whose loss is known.
        good = trainer_of(ema=ema, steps=200)
        run = train(good)
        for _ in range(trainer.step - 1 if ema else 120):
            next(run)
        assert torch.equal(flat(trainer.module), flat(good.best))
        assert torch.equal(flat(trainer.best), flat(good.best))

    def test_weights_that_exploded_just_before_a_snapshot_are_not_good(self) -> None:
        # The update of step 20 ruins the weights, and only the loss of step 21 shows it.
        trainer = self.broken(20, "gradient", steps=200)
        with pytest.raises(DivergedError, match="step 21"):
            list(train(trainer))
        assert flat(trainer.module).isfinite().all()
        assert torch.equal(flat(trainer.module), flat(Line()))

    @pytest.mark.parametrize("steps", [1, 20, 33])
    def test_the_last_update_is_looked_at_too(self, steps: int) -> None:
        trainer = self.broken(steps, "gradient", steps=steps)
        with pytest.raises(DivergedError, match=f"training stopped at step {steps}: the loss"):
            list(train(trainer))
        assert flat(trainer.module).isfinite().all()
        assert flat(trainer.best).isfinite().all()

    def test_what_cannot_work_from_the_start_is_the_callers_error(self) -> None:
        with pytest.raises(ValueError, match=r"^the teacher returned NaN$"):
            list(train(self.broken(1, "raises")))

    def test_far_too_large_a_rate(self) -> None:
        trainer = trainer_of(lr=1e30, ema=(0.5,))
        with pytest.raises(DivergedError, match="smaller lr"):
            list(train(trainer))
        assert flat(trainer.module).isfinite().all()
        assert flat(trainer.best).isfinite().all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 10.0}, "steps"),
        ({"steps": "10"}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": None}, "batch_size"),
        ({"seed": 0.5}, "seed"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"lr": "fast"}, "lr"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup": None}, "warmup"),
        ({"ema": (0.9, 1.0)}, "ema"),
        ({"ema": 0.999}, "ema"),
        ({"ema": None}, "ema"),
        ({"seed": 2**70}, "seed"),
        ({"seed": None}, "seed"),
        ({"beta2": None}, "beta2"),
        ({"optimizer": torch.optim.SGD}, "a function of"),
        ({"optimizer": "sgd"}, "optimizer"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OptimizerConfig(**options)
