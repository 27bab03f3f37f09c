"""What users call models and checkpoints, and what is refused at once; nothing here waits for PyTorch."""

from pathlib import Path

from ..errors import InputError
from ..zoo import published_as
from .files import check_path

DEFAULT = "default"  # what commands call the embedded checkpoint


def default_checkpoint() -> Path:
    """Folder of the embedded checkpoint: a small FlashInternImage that knows 202 classes of ImageNet."""
    return Path(__file__).parents[1] / "default"


def model_folder(model: str | Path) -> str | Path:
    """Where a model lies that a user names: a folder, an id on the Hub, or "default" for the embedded checkpoint."""
    return default_checkpoint() if model == DEFAULT else model


def check_model(model: str | Path) -> None:
    """Refuse what cannot hold a model, before the Hub is asked for minutes.

    Raises:
        InputError: `model` is a file, the name of a published checkpoint, or neither a folder nor an id on the Hub.
    """
    check_path(model)
    path = Path(model_folder(model))
    if path.is_dir():
        return
    if path.is_file():
        raise InputError(f"{model}: a file; models are loaded from folders. Run `hf-models convert {model} FOLDER`.")
    if published := published_as(str(model)):
        raise InputError(f"{model}: a published checkpoint, to be converted first. {published.how_to_convert()}")
    if "/" not in str(model):
        raise InputError(f"{model}: no such folder, and no id on the Hub, which is ORG/NAME. Check the path.")


def check_original(source: str | Path) -> None:
    """Refuse the bare name of a published checkpoint where the checkpoint itself is wanted.

    Raises:
        InputError: `source` is such a name, and neither a path nor an id on the Hub.
    """
    check_path(source)
    if not Path(source).exists() and "/" not in str(source) and (published := published_as(str(source))):
        raise InputError(f"{source}: a published checkpoint, and no file here. {published.how_to_convert()}")
