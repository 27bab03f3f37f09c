"""`hf-models evaluate`: accuracy."""

import inspect
import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, printable
from .common import Device, Verbose, one_line_errors

app = typer.Typer(
    help="Measure accuracy on ImageNet, ADE20K and classes of your own. Image processor and model are those that "
    "users load.\n\n"
    "With several GPUs: torchrun --nproc-per-node 8 -m hf_models.cli evaluate COMMAND. Every image counts once, "
    "whatever the number of processes and the batch size.",
    no_args_is_help=True,
)
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
Options = dict[str, Any]  # see `with_settings`
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_settings(batch_size: int | None = None) -> Callable:
    """A decorator that gives a command the options of all evaluations in place of its parameter `settings`.

    The command gets their values as a dictionary, to make [`Settings`] of after the imports that take seconds.

    Args:
        batch_size: Default of `--batch-size`; `None` where images are measured one at a time, without that option.
    """

    def options(
        batch_size: Annotated[int, typer.Option(min=1, help="Images that the model sees at once.")] = batch_size or 1,
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

    shared = dict(inspect.signature(options).parameters)
    if batch_size is None:
        del shared["batch_size"]

    def decorate(command: Callable) -> Callable:
        @wraps(command)
        def evaluate(**given) -> None:
            settings = {"batch_size": 1} | {name: given.pop(name) for name in shared}
            command(**given, settings=settings)

        own = [p for name, p in inspect.signature(command).parameters.items() if name != "settings"]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared.values())]
        evaluate.__signature__ = inspect.Signature(own)
        return evaluate

    return decorate


@app.command("imagenet")
@with_settings(batch_size=32)
def evaluate_imagenet(
    settings: Options,
    data: Labelled,
    model: Model = "default",
    split: Split = None,
    revision: Revision = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    real: Annotated[Path | None, typer.Option(help="real.json, to measure with the ReaL labels too.")] = None,
    subset: Subset = False,
    limit: Limit = None,
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
            settings=Settings(**settings),
        )
    _print_rows(rows, as_json)


@app.command("classes")
@with_settings(batch_size=32)
def evaluate_classes(
    settings: Options,
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
            settings=Settings(**settings),
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
    _print_rows(rows, as_json)


@app.command("ade20k")
@with_settings()
def evaluate_ade20k(
    settings: Options,
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
            settings=Settings(**settings),
        )
    if not as_json:
        for name, iou in ious.items():
            if iou == iou:  # NaN: neither predicted nor labelled
                print(f"  {iou:6.2f} %  {printable(name)}")
        _print_rows(rows, as_json)
    elif rows:
        print(json.dumps({"rows": rows, "iou": {n: None if v != v else v for n, v in ious.items()}}, indent=2))


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


def _print_rows(rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json and rows:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['metric']}: {float(row['value']):.2f} % ({row['model']} on {row['data']})")
