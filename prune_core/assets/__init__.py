"""Assets: presets and texts that are fetched, verified and cached instead of being committed."""
