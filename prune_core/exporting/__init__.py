"""From a recipe to files: parts physically removed, a checkpoint that plain transformers loads."""
