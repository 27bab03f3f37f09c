"""Options of several evaluations, and what all of them print."""

import inspect
import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import Device

Model = Annotated[str, typer.Option(help="Folder, id on the Hub, or `default` for the embedded checkpoint.")]
Revision = Annotated[
    str | None, typer.Option(help="Commit, tag or branch of the data set on the Hub; nothing is downloaded without.")
]
Labelled = Annotated[
    str, typer.Option(help="Folder of class folders, parquet or tar files, or id of a data set on the Hub.")
]
Split = Annotated[
    str | None,
    typer.Option(help="Subfolder, word in the file names, or split on the Hub; validation by default, else test."),
]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the labels, if not label or cls.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the images, if not one of the usual names.")]
Subset = Annotated[bool, typer.Option("--subset", help="Accept fewer classes or images; the result says so.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Evaluate only the first images; a subset's result.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that the model sees at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Options = dict[str, Any]  # see `with_settings`


def with_settings(command: Callable) -> Callable:
    """Give a command the options of all evaluations in place of its parameter `settings`.

    It gets their values as a dictionary, to make `Settings` of after the imports that take seconds.
    """

    def options(
        *,
        dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
        device: Device = None,
        num_workers: Annotated[
            int, typer.Option(min=0, help="Threads that read and prepare images, in each process.")
        ] = 2,
        results: Annotated[
            Path | None, typer.Option(help="CSV file to keep the rows in; measured again, they are replaced.")
        ] = None,
        resume: Annotated[
            bool, typer.Option("--resume", help="Go on where an evaluation with these options was killed.")
        ] = False,
    ) -> None: ...

    shared = inspect.signature(options).parameters

    @wraps(command)
    def evaluate(**given) -> None:
        command(settings={name: given.pop(name) for name in shared}, **given)

    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        parameters += shared.values() if name == "settings" else [parameter]
    evaluate.__signature__ = inspect.Signature(parameters)
    return evaluate


def print_rows(rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json and rows:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['metric']}: {float(row['value']):.2f} % ({row['model']} on {row['data']})")
