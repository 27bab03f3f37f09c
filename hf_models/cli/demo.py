"""`hf-models demo`."""

from typing import Annotated

import typer

from .common import Device, Model, Verbose, one_line_errors


def demo(
    model: Model = "default",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 7860,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    """Open a page on this machine that labels photos and shows what the model sees; needs gradio."""
    with one_line_errors(verbose):
        from ..visualize.demo import run_demo

        run_demo(model, port, device)
