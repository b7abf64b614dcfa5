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
    f"The teacher is {pictures.TEACHERS[name]}. The student's error to its Euler-250, over the spread of its samples: "
    f"**{figures['relative_rmse']:.3f}**. The time slider asks the student for x(z, t) at every t: it has learned the "
    f"whole path, not only its end. Images are shown over √(1 + t²), so that noise fits the grey scale."
)
