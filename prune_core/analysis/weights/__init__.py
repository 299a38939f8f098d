"""Distributions and scores of weights."""
