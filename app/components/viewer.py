"""The viewer on a page of the app: its view is in the address bar, and can be saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from app.shared import export, url_state
from app.shared.markdown import escape_markdown
from pidlearn.viewer import Plane, Scene, View, script

__all__ = ["show"]

component = st.components.v2.component("pidlearn_viewer", js=script())

Snippet = Callable[[View], str]


@st.fragment
def show(
    scene: Scene,
    page: str,
    snippet: Snippet,
    files: dict[str, bytes] | None = None,
    side: Callable[[View], None] | None = None,
) -> None:
    """Show a scene in the view of the address, and keep the address up to date with what the visitor changes.

    Args:
        scene: what is shown.
        page: the page's name, which keeps the viewers of different pages separate.
        snippet: returns the Python that rebuilds a view.
        files: further downloads, by file name.
        side: draws the column next to the picture, and is called again whenever the view changes.
    """
    scene = scene.seen(url_state.clamp_view(scene, scene.view))
    epoch = st.session_state.setdefault(f"{page} epoch", 0)  # resets so far: a new epoch is a new viewer
    data = scene.data()
    stage = f"{data['stage']} {epoch}"
    key = f"{page} viewer {stage}"
    data |= {"id": f"{data['id']} {epoch}", "stage": stage}
    # The address determines only the first view of a scene. From then on the viewer holds the view, and the address
    # follows it. After a visit to another page the viewer is created anew, from the last view.
    if st.session_state.get(f"{page} shown") != stage:
        view, complaints = url_state.from_params(st.query_params.to_dict(), scene.view)
        st.session_state[f"{page} shown"] = stage
        st.session_state[f"{page} first"] = url_state.clamp_view(scene, view)
        for complaint in complaints:
            st.toast(escape_markdown(complaint), icon=":material/link_off:")
    elif key not in st.session_state:
        st.session_state[f"{page} first"] = st.session_state[f"{page} last"]
    first: View = st.session_state[f"{page} first"]
    data |= {"view": vars(first)}
    left, right = st.columns([1.3, 1], gap="large") if side else [st.container()] * 2
    with left:
        state = component(key=key, data=data, on_view_change=lambda: None)
        view = url_state.clamp_view(scene, url_state.from_viewer(state.view, first))
        st.session_state[f"{page} last"] = view
        _write_address(view, scene.view)
        _buttons(scene, view, page, snippet, files or {})
    if side:
        with right:
            side(view)


def _write_address(view: View, default: View) -> None:
    params = url_state.to_params(view, default)
    for key in ["v", *(key for key, _ in url_state.PARAMETERS.values())]:
        if key not in params and key in st.query_params:
            del st.query_params[key]
    if any(st.query_params.get(key) != value for key, value in params.items()):
        st.query_params.update(params)


def _buttons(scene: Scene, view: View, page: str, snippet: Snippet, files: dict[str, bytes]) -> None:
    """Lay out Save, Python and Reset; a file is made when its button is pressed."""
    row = st.container(horizontal=True)
    paused = replace(view, play=False)
    with row.popover("Save", icon=":material/download:"):
        st.caption("Save the current view. To share it, copy the link from the address bar.")
        formats: dict[str, tuple[str, Callable[[], bytes]]] = {
            "PNG": ("image/png", lambda: export.image_bytes(scene, paused, "png")),
            "SVG": ("image/svg+xml", lambda: export.image_bytes(scene, paused, "svg")),
            "GIF": ("image/gif", lambda: export.gif_bytes(scene, view)),
            "HTML": ("text/html", lambda: scene.seen(view).html().encode()),
        }
        if any(isinstance(panel, Plane) for panel in scene.panels):
            formats["CSV"] = ("text/csv", lambda: export.csv_bytes(scene, view))
        for kind, (mime, make) in formats.items():
            name = f"pidlearn-{page}.{kind.lower()}"
            st.download_button(kind, make, name, mime, key=f"{page} {kind}", on_click="ignore", width="stretch")
        for name, content in files.items():
            st.download_button(name, content, name, key=f"{page} {name}", on_click="ignore", width="stretch")
    with row.popover("Python", icon=":material/code:"):
        st.caption("Rebuild this view with the library:")
        st.code(snippet(view), language="python")
    explanation = "Reset this picture; the options above it stay as they are"
    if row.button("Reset", icon=":material/restart_alt:", key=f"{page} reset", help=explanation):
        _write_address(scene.view, scene.view)
        st.session_state[f"{page} epoch"] += 1
        st.rerun()
