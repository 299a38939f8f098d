"""Analysis: numbers for figures, computed from a model; plain data out."""
