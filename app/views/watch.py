"""Teacher and student leave the same noise point; one call of the student ends where the teacher's solver ends."""

import streamlit as st

from app.controls import pick
from app.models import export, shipped, snippets
from app.viewer import show

st.markdown("### A diffusion model samples by solving an ODE. The student *is* the solution.")

left, right = st.columns([2.1, 1], gap="large")
with left:
    preset = pick("Data", shipped.PRESETS, "data")
    show(
        shipped.watch(preset),
        "watch",
        lambda view: snippets.watch(preset, view),
        {f"{preset}.safetensors": export.student(preset)},
    )
with right:
    st.markdown(
        """
Every **grey ring** is a noise point on its way to the data, carried by the *teacher*: an ODE solver that asks the
denoiser N − 1 times. Every **orange dot** is the *student* from the same noise: one network call for any time t.

**Try**
- Drag **N** down to 3. Euler cuts the corners; the student, trained against 250 points, does not move.
- Drag the **yellow ring**, a noise point z: both its paths follow. Between two modes a hair's breadth decides.
- Choose *exact (SciPy)* as teacher: what is left is the student's own error.
- **raw x** shows why everything here is drawn as x / √(σ² + t²): noise at t = 80 is a hundred times the data.
"""
    )
