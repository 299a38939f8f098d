"""The only part of prune_core that imports streamlit: state, frame and shared controls."""

from prune_core.ui.frame.boot import start_early

# before the imports of whichever page comes first, which take as long as the worker's
start_early()
