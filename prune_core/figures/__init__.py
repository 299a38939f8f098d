"""Figures: plain data in, ``plotly.graph_objects.Figure`` out; neither torch nor streamlit."""
