"""Which intermediate neurons matter."""
