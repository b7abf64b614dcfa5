"""What each choice of the paper is worth: change one, and see."""

import streamlit as st

from app.charts import bars
from app.models import broken, snippets
from app.viewer import show

st.markdown("### Break it: change one choice, and see what it was for")
left, right = st.columns([1, 2.4])
with left:
    data = st.segmented_control(
        "Data",
        list(broken.DATA),
        default="ring",
        required=True,
        key="on",
        format_func=broken.DATA.__getitem__,
        bind="query-params",
    )
with right:
    question = st.pills(
        "Choice", list(broken.QUESTIONS), default="Equation", required=True, key="choice", bind="query-params"
    )
stake, variants = broken.QUESTIONS[question]
variant = st.pills(
    "Changed to",
    list(variants),
    default=next(iter(variants)),
    required=True,
    format_func=variants.__getitem__,
    key=f"changed-{question.lower()}",
    bind="query-params",
)
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
    "tuned anew: “worse” means under this recipe. Weights shown are rounded to half precision."
)
