"""Names of the first release still work, and objects say in one line what they are."""

from __future__ import annotations

import dataclasses
import importlib
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import pidlearn as pid
from pidlearn import SHORT_NAMES
from tests.strategies import random_network

BRIEF = {"steps": 3, "batch_size": 4, "n": 9, "progress": False}


def net() -> pid.nets.MLP:
    torch.manual_seed(5)
    return pid.nets.MLP(2, width=8, depth=1, fourier=4)


def test_modules_below_short_names_are_the_very_ones_too() -> None:
    mixture = importlib.import_module("pidlearn.toys.mixture")
    assert mixture is importlib.import_module("pidlearn.teachers.exact.mixture")
    assert mixture.GaussianMixture is pid.GaussianMixture


def test_an_old_field_is_replaced() -> None:
    with pytest.warns(DeprecationWarning, match="last= is now called last_interval="):
        assert dataclasses.replace(pid.Config(), last="backward").last_interval == "backward"
    with pytest.raises(TypeError, match="got both"), pytest.warns(DeprecationWarning, match="is now called"):
        pid.Config(last="drop", last_interval="backward")
    with pytest.raises(TypeError, match="got both"), pytest.warns(DeprecationWarning, match="is now called"):
        pid.distill(pid.toy("ring"), reference=4, track_error=5)


def test_the_citation_says_what_the_file_for_machines_says() -> None:
    text = (Path(__file__).parents[1] / "CITATION.cff").read_text()
    entries = pid.citation()
    for title in re.findall(r'title: "(.*)"', text):
        assert f"title = {{{title}}}" in entries
    families, given_names = (re.findall(rf"{kind}-names: (.*)", text) for kind in ("family", "given"))
    authors = " ".join(re.search(r"author = {(.*?)},\n", entries, re.DOTALL)[1].split())  # type: ignore[index]  # found, or the test fails
    assert authors.split(" and ") == [", ".join(name) for name in zip(families, given_names, strict=True)]
    assert f"version = {{{version('pidlearn')}}}" in entries
    assert entries.count("{") == entries.count("}")


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_short_module_names(name: str) -> None:
    room = importlib.import_module(f"pidlearn.{SHORT_NAMES[name]}")
    assert importlib.import_module(f"pidlearn.{name}") is room
    assert getattr(pid, name) is room
    assert room.__name__ == room.__spec__.name == f"pidlearn.{SHORT_NAMES[name]}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("line", "skip_term"),
        ("bend", "learned_term"),
        ("bend_and_slope", "learned_term_jvp"),
        ("started", "at_start"),
        ("body", "compute_dtype"),
    ],
)
def test_old_parts_of_a_trajectory(old: str, new: str) -> None:
    student = pid.Trajectory(net())
    with pytest.warns(DeprecationWarning, match=f"Trajectory.{old} is now called {new}") as caught:
        assert getattr(student, old) == getattr(student, new)
    assert caught[0].filename == __file__


class TestOldArguments:
    def test_of_distill(self) -> None:
        new_names = {"track_error": 8, "last_interval": "backward", "time_sampling": "uniform"}
        old_names = {"reference": 8, "last": "backward", "index": "uniform"}
        new = pid.distill(pid.toy("ring"), net(), **new_names, **BRIEF)
        with pytest.warns(DeprecationWarning, match="is now called") as caught:
            old = pid.distill(pid.toy("ring"), net(), **old_names, **BRIEF)
        pairs = [("index", "time_sampling"), ("last", "last_interval"), ("reference", "track_error")]
        expected = [f"the argument {before}= is now called {after}=" for before, after in pairs]
        assert sorted(str(warning.message) for warning in caught) == expected
        assert all(warning.filename == __file__ for warning in caught)
        assert old.history["loss"].tolist() == new.history["loss"].tolist()
        assert old.history["error"].tolist() == new.history["error"].tolist()

    def test_of_a_config(self) -> None:
        with pytest.warns(DeprecationWarning, match="index= is now called time_sampling="):
            config = pid.Config(index="uniform")
        assert config == pid.Config(time_sampling="uniform")
        with pytest.warns(DeprecationWarning, match="Config.index is now called time_sampling"):
            assert config.index == "uniform"
        with pytest.raises(AttributeError, match="no field 'indices'"):
            config.indices  # noqa: B018 - asking is the test
        both = {"index": "uniform", "time_sampling": "uniform"}
        with (
            pytest.warns(DeprecationWarning, match="now called"),
            pytest.raises(TypeError, match="both time_sampling="),
        ):
            pid.Config(**both)

    def test_of_the_loss(self) -> None:
        student = pid.Trajectory(random_network(2)).double()
        z, grid, index = torch.randn(4, 2).double(), pid.karras_grid(9), torch.full((4,), 8)
        ode = pid.DenoiserODE(pid.toy("ring"))
        new = pid.pid_loss(student, ode, z, grid, index, last_interval="backward")
        with pytest.warns(DeprecationWarning, match="last= is now called last_interval="):
            old = pid.pid_loss(student, ode, z, grid, index, last="backward")
        assert torch.equal(old, new)
        with pytest.raises(TypeError, match="pid_loss has no argument lats"):
            pid.pid_loss(student, ode, z, grid, index, lats="backward")

    def test_of_a_teacher_s_training(self) -> None:
        config = pid.train.OptimizerConfig(steps=2, batch_size=4)
        data = torch.randn(9, 2)
        new = pid.train_denoiser(data, network=net(), config=config, progress=False)
        with pytest.warns(DeprecationWarning, match="optimisation= is now called config="):
            old = pid.train_denoiser(data, network=net(), optimisation=config, progress=False)
        assert torch.equal(new.model.first.weight, old.model.first.weight)


class TestOneLine:
    def test_of_a_config(self) -> None:
        assert repr(pid.Config(lr=0.1, derivative="exact")) == "Config(lr=0.1, derivative='exact')"

    def test_of_a_result(self) -> None:
        result = pid.distill(pid.toy("ring"), net(), track_error=8, max_images=8, **BRIEF)
        said = repr(result)
        assert said.startswith("Result(Trajectory(MLP, ")
        assert "teacher GaussianMixture(8 components" in said
        assert "; 2 steps in " in said
        assert f"error {result.history['error'][-1]:.3g}" in said
        assert said.endswith("max_images, 8, were done at step 2)")
        assert "\n" not in said

    def test_of_students(self) -> None:
        student = pid.Trajectory(net())
        weights = sum(p.numel() for p in student.parameters())
        assert repr(student) == f"Trajectory(MLP, {weights:,} weights, from t = 80 to 0.002)"
        windows = pid.steps(pid.system("logistic"), steps=60, windows=2, n=5).student
        assert repr(windows).startswith("PiecewiseTrajectory(2 windows of ChebyshevMLP, ")

    def test_of_a_run(self) -> None:
        run = pid.steps(pid.toy("ring"), net(), steps=2000, batch_size=4, n=9)
        next(run)
        assert repr(run) == f"Run(pid, teacher {pid.toy('ring')!r}, step 1 of 2,000)"


def test_metrics_print_as_a_table() -> None:
    figures = pid.distill(pid.toy("ring"), net(), **BRIEF).evaluate(64)
    assert dict(figures) == {**figures}
    lines = str(figures).splitlines()
    assert [line.split()[0] for line in lines] == ["rmse", "relative_rmse", "wrong_mode", "energy", "energy_floor"]
    assert float(lines[0].split()[1]) == pytest.approx(figures["rmse"], rel=1e-3)
    assert len({line.index("  ", 16) for line in lines}) <= 2
