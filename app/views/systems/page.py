"""The same loss for any ODE: one network that is its solution from every start."""

import streamlit as st

from app.components.charts import line_chart
from app.components.controls import pick
from app.components.viewer import show
from app.views.systems import model
from app.views.systems.snippet import snippet
from pidlearn.viewer import View

st.markdown("### Not only diffusion: a student can be the solution of any ODE, from every start at once")
name = pick("System", model.SYSTEMS, "system")
system = model.recorded(name)
planes = model.planes(name)
plane = next(iter(planes))
if len(planes) > 1:
    plane = pick("Plane", {plane: plane for plane in planes}, "plane")


def series(view: View) -> None:
    """Draw every coordinate over time, from the start that is selected in the plane."""
    st.markdown("#### Over time, from the selected start")
    start = model.selected_start(name, planes[plane], view)
    for coordinate in system.names:
        last = coordinate == system.names[-1]
        line_chart(
            model.series_rows(name, coordinate, start),
            "t",
            coordinate,
            "solution",
            f"{coordinate} over time from one start: SciPy and the student",
            height=190 if last else 150,
            legend=last,
        )


show(
    model.scene(name, planes[plane]),
    "systems",
    lambda view: snippet(name, planes[plane], view),
    side=series,
)
st.markdown("#### Where it fails, and why")
line_chart(
    model.growth_rows(name),
    "t",
    "relative distance",
    "line",
    "Relative error of the student over time, and the distance of two exact solutions whose starts are at most 0.001 "
    "apart",
    log_y=True,
    height=300,
)
st.markdown(
    f"Relative error over the whole trajectory: **{system.metrics['relative_rmse']:.2g}**, in the worst coordinate "
    f"{system.metrics['worst_coordinate']:.2g} (from new starts, compared with SciPy). {model.sentence(name)}"
)
