"""Where compiled kernels lie: built on this machine, or on the Hub."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from .errors import reason
from .kernel_download import load_from_hub, trusted_commit

NOT_BUILT = "nothing is built there"
NOT_NAMED = "HF_MODELS_TRUST_KERNELS names no repository of it"


@dataclass(frozen=True)
class Place:
    """One place where a kernel may lie: a folder, `LOCAL_KERNELS`, or the Hub."""

    name: str
    result: str  # "used", "not looked at", or why no kernel was loaded from there


def build_directories() -> list[Path]:
    """Where builds of this machine are looked for, the first place first; each holds one folder for each kernel.

    The first place belongs to the Python environment: whatever runs in the environment finds what was built in it.
    The second is in the user's home cache, for builds that several environments share, and for a user who may not
    write into the environment. `HF_MODELS_KERNELS_DIR` names a place that replaces both.
    """
    if override := os.environ.get("HF_MODELS_KERNELS_DIR"):
        return [Path(override).absolute()]
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(sys.prefix, "share", "hf_models", "kernels"), cache.absolute() / "hf_models" / "kernels"]


def default_directory() -> Path:
    """Where `hf-models kernels build` writes: the first of [`build_directories`] into which this user may write."""
    *others, last = build_directories()
    return next((directory for directory in others if _is_writable(directory)), last)


def find_kernel(
    library: ModuleType, kernel: str, repo_id: str, device: str, functions: tuple[str, ...] = ()
) -> tuple[ModuleType | None, tuple[Place, ...]]:
    """Load a kernel from the first place that has it for this machine.

    Args:
        library: The module `kernels`. It is not imported here: transformers refuses code from the Hub that imports
            what is not installed, unless the import stands in a `try` statement, and one such statement is enough.
        kernel: Name of the kernel, such as "deformable-conv".
        repo_id: What `LOCAL_KERNELS` calls it.
        device: "cpu" or "cuda".
        functions: What it must have; builds of older sources do not.

    Returns:
        The kernel's module, and what was found in each place, in their order.

    Raises:
        InputError: `HF_MODELS_TRUST_KERNELS` cannot be read.
    """
    module, places = None, []
    for name, load in _candidates(library, kernel, repo_id, device):
        result = "not looked at"
        if module is None:
            try:
                found = load()
                if missing := [function for function in functions if not hasattr(found, function)]:
                    raise AttributeError(f"built from older sources, without {missing[0]}")
                module, result = found, "used"
            except Exception as error:  # a kernel that does not load must never stop a model that runs without it
                result = reason(error)
        places.append(Place(name, result))
    if not trusted_commit(kernel):
        places.append(Place("the Hub", NOT_NAMED))
    return module, tuple(places)


def _candidates(
    library: ModuleType, kernel: str, repo_id: str, device: str
) -> Iterator[tuple[str, Callable[[], ModuleType]]]:
    """What each place is called, and what loads the kernel from it."""
    if f"{repo_id}=" in os.environ.get("LOCAL_KERNELS", ""):
        # the revision is not looked at, but without one the library asks the Hub for the version's
        yield "LOCAL_KERNELS", partial(library.get_kernel, repo_id, revision="v1", backend=device)
    for directory in build_directories():
        yield str(directory / kernel), partial(_load_build, library, directory / kernel, device)
    if trusted := trusted_commit(kernel):
        yield f"{'@'.join(trusted)} on the Hub", partial(load_from_hub, library, *trusted, device)


def _load_build(library: ModuleType, folder: Path, device: str) -> ModuleType:
    if not any(folder.glob("build/*/metadata.json")):
        raise FileNotFoundError(NOT_BUILT)
    return library.get_local_kernel(folder, backend=device)


def _is_writable(folder: Path) -> bool:
    """Whether this user may write into a folder, or make it where it is not there yet."""
    return os.access(next(path for path in (folder, *folder.parents) if path.exists()), os.W_OK)
