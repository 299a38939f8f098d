"""The only part of prune_core that imports streamlit: state, frame and shared controls."""
