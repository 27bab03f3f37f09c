"""`hf-models export`."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Verbose, one_line_errors, say


def export(
    source: Annotated[str, typer.Argument(help="Folder or Hub id of a model, or `default` for the embedded one.")],
    output: Annotated[Path | None, typer.Argument(help="Folder to create; by default NAME-FORMAT here.")] = None,
    format: Annotated[str, typer.Option(help="onnx, torch-export, or aoti for programs in C++.")] = "onnx",
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Take any height and width, in most models multiples of 32.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Images that the exported model takes; any number by default.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, or float16 for weights and arithmetic.")] = "float32",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUTPUT if it is a model repository.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Export a model to ONNX, torch.export or AOTInductor. The outputs are compared with those of PyTorch."""
    with one_line_errors(verbose):
        from hf_models.conversion.export import export

        output = output or Path(f"{Path(source).resolve().name}-{format}")
        report = export(
            source,
            output,
            format=format,
            dynamic=dynamic,
            batch_size=batch_size,
            dtype=dtype,
            overwrite=overwrite,
            progress=say,
        )
    shape = ", ".join(map(str, report.shape))
    print(f"{report.file}: pixel_values ({shape}) -> {', '.join(report.outputs)}; {report.size / 1e6:,.1f} MB")
    print(f"checked: differs from PyTorch by at most {report.difference:.0e} of the largest output")
