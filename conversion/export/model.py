"""Export to ONNX, torch.export or AOTInductor: a folder that runs without this package, checked before it appears."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, BaseImageProcessor, PreTrainedModel

from hf_models.errors import InputError
from hf_models.execution import keeping_kernels
from hf_models.inference.loading import load_model
from hf_models.inference.names import model_folder
from hf_models.inference.tasks import COMMANDS, auto_class_of, task_of
from hf_models.segmentation import recipe_of

from ..writing.output import appearing, check_output, tidy
from .clients import INTERFACES, client_config, client_processor, interface_of
from .formats import FORMATS

# the largest difference from PyTorch in float32 that is let through, relative to the largest output
TOLERANCES = {"float32": 1e-4, "float16": 1e-2}


@dataclass(frozen=True)
class Export:
    """What was written."""

    file: Path
    size: int  # bytes, with what lies outside the file
    shape: tuple[int | str, ...]  # of `pixel_values`; names are dynamic
    outputs: tuple[str, ...]
    difference: float  # from PyTorch, relative to the largest output


class TensorsOnly(nn.Module):
    """A model that takes images and returns the named outputs, both in float32, and nothing else."""

    def __init__(self, model: PreTrainedModel, outputs: tuple[str, ...]):
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Takes (batch_size, num_channels, height, width)."""
        outputs = self.model(pixel_values=pixel_values, return_dict=True)
        return tuple(outputs[name].float() for name in self.outputs)


def export(
    source: str,
    output: Path,
    *,
    format: str = "onnx",
    dynamic: bool = False,
    batch_size: int | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Export:
    """Write a model in another format, with its config and image processor beside it.

    Operators are the PyTorch references, but in "aoti", where the compiled kernels that are called lie in the folder.
    What was written is loaded again and compared with PyTorch on random images; only if they agree does the folder
    appear. An ONNX folder is one that optimum's ORTModel classes and transformers.js load.

    Args:
        source: Folder or Hub id of an image classifier or a segmentation model; "default" for the embedded one.
        output: Folder to create.
        format: "onnx", "torch-export" for a program that `torch.export.load` reads, or "aoti" for a package that is
            compiled for this processor and that C++ programs load.
        dynamic: Whether height and width are dynamic too, any multiples of the stride of the last feature map (32 in
            most models), instead of those that the model was made for.
        batch_size: The number of images that the exported model takes; any number by default.
        dtype: "float32", or "float16" for weights and arithmetic; what goes in and comes out is float32.
        overwrite: Whether a model repository at `output` may be replaced.
        progress: Told what is done next; a large model takes minutes.

    Raises:
        InputError: `source` cannot be loaded or exported, `output` cannot be written, a package is missing, or the
            result differs from PyTorch.
    """
    for option, value, known in (("--format", format, FORMATS), ("--dtype", dtype, TOLERANCES)):
        if value not in known:
            raise InputError(f"{option}: expected one of {', '.join(known)}, got {value}.")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"--batch-size: expected 1 or more, got {batch_size}.")
    form = FORMATS[format]
    if missing := " ".join(name for name in form.packages if find_spec(name) is None):
        raise InputError(f"--format {format}: not installed: {missing}. Run `pip install {missing}`.")
    tidy(output)
    check_output(output, source, overwrite)
    progress(f"loading {source}")
    processor, model = _load(source)
    stride = _output_stride(model)
    height, width = _image_size(processor, model)
    if dynamic:
        height, width = (-(-side // stride) * stride for side in (height, width))
    names = interface_of(model.config).outputs
    # at the sizes that are not traced, one of them of a single image, as most users will run it
    checks = (
        _random_images(model, batch_size or 1, height, width),
        _random_images(model, batch_size or 3, height + stride * dynamic, width + 2 * stride * dynamic),
    )
    module = TensorsOnly(model, names).eval()
    with torch.no_grad():
        expected = [tensor for pixel_values in checks for tensor in module(pixel_values)]
    module.to(getattr(torch, dtype))
    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    shapes = {} if batch_size else {0: torch.export.Dim("batch")}
    if dynamic:
        shapes |= {2: stride * torch.export.Dim("rows"), 3: stride * torch.export.Dim("columns")}
    with appearing(output, size, overwrite) as folder:
        file = folder / form.file
        file.parent.mkdir(exist_ok=True)
        try:
            with _quiet(), torch.no_grad():
                progress(f"recording the operators on images of {height} x {width} pixels")
                example = (_random_images(model, batch_size or 2, height, width),)
                with keeping_kernels() if form.keeps_kernels else nullcontext():
                    program = torch.export.export(module, example, dynamic_shapes=(shapes,))
                for node in program.graph.nodes:
                    node.meta.pop("stack_trace", None)  # paths on this machine
                progress(f"writing {form.file}, {size / 1e6:,.0f} MB")
                run = form.write(program, file, names, shapes)
                progress("checking what was written against PyTorch")
                got = [tensor for pixel_values in checks for tensor in run(pixel_values)]
        except Exception as error:  # exporters raise what they happen to meet, of any class
            way_out = "Leave --dynamic out." if dynamic else "See the whole error with --verbose."
            raise InputError(
                f"{source}: {type(model).__name__} cannot be exported as {format} ({_reason(error)}). {way_out}"
            ) from error
        difference = _difference(got, expected)
        if not difference <= TOLERANCES[dtype]:  # NaN is refused too
            raise InputError(
                f"{source}: the exported model differs from PyTorch by {difference:.1e} of the largest output, "
                f"more than {TOLERANCES[dtype]:.0e}, so it is not written."
            )
        written = sum(part.stat().st_size for part in file.parent.iterdir())
        _write_configs(folder, processor, model, (height, width) if format == "onnx" else None)
    sides = (f"{stride}*rows", f"{stride}*columns") if dynamic else (height, width)
    return Export(output / form.file, written, (batch_size or "batch", checks[0].shape[1], *sides), names, difference)


def _load(source: str) -> tuple[BaseImageProcessor, PreTrainedModel]:
    path = model_folder(source)
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{source}: cannot be loaded as a model ({reason})") from error
    auto_class = auto_class_of(config) or AutoModelForImageClassification
    if auto_class.__name__ not in INTERFACES:
        raise InputError(
            f"{source}: is for {task_of(config)}; only classifiers and segmentation models can be exported. "
            f"Run it with `hf-models {COMMANDS[task_of(config)]}`."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{source}: is quantised. Export the folder that it was made from.")
    return load_model(path, auto_class)


def _image_size(processor: BaseImageProcessor, model: PreTrainedModel) -> tuple[int, int]:
    """Height and width in pixels: those after the processor, or for segmentation those of the authors' training."""
    if getattr(model.config, "segmentation_recipe", None):
        recipe = recipe_of(model)
        return recipe.crop_size or (recipe.short_edge, recipe.short_edge)
    size = (getattr(processor, "do_center_crop", False) and processor.crop_size) or processor.size
    if "height" in size:
        return size["height"], size["width"]
    return size["shortest_edge"], size["shortest_edge"]


def _write_configs(
    folder: Path, processor: BaseImageProcessor, model: PreTrainedModel, client_size: tuple[int, int] | None
) -> None:
    """Write config and image processor, for clients with images of `client_size` or as they are."""
    if client_size:
        config, processor = client_config(model.config), client_processor(processor, model.config, *client_size)
    else:
        config, processor = (json.loads(part.to_json_string()) for part in (model.config, processor))
    for name, content in (("config.json", config), ("preprocessor_config.json", processor)):
        content.pop("auto_map", None)  # names code, which is not needed and not there
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _output_stride(model: PreTrainedModel) -> int:
    """Pixels between neighbouring positions of the last feature map; a model of transformers is taken to have 32."""
    return getattr(getattr(model.config, "backbone_config", model.config), "output_stride", 32)


def _random_images(model: PreTrainedModel, batch_size: int, height: int, width: int) -> torch.Tensor:
    channels = getattr(model.config, "num_channels", 3)
    return torch.randn(batch_size, channels, height, width, generator=torch.Generator().manual_seed(batch_size))


def _difference(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest difference of a tensor, relative to its largest value; NaN if there is one anywhere."""
    pairs = zip(got, expected, strict=True)
    return torch.stack([(ours - theirs).abs().max() / theirs.abs().max() for ours, theirs in pairs]).max().item()


def _reason(error: BaseException) -> str:
    """The first line of what an exporter's error was caused by."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of what they do themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
