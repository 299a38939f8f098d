"""Which blocks matter."""
