"""Compare image students with their teachers' solvers at few steps: `python -m benchmarks.images`.

The digits (8 x 8) have three teachers: a network trained here, an exact mixture and the empirical density.
Fashion-MNIST (28 x 28) has an exact mixture. Class agreement and Fréchet features come from a classifier trained here.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pidlearn as pid
from benchmarks.table import RESULTS, Store
from pidlearn import data
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.evaluation import metrics
from pidlearn.students.build import build_student

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


@dataclass
class Subject:
    """A teacher that is made when it is first needed, and what its samples are compared with.

    Attributes:
        images: the data set, with its classifier.
        make_teacher: returns the teacher.
    """

    images: Images
    make_teacher: Callable[[], Any]

    @cached_property
    def teacher(self) -> tuple[Any, float]:
        """The teacher, and the CPU seconds that making it took."""
        return timed(self.make_teacher)

    @cached_property
    def problem(self) -> Any:
        """The teacher's ODE with its noise."""
        return problem_from_teacher(self.teacher[0])

    @cached_property
    def noise(self) -> Tensor:
        """Starts, (SAMPLES, *event)."""
        z: Tensor = self.problem.sample_prior(SAMPLES, torch.Generator().manual_seed(1))
        return z

    @cached_property
    def target(self) -> Tensor:
        """Their ends by Euler-250."""
        x: Tensor = self.problem.reference_samples(self.noise, pid.karras_grid())
        return x

    def compared(self, x: Tensor, calls: int, seconds: float | None = None) -> Row:
        """The metrics of samples x from the same noise."""
        train = self.images.train[:SAMPLES]
        return {
            "calls": calls,
            "RMSE/std": metrics.relative_rmse(x, self.target),
            "agreement": metrics.agreement(x, self.target, self.images.classify),
            "FD": metrics.frechet_distance(x, train, self.images.features),
            "energy": metrics.energy_distance(x, train),
            "CPU s": seconds,
        }

    def own(self) -> Row:
        """The teacher's samples by Euler-250."""
        return self.compared(self.target, 249, self.teacher[1])

    def euler(self, n: int) -> Row:
        """Its samples by Euler's method on fewer points."""
        return self.compared(pid.solve(self.problem.ode, self.noise, pid.karras_grid(n))[-1], n - 1)

    def student(self, **settings: Any) -> Row:
        """The samples of a student."""
        teacher, _ = self.teacher  # made before the clock starts
        result, seconds = timed(lambda: pid.distill(teacher, **settings))
        return self.compared(result.generate(self.noise), 1, seconds)


Row = dict[str, Any]
Rows = dict[str, Callable[[], Row]]
"""Functions that compute the rows of a table."""


def rows(name: str, subject: Subject, students: Mapping[str, Mapping[str, Any]]) -> Rows:
    """A teacher's samples by Euler's method, and those of students by their settings, all from the same noise."""
    table: Rows = {f"{name} / Euler-250": subject.own}
    table |= {f"{name} / Euler-{n}": partial(subject.euler, n) for n in (40, 18, 10)}
    return table | {f"{name} / {student}": partial(subject.student, **s) for student, s in students.items()}


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """Call ``make``; returns its result and its CPU seconds."""
    started = time.process_time()
    result = make()
    return result, time.process_time() - started


def floors(name: str, images: Images) -> Rows:
    """The distances between real images: one half of the training set against the other, and test against training."""
    half = len(images.train[:SAMPLES]) // 2
    a, b = images.train[:half], images.train[half : 2 * half]
    test = images.test[:SAMPLES]
    blank = {"calls": None, "RMSE/std": None, "agreement": None}

    def row(x: Tensor, y: Tensor) -> Row:
        distances = {
            "FD": metrics.frechet_distance(x, y, images.features),
            "energy": metrics.energy_distance(x, y),
        }
        return {**blank, **distances, "CPU s": None}

    return {
        f"{name}, real images / half against half": partial(row, a, b),
        f"{name}, real images / test against train": partial(row, test, images.train[:SAMPLES]),
    }


def starts(subject: Subject) -> Rows:
    """Students with the teacher's architecture that start from its weights, only its frequencies, or neither."""

    def row(which: str) -> Row:
        network = copy.deepcopy(subject.teacher[0].model).requires_grad_(True)
        if which != "the teacher's weights":
            torch.manual_seed(1)
            frequencies, network = network.frequencies, type(network)(**network.options)
            if which == "new weights, its frequencies":
                network.frequencies.copy_(frequencies)
        return subject.student(student=network, seed=0)

    names = ("the teacher's weights", "new weights, its frequencies", "new weights and frequencies")
    return {f"{name} / student": partial(row, name) for name in names}


def seeing_all(subject: Subject) -> Rows:
    """A student that sees all dimensions of its noise alike, and not the principal directions of the samples."""

    def row() -> Row:
        torch.manual_seed(1)
        usual: Any = build_student(subject.problem)
        network = pid.nets.MLP(**{**usual.network.options, "directions": 0})
        return subject.student(student=network, seed=0)

    return {"exact mixture / student that sees all dimensions alike": row}


def digits_table(images: Images) -> Rows:
    """The rows of the digits: three teachers."""
    train = images.train
    network = Subject(images, lambda: pid.train_denoiser(train))
    mixture = Subject(images, lambda: pid.SubspaceMixture.fit(train, components=20, directions=40))
    empirical = Subject(images, lambda: pid.EmpiricalDenoiser(train, bandwidth=0.15))
    return (
        floors("digits", images)
        | rows("trained network", network, {f"student, seed {seed}": {"seed": seed} for seed in (0, 1, 2)})
        | starts(network)
        | rows("exact mixture", mixture, {"student": {"seed": 0}})
        | rows("empirical, h = 0.15", empirical, {"student": {"seed": 0}})
    )


LONG = 25_000
"""Steps of a run of about ten minutes."""


def fashion_table(images: Images) -> Rows:
    """The rows of Fashion-MNIST: one teacher, 30 Gaussians in 64 principal directions."""
    mixture = Subject(images, lambda: pid.SubspaceMixture.fit(images.train))
    students = {
        "student": {"seed": 0},
        "student, the corrector in the last fifth": {"seed": 0, "method": "corrector", "share": 0.8},
        f"student, {LONG:,} steps": {"seed": 0, "steps": LONG},
    }
    return floors("fashion", images) | rows("exact mixture", mixture, students) | seeing_all(mixture)


def main() -> None:
    """Compute the missing rows of the chosen data sets, and publish one table for each."""
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
            if key not in store.rows:
                store.add(key, row())
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
