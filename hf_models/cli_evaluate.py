"""`hf-models evaluate`: accuracy."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .cli_common import Verbose, one_line_errors

app = typer.Typer(
    help="Accuracy on ImageNet and ADE20K, through the image processor and the model that users load.\n\n"
    "With several GPUs: torchrun --nproc-per-node 8 -m hf_models.cli evaluate ... --device cuda. Every image counts "
    "once, whatever the number of processes and the batch size.",
    no_args_is_help=True,
)
Model = Annotated[str, typer.Option(help="Folder, id on the Hub, or `default` for the embedded checkpoint.")]
Revision = Annotated[
    str | None, typer.Option(help="Commit, tag or branch of the data set on the Hub; nothing is downloaded without.")
]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the images, if not one of the usual names.")]
Subset = Annotated[bool, typer.Option("--subset", help="Accept fewer classes or images; the result says so.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Evaluate only the first images; a subset's result.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that the model sees at once.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Workers = Annotated[int, typer.Option(min=0, help="Threads that read and prepare images, in each process.")]
Results = Annotated[Path | None, typer.Option(help="CSV file to keep the rows in; measured again, they are replaced.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an evaluation with these options was killed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("imagenet")
def evaluate_imagenet(
    model: Model,
    data: Annotated[
        str, typer.Option(help="Folder of class folders, parquet or tar files, or id of a data set on the Hub.")
    ],
    split: Annotated[
        str | None, typer.Option(help="Subfolder, beginning of the file names, or split on the Hub.")
    ] = None,
    revision: Revision = None,
    image_column: ImageColumn = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels, if not label or cls.")] = None,
    real: Annotated[Path | None, typer.Option(help="real.json, to measure with the ReaL labels too.")] = None,
    subset: Subset = False,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    num_workers: Workers = 2,
    results: Results = None,
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure top-1 and top-5 accuracy on images of ImageNet-1K's classes."""
    with one_line_errors(verbose):
        from .evaluate.accuracy import Settings
        from .evaluate.imagenet import evaluate_imagenet

        settings = Settings(batch_size, dtype, device, num_workers, results, resume)
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
            settings=settings,
        )
    _print_rows(rows, as_json)


def _print_rows(rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json and rows:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['metric']}: {float(row['value']):.2f} % ({row['model']} on {row['data']})")
