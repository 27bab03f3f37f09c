"""`hf-models quantize`: a folder whose linear layers are in 8 bits."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageClassification, BaseImageProcessor, PreTrainedModel
from transformers.utils import logging

from hf_models.errors import InputError
from hf_models.inference.classify import load_config
from hf_models.inference.files import check_path
from hf_models.inference.images import read_image
from hf_models.inference.int8 import convert_to_int8, convertible_layers, input_spans
from hf_models.inference.loading import load_model
from hf_models.inference.names import model_folder
from hf_models.int8_linear import has_fast_products

from .writing.output import appearing, check_output, tidy

CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class Quantization:
    """What was written."""

    layers: int
    images: int  # that the spans of the inputs were seen on; 0 where they are measured in every call
    before: int  # bytes of all weights
    after: int
    fast: bool  # whether this machine computes in 8 bits


def quantize(
    source: str | Path,
    output: str | Path,
    *,
    calibration: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Quantization:
    """Write an image classifier whose linear layers are [`Int8Linear`], with its config, processor and code.

    Args:
        source: Folder or Hub id of an image classifier, or "default" for the embedded one.
        output: Folder to create.
        calibration: Folder of images like those that the model will see, of which at most 256 are taken.
        overwrite: Whether a model repository at `output` may be replaced.
        progress: Told what is done next.

    Raises:
        InputError: `source` is no image classifier, is quantised, or has no layer to quantise; there is no image in
            `calibration`, or one cannot be read; or `output` cannot be written.
    """
    output = Path(output)
    tidy(output)
    check_output(output, source, overwrite)
    config = load_config(source)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{source}: is quantised already. Name the folder that it was made from.")
    files = _images(Path(calibration)) if calibration is not None else []
    processor, model = load_model(model_folder(source), AutoModelForImageClassification, config.dtype or torch.float32)
    layers = convertible_layers(model)
    if not layers:
        raise InputError(f"{source}: {type(model).__name__} has no linear layers to quantise. Use it as it is.")
    for name, layer in layers.items():
        if not layer.weight.isfinite().all():
            raise InputError(f"{source}: {name}.weight is not finite. Convert or train it again.")
    logging.disable_progress_bar()  # of `save_pretrained`
    progress(f"calibrating with {len(files)} images" if files else f"rounding {len(layers)} layers")
    spans = input_spans(model, _pixels(processor, files))
    for name, span in spans.items():
        if not all(map(math.isfinite, span)):
            raise InputError(f"{source}: the input of {name} is not finite. Convert or train it again.")
    before = _bytes(model)
    convert_to_int8(model, spans)
    after = _bytes(model)
    with appearing(output, after, overwrite) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return Quantization(len(layers), len(files), before, after, has_fast_products())


def _images(folder: Path) -> list[Path]:
    """The images of a folder and those below, evenly chosen if there are many."""
    check_path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Name a folder of images.")
    endings = Image.registered_extensions()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not files:
        raise InputError(f"{folder}: holds no images. Name a folder of images like those that the model will see.")
    count = min(len(files), CALIBRATION_IMAGES)
    return [files[index * len(files) // count] for index in range(count)]


def _pixels(processor: BaseImageProcessor, files: list[Path]) -> Iterator[torch.Tensor]:
    channels = getattr(processor, "channels", 3)
    for file in files:
        yield processor(read_image(file, channels=channels), return_tensors="pt").pixel_values


def _bytes(model: PreTrainedModel) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())
