"""Small components that a browser draws: for each its script and its style in files beside it.

Texts of models and files reach them as data and are set as text, never as markup.
"""
