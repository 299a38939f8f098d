"""Texts, their token windows, and whether they overlap."""
