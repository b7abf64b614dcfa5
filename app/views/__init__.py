"""One folder per page: page.py (Streamlit), model.py and snippet.py (no Streamlit, no torch at import).

The folder must not be called "pages": next to main.py, Streamlit takes that name as the sign of an older kind of app,
and answers the first link to a page with "Page not found".
"""
