"""`hf-models convert` and `verify`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import printable
from ..inference.names import check_original
from .common import Verbose, one_line_errors


def convert(
    source: Annotated[str, typer.Argument(help="The original: a file, a folder, a Hub id, or hf://ORG/REPO/FILE.")],
    output: Annotated[Path, typer.Argument(help="The folder to create.")],
    name: Annotated[
        str | None, typer.Option(help="Which published checkpoint the original is, where its file name does not say.")
    ] = None,
    original_config: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with the arguments of the original constructor, or a config of mmseg or mmdet."
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Convert only the backbone: of a segmentation model or a detector with backbone, of a driving "
            "network with img_backbone."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Which weights of a training checkpoint to take: model or ema.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Store as float32, float16 or bfloat16. By default as the original.")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="The size that no weight file exceeds.")] = "5GB",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder, if it holds a model.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; print the report of what would be written.")
    ] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Convert a file even if its sha256 is not the published one.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Convert an original checkpoint into a model folder. The folder is complete: `hf-models push` publishes it."""
    with one_line_errors(verbose, needs_models=False):
        check_original(source)
    with one_line_errors(verbose):
        from hf_models.conversion import convert
        from hf_models.conversion.reading.containers import some

        report = convert(
            source,
            output,
            name=name,
            original_config=original_config,
            part=part,
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
    for reason in dict.fromkeys(report["dropped"].values()):
        print(f"dropped {some(key for key, why in report['dropped'].items() if why == reason)}: {reason}")
    for note in report["notes"]:
        print(f"note: {printable(note)}")
    print(f"{output}: {report['parameters']:,} parameters from {report['config_from']}")


def verify(
    folder: Annotated[Path, typer.Argument(help="The folder that `hf-models convert` wrote.")],
    source: Annotated[str | None, typer.Option(help="The original, to compare every value with it.")] = None,
    verbose: Verbose = False,
) -> None:
    """Repeat the checks of a conversion."""
    with one_line_errors(verbose):
        from hf_models.conversion import verify

        report = verify(folder, source=source)
    against = f", equal to {source}" if source else ""
    print(f"{folder}: {report['tensors']} tensors in {report['files']} file(s), as converted{against}")
