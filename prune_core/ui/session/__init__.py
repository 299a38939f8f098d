"""What a session chose: keys, recipe, link, language."""
