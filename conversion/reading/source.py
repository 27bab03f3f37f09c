"""Where a checkpoint lies: a file, a folder, or the Hub."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError, RepositoryNotFoundError

from hf_models.errors import InputError, reason
from hf_models.inference.files import read_json
from hf_models.inference.hub_requests import HUB_ID, limited_requests
from hf_models.inference.names import check_original
from hf_models.inference.weight_files import weight_files
from hf_models.saved_weights import WHOLE

HUB_FILE = re.compile(rf"^hf://(?P<repo>{HUB_ID.pattern})/(?P<file>.+)$")
MAX_SIDE = 10_000  # pixels
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".pkl", ".safetensors")


@dataclass
class Source:
    """A checkpoint on disk.

    Args:
        given: What the user gave.
        files: The files that hold tensors.
        shard_of: Tensor name -> file, as the index of a sharded folder says; `None` without an index.
        original: Upstream's config.json, if the source is a folder.
        preprocessor: Upstream's preprocessor_config.json, if the source is a folder that has one.
    """

    given: str
    files: list[Path]
    shard_of: dict[str, Path] | None = None
    original: dict | None = None
    preprocessor: dict | None = None


def find_source(given: str | Path) -> Source:
    """Turn what the user gave into files, downloading them if they are on the Hub.

    Args:
        given: A file; a folder or a Hub id in upstream's Hugging Face format; or `hf://ORG/REPO/FILE`.

    Raises:
        InputError: There is no such thing, or it cannot be downloaded.
    """
    given = str(given)
    check_original(given)
    if match := HUB_FILE.match(given):
        path = _download(given, hf_hub_download, repo_id=match["repo"], filename=match["file"])
        return Source(given, [Path(path)])
    if Path(given).is_dir():
        return _folder(given, Path(given))
    if Path(given).is_file():
        return Source(given, [Path(given)])
    if HUB_ID.fullmatch(given) and Path(given).suffix not in CHECKPOINT_SUFFIXES:
        patterns = ["*.json", "model*.safetensors"]
        return _folder(given, Path(_download(given, snapshot_download, repo_id=given, allow_patterns=patterns)))
    raise InputError(
        f"{given}: no such file, folder or Hub id. Check the path; a file on the Hub is hf://ORG/REPO/FILE."
    )


def _folder(given: str, folder: Path) -> Source:
    if not (folder / "config.json").is_file():
        raise InputError(f"{given}: has no config.json. Give a checkpoint file, or a folder in upstream's Hub format.")
    original = read_json(folder / "config.json")
    if "hidden_sizes" in original:
        raise InputError(f"{given}: is converted already (its config has hidden_sizes). Load it with AutoModel.")
    preprocessor = folder / "preprocessor_config.json"
    source = Source(given, [], original=original)
    if preprocessor.is_file():
        source.preprocessor = read_json(preprocessor)
        _check_preprocessor(preprocessor, source.preprocessor)
    found = weight_files(folder)
    if found is None:
        raise InputError(f"{given}: holds neither {' nor '.join(WHOLE)}, whole or sharded. Fetch it again.")
    source.files, source.shard_of = found
    return source


def _check_preprocessor(path: Path, content: dict) -> None:
    """Refuse values that upstream's processor cannot have."""

    def is_triple(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(type(part) in (int, float) for part in value)

    checks = {
        "size": lambda value: type(value) is int and 0 < value <= MAX_SIDE,
        "crop_size": lambda value: type(value) is int and 0 < value <= MAX_SIDE,
        "resample": lambda value: type(value) is int and 0 <= value <= 5,
        "image_mean": is_triple,
        "image_std": lambda value: is_triple(value) and min(value) > 0,
    }
    for name, fits in checks.items():
        if name in content and not fits(content[name]):
            raise InputError(f"{path}: {name} cannot be {content[name]!r}. Fetch it again, or correct it.")


def _download(given: str, download, **kwargs) -> str:
    try:
        with limited_requests():
            return download(**kwargs)
    except Exception as error:  # the Hub library and its transport share no base class
        # "not found locally" is what it says of a Hub that cannot be reached
        cause = (isinstance(error, LocalEntryNotFoundError) and error.__cause__) or error
        advice = "Check the connection and run the command again."
        if isinstance(error, (RepositoryNotFoundError, RemoteEntryNotFoundError)):
            advice = "Check the name; what is private needs `hf auth login`."
        raise InputError(
            f"{given}: cannot be downloaded ({type(cause).__name__}: {reason(cause)[:200]}). {advice}"
        ) from error
