"""Small images on their way from noise: teacher and student from the same z, at every t."""

import streamlit as st

from app.components.controls import pick
from app.components.viewer import show
from app.views.images import model
from app.views.images.snippet import snippet

st.markdown("### Images: one call of the student, 240 calls of the teacher, from the same noise")
name = pick("Data", model.DATA, "images")
show(model.scene(name), "images", lambda view: snippet(name, model.count(name), view))
st.markdown(
    f"The teacher is {model.TEACHERS[name]}. The student's RMSE to the teacher's Euler-250 solution, divided by the "
    f"standard deviation of the teacher's samples, is **{model.metrics(name)['relative_rmse']:.3f}**. The time slider "
    f"evaluates x(z, t) at every t: the student has learned the whole trajectory, not only its endpoint. Images are "
    f"divided by √(1 + t²) so that noise fits the grey scale."
)
