"""Models: where they come from, how they are checked and loaded, what they are made of."""
