"""Parts of the Studio page."""
