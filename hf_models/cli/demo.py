"""`hf-models demo`."""

from typing import Annotated

import typer

from .common import Device, Model, Verbose, one_line_errors


def demo(
    model: Model = "default",
    port: Annotated[int, typer.Option(help="The port of this machine that the page is on.")] = 7860,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    """Open a page that labels photos and shows what a model sees. It runs on this machine and needs gradio."""
    with one_line_errors(verbose, model):
        from ..visualize.demo import run_demo

        run_demo(model, port, device)
