"""Every method learns a piece of one object, the flow map: two of them side by side."""

import streamlit as st

from app.components.controls import pick, slide
from app.components.viewer import show
from app.views.methods import model
from app.views.methods.snippet import snippet

st.markdown("### Methods: each learns a piece of the flow map X(x; s → t), which carries x at time s to time t")
labels = {name: shown.label for name, shown in model.METHODS.items()}
one = pick("First method", labels, "one", "pid")
two = pick("Second method", labels, "two", "cd")
calls = int(slide("Calls", {str(k): f"{k} call{'s' * (k > 1)}" for k in model.CALLS}, "calls"))
show(model.scene((one, two), calls), "methods", lambda view: snippet((one, two), calls, view))
for column, method in zip(st.columns(2, gap="large"), (one, two), strict=True):
    shown = model.METHODS[method]
    with column:
        st.markdown(f"#### {shown.label}")
        picture, text = st.columns([1, 1.6])
        picture.image(model.drawing(method), caption=f"learned: {model.piece(method)}")
        text.markdown(
            f"**Identity**: {shown.identity}.\n\n**Whose points**: {shown.points}.\n\n"
            f"**Held constant**: {shown.constant}."
        )
        if model.calls_of(method, calls) != calls:
            st.caption(f"Its student is called once, so one call is shown instead of {calls}.")
        st.markdown(model.row(method, calls))
st.caption(
    "Measured by `python -m benchmarks.methods`: the same network and CPU time for each method, its solved paths "
    "included; optimiser, learning rate and one more setting from the same small search. The picture shows one of "
    "the runs, with straight lines, which its scale bends, where a method learns no state between the ends of a step."
)
