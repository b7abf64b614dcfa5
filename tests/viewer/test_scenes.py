"""Scenes of teachers and students."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import pidlearn as pid
from pidlearn.viewer import Images, Network, Plane

TINY = {"steps": 5, "batch_size": 8, "progress": False}
SCRIPTS = Path(pid.viewer.__file__).parent / "js"


def test_every_script_imports_the_names_it_uses() -> None:
    """They are joined into one script, in which a missing import would go unnoticed."""
    texts = {path.name: path.read_text("utf-8") for path in SCRIPTS.glob("*.js")}
    exported = {
        name: file
        for file, text in texts.items()
        for name in re.findall(r"^export (?:const|function|class) (\w+)", text, re.MULTILINE)
    }
    for file, text in texts.items():
        assert text.splitlines()[0] in pid.viewer.script()
        imports = re.findall(r'^import \{ (.+) \} from "\./(.+)";$', text, re.MULTILINE)
        imported = {name: origin for names, origin in imports for name in names.split(", ")}
        code = re.sub(r"^import .*|//.*|/\*\*.*\*/", "", text, flags=re.MULTILINE)
        used = set(re.findall(r'(?:\.\.\.|(?<![.\w"]))\b(\w+)\b(?!:)', code))  # no properties, keys or strings
        assert imported == {name: origin for name, origin in exported.items() if name in used and origin != file}


def test_the_joined_script_has_no_import_left_and_no_name_twice() -> None:
    script = pid.viewer.script()
    assert not re.findall(r"^import\b", script, re.MULTILINE)
    names = re.findall(r"^(?:export )?(?:const|let|function|class) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names)) > 50


def test_a_result_shows_itself() -> None:
    result = pid.distill(pid.toy("ring"), n=10, **TINY)
    page = result._repr_html_()
    assert page is not None
    assert page.startswith("<iframe srcdoc=")
    assert ' loading="lazy" ' in page
    scene = result.watch(starts=12)
    assert isinstance(scene.panels[0].student, Network)
    assert scene.exact.shape == (61, 12, 2)


def test_what_cannot_be_drawn_says_so_and_has_no_picture() -> None:
    result = pid.distill(lambda x, sigma: 0 * x, event_shape=5, **TINY)
    assert result._repr_html_() is None
    with pytest.raises(ValueError, match=r"got samples of shape \(5,\), but only 2-D points"):
        result.watch()


def test_students_of_other_parts_are_recorded() -> None:
    net = torch.nn.Linear(2, 2)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    student = pid.Trajectory(Plain(), sigma_data=0.7)
    z = 80 * torch.randn(6, 2)
    scene = pid.watch(pid.toy("moons"), {"plain": student, "teacher alone": None}, starts=z)
    recorded = scene.panels[0].student
    assert isinstance(recorded, np.ndarray)
    np.testing.assert_allclose(recorded[-1], student(z, scene.times[-1]).detach().numpy(), rtol=1e-5)
    assert scene.panels[1].student is None


def test_a_student_told_another_time_is_recorded() -> None:
    """The viewer passes ln(t)/4 to its networks, so a network that expects another encoding is not evaluated there."""
    student = pid.Trajectory(pid.nets.MLP(2), time="linear", sigma_data=0.7)
    scene = pid.watch(pid.toy("ring"), student, starts=4)
    assert isinstance(scene.panels[0].student, np.ndarray)


@pytest.mark.parametrize(
    ("name", "modes"), [("ring", True), ("anisotropic", True), ("moons", False), ("spiral", False)]
)
def test_components_that_overlap_are_no_modes(name: str, modes: bool) -> None:
    assert pid.watch(pid.toy(name), starts=2).modes is modes


def test_other_teachers() -> None:
    data = torch.randn(30, 2)
    cloud = pid.watch(pid.EmpiricalDenoiser(data, 0.2), starts=5)
    np.testing.assert_allclose(cloud.mixture["means"], data.numpy(), rtol=1e-6)
    assert pid.watch(pid.EmpiricalDenoiser(data), starts=5).mixture is None
    line = pid.watch(pid.system("logistic"), starts=5)
    assert line.axes == ("t", "x")
    assert (cloud.is_diffusion, line.is_diffusion) == (True, False)
    np.testing.assert_allclose(cloud.scale(cloud.times), np.hypot(cloud.sigma_data, cloud.times))
    np.testing.assert_array_equal(line.scale(line.times), np.ones(121))
    np.testing.assert_allclose(line.exact[:, 0, 0], line.times)
    pictures = pid.watch(pid.EmpiricalDenoiser(torch.rand(9, 1, 4, 4)), starts=3)
    assert isinstance(pictures.panels[0], Images)
    assert not isinstance(pictures.panels[0], Plane)


def test_the_id_tells_scenes_apart_and_not_views() -> None:
    z = torch.randn(4, 2)
    one, two = (pid.watch(pid.toy("ring"), starts=scale * z) for scale in (80, 40))
    assert one.data()["id"] != two.data()["id"]
    assert one.data()["id"] == one.seen(pid.viewer.View(n=3)).data()["id"]


class Classes(torch.nn.Module):
    """A denoiser of one point per class, and a student that is its solution: x(z, t) = centre + (z - centre) t / T."""

    event_shape, label_dim, t_max, t_min, std = (2,), 3, 80.0, 0.002, 0.7
    CENTRES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        return self.CENTRES[class_labels].to(x)


class Solution(Classes):
    def forward(self, x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        centre = self.CENTRES[class_labels].to(x)
        return centre + (x - centre) * (sigma / 80)[:, None].to(x)


@pytest.mark.parametrize("given", [True, False])
def test_classes_reach_teacher_and_student(given: bool) -> None:
    labels = torch.arange(30) % 3 if given else None
    scene = pid.watch(Classes(), Solution(), starts=30, class_labels=labels)
    np.testing.assert_allclose(scene.panels[0].student, scene.exact, atol=2e-2)
    ends = Classes.CENTRES.numpy()
    nearest = np.linalg.norm(scene.exact[-1][:, None] - ends, axis=2).argmin(1)
    assert set(nearest) == {0, 1, 2}
    if given:
        assert nearest.tolist() == labels.tolist()


def test_classes_of_another_number_of_starts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"class_labels must be an int64 tensor of shape \(5,\)"):
        pid.watch(Classes(), starts=5, class_labels=torch.arange(3))
