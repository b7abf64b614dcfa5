"""Streamlit elements that several pages use."""
