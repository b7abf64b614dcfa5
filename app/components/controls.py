"""Controls whose value is in the address bar."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app.shared.markdown import escape_markdown

__all__ = ["pick", "slide"]


def pick(label: str, options: Mapping[str, str], key: str, default: str | None = None) -> str:
    """Return the option that the visitor picks, the default one (else the first) until then.

    Args:
        label: for screen readers; it is not visible.
        options: each option's value and label; the address holds the label.
        key: the query parameter.
        default: the value that is selected first.
    """
    default = default or next(iter(options))
    _check_address(key, options)
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


def slide(label: str, options: Mapping[str, str], key: str) -> str:
    """Return the option to which the visitor drags a slider, the first one until then; arguments as in `pick`."""
    _check_address(key, options)
    value = st.select_slider(
        label,
        list(options),
        format_func=options.__getitem__,
        key=key,
        bind="query-params",
        label_visibility="collapsed",
        width=400,
    )
    return str(value)


def _check_address(key: str, options: Mapping[str, str]) -> None:
    """Show the visitor that the address holds another value than an option's label."""
    param = st.query_params.get(key)
    if param is not None and param not in options.values():
        message = f"The address has {key}={param[:20]!r}, which is not an option here: ignored."
        st.toast(escape_markdown(message), icon=":material/link_off:")
