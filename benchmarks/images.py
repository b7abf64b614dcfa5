"""Students of image teachers, beside the teacher's own solvers with few steps: `python -m benchmarks.images`.

Digits (8 x 8) with a teacher trained here, an exact mixture and the empirical density as teachers; Fashion-MNIST
(28 x 28) with an exact mixture. Class agreement and Fréchet features come from a classifier trained here.
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
    """A data set with a judge: training and test images, and a classifier with its features."""

    train: Tensor
    test: Tensor
    classify: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    accuracy: float


def judged(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, epochs: int) -> Images:
    """Train the classifier: a hidden layer of 256, and 32 features under the logits."""
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
    """scikit-learn's digits: 1,500 to train on, 297 to test."""
    images, labels = data.digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    return judged(images[:1500], labels[:1500], images[1500:], labels[1500:], epochs=60)


def fashion() -> Images:
    """Fashion-MNIST from its usual place."""
    return judged(*data.fashion_mnist(), *data.fashion_mnist(split="test"), epochs=4)


def rows(
    name: str, images: Images, make_teacher: Callable[[], Any], seeds: Sequence[int] = (0,), **choices: Any
) -> dict[str, dict[str, Any]]:
    """Distil a teacher; then a row for each few-step solver and each seed's student, all from the same noise."""
    teacher, teacher_seconds = timed(make_teacher)
    ode, problem = pid.DenoiserODE(teacher), problem_from_teacher(teacher)
    z = problem.sample_prior(SAMPLES, torch.Generator().manual_seed(1))
    target = problem.reference_samples(z, pid.karras_grid())

    def figures(x: Tensor, calls: int, seconds: float | None = None) -> dict[str, Any]:
        return {
            "calls": calls,
            "RMSE/std": metrics.relative_rmse(x, target),
            "agreement": metrics.agreement(x, target, images.classify),
            "FD": metrics.frechet_distance(x, images.train[:SAMPLES], images.features),
            "energy": metrics.energy_distance(x, images.train[:SAMPLES]),
            "CPU s": seconds,
        }

    table = {f"{name} / Euler-250": figures(target, 249, teacher_seconds)}
    for n in (40, 18, 10):
        table[f"{name} / Euler-{n}"] = figures(pid.solve(ode, z, pid.karras_grid(n))[-1], n - 1)
    for seed in seeds:
        result, seconds = timed(lambda seed=seed: pid.distill(teacher, seed=seed, **choices))
        key = f"{name} / student" + (f", seed {seed}" if len(seeds) > 1 else "")
        table[key] = figures(result.generate(z), 1, seconds)
    return table


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """What it makes, and the CPU seconds that it takes."""
    started = time.process_time()
    made = make()
    return made, time.process_time() - started


def floors(name: str, images: Images) -> dict[str, dict[str, Any]]:
    """What the distances say of real images: half of the training set against half, and test against training."""
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
    """Students of the teacher's own architecture: what its weights are worth, and what its frequencies alone."""
    teacher = pid.train_denoiser(images.train)
    warm = copy.deepcopy(teacher.model).requires_grad_(True)
    torch.manual_seed(1)
    cold, other = type(warm)(**warm.options), type(warm)(**warm.options)
    cold.frequencies.copy_(warm.frequencies)
    students = {
        "the teacher's weights": warm,
        "new weights, its frequencies": cold,
        "new weights and frequencies": other,
    }
    table = {}
    for name, network in students.items():
        made = rows(name, images, lambda: teacher, student=network)
        table[f"{name} / student"] = made[f"{name} / student"]
    return table


def digits_table(images: Images) -> dict[str, dict[str, Any]]:
    """Three teachers of the digits."""
    train = images.train
    return (
        floors("digits", images)
        | rows("trained network", images, lambda: pid.train_denoiser(train), seeds=(0, 1, 2))
        | warm_start(images)
        | rows("exact mixture", images, lambda: pid.SubspaceMixture.fit(train, components=20, directions=40))
        | rows("empirical, h = 0.15", images, lambda: pid.EmpiricalDenoiser(train, bandwidth=0.15))
    )


def fashion_table(images: Images) -> dict[str, dict[str, Any]]:
    """One teacher of Fashion-MNIST: 30 Gaussians in 64 principal directions."""
    return floors("fashion", images) | rows("exact mixture", images, lambda: pid.SubspaceMixture.fit(images.train))


def main() -> None:
    """Run what is asked for and write a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=["digits", "fashion"], default=["digits", "fashion"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.data:
        images, table = (digits(), digits_table) if name == "digits" else (fashion(), fashion_table)
        command = f"python -m benchmarks.images --data {name}"
        store = Store(args.out, f"images-{name}", command, samples=SAMPLES, classifier=round(images.accuracy, 4))
        for key, row in table(images).items():
            store.add(key, row)
        lines = [
            {"teacher / sampler": key, **{k: _shown(v) for k, v in row.items()}} for key, row in store.rows.items()
        ]
        store.publish(f"Image students: {name}", TEXT, {"All from the same noise": lines})


TEXT = (
    "RMSE/std and class agreement are to the teacher's own Euler-250; FD is the Fréchet distance on the classifier's "
    "32 features, energy the energy distance on pixels, both to training images. CPU s: of making the teacher, in "
    "Euler-250's row, and of distilling the student."
)


def _shown(value: float | int | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
