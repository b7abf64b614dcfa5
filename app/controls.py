"""Choices that live in the address bar."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app.models.markdown import plain

__all__ = ["pick"]


def pick(label: str, names: Mapping[str, str], key: str, default: str | None = None) -> str:
    """One of ``names``, shown by its text; the first if no other is the default."""
    default = default or next(iter(names))
    said = st.query_params.get(key)
    if said is not None and said not in names.values():
        complaint = f"The address says {key}={said[:20]!r}, which is no choice here: left out."
        st.toast(plain(complaint), icon=":material/link_off:")
        del st.query_params[key]
    found = st.pills(
        label,
        list(names),
        default=default,
        required=True,
        format_func=names.__getitem__,
        key=key,
        bind="query-params",
        label_visibility="collapsed",
        wrap=True,
    )
    return default if found is None else found  # None: the address has the parameter, and nothing in it
