"""A compiled kernel from the Hub, at a commit that the user trusts; refused if a file is not that of its digest."""

import base64
import hashlib
import json
import os
import re
import threading
from pathlib import Path
from types import ModuleType

from .errors import InputError

HUB_SECONDS = 4  # how long a Hub that does not answer may hold up a model


def trusted_commit(kernel: str) -> tuple[str, str] | None:
    """The repository of a kernel and its commit that `HF_MODELS_TRUST_KERNELS` names.

    Raises:
        InputError: An entry of `HF_MODELS_TRUST_KERNELS` is not ORG/NAME@COMMIT.
    """
    for entry in filter(None, os.environ.get("HF_MODELS_TRUST_KERNELS", "").split(",")):
        match = re.fullmatch(r"([\w.-]+/([\w.-]+))@([0-9a-f]{40})", entry.strip())
        if match is None:
            raise InputError(f"HF_MODELS_TRUST_KERNELS: expected ORG/NAME@COMMIT with 40 digits, got {entry}.")
        if match[2] == kernel:
            return match[1], match[3]
    return None


def load_from_hub(library: ModuleType, repo_id: str, commit: str, device: str) -> ModuleType:
    """Load a kernel from the cache, else from the Hub. Its digest is checked before any of its code runs.

    Args:
        library: The module `kernels`.
        commit: 40 hexadecimal digits.

    Raises:
        OSError: It is not in the cache, and the Hub is out of reach.
        ValueError: Its files are not those of its digest, or it wants other kernels.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    # the library's own search of the cache wants all of a repository, not just the variant that it fetches
    cache = Path(os.environ.get("KERNELS_CACHE") or constants.HF_HUB_CACHE)
    builds = cache / repo_folder_name(repo_id=repo_id, repo_type="kernel") / "snapshots" / commit / "build"
    try:
        _check_builds(builds)
    except (OSError, ValueError):  # not there, or not all of it
        if constants.HF_HUB_OFFLINE:
            raise
        _await_hub(repo_id, commit)
        library.install_kernel(repo_id, revision=commit, backend=device, trust_remote_code=True)
        _check_builds(builds)
    return library.get_local_kernel(builds, backend=device)


def check_digest(variant: Path) -> None:
    """Hold every file of a built kernel against the digest in its metadata.json.

    Raises:
        ValueError: A file differs, is missing or is not in the digest; or there is none.
    """
    metadata = json.loads((variant / "metadata.json").read_text(encoding="utf-8"))
    digest = metadata.get("digest") or {}
    if digest.get("algorithm") != "sha256":
        raise ValueError(f"{variant.name}: metadata.json has no sha256 digest. Refused.")
    files = {path.relative_to(variant).as_posix(): path for path in variant.rglob("*") if path.is_file()}
    found = {
        name: base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
        for name, path in files.items()
        if "__pycache__" not in path.parts and name not in ("metadata.json", "metadata.json.sigstore")
    }
    if wrong := sorted(name for name, _ in found.items() ^ digest.get("files", {}).items()):
        raise ValueError(f"{variant.name}: {wrong[0]} is not the file of the kernel's digest. Refused.")


def _check_builds(builds: Path) -> None:
    variants = [metadata.parent for metadata in builds.glob("*/metadata.json")]
    if not variants:
        raise FileNotFoundError("not in the cache")
    for variant in variants:
        check_digest(variant)
        if json.loads((variant / "metadata.json").read_text(encoding="utf-8")).get("kernel-depends"):
            raise ValueError(f"{variant.name}: wants other kernels, which nobody named. Refused.")


def _await_hub(repo_id: str, commit: str) -> None:
    """Ask for the repository, for a few seconds at most: the library itself would try for half a minute."""
    from huggingface_hub import HfApi

    answers = []

    def ask() -> None:
        try:
            HfApi().kernel_info(repo_id, revision=commit, timeout=2 * HUB_SECONDS)
            answers.append(None)
        except Exception as error:
            answers.append(error)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no timeout
    asking.start()
    asking.join(HUB_SECONDS)
    if not answers:
        raise TimeoutError(f"the Hub did not answer within {HUB_SECONDS} s")
    if answers[0]:
        raise answers[0]
