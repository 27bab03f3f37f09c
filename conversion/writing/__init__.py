"""Writing a model repository: all of it, or nothing."""
