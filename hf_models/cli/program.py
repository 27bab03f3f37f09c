"""`hf-models`: each command is one call into the room that does the work.

Rooms are imported inside the commands, so that no command waits for what it does not need.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, printable
from .benchmark import app as benchmark_app
from .common import Verbose, one_line_errors
from .evaluate import app as evaluate_app
from .export import export
from .publish import publish_all, push, push_kernel
from .visualize import app as visualize_app

app = typer.Typer(
    help="Vision backbones for transformers: convert, publish, classify, segment, evaluate, see inside, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(visualize_app, name="visualize")
app.command()(export)
app.command()(push)
app.command("publish-all")(publish_all)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Checkpoint file, folder or Hub id, or hf://ORG/REPO/FILE.")],
    output: Annotated[Path, typer.Argument(help="Folder to create.")],
    name: Annotated[str | None, typer.Option(help="Published checkpoint that SOURCE is.")] = None,
    original_config: Annotated[
        Path | None, typer.Option(help="JSON file with the original constructor's arguments, or mmseg's model dict.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Which weights of a training checkpoint: model or ema.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16; that of SOURCE by default.")] = None,
    max_shard_size: Annotated[str, typer.Option(help="Largest weight file.")] = "5GB",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUTPUT if it is a model repository.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write; print the report.")] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Convert a file whose sha256 is not the published one.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Convert a checkpoint of the original code into a complete model repository."""
    with one_line_errors(verbose):
        from hf_models.conversion import convert

        report = convert(
            source,
            output,
            name=name,
            original_config=original_config,
            weights=weights,
            dtype=dtype,
            max_shard_size=max_shard_size,
            overwrite=overwrite,
            dry_run=dry_run,
            allow_unknown=allow_unknown,
        )
    if dry_run:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    for key, reason in report["dropped"].items():
        print(f"dropped {printable(key)}: {reason}")
    for note in report["notes"]:
        print(f"note: {printable(note)}")
    print(f"{output}: {report['parameters']:,} parameters from {report['config_from']}")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder that `hf-models convert` wrote.")],
    source: Annotated[str | None, typer.Option(help="What it was converted from, to compare every value.")] = None,
    verbose: Verbose = False,
) -> None:
    """Repeat the checks of a conversion."""
    with one_line_errors(verbose):
        from hf_models.conversion import verify

        report = verify(folder, source=source)
    against = f", equal to {source}" if source else ""
    print(f"{folder}: {report['tensors']} tensors in {report['files']} file(s), as converted{against}")


@app.command("list")
def list_command(
    pattern: Annotated[str | None, typer.Argument(help="Shell-style pattern for the name, such as '*22k*'.")] = None,
    family: Annotated[str | None, typer.Option(help="Only this family, such as internimage.")] = None,
    task: Annotated[str | None, typer.Option(help="Only this task, such as image-classification.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """List the published checkpoints that can be converted."""
    with one_line_errors(verbose):
        from ..zoo import find_checkpoint, list_models

        models = [find_checkpoint(name) for name in list_models(pattern, family=family, task=task)]
    if as_json:
        keys = ("name", "family", "title", "task", "url", "license")
        keys += ("num_labels", "parameters", "test_set", "reported")
        print(json.dumps([{key: getattr(model, key) for key in keys} for model in models], indent=2))
        return
    width = max((len(model.name) for model in models), default=0)
    for model in models:
        score = model.reported.get(next(iter(model.metrics)))
        score = f"{score:.1f} %" if score else "-"
        parameters = f"{model.parameters / 1e6:,.1f} M" if model.parameters else "-"
        print(f"{model.name:{width}}  {model.title:32}  {parameters:>10}  {score:>7}  {model.task}")
    print(f"{len(models)} checkpoints; accuracy or mIoU by their authors, --json says on what", file=sys.stderr)


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[str | None, typer.Option(help="Folder or Hub id; the embedded checkpoint by default.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Say what is on images."""
    with one_line_errors(verbose):
        from ..inference.classify import classify_images

        results = classify_images(images, model=model, top_k=top_k)
    if as_json:
        print(json.dumps([{"image": str(i), "labels": labels} for i, labels in zip(images, results, strict=True)]))
        return
    for image, labels in zip(images, results, strict=True):
        print(printable(image))
        for entry in labels:
            print(f"  {entry['score']:6.1%}  {printable(entry['label'])}")


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    model: Annotated[str, typer.Option(help="Folder or Hub id of a segmentation model.")],
    out: Annotated[Path, typer.Option(help="Picture to write, such as overlay.png.")],
    alpha: Annotated[float, typer.Option(help="Opacity of the colours, from 0 to 1.")] = 0.5,
    multi_scale: Annotated[
        bool, typer.Option("--multi-scale", help="Average over several scales and mirrored images.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Draw the classes of an image's pixels over it, as the authors' test finds them; print their shares."""
    with one_line_errors(verbose):
        from ..segmentation.overlay import segment_image

        classes = segment_image(image, model, out, alpha=alpha, multi_scale=multi_scale)
    if as_json:
        print(json.dumps(classes))
        return
    for entry in classes:
        print(f"{entry['share']:6.1%}  {printable(entry['label'])}")


@app.command()
def demo(
    model: Annotated[str | None, typer.Option(help="Folder or Hub id; the embedded checkpoint by default.")] = None,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 7860,
    verbose: Verbose = False,
) -> None:
    """Open a page on this machine that labels photos and shows what the model sees; needs gradio."""
    with one_line_errors(verbose):
        from ..visualize.demo import run_demo

        run_demo(model, port)


kernels_app = typer.Typer(help="Compiled kernels: build, publish, see which of them run.", no_args_is_help=True)
app.add_typer(kernels_app, name="kernels")
kernels_app.command("push")(push_kernel)


@kernels_app.command("build")
def kernels_build(
    names: Annotated[list[str] | None, typer.Argument(help="Kernels to build; all by default.")] = None,
    backend: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    verbose: Verbose = False,
) -> None:
    """Compile kernels for this machine; needs a C++ compiler. Models use them from then on."""
    with one_line_errors(verbose):
        from hf_models.kernels_src.build import SOURCES, build_kernel

        from ..hub_kernels import KERNELS, default_directory

        for name in names or KERNELS:
            if name not in KERNELS:
                raise InputError(f"{name}: no such kernel. There are: {', '.join(KERNELS)}.")
            print(build_kernel(SOURCES / name, backend, default_directory() / name / "build"))


@kernels_app.command("status")
def kernels_status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, verbose: Verbose = False
) -> None:
    """Say which kernel runs on which device, or why the PyTorch reference does."""
    with one_line_errors(verbose):
        from ..hub_kernels import status

        rows = [asdict(row) for row in status()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['kernel']} on {row['device']}: {row['chosen']} ({row['reason']})")
        if row["path"]:
            print(f"  {row['version']} in {row['path']}, {', '.join(row['dtypes'])}")


def main() -> None:
    """Entry point of `hf-models`."""
    app()


def convert_main() -> None:
    """Entry point of `python -m hf_models.conversion`."""
    typer.run(convert)


if __name__ == "__main__":
    main()
