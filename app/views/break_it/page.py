"""What each setting of the paper's recipe contributes: change one and compare."""

import streamlit as st

from app.components.charts import interval_chart
from app.components.controls import pick
from app.components.viewer import show
from app.views.break_it import model
from app.views.break_it.snippet import snippet

st.markdown("### Break it: change one setting of the recipe, and see what it is good for")
left, right = st.columns([1, 2.4])
with left:
    data = pick("Data", model.DATA, "on")
with right:
    question = pick("Setting", {name: name for name in model.QUESTIONS}, "choice")
explanation, variants = model.QUESTIONS[question]
variant = pick("Changed to", variants, f"changed-{question.lower()}")
st.markdown(explanation)
st.markdown(model.sentence(data, variant))
show(
    model.scene(data, variant, variants[variant]),
    "break-it",
    lambda view: snippet(data, variant, view),
)
interval_chart(
    model.error_rows(data, question),
    "variant",
    "error",
    "kind",
    f"Errors of the reference and of each variant of {question.lower()}, with the range over two seeds",
)
st.caption(
    "Chart and text: `python -m benchmarks.ablation`, 1,500 training steps, too few to rank variants that are close to "
    "each other at N = 250. No variant was tuned separately: “worse” means worse under this recipe. The picture shows "
    "another run (seed 0, weights rounded to half precision), with its own errors below it: where training is unstable "
    "(Eq. 8, small weights of a soft boundary), the same seed gives different students on different machines."
)
