"""Static charts: Altair, in the viewer's palette, each with a text description for screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

__all__ = ["DASHES", "PALETTE", "interval_chart", "line_chart", "scatter_chart"]

PALETTE = ["#d55e00", "#767676", "#0072b2", "#cc79a7", "#009e73", "#e69f00", "#56b4e9"]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1], [1, 3], [10, 4]]


def line_chart(
    rows: Sequence[dict[str, Any]],
    x: str,
    y: str,
    by: str,
    description: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    points: bool = False,
    reverse_x: bool = False,
    height: int = 300,
    legend: bool = True,
) -> None:
    """Draw y over x, one line per value of ``by``, distinguished by dash as well as by colour."""
    names = list(dict.fromkeys(row[by] for row in rows))
    colour = alt.Scale(domain=names, range=PALETTE[: len(names)])
    dash = alt.Scale(domain=names, range=DASHES[: len(names)])
    one_column = len(names) > 3 or sum(map(len, names)) > 30
    look: Any = {"orient": "bottom", "title": None, "labelLimit": 320, "symbolType": "stroke", "symbolSize": 600}
    key = alt.Legend(columns=1 if one_column else 3, **look) if legend else None
    axis = alt.Axis(tickCount=4) if height < 200 else alt.Axis()
    chart = (
        alt.Chart(pd.DataFrame(rows))
        .mark_line(point=points, strokeWidth=2)
        .encode(
            x=alt.X(f"{x}:Q", scale=alt.Scale(type="log" if log_x else "linear", reverse=reverse_x, nice=not log_x)),
            y=alt.Y(f"{y}:Q", scale=alt.Scale(type="log" if log_y else "linear"), axis=axis),
            color=alt.Color(f"{by}:N", scale=colour, legend=key),
            strokeDash=alt.StrokeDash(f"{by}:N", scale=dash, legend=key),
            tooltip=[f"{by}:N", alt.Tooltip(f"{x}:Q", format=".3g"), alt.Tooltip(f"{y}:Q", format=".3g")],
        )
        .properties(height=height)
    )
    st.altair_chart(chart, width="stretch", alt=description)


def interval_chart(
    rows: Sequence[dict[str, Any]], x: str, y: str, by: str, description: str, height: int = 260
) -> None:
    """Draw one point per row, with a bar from the row's "low" to its "high", on a logarithmic scale."""
    names = list(dict.fromkeys(row[by] for row in rows))
    colour = alt.Scale(domain=names, range=PALETTE[: len(names)])
    legend = alt.Legend(orient="bottom", title=None)
    order = list(dict.fromkeys(row[x] for row in rows))
    axis = alt.Axis(labelAngle=-30 if len(order) > 5 else 0, labelLimit=130, labelOverlap=False)
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X(f"{x}:N", sort=order, title=None, axis=axis),
        xOffset=f"{by}:N",
        color=alt.Color(f"{by}:N", scale=colour, legend=legend),
    )
    scale = alt.Scale(type="log")
    marks = base.mark_point(filled=True, size=70).encode(
        y=alt.Y(f"{y}:Q", scale=scale),
        shape=alt.Shape(f"{by}:N", legend=legend),
        tooltip=[f"{x}:N", f"{by}:N", alt.Tooltip(f"{y}:Q", format=".3g")],
    )
    ranges = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", scale=scale, title=y), y2="high:Q")
    st.altair_chart((ranges + marks).properties(height=height), width="stretch", alt=description)


def scatter_chart(rows: Sequence[dict[str, Any]], x: str, y: str, by: str, description: str, height: int = 380) -> None:
    """Draw one point per row on logarithmic axes, coloured and shaped by ``by``, and the line y = 2 x."""
    names = list(dict.fromkeys(row[by] for row in rows))[::-1]
    colour = alt.Scale(domain=names, range=PALETTE[: len(names)])
    legend = alt.Legend(orient="bottom", title=None)
    scale = alt.Scale(type="log", nice=False)
    points = (
        alt.Chart(pd.DataFrame(rows))
        .mark_point(filled=True, size=35, opacity=0.75)
        .encode(
            x=alt.X(f"{x}:Q", scale=scale),
            y=alt.Y(f"{y}:Q", scale=scale),
            color=alt.Color(f"{by}:N", scale=colour, legend=legend),
            shape=alt.Shape(f"{by}:N", scale=alt.Scale(domain=names), legend=legend),
            tooltip=[alt.Tooltip(f"{x}:Q", format=".3g"), alt.Tooltip(f"{y}:Q", format=".3g"), f"{by}:N"],
        )
    )
    ends = [min(row[x] for row in rows), max(row[x] for row in rows)]
    twice = alt.Chart(pd.DataFrame([{x: end, y: 2 * end} for end in ends])).mark_line(color="#888", strokeDash=[4, 4])
    line = twice.encode(x=alt.X(f"{x}:Q", scale=scale), y=alt.Y(f"{y}:Q", scale=scale))
    st.altair_chart((line + points).properties(height=height), width="stretch", alt=description)
