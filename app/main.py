"""See a diffusion model become one step: `streamlit run app/main.py`, or `pidlearn app`."""

import sys
from pathlib import Path

import streamlit as st

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:  # Streamlit adds the folder of this script, not the one that contains `app`
    sys.path.insert(0, ROOT)

PAGES = [
    st.Page("views/watch/page.py", title="Watch", icon=":material/play_circle:", default=True),
    st.Page("views/residual/page.py", title="Residual", icon=":material/grid_on:", url_path="residual"),
    st.Page("views/break_it/page.py", title="Break it", icon=":material/heart_broken:", url_path="break-it"),
    st.Page("views/train/page.py", title="Train", icon=":material/model_training:", url_path="train"),
    st.Page("views/more_steps/page.py", title="More steps", icon=":material/double_arrow:", url_path="more-steps"),
    st.Page("views/methods/page.py", title="Methods", icon=":material/compare:", url_path="methods"),
    st.Page("views/systems/page.py", title="Any ODE", icon=":material/line_axis:", url_path="any-ode"),
    st.Page("views/images/page.py", title="Images", icon=":material/image:", url_path="images"),
]

st.set_page_config(page_title="pidlearn", page_icon="🎯", layout="wide")
# Streamlit's own padding above the first line is far larger.
st.html("<style>.stMainBlockContainer { padding-top: 4.2rem; padding-bottom: 2rem; }</style>")


def main() -> None:
    """Run the page of the address, and link to its lessons."""
    from app.shared.lessons import links  # needs the path that is set above

    page = st.navigation(PAGES, position="top")
    page.run()
    st.caption(links(page.url_path))


main()
