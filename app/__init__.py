"""The app: thin Streamlit pages over view models in plain Python."""
