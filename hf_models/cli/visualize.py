"""`hf-models visualize`: pictures of what a model sees."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .common import Model, Verbose, one_line_errors

app = typer.Typer(
    help="Pictures of what a model sees, in pixels of the photo; they need matplotlib.", no_args_is_help=True
)
Photo = Annotated[Path, typer.Argument(help="Image file.")]

Out = Annotated[Path, typer.Option(help="Picture to write.")]
Size = Annotated[int | None, typer.Option(help="Side of the square that the model sees, instead of its processor's.")]


@app.command("sampling")
def visualize_sampling(
    image: Photo,
    model: Model = "default",
    at: Annotated[str | None, typer.Option(help="Pixel x,y of the photo; the middle by default.")] = None,
    stage: Annotated[int | None, typer.Option(help="From 1; the third, or the last of fewer, by default.")] = None,
    layer: Annotated[int | None, typer.Option(help="From 1; the stage's last by default.")] = None,
    size: Size = None,
    out: Out = Path("sampling.png"),
    verbose: Verbose = False,
) -> None:
    """Draw the points that a deformable layer samples for one pixel, with their weights."""
    with one_line_errors(verbose):
        from ..visualize.sampling import visualize_sampling

        pixel = None if at is None else _pixel(at)
        visualize_sampling(image, model, out, at=pixel, stage=stage, layer=layer, size=size)
    print(out)


@app.command("erf")
def visualize_erf(
    images: Annotated[list[Path], typer.Argument(help="Image files; the authors take 50.")],
    model: Model = "default",
    size: Annotated[int, typer.Option(help="Side of the square that every image is resized to.")] = 1024,
    out: Out = Path("erf.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Draw the effective receptive field, averaged over images; print the areas that hold most of it."""
    with one_line_errors(verbose):
        from ..visualize.erf import visualize_erf

        areas = visualize_erf(images, model, out, size=size)
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
    verbose: Verbose = False,
) -> None:
    """Draw how strongly the modulators of an SMT act, and where."""
    with one_line_errors(verbose):
        from ..visualize.modulation import visualize_modulation

        visualize_modulation(image, model, out, size=size)
    print(out)


@app.command("features")
def visualize_features(
    image: Photo,
    model: Model = "default",
    size: Size = None,
    out: Out = Path("features.png"),
    verbose: Verbose = False,
) -> None:
    """Draw the feature maps of all stages: the main components as colours."""
    with one_line_errors(verbose):
        from ..visualize.features import visualize_features

        visualize_features(image, model, out, size=size)
    print(out)


def _pixel(text: str) -> tuple[float, float]:
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--at: expected a pixel such as 120,80, got {text}.") from None
    return x, y
