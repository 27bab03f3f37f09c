"""`hf-models classify`, `segment` and `detect`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, printable
from .common import Device, Json, Model, Verbose, one_line_errors


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Model = "default",
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to print for each image.")] = 5,
    device: Device = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Classify images: print the most probable labels of each."""
    with one_line_errors(verbose, model):
        from ..inference.classify import classify_images, load_config

        results = classify_images(images, model=model, top_k=top_k, device=device)
        form = "6.4g" if load_config(model).problem_type == "regression" else "6.1%"
    if as_json:
        print(json.dumps([{"image": str(i), "labels": labels} for i, labels in zip(images, results, strict=True)]))
        return
    for image, labels in zip(images, results, strict=True):
        print(printable(image))
        for entry in labels:
            print(f"  {entry['score']:{form}}", printable(entry["label"]), sep="  ")


def segment(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    model: Annotated[str, typer.Option(help="Folder or Hub id of a segmentation model.")],
    out: Annotated[Path, typer.Option(help="Picture to write, such as overlay.png.")],
    alpha: Annotated[float, typer.Option(help="Opacity of the colours, from 0 to 1.")] = 0.5,
    multi_scale: Annotated[
        bool, typer.Option("--multi-scale", help="Average over several scales and mirrored images.")
    ] = False,
    device: Device = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Draw the class of every pixel over an image. It is found as in the authors' test; the shares are printed."""
    with one_line_errors(verbose, model):
        from ..segmentation.overlay import SHOWN, segment_image

        classes = segment_image(image, model, out, alpha=alpha, multi_scale=multi_scale, device=device)
    if as_json:
        print(json.dumps(classes))
        return
    shown = [entry for entry in classes if entry["share"] >= SHOWN]
    for entry in shown:
        print(f"{entry['share']:6.1%}  {printable(entry['label'])}")
    if others := len(classes) - len(shown):
        print(f"and {others} {'other' if others == 1 else 'others'} below {SHOWN:.1%}")


def detect(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[str | None, typer.Option(help="Folder or Hub id of a detector.")] = None,
    threshold: Annotated[float, typer.Option(help="Score above which an object is reported, from 0 to 1.")] = 0.5,
    out: Annotated[
        Path | None, typer.Option(help="Picture to write, such as overlay.png, or a folder for several.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Find the objects on images: print their classes and boxes. `--out` draws them, with masks if there are any."""
    entries = []
    with one_line_errors(verbose, model):
        if model is None:
            raise InputError(
                "--model: no detector comes with the package. Name a folder or a Hub id: "
                "`hf-models list --task object-detection` shows what `hf-models convert` makes detectors of."
            )
        from ..detection.files import detect_images

        results = detect_images(images, model, threshold=threshold, out=out, device=device)
        for image, found in zip(images, results, strict=True):
            if as_json:
                entries.append({"image": str(image), "objects": [one.to_dict() for one in found]})
                continue
            print(printable(image))
            for one in found:
                edges = "".join(f"{edge:9.1f}" for edge in one.box)
                print(f"  {one.score:6.1%}{edges}  {printable(one.label)}")
            if not found:
                print(f"  nothing above {threshold:.0%}")
    if as_json:
        print(json.dumps(entries))
