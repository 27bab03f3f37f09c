"""What all commands share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from .. import register
from ..errors import InputError
from ..inference.names import check_model

Model = Annotated[str, typer.Option(help="The model: a folder, a Hub id, or `default`, the embedded one.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Device = Annotated[
    str | None, typer.Option(help="Where to compute: cpu or cuda. By default the GPU, if there is one.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show where in the code an error arose.")]


@contextmanager
def one_line_errors(verbose: bool, model: str | None = None, needs_models: bool = True) -> Iterator[None]:
    """Turn an [`InputError`] into its one line on stderr and exit status 2, Ctrl-C into one line and status 130.

    Args:
        verbose: Raise them instead.
        model: What the user calls a model, to be checked before anything else.
        needs_models: Whether what is inside loads models, which takes seconds to prepare.
    """
    try:
        if model is not None:
            check_model(model)
        if needs_models:
            register()
        yield
    except InputError as error:
        if verbose:
            raise
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        if verbose:
            raise
        print("interrupted", file=sys.stderr)
        raise typer.Exit(130) from None


def say(step: str) -> None:
    """Progress is shown where someone may be watching."""
    if sys.stderr.isatty():
        print(f"{step} ...", file=sys.stderr, flush=True)
