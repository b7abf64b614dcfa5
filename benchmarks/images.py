"""Compare image students with their teachers' solvers at few steps: `python -m benchmarks.images`.

The digits (8 x 8) have three teachers: a network trained here, an exact mixture and the empirical density.
Fashion-MNIST (28 x 28) has an exact mixture. Class agreement and Fréchet features come from a classifier trained here.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pidlearn as pid
from benchmarks.table import RESULTS, Store
from pidlearn import data
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.evaluation import metrics

SAMPLES = 2000


@dataclass(frozen=True)
class Images:
    """A data set with a classifier: training and test images, the classifier's logits, features and test accuracy."""

    train: Tensor
    test: Tensor
    classify: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    accuracy: float


def train_classifier(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, epochs: int) -> Images:
    """Train the classifier: a hidden layer of 256, and 32 features before the logits."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(train[0].numel(), 256), nn.SiLU(), nn.Linear(256, 32), nn.SiLU())
    head = nn.Linear(32, 10)
    net = nn.Sequential(trunk, head)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, weight_decay=1e-5)
    for _ in range(epochs):
        for batch in torch.randperm(len(train)).split(128):
            noisy = train[batch] + 0.1 * torch.randn_like(train[batch])
            loss = nn.functional.cross_entropy(net(noisy), train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.requires_grad_(False).eval()
    accuracy = (net(test).argmax(1) == test_labels).double().mean().item()
    return Images(train, test, net, trunk, accuracy)


def digits() -> Images:
    """scikit-learn's digits: 1,500 for training, 297 for testing."""
    images, labels = data.digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    return train_classifier(images[:1500], labels[:1500], images[1500:], labels[1500:], epochs=60)


def fashion() -> Images:
    """Fashion-MNIST from its default folder."""
    return train_classifier(*data.fashion_mnist(), *data.fashion_mnist(split="test"), epochs=4)


def rows(
    name: str, images: Images, make_teacher: Callable[[], Any], seeds: Sequence[int] = (0,), **settings: Any
) -> dict[str, dict[str, Any]]:
    """Distil a teacher; returns one row per few-step solver and one per student (seed), all from the same noise."""
    teacher, teacher_seconds = timed(make_teacher)
    ode, problem = pid.DenoiserODE(teacher), problem_from_teacher(teacher)
    z = problem.sample_prior(SAMPLES, torch.Generator().manual_seed(1))
    target = problem.reference_samples(z, pid.karras_grid())

    def evaluate(x: Tensor, calls: int, seconds: float | None = None) -> dict[str, Any]:
        return {
            "calls": calls,
            "RMSE/std": metrics.relative_rmse(x, target),
            "agreement": metrics.agreement(x, target, images.classify),
            "FD": metrics.frechet_distance(x, images.train[:SAMPLES], images.features),
            "energy": metrics.energy_distance(x, images.train[:SAMPLES]),
            "CPU s": seconds,
        }

    table = {f"{name} / Euler-250": evaluate(target, 249, teacher_seconds)}
    for n in (40, 18, 10):
        table[f"{name} / Euler-{n}"] = evaluate(pid.solve(ode, z, pid.karras_grid(n))[-1], n - 1)
    for seed in seeds:
        result, seconds = timed(lambda seed=seed: pid.distill(teacher, seed=seed, **settings))
        key = f"{name} / student" + (f", seed {seed}" if len(seeds) > 1 else "")
        table[key] = evaluate(result.generate(z), 1, seconds)
    return table


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """Call ``make``; returns its result and its CPU seconds."""
    started = time.process_time()
    result = make()
    return result, time.process_time() - started


def floors(name: str, images: Images) -> dict[str, dict[str, Any]]:
    """The distances between real images: one half of the training set against the other, and test against training."""
    half = len(images.train[:SAMPLES]) // 2
    a, b = images.train[:half], images.train[half : 2 * half]
    test = images.test[:SAMPLES]
    blank = {"calls": None, "RMSE/std": None, "agreement": None}
    return {
        f"{name}, real images / {label}": {
            **blank,
            "FD": metrics.frechet_distance(x, y, images.features),
            "energy": metrics.energy_distance(x, y),
            "CPU s": None,
        }
        for label, x, y in (("half against half", a, b), ("test against train", test, images.train[:SAMPLES]))
    }


def warm_start(images: Images) -> dict[str, dict[str, Any]]:
    """Students with the teacher's architecture that start from its weights, only its frequencies, or neither."""
    teacher = pid.train_denoiser(images.train)
    warm = copy.deepcopy(teacher.model).requires_grad_(True)
    torch.manual_seed(1)
    frequencies_only, cold = type(warm)(**warm.options), type(warm)(**warm.options)
    frequencies_only.frequencies.copy_(warm.frequencies)
    students = {
        "the teacher's weights": warm,
        "new weights, its frequencies": frequencies_only,
        "new weights and frequencies": cold,
    }
    table = {}
    for name, network in students.items():
        key = f"{name} / student"
        table[key] = rows(name, images, lambda: teacher, student=network)[key]
    return table


def digits_table(images: Images) -> dict[str, dict[str, Any]]:
    """The rows of the digits: three teachers."""
    train = images.train
    return (
        floors("digits", images)
        | rows("trained network", images, lambda: pid.train_denoiser(train), seeds=(0, 1, 2))
        | warm_start(images)
        | rows("exact mixture", images, lambda: pid.SubspaceMixture.fit(train, components=20, directions=40))
        | rows("empirical, h = 0.15", images, lambda: pid.EmpiricalDenoiser(train, bandwidth=0.15))
    )


def fashion_table(images: Images) -> dict[str, dict[str, Any]]:
    """The rows of Fashion-MNIST: one teacher, 30 Gaussians in 64 principal directions."""
    return floors("fashion", images) | rows("exact mixture", images, lambda: pid.SubspaceMixture.fit(images.train))


def main() -> None:
    """Measure the chosen data sets, and write one table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=["digits", "fashion"], default=["digits", "fashion"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.data:
        images, table = (digits(), digits_table) if name == "digits" else (fashion(), fashion_table)
        command = f"python -m benchmarks.images --data {name}"
        store = Store(args.out, f"images-{name}", command, samples=SAMPLES, classifier=round(images.accuracy, 4))
        for key, row in table(images).items():
            store.add(key, row)
        lines = [
            {"teacher / sampler": key, **{k: _format(v) for k, v in row.items()}} for key, row in store.rows.items()
        ]
        store.publish(f"Image students: {name}", TEXT, {"All from the same noise": lines})


TEXT = (
    "RMSE/std and class agreement compare with the teacher's own Euler-250. FD is the Fréchet distance on the "
    "classifier's 32 features, energy the energy distance on pixels, both to training images. CPU s: CPU seconds for "
    "building the teacher (in the row of Euler-250) and for distilling the student."
)


def _format(value: float | int | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
