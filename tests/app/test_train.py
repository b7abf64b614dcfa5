"""What the page Train does, without Streamlit: what it reads, what it refuses, and trainings in their processes."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pidlearn as pid
from app.training import drawn_points, expression, process, worker
from app.training.job import TrainingJob, build_teacher
from app.training.process import Training
from app.views.train.snippet import snippet
from pidlearn.viewer import Network, View

# ---------------------------------------------------------------------------------------------------- expressions

PENDULUM = """
x' = v
v' = -sin(x) - 0.1*v + exp(-t) * 2**-3
x in [-pi/2, pi/2]
v in [-1, 1]
t in [0, 4]
"""


def test_typed_equations_mean_what_python_means() -> None:
    problem = expression.parse_problem(PENDULUM)
    assert problem.box == {"x": (-np.pi / 2, np.pi / 2), "v": (-1.0, 1.0)}
    assert problem.span == (0.0, 4.0)
    x, v, t = torch.randn(3, 50, dtype=torch.float64)
    dx, dv = problem.derivatives({"x": x, "v": v, "t": t}, torch)
    assert torch.equal(dx, v)
    assert torch.allclose(dv, -x.sin() - 0.1 * v + (-t).exp() / 8, atol=1e-15)


TREES = st.recursive(
    st.sampled_from(["x", "y", "t", "pi", "2", "0.5", "7e-1"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(st.sampled_from(["sin", "cos", "tanh", "abs"]), inner).map(lambda p: f"{p[0]}({p[1]})"),
        inner.map(lambda p: f"-{p}"),
        inner.map(lambda p: f"({p})**2"),
    ),
    max_leaves=8,
)


@given(TREES)
@settings(max_examples=200, deadline=None)
def test_whatever_is_accepted_is_python_and_says_the_same(text: str) -> None:
    names = {"x": 0.3, "y": -0.7, "t": 0.2}
    try:
        tree = expression.expression(text, {"x", "y"})
    except ValueError:
        return  # a constant part was too large
    plain = {"__builtins__": {}, "abs": abs, "pi": np.pi, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, **names}
    assert float(expression.evaluate(tree, names)) == pytest.approx(float(eval(text, plain)), rel=1e-9, abs=1e-12)


HOSTILE = [
    "__import__('os').system('true')",
    "().__class__.__bases__[0].__subclasses__()",
    "x.__class__",
    "open('/etc/passwd')",
    "9**9**9",
    "2**10**8",
    "(lambda: 1)()",
    "[i for i in range(10**9)]",
    "x if t else v",
    "f'{x}'",
    "x := 1",
    "sin",
    "sin()",
    "sin(x, v)",
    "sin(*[x])",
    "torch.sin(x)",
    "x ** t",
    "1j",
    "True",
    "'x'",
    "None",
    "x < 1",
    "x @ v",
    "x // 2",
    "x % 2",
    "sqrt(-1)",
    "(-1) ** 0.5",
    "1 / 0",
    "exp(1000)",
    "1e308 * 10",
    "nan",
    "inf",
    "(" * 150 + "x",
    "\x00",
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_else_has_a_meaning(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        expression.parse_problem(f"x' = {text}\nv' = x\nx in [0, 1]\nv in [0, 1]\nt in [0, 1]")


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    with suppress(ValueError):  # and nothing else
        expression.parse_problem(f"x' = {text}\nx in [0, 1]\nt in [0, 1]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write 1 to 4 like"),
        ("x' = x", "no interval for x and t: add a line like x in"),
        ("x' = y\nx in [0, 1]\nt in [0, 1]", "'y' is not a variable"),
        ("x' = x\nx in [1, 0]\nt in [0, 1]", "below the second"),
        ("x' = x\nx in [0, 1]\ny in [0, 1]\nt in [0, 1]", "no equation: add y'"),
        ("x' = x\nx' = 1\nx in [0, 1]\nt in [0, 1]", "two equations"),
        ("x' = x\nx in [0, 1]\nx in [0, 2]\nt in [0, 1]", "two intervals"),
        ("x' = x\nx in [0, 1]\nt in [1e6 - 1e-3, 1e6]", "too close"),
        ("dx = x", "neither an equation like"),
        ("t' = 1\nt in [0, 1]", "reserved name"),
        ("lambda' = 1\nlambda in [0, 1]\nt in [0, 1]", "reserved name"),
        ("x' = x\nx in [0, 1e9]\nt in [0, 1]", "too large: the limit is"),
        ("x' = " + "x+" * 200 + "x", "characters: at most 200"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        expression.parse_problem(text)


# --------------------------------------------------------------------------------------------------------- points


@pytest.mark.parametrize(
    "text",
    [
        "x,y\n1,2\n3,4.5\n",
        "1;2\n3;4.5",
        "1\t2\r\n3\t4.5\r\n",
        "1 2\n\n3 4.5\n",
        "1,0;2\n3;4,5",
        "\ufeffa,b\n1,2,\n3,4.5,\n",
        "1;2\n\t\n3;4.5",
        "1,2\n,\u00a0,\n3,4.5",
        " \t\n1,2\n3,4.5\n",
    ],
)
def test_csv_of_many_kinds(text: str) -> None:
    np.testing.assert_array_equal(drawn_points.read_csv(text.encode()), [[1, 2], [3, 4.5]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\xff\xfe\x00\x01", "not text"),
        (b"1,2\n3\n", "line 2 is '3': expected two numbers"),
        (b"1,2\nfoo,bar\n", "line 2 is 'foo,bar'"),
        (b",x,y\n0,1,2\n1,3,4\n", "two numbers and nothing else"),
        (b"1,foo\n1,2\n", "line 1 is '1,foo'"),
        ("\u22121,2\n3,4\n".encode(), "line 1 is"),
        (b"1,2\ninf,0\n", "infinity"),
        (b"1,2\nnan,0\n", "NaN"),
        (b"1,2\n" * 5001, "more than 5,000"),
        (b"0" * 2_000_001, "at most 2 MB"),
        (b"1,2\n\n\n\n3,oops\n", "line 5 is '3,oops'"),
        (b'1,2\n"' + b"1,2\n" * 40_000, "quotation mark"),
        (b'1,2\n"3,4\n', "quotation mark"),
        (b"7" * 200_000, "line 1 cannot be read"),
    ],
)
def test_bad_csv_is_told_apart(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        drawn_points.read_csv(content)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_file_is_read_or_refused_in_words(content: bytes) -> None:
    with suppress(ValueError):
        found = drawn_points.read_csv(content)
        assert found.shape[1] == 2
        assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.zeros((0, 2)), "are 0 points:"),
        (np.ones((1, 2)), "is 1 point:"),
        (np.ones((9, 2)), "all points are the same"),
        (np.array([[1e300, 0.0], [-1e300, 1.0]]), "too large for their standard deviation"),
    ],
)
def test_points_that_are_no_teacher(rows: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        drawn_points.standardize(rows)


def test_points_become_a_mixture_like_them() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal((0, 0), 1, (1500, 2)), rng.normal((12, 0), 1, (500, 2))])
    scaled = drawn_points.standardize(rows)
    np.testing.assert_allclose([scaled.mean(), np.sqrt((scaled**2).mean())], [0, 0.7], atol=1e-12)
    means, weights, std = drawn_points.fit_mixture(scaled)
    assert len(means) <= drawn_points.MAX_CENTRES
    assert weights.sum() == pytest.approx(1)
    right = means[:, 0] > scaled[:, 0].mean() + 0.3
    assert weights[right].sum() == pytest.approx(0.25, abs=0.02)
    mixture = pid.GaussianMixture(means, std**2, weights)
    assert mixture.std == pytest.approx(0.7, rel=0.1)


def test_places_that_come_again_weigh_more() -> None:
    means, weights, _ = drawn_points.fit_mixture(np.repeat([[0.0, 0.0], [1.0, 1.0]], [300, 100], axis=0))
    np.testing.assert_array_equal(means, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(weights, [0.75, 0.25])


@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 2), min_size=1, max_size=150))
def test_drawn_points_travel_in_the_address(rows: list[tuple[float, float]]) -> None:
    letters = drawn_points.encode(np.array(rows))
    assert len(letters) <= 400
    np.testing.assert_allclose(drawn_points.decode(letters), rows, atol=drawn_points.STEP / 2 + 1e-9)


@pytest.mark.parametrize(
    ("report", "points"),
    [
        ([], np.zeros((0, 2))),
        ([[1, -1], [0.5, 0.25]], [[1, -1], [0.5, 0.25]]),
        ([[0.1, 0.2]] * 150, [[0.1, 0.2]] * 150),
        (drawn_points.decode("gIA").tolist(), [[-2.56, -2.56]]),  # the farthest that an address holds
    ],
)
def test_points_of_the_canvas(report: list[list[float]], points: object) -> None:
    np.testing.assert_array_equal(drawn_points.from_canvas(report), points)


@pytest.mark.parametrize(
    "report",
    [
        None,
        "abc",
        {},
        3,
        [[0, 0]] * 151,
        [1, 2],
        [[1, 2, 3, 4]],
        [[1], [2]],
        [[0, float("nan")]],
        [[0, None]],
        [[0, 9]],
        [[0, 10**400]],
        [[[0, 0]]],
        [[0, "x"]],
        [[{}, 0]],
    ],
)
def test_what_no_canvas_draws_is_not_points(report: object) -> None:
    assert drawn_points.from_canvas(report) is None


@given(st.text(max_size=50))
def test_letters_of_an_address_are_points_or_nothing(text: str) -> None:
    with suppress(ValueError):
        assert drawn_points.decode(text).shape[1] == 2


# ------------------------------------------------------------------------------------------------------- trainings


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Training]]:
    monkeypatch.setenv("PIDLEARN_NICE", "0")  # next to other tests a nicer worker hardly gets to start
    begun: list[Training] = []

    def starting(job: TrainingJob, **options: object) -> Training:
        begun.append(Training(job, **options))
        return begun[-1]

    yield starting
    for one in begun:
        one.stop()
        one.wait(5)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings only count their steps."""
    monkeypatch.setattr(process, "WORKER", "tests.app.counting_worker")


def until(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


RING = TrainingJob("Ring", "preset", "ring", 100_000, {"seed": 0})


def saved(training: Training, folder: Path) -> pid.Result:
    path = folder / "student.safetensors"
    path.write_bytes(training.progress.file)
    return pid.load(path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the worker has: sums over several threads round otherwise, and training amplifies it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_training_is_that_of_the_library(start: Callable[..., Training], tmp_path: Path) -> None:
    job = TrainingJob("Ring", "preset", "ring", 120, {"n": 20, "seed": 3})
    mine = start(job)
    until(lambda: not mine.active)
    now = mine.progress
    assert (now.state, now.step, now.reason) == ("ended", 120, "")
    assert isinstance(now.scene.panels[0].student, Network)
    library = pid.distill(pid.toy("ring"), steps=120, n=20, seed=3, progress=False)
    z = torch.randn(9, 2) * 80
    with torch.no_grad():
        np.testing.assert_allclose(saved(mine, tmp_path).student(z, 0.002), library.student(z, 0.002), atol=1e-4)
    assert now.metrics["rmse"] == pytest.approx(library.evaluate(512)["rmse"], rel=1e-3)
    assert now.errors[-1][1] < now.errors[0][1]
    assert now.losses[-1][0] == 120


def test_pause_resume_and_a_cancel_that_keeps_the_student(start: Callable[..., Training], tmp_path: Path) -> None:
    mine = start(RING)
    until(lambda: mine.progress.file is not None)
    mine.pause()
    time.sleep(0.5)
    held = mine.progress
    time.sleep(1.5)
    assert mine.progress.state == "paused"
    assert mine.progress.errors == held.errors
    assert mine._process.poll() is not None  # a paused training holds no memory of a worker
    mine.resume()
    until(lambda: mine.progress.step > held.step)
    running = mine._process
    asked = time.monotonic()
    mine.stop()
    until(lambda: not mine.active)
    assert time.monotonic() - asked < 1.0
    assert running.poll() is not None
    assert mine.progress.reason.startswith("cancelled")
    assert saved(mine, tmp_path).student(torch.randn(3, 2), 0.002).shape == (3, 2)


def test_a_paused_training_goes_on_as_if_it_had_not_been_paused(tmp_path: Path) -> None:
    """To the same metrics and weights, bit for bit."""
    job = TrainingJob("Decay", "equations", DECAYS, 12, {"seed": 0, "windows": 1, "batch_size": 16})

    def messages(folder: str, pause: bool = False) -> dict[str, Any]:
        commands, sent = SimpleNamespace(stopped=threading.Event(), paused=threading.Event()), {}
        if pause:
            commands.paused.set()
        worker.train(job, commands, sent.__setitem__, str(tmp_path / folder))
        return sent

    whole = messages("whole")
    assert "done" not in messages("parts", pause=True)
    parts = messages("parts")
    assert parts["done"] == whole["done"]
    students = []
    for name, sent in {"whole": whole, "parts": parts}.items():
        (tmp_path / name).with_suffix(".safetensors").write_bytes(sent["file"])
        students.append(pid.load((tmp_path / name).with_suffix(".safetensors")).student.state_dict())
    assert all(torch.equal(students[0][name], weight) for name, weight in students[1].items())


@pytest.mark.slow
def test_an_ode_cancelled_early_keeps_its_student_too(
    start: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It also trains in a working directory with another package called app."""
    monkeypatch.setattr(process, "GRACE", 30.0)  # a busy machine may need more than the usual 0.8 s
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    mine = start(TrainingJob("Lorenz", "system", "lorenz", 12_000, {"seed": 0}))
    until(lambda: mine.progress.step > 0)
    mine.stop()
    until(lambda: not mine.active)
    assert re.match(r"cancelled: stopped at step \d+ of 12000", mine.progress.reason)
    assert saved(mine, tmp_path).student(torch.randn(3, 3), 0.5).shape == (3, 3)


@pytest.mark.usefixtures("counting")
def test_a_training_whose_visitor_has_gone_ends(
    start: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MAX_ABSENCE", 0.5)
    here = [True]
    mine = start(RING, is_connected=lambda: here[0])
    until(lambda: mine.progress.state == "training")
    here[0] = False
    until(lambda: not mine.active, 5)
    assert mine._process.poll() is not None


@pytest.mark.usefixtures("counting")
def test_a_training_that_takes_too_long_ends(start: Callable[..., Training], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_SECONDS", 1.0)
    mine = start(RING)
    until(lambda: not mine.active, 30)
    assert "limit" in mine.progress.reason


@pytest.mark.usefixtures("counting")
def test_more_trainings_than_slots_wait_their_turn(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., Training]
) -> None:
    monkeypatch.setattr(process, "SLOTS", process.threading.BoundedSemaphore(1))
    one = start(RING)
    until(lambda: one.progress.state != "waiting")
    two = start(RING)
    time.sleep(0.3)
    assert two.progress.state == "waiting"
    one.stop()
    until(lambda: two.progress.state == "training")
    two.stop()
    three = start(RING)
    three.stop()
    until(lambda: not three.active, 5)


@pytest.mark.usefixtures("counting")
def test_who_pauses_leaves_the_turn_to_others(monkeypatch: pytest.MonkeyPatch, start: Callable[..., Training]) -> None:
    monkeypatch.setattr(process, "SLOTS", process.threading.BoundedSemaphore(1))
    one = start(RING)
    until(lambda: one.progress.state == "training")
    two = start(RING)
    one.pause()
    until(lambda: two.progress.state == "training")
    one.resume()
    time.sleep(0.5)
    assert one.progress.state == "waiting"
    held = one.progress.step
    two.pause()
    until(lambda: one.progress.step > held)
    two.stop()  # without a turn of its own
    until(lambda: not two.active, 5)
    three = start(RING)
    time.sleep(0.3)
    assert three.progress.state == "waiting"  # one has the only turn, and it was given back no more than once
    one.stop()
    until(lambda: three.progress.state == "training")


@pytest.mark.usefixtures("counting")
def test_a_word_that_cannot_be_read_is_no_end(start: Callable[..., Training], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: object) -> None:
        raise AttributeError("what is that?")

    monkeypatch.setattr(process.pickle, "load", broken)
    mine = start(RING)
    until(lambda: not mine.active, 10)
    assert "could not be read (AttributeError)" in mine.progress.reason


@pytest.mark.parametrize(
    ("rate", "said"),
    [("2 * x", r"reach 2e\+17, more than"), pytest.param("x**2", "may not exist that far", marks=pytest.mark.slow)],
)
def test_an_ode_that_leaves_all_bounds_is_told_so(rate: str, said: str, tmp_path: Path) -> None:
    problem = expression.parse_problem(f"x' = {rate}\nx in [0, 1]\nt in [0, 20]")
    job = TrainingJob("Your ODE", "equations", problem, 300, {"windows": 2, "n": 9})
    with pytest.raises(ValueError, match=said):
        worker.train(job, SimpleNamespace(), lambda kind, content: None, str(tmp_path))


@pytest.mark.usefixtures("counting")
def test_a_killed_worker_leaves_what_it_had(start: Callable[..., Training]) -> None:
    mine = start(RING)
    until(lambda: mine.progress.file is not None)
    os.kill(mine._process.pid, 9)
    until(lambda: not mine.active, 5)
    assert "ended unexpectedly" in mine.progress.reason
    assert mine.progress.file


TYPED = expression.parse_problem(PENDULUM)
BLOWS_UP = expression.parse_problem("x' = x**2\nx in [1, 2]\nt in [0, 5]")
DECAYS = expression.parse_problem("x' = -x\nx in [1, 2]\nt in [0, 2]")


def test_an_ode_that_cannot_be_solved_is_said(start: Callable[..., Training]) -> None:
    mine = start(TrainingJob("Your ODE", "equations", BLOWS_UP, 100, {}))
    until(lambda: not mine.active)
    assert mine.progress.reason
    assert "unexpectedly" not in mine.progress.reason
    assert "Traceback" not in mine.progress.reason


JOBS = [
    TrainingJob("Moons", "preset", "moons", 1000, {"seed": 0}),
    pytest.param(TrainingJob("Lorenz", "system", "lorenz", 1000, {"derivative": "central"}), marks=pytest.mark.slow),
    TrainingJob(
        "3 drawn points", "points", ([[0.0, 1.0], [1.0, -0.5], [-1.0, -0.5]], [0.5, 0.25, 0.25], 0.1), 1000, {"n": 10}
    ),
    TrainingJob("Your ODE", "equations", TYPED, 1000, {"seed": 1}),
    TrainingJob("Your ODE", "equations", DECAYS, 1000, {}),
    TrainingJob("Your ODE", "equations", expression.parse_problem("a' = 1\na in [0, 1]\nt in [0, 1]"), 1000, {}),
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.title)
def test_the_python_that_is_shown_poses_the_same_problem(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = "steps=30, batch_size=16, progress=False" + ", windows=2" * (job.kind in ("system", "equations"))
    text = snippet(job, View(frame=60, play=False)).replace("steps=1000", few)
    text = text.replace("evaluate()", "evaluate(64)")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(text, "snippet", "exec"), names)
    mine, theirs = build_teacher(job), names["teacher"]
    if job.kind in ("system", "equations"):
        x, t = mine.prior(50, torch.Generator().manual_seed(0)), torch.linspace(0, 1, 50)
        assert torch.allclose(mine.f(x, t), theirs.f(x, t), atol=1e-6)
        spans = ("low", "high", "t_start", "t_end", "names")
        assert [getattr(mine, span) for span in spans] == [getattr(theirs, span) for span in spans]
    else:
        x = torch.randn(50, 2)
        assert torch.allclose(mine.denoise(x, 0.5), theirs.denoise(x, 0.5), atol=1e-4)
    assert (tmp_path / "student.html").stat().st_size > 10_000
