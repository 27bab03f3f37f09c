"""The checkpoint that the package carries."""

from pathlib import Path

DEFAULT = "default"  # what commands call it


def default_checkpoint() -> Path:
    """Folder of the embedded checkpoint: a small FlashInternImage that knows 202 classes of ImageNet."""
    return Path(__file__).parents[1] / "default"


def model_folder(model: str | Path) -> str | Path:
    """Where a model lies that a user names: a folder, an id on the Hub, or "default" for the embedded checkpoint."""
    return default_checkpoint() if model == DEFAULT else model
