"""`hf-models benchmark`: speed."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Device, Verbose, one_line_errors

app = typer.Typer(
    help="Time operators and models beside their peers, in turns.\n\n"
    "On a CPU start with MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 in the environment: "
    "without them the C library returns each large result to the system, and page faults take up to half of a time. "
    "HF_MODELS_KERNELS=require makes sure that the compiled kernel runs.",
    no_args_is_help=True,
)
Dtypes = Annotated[
    list[str] | None,
    typer.Option("--dtypes", "--dtype", help="float32 (the default), bfloat16 or float16; may be repeated."),
]
Threads = Annotated[list[int] | None, typer.Option(min=1, help="How many, 1 by default; may be repeated.")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each is timed, if --seconds allow.")]
Seconds = Annotated[float, typer.Option(min=0, help="For each in each case; the slowest are timed once.")]
Results = Annotated[Path | None, typer.Option(help="CSV file to keep the rows in; measured again, they are replaced.")]
Resume = Annotated[bool, typer.Option("--resume", help="Leave out what --results has of this build on this machine.")]


@app.command("ops")
def benchmark_ops(
    operator: Annotated[
        str,
        typer.Option(
            help="deformable-conv, large-kernel-conv, winograd-conv, deformable-attention, roi-align or nms."
        ),
    ] = "deformable-conv",
    shapes: Annotated[
        list[str] | None, typer.Option(help="Such as seed56; may be repeated; all that suit the device by default.")
    ] = None,
    dtypes: Dtypes = None,
    threads: Threads = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the shapes' own.")] = None,
    rounds: Rounds = 20,
    seconds: Seconds = 3.0,
    device: Device = None,
    backward: Annotated[bool, typer.Option(help="Time the backward passes too.")] = True,
    results: Results = None,
    resume: Resume = False,
    verbose: Verbose = False,
) -> None:
    """Time an operator with a compiled kernel. What could be run instead is timed beside it."""
    with one_line_errors(verbose):
        from hf_models.evaluate.speed.operators import benchmark_operator
        from hf_models.evaluate.speed.tables import render_operators

        rows = benchmark_operator(
            operator, shapes, dtypes, threads, batch_size, rounds, seconds, device, backward, results, resume
        )
        print(render_operators(rows), end="")


@app.command("models")
def benchmark_models(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            "--model",
            help="Such as internimage-t, or internimage-t:int8 for one mode; may be repeated; all by default.",
        ),
    ] = None,
    modes: Annotated[
        list[str] | None,
        typer.Option(
            "--mode",
            help="eager (the default), compiled, frozen (compiled, with weights that cannot change), int8, "
            "onnxruntime, onnxruntime-int8, openvino or openvino-int8; may be repeated.",
        ),
    ] = None,
    image_size: Annotated[
        list[int] | None, typer.Option(min=32, help="Pixels of a side, 224 by default; may be repeated.")
    ] = None,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="1 and 8 by default; may be repeated.")] = None,
    dtypes: Dtypes = None,
    threads: Threads = None,
    rounds: Rounds = 10,
    seconds: Seconds = 10.0,
    device: Device = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Python of an environment with another version of this package, to beat.")
    ] = None,
    results: Results = None,
    resume: Resume = False,
    verbose: Verbose = False,
) -> None:
    """Time whole classifiers, and measure their peak memory.

    Their weights are random, and each has a process of its own.
    """
    with one_line_errors(verbose):
        from hf_models.conversion.export import export
        from hf_models.evaluate.speed.model_tables import render_models
        from hf_models.evaluate.speed.models import benchmark_models

        rows = benchmark_models(
            export,
            models,
            modes,
            image_size,
            batch_size,
            dtypes,
            threads,
            rounds,
            seconds,
            device,
            baseline,
            results,
            resume,
        )
        print(render_models(rows), end="")


@app.command("detectors")
def benchmark_detectors(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models", "--model", help="Name in the zoo; may be repeated; by default InternImage-T's Mask R-CNN."
        ),
    ] = None,
    dtypes: Dtypes = None,
    threads: Threads = None,
    rounds: Rounds = 5,
    seconds: Seconds = 30.0,
    device: Device = None,
    results: Results = None,
    resume: Resume = False,
    verbose: Verbose = False,
) -> None:
    """Time whole detectors beside their backbones alone.

    Their weights are random, and the images have 800 x 1333 pixels.
    """
    with one_line_errors(verbose):
        from hf_models.evaluate.speed.detectors import benchmark_detectors
        from hf_models.evaluate.speed.model_tables import render_detectors

        rows = benchmark_detectors(models, dtypes, threads, rounds, seconds, device, results, resume)
        print(render_detectors(rows), end="")


@app.command("export")
def benchmark_export(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Folder, Hub id, or `default`, the embedded one, by default; may be repeated."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a call.")] = 1,
    threads: Threads = None,
    rounds: Rounds = 10,
    seconds: Seconds = 10.0,
    results: Results = None,
    verbose: Verbose = False,
) -> None:
    """Time exported classifiers in onnxruntime beside PyTorch. `hf-models export` exports them."""
    with one_line_errors(verbose):
        from hf_models.conversion.export import export
        from hf_models.evaluate.speed.exported import benchmark_export
        from hf_models.evaluate.speed.tables import render_exports

        rows = benchmark_export(export, models, batch_size, threads, rounds, seconds, results)
        print(render_exports(rows), end="")


@app.command("memory")
def benchmark_memory(
    models: Annotated[
        list[str] | None, typer.Option(help="Such as internimage-t; may be repeated; all by default.")
    ] = None,
    dtypes: Annotated[list[str] | None, typer.Option(help="float32 and bfloat16 by default; may be repeated.")] = None,
    python: Annotated[
        Path | None, typer.Option(help="That of an environment with another version of this package.")
    ] = None,
    version: Annotated[str, typer.Option(help="What the rows call it.")] = "this version",
    results: Results = None,
    verbose: Verbose = False,
) -> None:
    """Measure the memory that one large image takes."""
    with one_line_errors(verbose):
        from hf_models.evaluate.speed.memory import benchmark_memory, render_memory

        print(render_memory(benchmark_memory(models, dtypes, python, version, results)), end="")


@app.command("training")
def benchmark_training(
    models: Annotated[
        list[str] | None, typer.Option(help="Such as internimage-t; may be repeated; all by default.")
    ] = None,
    dtypes: Annotated[
        list[str] | None, typer.Option(help="float32 and bfloat16 (autocast) by default; may be repeated.")
    ] = None,
    threads: Threads = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 8,
    image_size: Annotated[int, typer.Option(min=32, help="Pixels of a side.")] = 224,
    rounds: Rounds = 5,
    seconds: Seconds = 30.0,
    results: Results = None,
    verbose: Verbose = False,
) -> None:
    """Time a step of training of whole classifiers.

    It is the forward pass, the backward pass and AdamW, with random weights and images.
    """
    with one_line_errors(verbose):
        from hf_models.evaluate.speed.training_step import benchmark_training, render_training

        rows = benchmark_training(models, dtypes, threads, batch_size, image_size, rounds, seconds, results)
        print(render_training(rows), end="")


@app.command("table")
def benchmark_table(
    operators: Annotated[Path | None, typer.Option(exists=True, help="CSV file of `ops`, or the package's.")] = None,
    models: Annotated[Path | None, typer.Option(exists=True, help="CSV file of `models`, or the package's.")] = None,
    verbose: Verbose = False,
) -> None:
    """Render results that were kept, as Markdown."""
    with one_line_errors(verbose):
        from hf_models.evaluate.results import FOLDER, MODELS, read_results
        from hf_models.evaluate.speed.model_tables import render_models
        from hf_models.evaluate.speed.tables import operators_table

        print(operators_table(operators or FOLDER / "operators.csv"))
        print(render_models(read_results(models or FOLDER / "models.csv", MODELS)), end="")
