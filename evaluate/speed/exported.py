"""`hf-models benchmark export`: exported classifiers in onnxruntime beside the same models in PyTorch."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm
from transformers import AutoModelForImageClassification

from hf_models.errors import InputError
from hf_models.inference.default import DEFAULT

from ..checkpoint import load
from ..results import EXPORTS, merge_results
from .timing import conditions, interleave, milliseconds, seconds, thread_count


class Exported(Protocol):
    """A model that was exported to ONNX.

    Attributes:
        file: Where it is.
        size: Bytes, with those of weights that lie outside the file.
        shape: That of the images it takes: (batch_size, num_channels, height, width).
    """

    file: Path
    size: int
    shape: tuple[int | str, ...]


def benchmark_export(
    export: Callable[[str, Path], Exported],
    models: Sequence[str] | None = None,
    batch_size: int = 1,
    threads: Sequence[int] | None = None,
    rounds: int = 10,
    limit: float = 10.0,
    results: Path | None = None,
) -> list[dict[str, str]]:
    """Export each model to ONNX in float32, check it, and time it on the CPU.

    Args:
        export: Exports the model that its first argument names into a new folder, its second; an argument, because
            nothing here may depend on `hf_models.conversion`.
        models: Folders or Hub ids of image classifiers, or "default" for the embedded checkpoint, as is the default.
        batch_size: Images of a call.
        threads: Numbers of threads to measure with, one after the other; 1 by default.
        rounds: How often each is timed, if that takes no more than `limit` seconds.
        results: CSV file to merge the rows into, after each model.

    Returns:
        The rows, as in the file.

    Raises:
        InputError: A model cannot be loaded or exported, a package is missing, or `results` cannot be used.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError("onnxruntime: not installed, needed here. Run `pip install onnxruntime`.") from None
    if results:
        merge_results(results, [], EXPORTS)  # fails now, not after the first measurement
    about = conditions("cpu")
    measured = []
    for source in tqdm(models or [DEFAULT], desc="models", disable=None):
        loaded = load(source, AutoModelForImageClassification)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            written = export(source, Path(folder) / "exported")
            height, width = written.shape[2:]
            images = torch.randn(batch_size, *written.shape[1:], generator=torch.Generator().manual_seed(0))
            for count in threads or [1]:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = count
                session = onnxruntime.InferenceSession(written.file, options, providers=["CPUExecutionProvider"])
                inputs = {"pixel_values": images.numpy()}
                runs = {
                    "onnxruntime": partial(seconds, partial(session.run, None, inputs), "cpu"),
                    "PyTorch": partial(seconds, partial(loaded.model, images), "cpu"),
                }
                with thread_count(count):
                    times = interleave(runs, rounds, limit, lambda: None)
                what = {
                    "model": loaded.name,
                    "image": f"{height} x {width}",
                    "batch_size": str(batch_size),
                    "threads": str(count),
                    "file_megabytes": f"{written.size / 1e6:.1f}",
                    "onnxruntime": onnxruntime.__version__,
                }
                rows = [what | {"runtime": name} | milliseconds(took) | about for name, took in times.items()]
                if results:
                    merge_results(results, rows, EXPORTS)
                measured += rows
    return measured
