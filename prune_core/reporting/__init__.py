"""Reports: from runs of a store to one HTML file, slides, a table and recipe files.

``content`` chooses what is told, ``telling`` puts it into words, the others lay it out. No
Streamlit and no torch here; example answers come from whoever is given as ``ask``.
"""
