"""`hf-models kernels`: building them, publishing them, seeing which of them run."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from ..errors import InputError
from .common import Json, Verbose, one_line_errors
from .publish import push_kernel

app = typer.Typer(help="Compiled kernels: build, publish, see which of them run.", no_args_is_help=True)
app.command("push")(push_kernel)


@app.command("build")
def kernels_build(
    names: Annotated[list[str] | None, typer.Argument(help="Kernels to build; all by default.")] = None,
    backend: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    verbose: Verbose = False,
) -> None:
    """Compile kernels for this machine; needs a C++ compiler. Models use them from then on."""
    with one_line_errors(verbose):
        from hf_models.kernels_src.build import SOURCES, build_kernel

        from ..hub_kernels import KERNELS, default_directory

        for name in names or KERNELS:
            if name not in KERNELS:
                raise InputError(f"{name}: no such kernel. There are: {', '.join(KERNELS)}.")
            print(build_kernel(SOURCES / name, backend, default_directory() / name / "build"))


@app.command("status")
def kernels_status(as_json: Json = False, verbose: Verbose = False) -> None:
    """Say which kernel runs on which device, or why the PyTorch reference does."""
    with one_line_errors(verbose):
        from ..hub_kernels import status

        rows = [asdict(row) for row in status()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['kernel']} on {row['device']}: {row['chosen']} ({row['reason']})")
        if row["path"]:
            print(f"  {row['version']} in {row['path']}, {', '.join(row['dtypes'])}")
