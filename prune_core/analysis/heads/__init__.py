"""Which attention heads matter, and what one looks at."""
