"""The same loss for any ODE: one network that solves it for every start."""

import streamlit as st

from app.charts import lines
from app.controls import pick
from app.models import snippets, systems
from app.viewer import show
from pidlearn.viewer import View

st.markdown("### Not only diffusion: a student of any ODE answers for every start at once")
name = pick("System", systems.SYSTEMS, "system")
r = systems.recorded(name)
planes = systems.planes(name)
plane = next(iter(planes))
if len(planes) > 1:
    plane = pick("Plane", {plane: plane for plane in planes}, "plane")


def series(view: View) -> None:
    """Every coordinate over time, from the start that is picked in the plane."""
    st.markdown("#### Time series from the start you pick")
    start = systems.start(name, planes[plane], view)
    for coordinate in r.names:
        last = coordinate == r.names[-1]
        lines(
            systems.series(name, coordinate, start),
            "t",
            coordinate,
            "path",
            f"{coordinate} over time from one start: SciPy and the student",
            height=190 if last else 150,
            legend=last,
        )


show(
    systems.scene(name, planes[plane]),
    "systems",
    lambda view: snippets.system(name, planes[plane], view),
    beside=series,
)
st.markdown("#### Where it fails, and why")
lines(
    systems.growth(name),
    "t",
    "relative distance",
    "line",
    "Relative error of the student over time, beside the distance of two exact paths that start at most 0.001 apart",
    log_y=True,
    height=300,
)
st.markdown(
    f"Relative error over the whole path: **{r.figures['relative_rmse']:.2g}**, in the worst coordinate "
    f"{r.figures['worst_coordinate']:.2g} (fresh starts, against SciPy). {systems.sentence(name)}"
)
