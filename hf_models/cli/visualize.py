"""`hf-models visualize`: pictures of what a model sees."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .common import Device, Json, Model, Verbose, one_line_errors

app = typer.Typer(
    help="Draw what a model sees, on the pixels of the photo. This needs matplotlib.", no_args_is_help=True
)
Photo = Annotated[Path, typer.Argument(help="The image file.")]

Out = Annotated[Path, typer.Option(help="The picture to write.")]
Size = Annotated[int | None, typer.Option(help="Side of the square that the model sees, instead of its processor's.")]


@app.command("sampling")
def visualize_sampling(
    image: Photo,
    model: Model = "default",
    at: Annotated[str | None, typer.Option(help="The pixel x,y of the photo. By default its middle.")] = None,
    stage: Annotated[
        int | None, typer.Option(help="The stage, counted from 1. By default the third, or the last of fewer.")
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="The layer of the stage, counted from 1. By default the last.")
    ] = None,
    size: Size = None,
    out: Out = Path("sampling.png"),
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    """Draw the points that a deformable layer samples for a pixel. Their colours show their weights."""
    with one_line_errors(verbose, model):
        from ..visualize.sampling import visualize_sampling

        pixel = None if at is None else _pixel(at)
        visualize_sampling(image, model, out, at=pixel, stage=stage, layer=layer, size=size, device=device)
    print(out)


@app.command("erf")
def visualize_erf(
    images: Annotated[list[Path], typer.Argument(help="Image files; the authors take 50.")],
    model: Model = "default",
    size: Annotated[int, typer.Option(help="Side of the square that every image is resized to.")] = 1024,
    out: Out = Path("erf.png"),
    as_json: Json = False,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    """Draw the effective receptive field, averaged over images. The areas that hold most of it are printed."""
    with one_line_errors(verbose, model):
        from ..visualize.erf import visualize_erf

        areas = visualize_erf(images, model, out, size=size, device=device)
    if as_json:
        print(json.dumps([asdict(area) for area in areas]))
        return
    for area in areas:
        print(f"{area.threshold:.0%} in {area.side} x {area.side} pixels, area ratio {area.ratio:.1%}")
    print(out)


@app.command("modulation")
def visualize_modulation(
    image: Photo,
    model: Model = "default",
    size: Size = None,
    out: Out = Path("modulation.png"),
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    """Draw how strongly the modulators of an SMT act, and where."""
    with one_line_errors(verbose, model):
        from ..visualize.modulation import visualize_modulation

        visualize_modulation(image, model, out, size=size, device=device)
    print(out)


@app.command("features")
def visualize_features(
    image: Photo,
    model: Model = "default",
    size: Size = None,
    out: Out = Path("features.png"),
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    """Draw the feature maps of all stages. Their main components become colours."""
    with one_line_errors(verbose, model):
        from ..visualize.features import visualize_features

        visualize_features(image, model, out, size=size, device=device)
    print(out)


def _pixel(text: str) -> tuple[float, float]:
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--at: expected a pixel such as 120,80, got {text}.") from None
    return x, y
