"""What several pages use, without Streamlit and without torch at import."""
