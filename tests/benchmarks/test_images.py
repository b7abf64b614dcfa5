"""The benchmark of image students: one teacher, made once, and all samples from the same noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pidlearn as pid
from benchmarks import images
from benchmarks.images import Images, Subject, floors, rows, seeing_all, starts
from pidlearn.students.build import build_student


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setattr(images, "SAMPLES", 64)
    x = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return Images(x, x.flip(0), lambda v: v.flatten(1), lambda v: v.flatten(1), 1.0)


def test_rows_share_one_teacher_and_its_noise(data: Images) -> None:
    builds = []

    def make_teacher() -> Any:
        builds.append(1)
        return pid.EmpiricalDenoiser(data.train, bandwidth=0.5)

    subject = Subject(data, make_teacher)
    table = rows("few", subject, {"short": {"steps": 3, "seed": 0}, "longer": {"steps": 60, "seed": 0}})
    assert not builds  # nothing is computed before it is needed
    row = {key: compute() for key, compute in table.items()}
    assert len(builds) == 1
    assert list(row) == [*(f"few / Euler-{n}" for n in (250, 40, 18, 10)), "few / short", "few / longer"]
    assert (row["few / Euler-250"]["RMSE/std"], row["few / Euler-250"]["calls"]) == (0, 249)
    errors = [row[f"few / Euler-{n}"]["RMSE/std"] for n in (40, 18, 10)]
    assert errors == sorted(errors)
    assert row["few / longer"]["RMSE/std"] < row["few / short"]["RMSE/std"]


def test_real_images_have_no_error(data: Images) -> None:
    split, test = (compute() for compute in floors("few", data).values())
    assert split["RMSE/std"] is None  # real images have no noise in common
    assert split["FD"] > 1e-3 > abs(test["FD"])  # the test images are the training images in another order


def test_starts_are_of_the_teachers_architecture(data: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = pid.nets.Preconditioned(pid.nets.MLP((1, 2, 2), width=8, depth=2, fourier=4), sigma_data=1.0)
    torch.nn.init.normal_(teacher.model.body.out.weight)
    networks: list[Any] = []
    monkeypatch.setattr(Subject, "student", lambda self, student, seed: networks.append(student))
    for compute in starts(Subject(data, lambda: teacher)).values():
        compute()
    own, frequencies, neither = networks
    assert torch.equal(own.body.out.weight, teacher.model.body.out.weight)
    assert torch.equal(frequencies.frequencies, teacher.model.frequencies)
    assert not torch.equal(neither.frequencies, teacher.model.frequencies)
    assert not frequencies.body.out.weight.any()
    assert all(parameter.requires_grad for network in networks for parameter in network.parameters())


def test_the_student_that_sees_all_is_the_usual_one_but_for_its_directions(
    data: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = pid.EmpiricalDenoiser(torch.randn(40, 1, 12, 12, generator=torch.Generator().manual_seed(0)))
    networks: list[Any] = []
    monkeypatch.setattr(Subject, "student", lambda self, student, seed: networks.append(student))
    subject = Subject(data, lambda: teacher)
    for compute in seeing_all(subject).values():
        compute()
    usual: Any = build_student(subject.problem)
    assert usual.network.options == {**networks[0].options, "directions": 128}
