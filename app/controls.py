"""Choices that live in the address bar."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

__all__ = ["pick"]


def pick(label: str, names: Mapping[str, str], key: str, default: str | None = None) -> str:
    """One of ``names``, shown by its text; the first if no other is the default."""
    return st.pills(
        label,
        list(names),
        default=default or next(iter(names)),
        required=True,
        format_func=names.__getitem__,
        key=key,
        bind="query-params",
        label_visibility="collapsed",
        wrap=True,
    )
