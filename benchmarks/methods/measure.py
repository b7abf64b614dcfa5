"""One run of one method: what it costs, and how far its samples are from the truth."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import pidlearn as pid
from benchmarks.methods.contenders import CONTENDERS, Contender
from benchmarks.methods.subjects import TOYS, subject, truth
from pidlearn.equations.solvers import SOLVERS, solve_end
from pidlearn.evaluation.metrics import energy_distance, floor, rmse
from pidlearn.methods import METHODS, settings_of
from pidlearn.methods.base import DEFAULTS
from pidlearn.students.base import as_student
from pidlearn.training.trainer import Trainer

__all__ = [
    "CALLS",
    "budgeted_steps",
    "cost",
    "distilled",
    "floor_row",
    "needs",
    "relative_time",
    "row",
    "settings_on",
    "solver_row",
    "solving",
]

CALLS = (1, 2, 4, 8)


def distilled(data: str, contender: Contender, settings: dict[str, Any], **options: Any) -> Iterator[Any]:
    """The steps of a run of this contender on a subject."""
    of = subject(data)
    teacher, student = of.problem.teacher, None
    options = {**of.settings, **settings_on(data, contender), **settings, **options}
    if contender.method == "pid" and "boundary_weight" in options:  # of a student that has to learn its start
        torch.manual_seed(options.get("seed", 0))
        student = pid.Trajectory(pid.nets.MLP(teacher.event_shape), sigma_data=teacher.std, boundary="soft")
    needs_data = of.data is not None and needs(contender) == "data"
    return pid.steps(teacher, student, method=contender.method, data=of.data if needs_data else None, **options)


def settings_on(data: str, contender: Contender) -> dict[str, Any]:
    """The settings of a contender on a subject.

    Raises:
        ValueError: images, for a contender that takes part only on toys.
    """
    if data in TOYS:
        return contender.settings
    if contender.on_images is None:
        raise ValueError(f"{contender.name} takes part only on toys")
    return {**contender.settings, **contender.on_images}


def needs(contender: Contender) -> str:
    """What a contender learns from: noise, data or paths."""
    kind = METHODS[contender.method]
    own = {name: contender.settings[name] for name in settings_of(kind) if name in contender.settings}
    return str(kind(**own).needs)


def cost(data: str, contender: Contender, settings: dict[str, Any]) -> dict[str, float]:
    """What a run costs: its preparation and each step, in steps of PID with Adam, the unit of budgets; and memory.

    Both are measured in turns with such steps: other processes then slow down both alike. Besides: passes per sample,
    each of which is one sample, or its tangent of forward-mode AD, through the student's network, with or without
    gradient, or through the teacher.
    """
    trial, budget = subject(data).trial, subject(data).budget
    run: Any = distilled(data, contender, settings, steps=trial)
    reference: Any = distilled(data, CONTENDERS["PID"], {"optimizer": "adam"}, steps=budget)
    next(reference)  # may load and allocate
    passes: Counter[str] = Counter()
    turn = max(1, trial // 10)
    preparation, _ = _in_turns(_prepared(run), 1, reference, max(1, turn // 8))  # with the first step
    with _counted(run, passes):
        # Not to the end: the last update is checked by one more loss, which is much of a short run.
        training, steps = _in_turns(islice(run, trial - 2), turn, reference, turn)
    return {
        "preparation / PID step": max(0.0, preparation - training / steps),
        "step / PID step": training / steps,
        **{
            name: passes[name] / (steps * run.config.batch_size)
            for name in ("with gradient", "without gradient", "teacher")
        },
        "pairs": float(getattr(run.trainer.method, "pairs", 0)),
        "megabytes": _kept(run.trainer) / 1e6,
    }


def _prepared(run: Any) -> Iterator[Any]:
    """The first step of a run, and all paths that the next ones would solve; a short run may have too few of them."""
    yield next(run)
    method = run.trainer.method
    while hasattr(method, "pairs") and method.count < method.pairs:
        yield method.draw(run.trainer.context, run.config.batch_size, torch.Generator())


def _in_turns(run: Iterator[Any], turn: int, reference: Iterator[Any], steps: int) -> tuple[float, int]:
    """CPU time of all that is left of a run, in steps of the reference, and how many steps the run took.

    Each ``turn`` of its steps is followed by these ``steps`` of the reference.
    """
    turns = []
    while (taken := _timed(run, turn))[0]:
        turns.append((*taken, *_timed(reference, steps)))
    count, seconds, reference_count, reference_seconds = map(sum, zip(*turns, strict=True))
    return seconds * reference_count / reference_seconds, int(count)


def _timed(run: Iterator[Any], steps: int) -> tuple[int, float]:
    """Take up to ``steps`` steps; returns how many there were, and their CPU seconds."""
    started = time.process_time()
    count = sum(1 for _ in islice(run, steps))
    return count, time.process_time() - started


def solving(data: str, contender: Contender, row: dict[str, Any]) -> float:
    """Teacher calls for the paths that a run solved in advance, per training sample of that run."""
    if not row["pairs"]:
        return 0.0
    of = subject(data)
    method, settings = _resolved(data, contender, row)
    states = getattr(method, "times", 1)  # of each path; from one to the next, DSNO rounds the number of steps up
    calls = states * math.ceil((settings["n"] - 1) / states) * SOLVERS[method.solver_for(of.problem)]().nfe
    return float(row["pairs"] * calls / (row["steps"] * settings["batch_size"]))


def relative_time(data: str, contender: Contender, row: dict[str, Any]) -> float:
    """CPU time per training sample, the preparation included, in that of PID with Adam."""
    per_step = row["step / PID step"] + row["preparation / PID step"] / row["steps"]
    batch, of_pid = (_resolved(data, c, r)[1]["batch_size"] for c, r in ((contender, row), (CONTENDERS["PID"], {})))
    return float(per_step / batch * of_pid)


def _resolved(data: str, contender: Contender, row: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The method of a row, and all settings of its run."""
    of, kind = subject(data), METHODS[contender.method]
    settings = {**settings_on(data, contender), **row.get("settings", {})}
    method = kind(**{name: settings[name] for name in settings_of(kind) if name in settings})
    return method, {**DEFAULTS, **method.defaults(of.problem, {}), **of.settings, **settings}


@contextmanager
def _counted(run: Any, passes: Counter[str]) -> Iterator[None]:
    """Count the samples that pass through the networks while the context lasts."""
    ode = run.problem.ode
    denoise = ode.denoise

    def counted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        passes["teacher"] += len(x)
        out: Tensor = denoise(x, *args, **kwargs)
        return out

    def count(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        has_tangent = any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)
        rows = len(args[0]) * (2 if has_tangent else 1)  # the tangent takes all that the network computes once more
        passes["with gradient" if torch.is_grad_enabled() else "without gradient"] += rows

    trained = [run.student, getattr(run.trainer.method, "auxiliary", None)]
    networks = [
        m
        for part in trained
        if part is not None
        for m in part.modules()
        if isinstance(m, pid.nets.MLP | pid.nets.SongUNet)
    ]
    handles = [network.register_forward_pre_hook(count, with_kwargs=True) for network in networks]
    ode.denoise = counted  # of this object; the teacher stays what a method may copy
    try:
        yield
    finally:
        del ode.denoise
        for handle in handles:
            handle.remove()


def _kept(trainer: Trainer) -> int:
    """Bytes that training keeps: networks and their averages, gradients, moments, and what the method holds."""
    held = [
        trainer.module,
        trainer.averaged,
        list(trainer.optimizer.state.values()),
        [vars(method) for method in trainer.method.components()],
    ]
    storages = [tensor.untyped_storage() for tensor in _tensors(held)]
    gradients = sum(weight.nbytes for weight in trainer.weights())  # those of the last step are gone
    return gradients + sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors(held: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, mappings and modules."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, nn.Module):
        yield from (*held.parameters(), *held.buffers())
    elif isinstance(held, Mapping):
        yield from _tensors(list(held.values()))
    elif isinstance(held, list | tuple):
        for part in held:
            yield from _tensors(part)


def budgeted_steps(data: str, costs: dict[str, float], budget: int) -> int:
    """How many steps fit into the CPU time of ``budget`` steps of PID with Adam."""
    return max(subject(data).trial, round((budget - costs["preparation / PID step"]) / costs["step / PID step"]))


def row(
    data: str, contender: Contender, settings: dict[str, Any], seed: int, budget: int | None, steps: int | None
) -> dict[str, Any]:
    """Train for a CPU time or for a number of steps, and compare with Euler-250, the exact ODE and the density."""
    costs = cost(data, contender, settings)
    if budget:
        steps = budgeted_steps(data, costs, budget)
    else:  # there time decides nothing
        costs = {name: value for name, value in costs.items() if not name.endswith("PID step")}
    run: Any = distilled(data, contender, settings, seed=seed, steps=steps)
    started = time.process_time()
    done = sum(1 for _ in run)
    spent = time.process_time() - started
    result = run.result()
    return {"settings": settings, "steps": done, "seconds": spent, **costs, "calls": errors(data, result)}


def errors(data: str, result: pid.Result) -> dict[str, dict[str, float]]:
    """The errors of a student at each number of calls that it can make use of."""
    true, metrics = truth(data), {}
    student = as_student(result.student, subject(data).problem)
    for calls in CALLS:
        try:
            # Of the student alone: a result would spend further calls of a path on the teacher.
            x = student.generate(true.z, true.labels, calls, torch.Generator().manual_seed(1))
        except ValueError:  # of students with one call, or with other numbers
            continue
        metrics[str(calls)] = compared(data, x.double())
    return metrics


def compared(data: str, x: Tensor) -> dict[str, float]:
    """Samples (n, *event) of the noise of `truth`, compared one by one and as a distribution."""
    true = truth(data)
    return {
        "euler": rmse(x, true.euler) / true.unit,
        "exact": rmse(x, true.exact) / true.unit,
        "wrong": true.wrong(x),
        "energy": energy_distance(x / true.unit, true.others / true.unit),
    }


def solver_row(data: str, solver: str) -> dict[str, Any]:
    """The teacher's own samples with few calls."""
    true, per_step, metrics = truth(data), 2 if solver == "heun" else 1, {}
    for calls in (*CALLS, 16, 32):
        if calls % per_step == 0:
            grid = pid.karras_grid(calls // per_step + 1)
            x = solve_end(subject(data).problem.ode, true.z.double(), grid, solver, true.labels)
            metrics[str(calls)] = compared(data, x)
    return {"calls": metrics}


def floor_row(data: str) -> dict[str, float]:
    """The energy distance between two samples of the teacher, and the errors of Euler-250."""
    true = truth(data)
    metrics = compared(data, true.euler)
    scaled = true.others / true.unit
    return {"energy floor": floor(energy_distance, scaled), "energy": metrics["energy"], "exact": metrics["exact"]}
