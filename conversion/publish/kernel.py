"""Publishing a kernel: a repository of type `kernel`, a branch for each version's builds, the sources on `main`."""

import json
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi

from hf_models.errors import InputError
from hf_models.hub_kernels import KERNELS
from hf_models.kernel_download import check_digest
from hf_models.kernel_places import default_directory
from hf_models.kernels_src.build import SOURCES, check_portable, source_files

from .repository import Repository, check_repo_id, hub_errors

UPLOADS_KERNELS = tuple(map(int, huggingface_hub.__version__.split(".")[:2])) >= (2, 3)


def push_kernel(
    name: str,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    api: HfApi | None = None,
) -> dict:
    """Publish the builds of a kernel on this machine, in one commit. Builds for other machines stay.

    The branch `main` gets the card and the sources, among them what the kernel shares with others: kernel-builder, or
    `build.py`, builds the kernel from what is there.

    Args:
        name: The kernel, such as `"deformable-conv"`.
        repo_id: `ORG/NAME` on the Hub, made if need be; NAME is the kernel's, by which models find it.
        private: Make it private.
        dry_run: Check the builds and touch nothing.
        api: The client; by default that of the environment.

    Returns:
        `{"repo": str, "branch": str, "commit": str | None, "files": {path: bytes}, "changed": [path]}`

    Raises:
        InputError: There is no build, it is damaged, huggingface_hub is too old, or the Hub refuses. Nothing was
            published, or all of it.
    """
    check_repo_id(repo_id)
    if name not in KERNELS:
        raise InputError(f"{name}: no such kernel. There are: {', '.join(KERNELS)}.")
    if repo_id.split("/")[1] != name:
        raise InputError(f"--repo {repo_id}: models look for ORG/{name}. Use that name.")
    branch, builds = _builds(name)
    sources = {"README.md": SOURCES / name / "CARD.md", "ALGORITHM.md": SOURCES / name / "ALGORITHM.md"}
    sources |= source_files(SOURCES / name)
    sizes = {path: file.stat().st_size for path, file in (sources | builds).items()}
    result = {"repo": repo_id, "branch": branch, "commit": None, "files": sizes, "changed": []}
    if dry_run:
        return result
    if not UPLOADS_KERNELS:
        version = huggingface_hub.__version__
        raise InputError(f"huggingface_hub {version}: uploads no kernels. Run `pip install 'huggingface_hub>=2.3'`.")
    api = api or HfApi()
    with hub_errors(repo_id):
        for repository, files in (
            (Repository(api, repo_id, "kernel"), sources),
            (Repository(api, repo_id, "kernel", branch), builds),
        ):
            repository.create(private)
            head = repository.head()
            # what is ours replaces the whole folder that it lies in: of a variant of the build, or of sources
            folders = {path.rpartition("/")[0] for path in files if "/" in path}
            changes = repository.changes(files, head, lambda path, ours=folders: path.rpartition("/")[0] in ours)
            if changes:
                head = repository.commit(changes, f"Publish {name}", head)
                result["changed"] += [change.path_in_repo for change in changes]
    return result | {"commit": head}


def _builds(name: str) -> tuple[str, dict[str, Path]]:
    """The branch of a kernel's builds on this machine, and path -> file of all of them."""
    folder = default_directory() / name / "build"
    versions, content = set(), {}
    for metadata in sorted(folder.glob("*/metadata.json")):
        variant = metadata.parent
        try:
            check_digest(variant)
            versions.add(json.loads(metadata.read_text(encoding="utf-8"))["version"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{variant}: damaged ({error}) Build it again.") from error
        for library in variant.glob("*.so"):
            check_portable(library)
        files = (path for path in variant.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        content |= {f"build/{path.relative_to(folder).as_posix()}": path for path in files}
    if not content:
        raise InputError(f"{folder}: holds no build. Run `hf-models kernels build {name}`.")
    if len(versions) > 1:
        raise InputError(f"{folder}: builds of several versions ({sorted(versions)}). Delete the old ones.")
    return f"v{versions.pop()}", content
