"""Evaluation: per-token losses of a window, divergence from dense, estimates, generation."""
