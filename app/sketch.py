"""A canvas that points are drawn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st

__all__ = ["sketch"]

component = st.components.v2.component("pidlearn_sketch", js=(Path(__file__).parent / "sketch.js").read_text("utf-8"))


def sketch(first: list[list[float]], most: int) -> np.ndarray | None:
    """Points (M, 2) within [-1, 1]², None until something is drawn. A canvas that is new shows ``first``."""
    told = component(key="sketch", data={"points": first, "most": most}, on_points_change=lambda: None)
    return None if told.points is None else np.asarray(told.points, float).reshape(-1, 2)
