"""View models: arrays in, arrays out, without Streamlit."""
