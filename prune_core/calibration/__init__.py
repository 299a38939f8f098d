"""Calibration: what a text teaches about the inputs of each layer."""
