"""What both evaluations share: the model, and the rows of the results."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import BaseImageProcessor, PreTrainedModel

from hf_models.deformable_conv import DCNv3, DCNv4
from hf_models.errors import InputError
from hf_models.inference.classify import default_checkpoint, load_model
from hf_models.inference.input_files import check_path, read_json

from .counting import Totals
from .data.images import ImageData
from .journal import Journal
from .results import ACCURACY, merge_results, read_results
from .speed.timing import DTYPES, check_choice, check_device, machine

DEFAULT = "default"


@dataclass(frozen=True)
class Settings:
    """How to evaluate; none of it changes what comes out but `dtype`, by rounding.

    Args:
        batch_size: Images in a batch.
        dtype: Key of `DTYPES`.
        device: "cpu" or "cuda".
        num_workers: Threads that read and prepare images.
        results: CSV file to merge the rows into, which also gets the journal of a killed run.
        resume: Go on from that journal.
    """

    batch_size: int = 32
    dtype: str = "float32"
    device: str = "cpu"
    num_workers: int = 2
    results: Path | None = None
    resume: bool = False

    def check(self) -> None:
        """Raise an [`InputError`] for what cannot be done."""
        check_choice("dtype", [self.dtype], DTYPES)
        check_device(self.device)
        if self.results is None:
            if self.resume:
                raise InputError("--resume: needs the --results beside which the journal is.")
            return
        read_results(self.results, ACCURACY)
        folder = self.results.resolve().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise InputError(f"{self.results}: cannot be written (no such folder). Name another file.")


@dataclass(frozen=True)
class Loaded:
    """A model with its processor.

    Args:
        name: For tables: that of the zoo, if the conversion recorded one.
        revision: Commit on the Hub, or hash of the weight files.
    """

    name: str
    revision: str
    processor: BaseImageProcessor
    model: PreTrainedModel

    @property
    def processor_name(self) -> str:
        return f"{type(self.processor).__name__} ({self.processor.backend})"


def load(source: str, auto_class: type, dtype: str) -> Loaded:
    """Load a folder, an id on the Hub, or "default" for the embedded checkpoint.

    Raises:
        InputError: It cannot be loaded.
    """
    check_path(source)
    folder = default_checkpoint() if source == DEFAULT else Path(source)
    local = folder.is_dir()
    processor, model = load_model(folder if local else source, auto_class, DTYPES[dtype])
    if not local:
        return Loaded(source, f"commit {model.config._commit_hash}", processor, model)
    name = "embedded default" if source == DEFAULT else _recorded_name(folder) or folder.resolve().name
    return Loaded(name, f"sha256 {_weights_sha256(folder)}", processor, model)


def key(loaded: Loaded, data: ImageData, options: dict[str, str], settings: Settings) -> dict[str, str]:
    """All that a count depends on, as the journal keeps it."""
    preparation = loaded.model.config.to_json_string() + loaded.processor.to_json_string()
    return {
        "model": f"{loaded.name}, {loaded.revision}",
        "config": hashlib.sha256(preparation.encode()).hexdigest()[:16],
        "data": f"{data.name}, {data.fingerprint}",
        "dtype": settings.dtype,
        **options,
    }


def make_rows(
    loaded: Loaded,
    data: ImageData,
    title: str,
    metrics: dict[str, float],
    totals: Totals,
    settings: Settings,
    size: str,
    options: str = "",
    processor: str | None = None,
) -> list[dict[str, str]]:
    """One row for each metric, a percentage.

    Args:
        title: What the data set is called.
        size: Of the images that the model sees.
        options: What else the numbers depend on.
        processor: What prepares the images, by default the model's image processor.
    """
    about = {
        "model": loaded.name,
        "revision": loaded.revision,
        "data": title,
        "fingerprint": data.fingerprint,
        "options": options,
        "dtype": settings.dtype,
        "processor": processor or loaded.processor_name,
        "size": size,
        "n": str(totals.n),
        "seconds": f"{totals.seconds:.3f}",
        **machine(settings.device),
        **({} if _is_deformable(loaded.model) else {"kernel": "none"}),
        "transformers": transformers.__version__,
    }
    return [about | {"metric": metric, "value": f"{value:.4f}"} for metric, value in metrics.items()]


def keep_rows(rows: list[dict[str, str]], results: Path | None) -> None:
    if results:
        merge_results(results, rows, ACCURACY)


def check_finite(scores: torch.Tensor, dtype: str) -> None:
    """Refuse to count predictions from NaN."""
    if not scores.isfinite().all():
        raise InputError(f"the model returns NaN or infinity in {dtype}. Pass another --dtype.")


def _is_deformable(model: PreTrainedModel) -> bool:
    return any(isinstance(module, DCNv3 | DCNv4) for module in model.modules())


def check_total(data: ImageData, expected: int | None, n: int, journal: Journal) -> None:
    """Refuse the result of a data set that held more or fewer images than it said."""
    if n == 0 or expected not in (None, n):
        journal.remove()
        raise InputError(f"{data.name}: {n:,} images were read, {expected or 'some'} expected. Nothing was written.")


def _recorded_name(folder: Path) -> str | None:
    try:
        name = read_json(folder / "conversion_report.json").get("name")
    except InputError:
        return None
    return name if isinstance(name, str) else None


def _weights_sha256(folder: Path) -> str:
    """First digits of the sha256 of the weight files, one after the other in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]
