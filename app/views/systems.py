"""The same loss for any ODE: one network that solves it for every start."""

import streamlit as st

from app.charts import lines
from app.controls import pick
from app.models import snippets, systems
from app.viewer import show

st.markdown("### Not only diffusion: a student of any ODE answers for every start at once")
name = pick("System", systems.SYSTEMS, "system")
r = systems.recorded(name)
left, right = st.columns([1.3, 1], gap="large")
with left:
    pairs = {f"{a} and {b}": (i, j) for i, a in enumerate(r.names) for j, b in enumerate(r.names) if i < j}
    plane = next(iter(pairs))
    if len(pairs) > 1:
        plane = st.segmented_control("Plane", list(pairs), default=plane, required=True, key="plane")
    show(systems.scene(name, pairs[plane]), "systems", lambda view: snippets.system(name, view))
with right:
    st.markdown("#### Time series from one start")
    start = st.slider("Start", 1, r.exact.shape[1], 1, key="start", bind="query-params") - 1
    for name_of in r.names:
        lines(
            systems.series(name, name_of, start),
            "t",
            name_of,
            "path",
            f"{name_of} over time from one start: SciPy and the student",
            height=190 if name_of == r.names[-1] else 150,
            legend=name_of == r.names[-1],
        )
st.markdown("#### Where it fails, and why")
lines(
    systems.growth(name),
    "t",
    "relative distance",
    "line",
    "Relative error of the student over time, beside the distance of two exact paths that start 0.001 apart",
    log_y=True,
    height=300,
)
st.markdown(
    f"Relative error over the whole path: **{r.figures['relative_rmse']:.3f}**, in the worst coordinate "
    f"{r.figures['worst_coordinate']:.3f} (fresh starts, against SciPy). Where two *exact* paths part exponentially, "
    f"as Lorenz's do, any small error of a student parts as fast: over three Lyapunov times it is lost, and no "
    f"residual that is merely small can keep it."
)
