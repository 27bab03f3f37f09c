"""`hf-models kernels`: building them, publishing them, seeing which of them run."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from ..errors import InputError, reason
from .common import Json, Verbose, one_line_errors
from .publish import push_kernel

app = typer.Typer(help="Build and publish compiled kernels; see which of them run.", no_args_is_help=True)
app.command("push")(push_kernel)


@app.command("build")
def kernels_build(
    names: Annotated[list[str] | None, typer.Argument(help="The kernels to build. By default all of them.")] = None,
    backend: Annotated[str, typer.Option(help="What to build for: cpu or cuda.")] = "cpu",
    verbose: Verbose = False,
) -> None:
    """Compile kernels for this machine; needs a C++ compiler. Models of this Python environment use them from then on.

    The builds are written into the Python environment, or into the home cache where you may not write into the
    environment. The variable HF_MODELS_KERNELS_DIR names another folder; whatever is to use them needs it set too.
    """
    with one_line_errors(verbose, needs_models=False):
        from hf_models.kernels_src.build import SOURCES, build_kernel

        from ..hub_kernels import KERNELS
        from ..kernel_places import default_directory

        for name in names or [name for name, source in KERNELS.items() if backend in source.devices]:
            if name not in KERNELS:
                raise InputError(f"{name}: no such kernel. There are: {', '.join(KERNELS)}.")
            folder = default_directory() / name / "build"
            print(f"{name}: building in {folder} (a minute or more, if it is not there yet)", file=sys.stderr)
            try:
                print(build_kernel(SOURCES / name, backend, folder, tell=_say_how_far))
            except OSError as error:
                raise InputError(f"{folder}: cannot be written ({reason(error)}).") from error


def _say_how_far(compiled: int, files: int) -> None:
    print(f"  {compiled} of {files} files compiled", file=sys.stderr)


@app.command("status")
def kernels_status(as_json: Json = False, verbose: Verbose = False) -> None:
    """Say which kernels run, on which device. Where none does, say why, and where they were looked for."""
    with one_line_errors(verbose, needs_models=False):
        from hf_models.kernels_src.build import SOURCES, build_id

        from ..hub_kernels import build_command, status

        rows = status()
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        what = f"{row.chosen} build {row.version}, for {', '.join(row.dtypes)}"
        if row.chosen == "reference":
            what = "PyTorch reference" if row.places else f"PyTorch reference ({row.reason})"
        print(f"{row.kernel} on {row.device}: {what}")
        if row.path:
            print(f"  loaded from {row.path}")
        for place in row.places:
            print(f"  {place.name}: {place.result}")
        if row.chosen == "reference" and row.places:
            print(f"  To build it, run `{build_command(row.device)}`.")
        elif row.chosen == "local" and row.version != build_id(SOURCES / row.kernel, row.device):
            print(f"  It was built from other sources than this version's. Run `{build_command(row.device)}`.")
