"""Train a student of one's own, and watch it learn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app import charts
from app.controls import pick
from app.models import jobs, points, shipped
from app.models.expression import FUNCTIONS, read
from app.models.jobs import Job
from app.models.markdown import plain
from app.models.training import Progress, Training
from app.sketch import sketch
from app.viewer import show

SOURCES = {"preset": "Preset", "points": "Your points", "system": "ODE of the zoo", "equations": "Your ODE"}
STEPS = {"1000": "1,000 steps", "3000": "3,000", "6000": "6,000", "12000": "12,000"}
RECIPE = {"recipe": "the recipe's", **{name: name for name in jobs.DERIVATIVES}}
POINTS = {"recipe": "the recipe's", **{str(n): str(n) for n in (10, 18, 35, 80, 250, 1000)}}
SEEDS = {str(seed): str(seed) for seed in range(5)}
FIGURES = {
    "rmse": "RMSE to the teacher’s own path",
    "relative_rmse": "relative to the spread",
    "worst_coordinate": "in the worst coordinate",
    "wrong_mode": "share in another mode",
    "energy": "energy distance to the teacher’s samples",
    "energy_floor": "of the teacher’s samples to each other",
}
DUFFING = """x' = v
v' = x - x**3 - 0.2 * v
x in [-1.5, 1.5]
v in [-1, 1]
t in [0, 8]
"""


def main() -> None:
    """The page."""
    st.markdown("### Train a student, and watch it learn to be the solution")
    left, right = st.columns([1, 1.9], gap="large")
    with left:
        job, complaint = asked()
        if complaint:
            st.warning(plain(complaint), icon=":material/edit:")
        training: Training | None = st.session_state.get("training")
        busy = training is not None and training.under_way
        pressed = st.button("Train", type="primary", disabled=job is None or busy, icon=":material/model_training:")
        if pressed and job is not None:
            st.session_state["training"] = Training(job, present())
            st.rerun()
    with right:
        if training is None:
            st.info(
                "Choose what the student shall solve, then **Train**: some 10 to 60 seconds. Grey is the teacher, "
                "orange the student as it is at that moment, from the same starts.",
                icon=":material/school:",
            )
        else:
            st.fragment(followed, run_every=1.0 if busy else None)(training)


def asked() -> tuple[Job | None, str]:
    """The job that the controls describe, or what is wrong with it."""
    kind = pick("Teacher", SOURCES, "teacher")
    controls = {"preset": preset, "points": own_points, "system": system, "equations": equations}
    teacher, title, complaint = controls[kind]()
    steps = int(pick("Steps", STEPS, "steps", "3000"))
    choices: dict[str, Any] = {}
    with st.expander("Recipe"):
        st.caption("Derivative of the student in time")
        derivative = pick("Derivative", RECIPE, "derivative")
        st.caption("N, points of the time grid")
        n = pick("N", POINTS, "grid")
        st.caption("Seed")
        choices["seed"] = int(pick("Seed", SEEDS, "seed"))
    if derivative != "recipe":
        choices["derivative"] = derivative
    if n != "recipe":
        choices["n"] = int(n)
    return (None if complaint else Job(title, kind, teacher, steps, choices)), complaint


def preset() -> tuple[Any, str, str]:
    """Teacher, title and complaint: a mixture by name."""
    name = pick("Data", shipped.PRESETS, "data")
    return name, shipped.PRESETS[name], ""


def system() -> tuple[Any, str, str]:
    """Teacher, title and complaint: an ODE by name."""
    name = pick("System", jobs.ZOO, "system")
    return name, jobs.ZOO[name], ""


def own_points() -> tuple[Any, str, str]:
    """Teacher, title and complaint: points that are drawn, or come in a file or in the address."""
    drawn = np.asarray(st.session_state.setdefault("drawn", addressed())).reshape(-1, 2)
    told = sketch(drawn.tolist(), points.CENTRES)
    if told is not None:
        drawn = told
        st.session_state["drawn"] = drawn.tolist()
    file = st.file_uploader("or a CSV file: two numbers in every line", type=["csv", "txt"], key="csv")
    title = f"{len(drawn)} drawn points"
    letters = points.to_address(drawn)
    if letters:
        st.query_params["points"] = letters
    elif "points" in st.query_params:
        del st.query_params["points"]
    try:
        if file is not None:
            drawn = points.read_csv(file.getvalue())
            name = re.sub(r"[^\w. -]", "", file.name)[:40]
            title = f"{len(drawn):,} points of {name}"
        scaled = points.centred(drawn)
        means, weights, std = points.clustered(scaled)
    except ValueError as error:
        return None, title, ended(error) if len(drawn) or file is not None else "Draw some points, or upload a file."
    if file is not None:
        unit = float(drawn.std(0).max() / scaled.std(0).max())
        st.caption(
            f"{len(drawn):,} points, less their mean and over {unit:.3g}, as a mixture of {len(means)} Gaussians of "
            f"standard deviation {std:.2f}: figures and files are in that unit."
        )
    return (means.tolist(), weights.tolist(), std), title, ""


def addressed() -> list[list[float]]:
    """The points of the address."""
    letters = st.query_params.get("points", "")
    try:
        return points.from_address(letters).tolist() if letters else []
    except ValueError as error:
        st.toast(plain(ended(error)), icon=":material/link_off:")
        return []


def equations() -> tuple[Any, str, str]:
    """Teacher, title and complaint: an ODE that is typed."""
    text = st.text_area(
        "Equations",
        DUFFING,
        height=160,
        max_chars=2000,
        key="equations",
        bind="query-params",
        help=f"A line for every derivative, the box that starts are drawn from, and the span of t. Up to 4 variables; "
        f"+ − * / and ** by a number; {', '.join(FUNCTIONS)}; pi, e and t.",
    )
    try:
        return read(text), "Your ODE", ""
    except ValueError as error:
        return None, "Your ODE", ended(error)


def ended(complaint: object) -> str:
    """As a sentence: one mark at its end, however it came."""
    said = str(complaint)
    return f"{said[:1].upper()}{said[1:].rstrip('.')}{'' if said.endswith('?') else '.'}"


def present() -> Callable[[], bool]:
    """A function that says, from any thread, whether this visitor's tab is open."""
    context = get_script_run_ctx()
    session = context.session_id if context else ""
    return lambda: not Runtime.exists() or Runtime.instance().is_active_session(session)


def cancel(training: Training) -> None:
    """Stop it, and wait the moment that this takes."""
    training.stop()
    training.wait(1.0)


def followed(training: Training) -> None:
    """How a training stands, once a second."""
    now = training.progress
    row = st.container(horizontal=True, vertical_alignment="center")
    row.progress(min(1.0, now.step / training.job.steps), text=sentence(training, now))
    if training.under_way:
        if now.state == "paused":
            row.button("Resume", icon=":material/play_arrow:", on_click=training.resume, key="resume")
        else:
            row.button(
                "Pause",
                icon=":material/pause:",
                on_click=training.pause,
                key="pause",
                disabled=now.state != "training",
            )
        row.button("Cancel", icon=":material/stop:", on_click=cancel, args=(training,), key="cancel")
    elif st.session_state.get("told of") != id(training):
        st.session_state["told of"] = id(training)
        st.rerun()  # the page's own controls: it can train again
    if now.said:
        st.warning(plain(ended(now.said)), icon=":material/info:")
    if now.scene is not None:
        files = {"student.safetensors": now.file} if now.file else {}
        if now.scene.sigma_data is None:
            st.caption("The student of an ODE is trained window by window: its paths grow as it learns.")
        show(now.scene, "train", lambda view: jobs.snippet(training.job, view), files)
    left, right = st.columns(2)
    if now.losses:
        with left:
            st.markdown("###### Loss")
            rows = [{"step": s, "loss": value, "of": "loss"} for s, value in now.losses]
            charts.lines(
                rows, "step", "loss", "of", "Loss of the batches over the steps", log_y=True, height=220, legend=False
            )
    if now.errors:
        with right:
            st.markdown("###### Error at the end, to the teacher’s own solver")
            rows = [{"step": s, "rmse": value, "of": "error"} for s, value in now.errors]
            charts.lines(
                rows, "step", "rmse", "of", "Error of 256 samples over the steps", log_y=True, height=220, legend=False
            )
    if now.figures and now.scene is not None:
        told = {name: value for name, value in now.figures.items() if name != "wrong_mode" or now.scene.modes}
        st.markdown("On fresh starts: " + ", ".join(f"{FIGURES[name]} **{value:.3g}**" for name, value in told.items()))


def sentence(training: Training, now: Progress) -> str:
    """Beside the bar."""
    done = f"step {now.step:,} of {training.job.steps:,}"
    if now.state == "training" and now.step == training.job.steps:
        return f"{done}: measuring on fresh starts …"
    return {
        "waiting": "waiting for a turn: others are training",
        "starting": "starting, and solving the teacher's ODE …",
        "training": done,
        "paused": f"{done}, paused",
        "ended": f"{training.job.title}: {done}",
    }[now.state]


main()
