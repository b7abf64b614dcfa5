"""Where one call is not accurate enough, the teacher's solver continues from the student's point."""

import streamlit as st

from app.components.charts import line_chart, scatter_chart
from app.components.controls import pick
from app.components.viewer import show
from app.shared.assets import PRESETS, student_file
from app.views.more_steps import model
from app.views.more_steps.snippet import snippet

st.markdown("### More than one call: the student jumps to t*, the teacher's solver does the rest")
left, right = st.columns([1.5, 1], gap="large")
with left:
    preset = pick("Data", PRESETS | model.IMAGES, "data", "anisotropic")
    if preset in model.IMAGES:
        st.image(model.pictures(preset), model.pictures_sentence(preset), output_format="PNG")
    else:
        show(model.scene(preset), "more-steps", lambda view: snippet(preset, view), student_file(preset))
with right:
    st.markdown("#### Error and number of network calls")
    line_chart(
        model.chart_rows(preset),
        "calls",
        "error",
        "method",
        "Error to the exact ODE over the number of network calls, on logarithmic axes",
        log_x=True,
        log_y=True,
        points=True,
        height=560,
    )
    st.caption(model.sentence(preset))
st.markdown("#### Which samples are off can be estimated")
chart, text = st.columns([1.5, 1], gap="large")
with chart:
    scatter_chart(
        model.estimate_rows(preset),
        "estimate",
        "error",
        "sample",
        "Error of each sample over the estimate of it, logarithmic",
    )
text.markdown(model.estimate_sentence(preset))
