"""The app: Streamlit pages over plain-Python models of what they show.

- ``views/NAME``: ``page.py`` lays the page out, ``model.py`` prepares what it shows, ``snippet.py`` writes the Python
  that rebuilds the view.
- ``components``: Streamlit elements that pages share.
- ``shared``: assets, exports and addresses, without Streamlit.
- ``training``: students trained in worker processes, without Streamlit.
"""
