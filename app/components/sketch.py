"""A canvas to draw points on; sketch.js draws it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st

from app.training.drawn_points import MAX_CENTRES, from_canvas

__all__ = ["sketch"]

component = st.components.v2.component("pidlearn_sketch", js=(Path(__file__).parent / "sketch.js").read_text("utf-8"))


def sketch(initial: list[list[float]]) -> np.ndarray | None:
    """Show the canvas and return its points, (M, 2) within [-1, 1]², or None until the visitor draws any.

    Args:
        initial: the points of a newly opened canvas.
    """
    state = component(key="sketch", data={"points": initial, "limit": MAX_CENTRES}, on_points_change=lambda: None)
    return from_canvas(state.points)
