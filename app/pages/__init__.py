"""One folder per page: page.py (Streamlit), model.py and snippet.py (no Streamlit, no torch at import)."""
