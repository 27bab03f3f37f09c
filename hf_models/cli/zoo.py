"""`hf-models list`."""

import json
import sys
from typing import Annotated

import typer

from ..errors import InputError
from .common import Json, Verbose, one_line_errors


def list_models(
    pattern: Annotated[str | None, typer.Argument(help="A shell-style pattern of names, such as '*22k*'.")] = None,
    family: Annotated[str | None, typer.Option(help="List only this family, such as internimage.")] = None,
    task: Annotated[str | None, typer.Option(help="List only this task, such as image-classification.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the published checkpoints that can be converted."""
    with one_line_errors(verbose, needs_models=False):
        from ..zoo import find_checkpoint
        from ..zoo import list_models as names

        models = [find_checkpoint(name) for name in names(pattern, family=family, task=task)]
        if not models:
            wanted = " ".join(filter(None, (family, task, pattern)))
            advice = f"Try '*{pattern}*', or" if pattern and "*" not in pattern else "Try"
            raise InputError(f"{wanted}: no published checkpoint matches. {advice} `hf-models list` for all.")
    if as_json:
        keys = ("name", "family", "title", "task", "url", "license")
        keys += ("num_labels", "parameters", "test_set", "reported")
        print(json.dumps([{key: getattr(model, key) for key in keys} for model in models], indent=2))
        return
    width = max(len(model.name) for model in models)
    for model in models:
        score = next((model.reported[metric] for metric in model.metrics if metric in model.reported), None)
        score = f"{score:.1f} %" if score else "-"
        parameters = f"{model.parameters / 1e6:,.1f} M" if model.parameters else "-"
        print(f"{model.name:{width}}  {model.title:32}  {parameters:>10}  {score:>7}  {model.task}")
    print(f"{len(models)} checkpoints; accuracy, mIoU or box AP by their authors, --json says on what", file=sys.stderr)
