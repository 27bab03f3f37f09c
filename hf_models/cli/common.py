"""What all commands share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ..errors import InputError

Verbose = Annotated[bool, typer.Option("--verbose", help="Show the traceback of an error.")]


@contextmanager
def one_line_errors(verbose: bool) -> Iterator[None]:
    """Turn an [`InputError`] into its one line on stderr and exit status 2, Ctrl-C into one line and status 130."""
    try:
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
