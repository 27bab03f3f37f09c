"""`hf-models`: one file a command group; each command is one call into the room that does the work."""

from .program import app, convert_main, main

__all__ = ["app", "convert_main", "main"]
