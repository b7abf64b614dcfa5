"""The viewer on a page of the app, with its view in the address bar and a way out for everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from app.models import export, state
from app.models.markdown import plain
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
    beside: Callable[[View], None] | None = None,
) -> None:
    """A scene, in the view that the address asks for; what the visitor makes of it goes back into the address.

    Args:
        scene: what is shown.
        page: tells the viewers of the pages apart.
        snippet: the Python that rebuilds a view.
        files: further downloads by name.
        beside: writes what stands beside the picture and follows it.
    """
    scene = scene.seen(state.within(scene, scene.view))
    epoch = st.session_state.setdefault(f"{page} epoch", 0)
    data = scene.data()
    stage = f"{data['stage']} {epoch}"
    key = f"{page} viewer {stage}"
    data |= {"id": f"{data['id']} {epoch}", "stage": stage}
    # Only the first look at a scene is the address's to say; from then on the viewer knows, and tells the address.
    # A visitor who comes back from another page, where a new viewer is put up, finds what was left.
    if st.session_state.get(f"{page} shown") != stage:
        view, complaints = state.view_of(st.query_params.to_dict(), scene.view)
        st.session_state[f"{page} shown"], st.session_state[f"{page} first"] = stage, state.within(scene, view)
        for complaint in complaints:
            st.toast(plain(complaint), icon=":material/link_off:")
    elif key not in st.session_state:
        st.session_state[f"{page} first"] = st.session_state[f"{page} last"]
    first: View = st.session_state[f"{page} first"]
    data |= {"view": vars(first)}
    left, right = st.columns([1.3, 1], gap="large") if beside else [st.container()] * 2
    with left:
        told = component(key=key, data=data, on_view_change=lambda: None)
        view = state.within(scene, state.view_from(told.view, first))
        st.session_state[f"{page} last"] = view
        _address(view, scene.view)
        _leave(scene, view, page, snippet, files or {})
    if beside:
        with right:
            beside(view)


def _address(view: View, default: View) -> None:
    wanted = state.params_of(view, default)
    for key in ["v", *(key for key, _ in state.READ.values())]:
        if key not in wanted and key in st.query_params:
            del st.query_params[key]
    if any(st.query_params.get(key) != value for key, value in wanted.items()):
        st.query_params.update(wanted)


def _leave(scene: Scene, view: View, page: str, snippet: Snippet, files: dict[str, bytes]) -> None:
    row = st.container(horizontal=True)
    still = replace(view, play=False)
    with row.popover("Save", icon=":material/download:"):
        st.caption("The view as it is now. The address bar holds it too: copy it to share.")
        ready: dict[str, tuple[str, Callable[[], bytes]]] = {
            "PNG": ("image/png", lambda: export.picture(scene, still, "png")),
            "SVG": ("image/svg+xml", lambda: export.picture(scene, still, "svg")),
            "GIF": ("image/gif", lambda: export.gif(scene, view)),
            "HTML": ("text/html", lambda: scene.seen(view).html().encode()),
        }
        if any(isinstance(panel, Plane) for panel in scene.panels):
            ready["CSV"] = ("text/csv", lambda: export.points(scene, view))
        for kind, (mime, make) in ready.items():
            name = f"pidlearn-{page}.{kind.lower()}"
            st.download_button(kind, make, name, mime, key=f"{page} {kind}", on_click="ignore", width="stretch")
        for name, content in files.items():
            st.download_button(name, content, name, key=f"{page} {name}", on_click="ignore", width="stretch")
    with row.popover("Python", icon=":material/code:"):
        st.caption("This view, with the public API.")
        st.code(snippet(view), language="python")
    kept = "This picture as it starts; what is chosen above it stays"
    if row.button("Reset", icon=":material/restart_alt:", key=f"{page} reset", help=kept):
        _address(scene.view, scene.view)
        st.session_state[f"{page} epoch"] += 1
        st.rerun()
