"""`hf-models convert` and `verify`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import printable
from ..inference.names import check_original
from .common import Verbose, one_line_errors


def convert(
    source: Annotated[str, typer.Argument(help="Checkpoint file, folder or Hub id, or hf://ORG/REPO/FILE.")],
    output: Annotated[Path, typer.Argument(help="Folder to create.")],
    name: Annotated[str | None, typer.Option(help="Published checkpoint that SOURCE is.")] = None,
    original_config: Annotated[
        Path | None, typer.Option(help="JSON file with the original constructor's arguments, or mmseg's model dict.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Which weights of a training checkpoint: model or ema.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16; that of SOURCE by default.")] = None,
    max_shard_size: Annotated[str, typer.Option(help="Largest weight file.")] = "5GB",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUTPUT if it is a model repository.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write; print the report.")] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Convert a file whose sha256 is not the published one.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Convert a checkpoint of the original code into a complete model repository."""
    with one_line_errors(verbose, needs_models=False):
        check_original(source)
    with one_line_errors(verbose):
        from hf_models.conversion import convert

        report = convert(
            source,
            output,
            name=name,
            original_config=original_config,
            weights=weights,
            dtype=dtype,
            max_shard_size=max_shard_size,
            overwrite=overwrite,
            dry_run=dry_run,
            allow_unknown=allow_unknown,
        )
    if dry_run:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    for key, reason in report["dropped"].items():
        print(f"dropped {printable(key)}: {reason}")
    for note in report["notes"]:
        print(f"note: {printable(note)}")
    print(f"{output}: {report['parameters']:,} parameters from {report['config_from']}")


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder that `hf-models convert` wrote.")],
    source: Annotated[str | None, typer.Option(help="What it was converted from, to compare every value.")] = None,
    verbose: Verbose = False,
) -> None:
    """Repeat the checks of a conversion."""
    with one_line_errors(verbose):
        from hf_models.conversion import verify

        report = verify(folder, source=source)
    against = f", equal to {source}" if source else ""
    print(f"{folder}: {report['tensors']} tensors in {report['files']} file(s), as converted{against}")
