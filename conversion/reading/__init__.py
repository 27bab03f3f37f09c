"""Finding and reading checkpoints of strangers, without running code from them."""
