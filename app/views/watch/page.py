"""Teacher and student start at the same noise; one call of the student replaces all steps of the teacher's solver."""

import streamlit as st

from app.components.controls import pick
from app.components.viewer import show
from app.shared.assets import PRESETS, student_file
from app.views.watch import model
from app.views.watch.snippet import snippet

st.markdown("### A diffusion model samples by solving an ODE. The student *is* the solution.")

left, right = st.columns([2.1, 1], gap="large")
with left:
    preset = pick("Data", PRESETS, "data")
    show(model.scene(preset), "watch", lambda view: snippet(preset, view), student_file(preset))
with right:
    st.markdown(
        """
Every **grey ring** is a point of noise on its way to the data. It is moved by the *teacher*: an ODE solver, which
evaluates a denoiser at each of its steps (Euler: N − 1 times). Every **orange dot** is the *student*, from the same
noise: a network that returns the position at any time t in one call.

**Try**
- With 250 points both agree, and Euler needs 249 calls for it. **Drag N down** to 10, then to 3: the grey rings miss
  the data. The student does not change: it still takes one call.
- Drag the **yellow ring**, a noise point z, and watch its two trajectories. Near the border between two modes, a tiny
  change of z leads to a different mode.
- Select *exact (SciPy)* as the teacher: what remains is the student's own error.
- Tick **raw x** to see why points are drawn at x / √(σ² + t²), with σ the standard deviation of the data: the noise
  at t = 80 is about a hundred times larger than the data.
"""
    )
