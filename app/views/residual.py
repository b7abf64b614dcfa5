"""The residual that trains one into the other: where it is, and what it does to the end."""

import streamlit as st

from app.charts import lines
from app.controls import pick
from app.models import export, residual, shipped, snippets
from app.viewer import show

st.markdown("### Training makes one number small: how far the student's own derivative is from the teacher's field")
preset = pick("Data", shipped.PRESETS, "data")

found = residual.recorded(preset)
show(
    residual.scene(preset),
    "residual",
    lambda view: snippets.residual(preset, view),
    {f"{preset}.safetensors": export.student(preset)},
)
st.markdown(
    f"Bright rows below dark ones mean: whoever violates the equation, ends wrong. The mean residual along a path "
    f"ranks its error at the end with a Spearman correlation of **{found.rank:.2f}** over {len(found.path)} paths."
)

left, right = st.columns(2, gap="large")
with left:
    st.markdown("#### Eq. 8 and Eq. 9: the same equation, times t")
    rows = [
        {"t": float(t), "residual": float(max(value, 1e-9)), "form": form}
        for form, values in (("Eq. 9: x − t dx/dt − D", found.eq9), ("Eq. 8: dx/dt − f", found.eq8))
        for t, value in zip(found.t[::3], values[::3], strict=True)
    ]
    lines(
        rows,
        "t",
        "residual",
        "form",
        "Root mean square residual over t on logarithmic axes; Eq. 8's grows as t falls",
        log_x=True,
        log_y=True,
        falling=True,
    )
    st.caption("One student, rms over its paths. Eq. 8 divides by t: as t falls it counts the same error ever more.")
with right:
    st.markdown("#### Why: the field's Lipschitz constant")
    times = shipped.arrays(preset)["times"]
    slope_rows = [
        {"t": float(t), "largest slope of f": float(value), "over the paths": name}
        for name, values in (("median", found.median), ("largest", found.largest))
        for t, value in zip(times, values, strict=True)
    ] + [{"t": float(t), "largest slope of f": 1 / float(t), "over the paths": "1/t"} for t in times]
    lines(
        slope_rows,
        "t",
        "largest slope of f",
        "over the paths",
        "Spectral norm of df/dx along exact paths over t on logarithmic axes, beside 1/t",
        log_x=True,
        log_y=True,
        falling=True,
    )
    st.caption(
        "Spectral norm of ∂f/∂x on 200 exact paths: 1/t where D forgets x, largest where paths part. Within a mode of "
        "width w it is t / (w² + t²), and falls again below t = w; of data that are points (w = 0) it is 1/t to the end"
    )
