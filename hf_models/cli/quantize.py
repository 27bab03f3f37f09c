"""`hf-models quantize`."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Verbose, one_line_errors, say


def quantize(
    source: Annotated[str, typer.Argument(help="Folder or Hub id of a classifier, or `default`, the embedded one.")],
    output: Annotated[Path, typer.Argument(help="The folder to create.")],
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of images like those that the model will see: the result is faster with it."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUTPUT if it is a model repository.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Store and compute a classifier's linear layers in 8 bits. It gets smaller, and faster on a CPU."""
    with one_line_errors(verbose):
        from hf_models.conversion.quantize import quantize

        report = quantize(source, output, calibration=calibration, overwrite=overwrite, progress=say)
    how = f"calibrated with {report.images} images" if report.images else "not calibrated"
    print(
        f"{output}: {report.layers} linear layers in 8 bits, {how}; "
        f"weights {report.before / 1e6:,.1f} MB -> {report.after / 1e6:,.1f} MB"
    )
    if not report.fast:
        print("note: this processor has no VNNI instructions; here the model is slower than the original")
