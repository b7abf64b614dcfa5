"""Controls whose value is in the address bar."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app.shared.markdown import escape_markdown

__all__ = ["pick"]


def pick(label: str, options: Mapping[str, str], key: str, default: str | None = None) -> str:
    """Return the option that the visitor picks, the default one (else the first) until then.

    Args:
        label: for screen readers; it is not visible.
        options: each option's value and label; the address holds the label.
        key: the query parameter.
        default: the value that is selected first.
    """
    default = default or next(iter(options))
    param = st.query_params.get(key)
    if param is not None and param not in options.values():
        message = f"The address has {key}={param[:20]!r}, which is not an option here: ignored."
        st.toast(escape_markdown(message), icon=":material/link_off:")
    value = st.pills(
        label,
        list(options),
        default=default,
        required=True,
        format_func=options.__getitem__,
        key=key,
        bind="query-params",
        label_visibility="collapsed",
        wrap=True,
    )
    return default if value is None else value  # None: the parameter is in the address, but empty
