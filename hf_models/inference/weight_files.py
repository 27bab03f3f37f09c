"""Where a folder keeps its weights: the index beside sharded files, read without leaving the folder."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import InputError
from ..saved_weights import INDEX, WHOLE, two_sets_of_weights
from .files import check_path, read_json


def check_one_set(folder: Path) -> None:
    """Refuse a folder that holds two sets of weights, of which transformers would load one without a word.

    Raises:
        InputError: It does.
    """
    if why := two_sets_of_weights(folder):
        raise InputError(why)


def weight_files(folder: Path, names: tuple[str, ...] = WHOLE) -> tuple[list[Path], dict[str, Path] | None] | None:
    """The files that hold a folder's weights and, where there is an index, tensor name -> file; as transformers does.

    Args:
        folder: The folder.
        names: Names of whole weights, the first that is there is taken, whole or in shards.

    Returns:
        `None` where there are none of these names.

    Raises:
        InputError: There are two sets of weights, or an index is damaged or names a file that is missing or outside.
    """
    check_one_set(folder)
    for name in names:
        if (folder / name).is_file():
            return [folder / name], None
        if (folder / INDEX.format(name)).is_file():
            shard_of = read_index(folder, INDEX.format(name))
            return sorted(set(shard_of.values())), shard_of
    return None


def read_index(folder: Path, index: str) -> dict[str, Path]:
    """Tensor name -> shard, from a `*.index.json`.

    Raises:
        InputError: The index is damaged, or names a file that is missing or lies outside the folder.
    """
    weight_map = read_json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{folder / index}: has no weight_map of names. Fetch it again.")
    return {name: inside(folder, shard, index) for name, shard in weight_map.items()}


def inside(folder: Path, name: str, index: str) -> Path:
    """The path of a shard that an index names, refused if it would leave the folder on any system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts):
        raise InputError(f'{folder / index}: shard "{name}" leaves the folder. Refused.')
    check_path(folder / name)
    if not (folder / name).is_file():
        raise InputError(f'{folder / index}: shard "{name}" is missing. Fetch the whole folder again.')
    return folder / name
