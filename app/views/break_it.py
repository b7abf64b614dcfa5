"""What each choice of the paper is worth: change one, and see."""

import streamlit as st

from app.charts import bars
from app.controls import pick
from app.models import broken, snippets
from app.viewer import show

st.markdown("### Break it: change one choice, and see what it was for")
left, right = st.columns([1, 2.4])
with left:
    data = pick("Data", broken.DATA, "on")
with right:
    question = pick("Choice", {name: name for name in broken.QUESTIONS}, "choice")
stake, variants = broken.QUESTIONS[question]
variant = pick("Changed to", variants, f"changed-{question.lower()}")
st.markdown(stake)
st.markdown(broken.sentence(data, variant))
show(
    broken.scene(data, variant, variants[variant]),
    "break-it",
    lambda view: snippets.broken(data, variant, view),
)
bars(
    broken.sweep(data, question),
    "variant",
    "error",
    "kind",
    f"Errors of each variant of {question.lower()} beside the reference, with the range over two seeds",
)
st.caption(
    "All from `python -m benchmarks.ablation`: 1,500 steps, too few to rank what is close at N = 250. No variant was "
    "tuned anew: “worse” means under this recipe. The picture shows a run of its own, seed 0, its weights rounded to "
    "half precision, with its own figures below it: where training is unstable (Eq. 8, small soft weights) two runs of "
    "one seed end apart on two machines."
)
