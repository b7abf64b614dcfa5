"""Train a student in the browser, and watch it learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.components.charts import line_chart
from app.components.controls import pick
from app.components.sketch import sketch
from app.components.viewer import show
from app.shared.assets import PRESETS
from app.shared.markdown import escape_markdown
from app.training import drawn_points
from app.training.job import ZOO, TrainingJob
from app.training.process import Progress, Training
from app.views.train import model
from app.views.train.snippet import REPLAY, snippet


def main() -> None:
    """Lay out the page: controls on the left, the training on the right."""
    st.markdown("### Train a student, and watch it become the solution")
    left, right = st.columns([1, 1.9], gap="large")
    with left:
        job, problem = read_controls()
        if problem:
            st.warning(escape_markdown(problem), icon=":material/edit:")
        training: Training | None = st.session_state.get("training")
        active = training is not None and training.active
        pressed = st.button("Train", type="primary", disabled=job is None or active, icon=":material/model_training:")
        if pressed and job is not None:
            st.session_state["training"] = Training(job, is_connected())
            st.rerun()
    with right:
        if training is None:
            st.info(
                "Choose what the student should solve, then press **Train**. It takes 10 seconds to 3 minutes. Until "
                "then, a training that was recorded: grey is the teacher, orange is the student, from the same noise. "
                "Drag **step**.",
                icon=":material/school:",
            )
            show(model.replay(), "replay", lambda view: REPLAY)
            line_chart(
                model.replayed_errors(),
                "step",
                "rmse",
                "of",
                "Error of 250 samples over the steps of the recorded training",
                log_x=True,
                log_y=True,
                height=220,
                legend=False,
            )
        else:
            st.fragment(show_progress, run_every=1.0 if active else None)(training)


def read_controls() -> tuple[TrainingJob | None, str]:
    """Show the controls; return the job that they describe, or what is wrong with it."""
    kind = pick("Teacher", model.SOURCES, "teacher")
    teacher = {"preset": preset, "points": points, "system": system, "equations": equations}[kind]()
    steps = pick("Steps", model.STEPS, "steps", "3000")
    with st.expander("Recipe"):
        st.caption("Time derivative of the student")
        derivative = pick("Derivative", model.RECIPE_DERIVATIVES, "derivative")
        st.caption("N, number of points of the time grid")
        n = pick("N", model.GRID_SIZES, "grid")
        st.caption("Random seed")
        seed = pick("Seed", model.SEEDS, "seed")
    return model.training_job(kind, teacher, steps, derivative, n, seed), teacher.problem


def preset() -> model.Teacher:
    """Let the visitor pick a mixture."""
    name = pick("Data", PRESETS, "data")
    return model.Teacher(name, PRESETS[name])


def system() -> model.Teacher:
    """Let the visitor pick an ODE."""
    name = pick("System", ZOO, "system")
    return model.Teacher(name, ZOO[name])


def points() -> model.Teacher:
    """Let the visitor draw points or upload a file; the address may hold points, too."""
    drawn = np.asarray(st.session_state.setdefault("drawn", points_of_address())).reshape(-1, 2)
    sketched = sketch(drawn.tolist())
    if sketched is not None:
        drawn = sketched
        st.session_state["drawn"] = drawn.tolist()
    file = st.file_uploader("or a CSV file: two numbers per line", type=["csv", "txt"], key="csv")
    text = drawn_points.encode(drawn)
    if text:
        st.query_params["points"] = text
    elif "points" in st.query_params:
        del st.query_params["points"]
    if file is None:
        return model.teacher_from_points(drawn)
    teacher = model.teacher_from_points(drawn, file.name, file.getvalue())
    if teacher.note:
        st.caption(teacher.note)
    return teacher


def points_of_address() -> list[list[float]]:
    """Return the points that the address holds."""
    text = st.query_params.get("points", "")
    try:
        return drawn_points.decode(text).tolist() if text else []
    except ValueError as error:
        st.toast(escape_markdown(model.as_sentence(error)), icon=":material/link_off:")
        return []


def equations() -> model.Teacher:
    """Let the visitor type an ODE."""
    text = st.text_area(
        "Equations",
        model.DUFFING,
        height=160,
        max_chars=2000,
        key="equations",
        bind="query-params",
        help=model.EQUATIONS_HELP,
    )
    return model.teacher_from_equations(text)


def is_connected() -> Callable[[], bool]:
    """Return a function that says, from any thread, whether this visitor's tab is open."""
    context = get_script_run_ctx()
    session = context.session_id if context else ""
    return lambda: not Runtime.exists() or Runtime.instance().is_active_session(session)


def cancel(training: Training) -> None:
    """Stop a training, and wait briefly for its student."""
    training.stop()
    training.wait(1.0)


def show_progress(training: Training) -> None:
    """Show a training: bar and buttons, picture, curves, metrics. Streamlit calls it once per second."""
    progress = training.progress
    show_controls(training, progress)
    if progress.reason:
        st.warning(escape_markdown(model.as_sentence(progress.reason)), icon=":material/info:")
    if progress.scene is not None:
        files = {"student.safetensors": progress.file} if progress.file else {}
        if not progress.scene.is_diffusion:
            st.caption("The student of an ODE is trained window by window: its trajectories grow as it learns.")
        show(progress.scene, "train", lambda view: snippet(training.job, view), files)
    left, right = st.columns(2)
    if progress.losses:
        with left:
            st.markdown("###### Loss")
            rows = [{"step": step, "loss": value, "of": "loss"} for step, value in progress.losses]
            line_chart(rows, "step", "loss", "of", "Training loss over the steps", log_y=True, height=220, legend=False)
    if progress.errors:
        with right:
            st.markdown("###### Error at the endpoint, to the teacher’s own solver")
            rows = [{"step": step, "rmse": value, "of": "error"} for step, value in progress.errors]
            line_chart(
                rows, "step", "rmse", "of", "Error of 256 samples over the steps", log_y=True, height=220, legend=False
            )
    if progress.metrics and progress.scene is not None:
        st.markdown(model.describe_metrics(progress.metrics, progress.scene.modes))


def show_controls(training: Training, progress: Progress) -> None:
    """Show the progress bar, and the buttons of an active training."""
    row = st.container(horizontal=True, vertical_alignment="center")
    row.progress(min(1.0, progress.step / training.job.steps), text=model.describe_progress(training.job, progress))
    if training.active:
        if progress.state == "paused":
            row.button("Resume", icon=":material/play_arrow:", on_click=training.resume, key="resume")
        else:
            row.button(
                "Pause",
                icon=":material/pause:",
                on_click=training.pause,
                key="pause",
                disabled=progress.state != "training",
            )
        row.button("Cancel", icon=":material/stop:", on_click=cancel, args=(training,), key="cancel")
    elif st.session_state.get("ended") != id(training):
        st.session_state["ended"] = id(training)
        st.rerun()  # of the whole page, whose Train button is enabled again


main()
