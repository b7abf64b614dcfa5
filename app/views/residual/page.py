"""The residual that training minimizes, along each trajectory."""

import streamlit as st

from app.components.charts import line_chart
from app.components.controls import pick
from app.components.viewer import show
from app.shared.assets import PRESETS, student_file
from app.views.residual import model
from app.views.residual.snippet import snippet

st.markdown("### Training minimizes the residual: how much the student violates the ODE")
preset = pick("Data", PRESETS, "data")

residuals = model.recorded(preset)
show(model.scene(preset), "residual", lambda view: snippet(preset, view), student_file(preset))
st.markdown(
    f"The residual is the difference between the student's time derivative and the teacher's vector field. Each row of "
    f"the heat map is one trajectory; rows are sorted by the error at the endpoint. If the lower rows are brighter, "
    f"samples with a larger residual along the trajectory end farther from the teacher. The Spearman rank correlation "
    f"between mean residual and endpoint error is **{residuals.rank_correlation:.2f}** over {len(residuals.path)} "
    f"trajectories."
)

left, right = st.columns(2, gap="large")
with left:
    st.markdown("#### Eq. 8 and Eq. 9: one equation, up to a factor t")
    line_chart(
        model.residual_rows(preset),
        "t",
        "residual",
        "form",
        "Root mean square residual over t on logarithmic axes; that of Eq. 8 grows as t decreases",
        log_x=True,
        log_y=True,
        reverse_x=True,
    )
    st.caption(
        "One student, root mean square over its trajectories. Eq. 8 of the paper is the ODE dx/dt = f with "
        "f = (x − D) / t, where D is the denoiser's output; Eq. 9 is the same times −t. Without that factor the same "
        "error counts more and more as t decreases."
    )
with right:
    st.markdown("#### Why: the Lipschitz constant of the vector field")
    line_chart(
        model.lipschitz_rows(preset),
        "t",
        "spectral norm",
        "over trajectories",
        "Spectral norm of df/dx along exact trajectories over t on logarithmic axes, with 1/t for comparison",
        log_x=True,
        log_y=True,
        reverse_x=True,
    )
    st.caption(
        "Spectral norm of ∂f/∂x along 200 exact trajectories. It is 1/t where D does not depend on x, and "
        "largest where trajectories diverge. Within a mode of width w it is t / (w² + t²), which decreases again below "
        "t = w; for data that are single points (w = 0) it remains 1/t to the end."
    )
