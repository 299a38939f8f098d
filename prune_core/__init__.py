"""Prunescope's library: model, scores, masks, working copy, evaluation. Never imports Streamlit.

Nothing is imported here on purpose: the web process uses ``prune_core.engine.client`` and
``prune_core.figures``, which must not pull in torch.
"""

__version__ = "0.1.0"
