"""Reconstruction: repair of the weights that stay."""
