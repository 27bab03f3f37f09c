"""Publishing the whole zoo from a folder of original files."""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi

from hf_models.errors import InputError, reason
from hf_models.zoo import PublishedCheckpoint, find_checkpoint, list_models

from .. import convert
from ..report import REPORT, write_json
from .model import push_model

PUBLISH_REPORT = "publish_report.json"


def publish_all(
    org: str,
    source: str | Path,
    output: str | Path | None = None,
    *,
    private: bool = False,
    dry_run: bool = False,
    progress: bool = True,
    tell: Callable[[str, dict], None] = lambda name, result: None,
    api: HfApi | None = None,
) -> dict[str, dict]:
    """Convert and publish every checkpoint of the zoo whose original file is there.

    What is converted already is not converted again, and what is published already is not sent again, so that an
    interrupted run goes on where it was. One checkpoint that cannot be published does not stop the others.

    Args:
        org: Organisation or user on the Hub; each checkpoint becomes `ORG/<its name>`.
        source: Folder of original files, at any depth, by their published names; or of upstream's Hub folders.
        output: Folder of the converted models; `source`/converted by default.
        private: Make the repositories private.
        dry_run: Convert and check, and publish nothing.
        progress: Show progress bars, on a terminal.
        tell: Called with each name and result as it comes.
        api: The client; by default that of the environment.

    Returns:
        Name -> `{"state": "published" | "unchanged" | "checked" | "skipped" | "refused", "reason": str | None,
        "commit": str | None}`, for every checkpoint; also written to `output`.

    Raises:
        InputError: There is no such folder.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder.")
    output = Path(output) if output else source / "converted"
    found = {path.name: path for path in sorted(source.rglob("*")) if not path.is_relative_to(output)}
    results = {}
    for name in list_models():
        original = _original(find_checkpoint(name), found)
        try:
            results[name] = _publish(name, org, original, output / name, private, dry_run, progress, api)
        except InputError as error:
            results[name] = _result("refused", reason(error))
        tell(name, results[name])
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / PUBLISH_REPORT, results)
    return results


def _publish(name: str, org, original: Path | None, folder: Path, private, dry_run, progress, api) -> dict:
    if original is None:
        return _result("skipped", f"no file {find_checkpoint(name).file or name}")
    if not (folder / REPORT).is_file():
        convert(original, folder, name=name, part=find_checkpoint(name).part, progress=progress)
    pushed = push_model(folder, f"{org}/{name}", private=private, dry_run=dry_run, progress=progress, api=api)
    if dry_run:
        return _result("checked")
    return _result("published" if pushed["changed"] else "unchanged", commit=pushed["commit"])


def _result(state: str, reason: str | None = None, commit: str | None = None) -> dict:
    return {"state": state, "reason": reason, "commit": commit}


def _original(checkpoint: PublishedCheckpoint, found: dict[str, Path]) -> Path | None:
    """The original file, or upstream's folder, of a checkpoint."""
    suffixes = ("", ".pth", ".pt", ".safetensors")
    names = sorted({name.rpartition("/")[2] for name in checkpoint.known_as()})
    return next((found[name + end] for name in names for end in suffixes if name + end in found), None)
