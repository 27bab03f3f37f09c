"""What all commands share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from .. import register
from ..errors import InputError

Model = Annotated[str, typer.Option(help="Folder, Hub id, or `default` for the embedded checkpoint.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default the GPU where there is one.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the traceback of an error.")]


@contextmanager
def one_line_errors(verbose: bool, needs_models: bool = True) -> Iterator[None]:
    """Turn an [`InputError`] into its one line on stderr and exit status 2, Ctrl-C into one line and status 130.

    Args:
        verbose: Raise them instead.
        needs_models: Whether what is inside loads models, which takes seconds to prepare.
    """
    try:
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
