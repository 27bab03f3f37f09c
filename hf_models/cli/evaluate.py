"""`hf-models evaluate`: accuracy."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, printable
from .common import Verbose, one_line_errors
from .evaluation_options import (
    AsJson,
    BatchSize,
    ImageColumn,
    LabelColumn,
    Labelled,
    Limit,
    Model,
    Options,
    Revision,
    Split,
    Subset,
    print_rows,
    with_settings,
)

app = typer.Typer(
    help="Measure accuracy on ImageNet, ADE20K, COCO or your classes. Image processor and model are those "
    "that users load.\n\n"
    "With several GPUs: torchrun --nproc-per-node 8 -m hf_models.cli evaluate COMMAND. Every image counts once, "
    "whatever the number of processes and the batch size.",
    no_args_is_help=True,
)


@app.command("imagenet")
@with_settings
def evaluate_imagenet(
    *,
    data: Labelled,
    model: Model = "default",
    split: Split = None,
    revision: Revision = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    real: Annotated[Path | None, typer.Option(help="real.json, to measure with the ReaL labels too.")] = None,
    subset: Subset = False,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    settings: Options,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure top-1 and top-5 accuracy on ImageNet-1K's classes."""
    with one_line_errors(verbose, model):
        from hf_models.evaluate.imagenet import evaluate_imagenet
        from hf_models.evaluate.settings import Settings

        rows = evaluate_imagenet(
            model,
            data,
            split=split,
            revision=revision,
            image_column=image_column,
            label_column=label_column,
            real=real,
            subset=subset,
            limit=limit,
            settings=Settings(batch_size, **settings),
        )
    print_rows(rows, as_json)


@app.command("classes")
@with_settings
def evaluate_classes(
    *,
    data: Labelled,
    model: Annotated[str, typer.Option(help="Folder or id on the Hub of a classifier that has labels for them.")],
    split: Split = None,
    revision: Revision = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    limit: Limit = None,
    picture: Annotated[
        Path | None, typer.Option(help="Picture to write, of which class is taken for which; needs matplotlib.")
    ] = None,
    batch_size: BatchSize = 32,
    settings: Options,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure accuracy on classes of your own, over all and for each."""
    with one_line_errors(verbose, model):
        from hf_models.evaluate.classes import evaluate_classes
        from hf_models.evaluate.settings import Settings

        rows, details = evaluate_classes(
            model,
            data,
            split=split,
            revision=revision,
            image_column=image_column,
            label_column=label_column,
            limit=limit,
            picture=picture,
            settings=Settings(batch_size, **settings),
        )
    if not rows:
        return
    if as_json:
        print(json.dumps({"rows": rows, **details}, indent=2))
        return
    print("  recall  precision  images  class")
    for entry in details["classes"]:
        recall, precision = (
            "-" if entry[name] is None else f"{entry[name]:.1f} %" for name in ("recall", "precision")
        )
        print(f"{recall:>8}{precision:>11}{entry['images']:8}  {printable(entry['label'])}")
    for entry in details["mistakes"][:5]:
        print(f"{entry['images']} of {printable(entry['label'])} taken for {printable(entry['answer'])}")
    print_rows(rows, as_json)


@app.command("ade20k")
@with_settings
def evaluate_ade20k(
    *,
    model: Annotated[str, typer.Option(help="Folder or id on the Hub.")],
    data: Annotated[
        str, typer.Option(help="ADEChallengeData2016, parquet or tar files, or id of a data set on the Hub.")
    ],
    mode: Annotated[
        str | None, typer.Option(help="whole, or slide: windows over the resized image; by default as the authors.")
    ] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Side of the windows.")] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="From one window to the next.")] = None,
    scales: Annotated[str, typer.Option(help="Factors of the size, such as 0.5,0.75,1,1.25,1.5,1.75.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Show each scale mirrored too.")] = False,
    split: Split = None,
    revision: Revision = None,
    image_column: ImageColumn = None,
    mask_column: Annotated[
        str | None, typer.Option(help="Column of the masks, if not one of the usual names.")
    ] = None,
    reduce_zero_label: Annotated[bool, typer.Option(help="In masks 0 is ignored and classes begin at 1.")] = True,
    subset: Subset = False,
    limit: Limit = None,
    settings: Options,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure mIoU, mAcc and aAcc, and the IoU of each class. They are defined as in mmsegmentation."""
    with one_line_errors(verbose, model):
        from hf_models.evaluate.ade20k import Inference, evaluate_ade20k
        from hf_models.evaluate.settings import Settings

        try:
            factors = tuple(float(scale) for scale in scales.split(","))
        except ValueError:
            raise InputError(f"--scales: expected numbers such as 0.5,1,1.5, got {scales}.") from None
        rows, ious = evaluate_ade20k(
            model,
            data,
            inference=Inference(mode, crop, stride, factors, flip),
            split=split,
            revision=revision,
            image_column=image_column,
            mask_column=mask_column,
            reduce_zero_label=reduce_zero_label,
            subset=subset,
            limit=limit,
            settings=Settings(1, **settings),
        )
    if not as_json:
        for name, iou in ious.items():
            if iou == iou:  # NaN: neither predicted nor labelled
                print(f"  {iou:6.2f} %  {printable(name)}")
        print_rows(rows, as_json)
    elif rows:
        print(json.dumps({"rows": rows, "iou": {n: None if v != v else v for n, v in ious.items()}}, indent=2))


@app.command("coco")
@with_settings
def evaluate_coco(
    *,
    model: Annotated[str, typer.Option(help="Folder or id on the Hub of a detector.")],
    data: Annotated[str, typer.Option(help="Folder of COCO, or another folder of images.")],
    split: Annotated[
        str, typer.Option(help="Subfolder of the images; its objects are in annotations/instances_SPLIT.json.")
    ] = "val2017",
    annotations: Annotated[Path | None, typer.Option(help="Another JSON file of objects in COCO's format.")] = None,
    task: Annotated[
        str | None, typer.Option(help="boxes, masks or both; by default masks too if model and data have them.")
    ] = None,
    limit: Limit = None,
    curve: Annotated[
        Path | None, typer.Option(help="Picture to write, of precision over recall; needs matplotlib.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="With more than 1 images are padded, which changes results a little.")
    ] = 1,
    settings: Options,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure average precision of boxes and masks, as COCO does."""
    with one_line_errors(verbose, model):
        from hf_models.evaluate.coco import evaluate_coco
        from hf_models.evaluate.settings import Settings

        rows, details = evaluate_coco(
            model,
            data,
            split=split,
            annotations=annotations,
            task=task,
            limit=limit,
            curve=curve,
            settings=Settings(batch_size, **settings),
        )
    if as_json and rows:
        print(json.dumps({"rows": rows, **details}, indent=2))
    elif rows:
        columns = [name for name in details["classes"][0] if name not in ("label", "objects")]
        print("".join(f"{name:>13}" for name in columns), " objects  class")
        for entry in details["classes"]:
            numbers = "".join(f"{entry[name]:11.2f} %" for name in columns)
            print(f"{numbers} {entry['objects']:8}  {printable(entry['label'])}")
        print_rows(rows, as_json)


@app.command("shape-bias")
@with_settings
def evaluate_shape_bias(
    *,
    data: Annotated[str, typer.Option(help="Folder of the cue-conflict stimuli, with a folder for each shape.")],
    model: Model = "default",
    subset: Annotated[
        bool,
        typer.Option("--subset", help="Accept fewer stimuli, or categories unknown to the model; the result says so."),
    ] = False,
    limit: Limit = None,
    picture: Annotated[
        Path | None, typer.Option(help="Picture to write, with a row for each category; needs matplotlib.")
    ] = None,
    batch_size: BatchSize = 32,
    settings: Options,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure whether a classifier goes by shape or by texture."""
    with one_line_errors(verbose, model):
        from hf_models.evaluate.settings import Settings
        from hf_models.evaluate.shape_bias import evaluate_shape_bias

        rows, details = evaluate_shape_bias(
            model, data, subset=subset, limit=limit, picture=picture, settings=Settings(batch_size, **settings)
        )
    if as_json and rows:
        print(json.dumps({"rows": rows, **details}, indent=2))
    elif rows:
        print("     shape bias  shape  texture  images  category")
        for entry in details["categories"]:
            bias, error = entry["shape_bias"], entry["standard_error"]
            shown = f"{'-':>15}" if bias is None else f"{bias:6.1f} ± {error:4.1f} %"
            print(f"{shown}{entry['shape']:7}{entry['texture']:9}{entry['images']:8}  {entry['category']}")
        if rows[0]["options"]:
            print(f"the images were {rows[0]['options']}")
        print_rows(rows, as_json)


@app.command("table")
def evaluate_table(
    results: Annotated[
        list[Path] | None, typer.Option(exists=True, help="CSV files of `--results`, or the package's.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Print measured beside reported numbers. The table is Markdown; differences above 0.1 are in bold."""
    with one_line_errors(verbose):
        from hf_models.evaluate.accuracy_table import FILES, accuracy_table

        print(accuracy_table(results or FILES), end="")
