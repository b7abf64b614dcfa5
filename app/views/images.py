"""Small images on their way from noise: the same z for teacher and student, at every t."""

import streamlit as st

from app.controls import pick
from app.models import pictures, snippets
from app.viewer import show

st.markdown("### Images: one call of the student from the same noise as the teacher's 240")
name = pick("Data", pictures.DATA, "images")
scene = pictures.scene(name)
show(scene, "images", lambda view: snippets.pictures(name, pictures.count(name), view))
figures = pictures.figures(name)
st.markdown(
    f"Error to Euler-250 over the spread of its samples: **{figures['relative_rmse']:.3f}**. The time slider asks the "
    f"student for x(z, t) at every t: it has learned the whole path, not only its end. Images are shown over "
    f"√(1 + t²), "
    f"so that noise fits the grey scale."
)
