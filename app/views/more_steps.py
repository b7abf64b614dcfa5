"""A student is no dead end: where one call is not enough, the teacher's solver walks the rest."""

import streamlit as st

from app.charts import lines
from app.controls import pick
from app.models import export, more_steps, shipped, snippets
from app.viewer import show

st.markdown("### More than one call: jump to t* with the student, then let the teacher walk")
left, right = st.columns([1.5, 1], gap="large")
with left:
    preset = pick("Data", shipped.PRESETS, "data", "anisotropic")
    show(
        more_steps.scene(preset),
        "more-steps",
        lambda view: snippets.more_steps(preset, view),
        {f"{preset}.safetensors": export.student(preset)},
    )
with right:
    st.markdown("#### Error against calls")
    rows = more_steps.errors(preset)
    alone = more_steps.alone(preset)
    lines(
        [row for row in rows if row["method"] != "student alone"]
        + [{"method": "student alone", "calls": calls, "error": alone} for calls in (1, 68)],
        "calls",
        "error",
        "method",
        "Error to the exact ODE against calls of a network, on logarithmic axes",
        log_x=True,
        log_y=True,
        points=True,
        height=560,
    )
    st.caption(more_steps.sentence(preset))
