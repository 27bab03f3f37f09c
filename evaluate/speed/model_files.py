"""The files of which the processes of a benchmark make their models, so that all of them run the same weights."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.inference.int8 import convert_to_int8, input_spans
from hf_models.inference.loading import DTYPES

from .model_entries import MODELS

Export = Callable[[str, Path], object]


class ModelFiles:
    """Files of models, made when they are asked for.

    Args:
        folder: Where to make them.
        export: Exports the model of a folder to a new folder, its second argument, as ONNX; an argument, because
            nothing here may depend on `hf_models.conversion`.
    """

    def __init__(self, folder: Path, export: Export):
        self.folder, self.export = folder, export

    def model(self, name: str, dtype: str) -> Path:
        """A folder as `save_pretrained` writes it, or a pickle of a model that is not of transformers."""
        folder, pickle = self.folder / f"{name}-{dtype}", self.folder / f"{name}-{dtype}.pt"
        if not folder.exists() and not pickle.exists():
            with quiet():
                model = MODELS[name].build().to(DTYPES[dtype])
                if isinstance(model, PreTrainedModel):
                    model.save_pretrained(folder)
                else:
                    torch.save(model, pickle)
        return folder if folder.exists() else pickle

    def int8(self, name: str, dtype: str) -> Path:
        """A folder as `hf-models quantize --calibration` writes it, calibrated with noise."""
        folder = self.folder / f"{name}-int8-{dtype}"
        if not folder.exists():
            with quiet():
                model = MODELS[name].build()
                side = model.config.image_size
                noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
                convert_to_int8(model, input_spans(model, [noise])).to(DTYPES[dtype]).save_pretrained(folder)
        return folder

    def onnx(self, name: str, image_size: int, int8: bool) -> Path:
        """An ONNX file for images of this size and any number of them, in float32 or with products in 8 bits."""
        file = self.folder / f"{name}-{image_size}.onnx"
        if not file.exists():
            source = self.model(name, "float32")
            with quiet():
                if source.is_dir():
                    size = {"height": image_size, "width": image_size}
                    ImageNetImageProcessor(size=size, do_center_crop=False).save_pretrained(source)
                    written = self.export(str(source), self.folder / f"{name}-{image_size}")
                    written.file.rename(file)
                else:
                    _export_module(torch.load(source, weights_only=False), image_size, file)
        return self._int8(file, image_size) if int8 else file

    def _int8(self, file: Path, image_size: int) -> Path:
        quantized = file.with_suffix(".int8.onnx")
        if not quantized.exists():
            with quiet():
                _quantize(file, image_size, quantized)
        return quantized


def _export_module(module: nn.Module, image_size: int, file: Path) -> None:
    images = torch.randn(2, 3, image_size, image_size)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (images,), dynamic_shapes=shapes)
    torch.onnx.export(program, input_names=["pixel_values"], dynamic_shapes=shapes, verbose=False).save(file)


def _quantize(file: Path, image_size: int, quantized: Path) -> None:
    """As onnxruntime's guide says for processors with VNNI: inputs are unsigned, weights signed."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Noise(CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(1)
            self.images = [rng.standard_normal((1, 3, image_size, image_size), dtype=np.float32) for _ in range(2)]

        def get_next(self):
            return {"pixel_values": self.images.pop()} if self.images else None

    prepared = quantized.with_suffix(".prepared")
    quant_pre_process(file, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        quantized,
        Noise(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


@contextmanager
def quiet() -> Iterator[None]:
    """The libraries tell at length what they do."""
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            transformers_logging.enable_progress_bar()
