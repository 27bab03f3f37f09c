"""Where SMT modulates: the strength of its modulators, as the authors' notebook shows them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from ..errors import InputError
from ..modeling_smt import SMTModulation, SMTStage
from .figures import Figure, check_out, photo_and_maps, save_figure, show_map, style
from .image_view import ImageView
from .photo import families_with, load_photo, model_name


def visualize_modulation(image: str | Path, model: str | Path, out: str | Path, *, size: int | None = None) -> None:
    """Draw the modulators of an SMT for an image file.

    Args:
        image: Path of the image.
        model: Folder or Hub id of an SMT classifier, or "default" for the embedded checkpoint.
        out: Picture to write.
        size: Side of the square that the model sees, instead of its processor's.

    Raises:
        InputError: The image or the model cannot be used, or `out` cannot be written.
    """
    out = check_out(out)
    photo, view, pixel_values, classifier = load_photo(image, model, size)
    strengths = modulator_strengths(classifier, pixel_values)
    save_figure(draw_modulation(photo, view, strengths, model_name(classifier)), out)


def last_modulations(model: PreTrainedModel) -> dict[str, SMTModulation]:
    """The last modulation of each stage that has one: `stage 3, layer 7 of 8` -> module."""
    found = {}
    for number, stage in enumerate(model.base_model.encoder.stages, start=1):
        layers = stage.layers if isinstance(stage, SMTStage) else ()
        for index, layer in enumerate(layers, start=1):
            if isinstance(layer.mixer, SMTModulation):
                found[number] = (f"stage {number}, layer {index} of {len(layers)}", layer.mixer)
    return dict(found.values())


def is_modulated(model: PreTrainedModel) -> bool:
    """Whether a model has modulators that can be drawn."""
    return bool(last_modulations(model))


def modulator_strengths(model: PreTrainedModel, pixel_values: torch.Tensor) -> dict[str, np.ndarray]:
    """Mean absolute value over the channels of the last modulator of each stage.

    Args:
        model: An SMT classifier.
        pixel_values: (1, 3, height, width).

    Returns:
        For the name of each layer (height, width) of its stage.

    Raises:
        InputError: The model has no modulation.
    """
    modulations = last_modulations(model)
    if not modulations:
        raise InputError(
            f"{model_name(model)}: no scale-aware modulation. "
            f"`visualize modulation` fits {families_with(is_modulated)}: give one with --model."
        )
    modulators = {}

    def keep(name):
        return lambda module, args, output: modulators.update({name: output})

    # the last convolution of the branch returns what the value is multiplied by
    hooks = [module.reduce.register_forward_hook(keep(name)) for name, module in modulations.items()]
    try:
        with torch.inference_mode():
            model(pixel_values)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: modulators[name][0].abs().mean(dim=0).cpu().numpy() for name in modulations}


@style
def draw_modulation(image: Image.Image, view: ImageView, strengths: dict[str, np.ndarray], name: str) -> Figure:
    """Draw what `modulator_strengths` returns beside the photo."""
    titles = [f"{layer}\n{m.shape[1]} x {m.shape[0]} positions" for layer, m in strengths.items()]
    figure, panels = photo_and_maps(f"{name}: how strongly the modulators act", image, view, titles)
    for axes, strength in zip(panels, strengths.values(), strict=True):
        artist = show_map(axes, view, strength, cmap="cividis", interpolation="bilinear")
        figure.colorbar(artist, ax=axes, orientation="horizontal", shrink=0.9, aspect=25, pad=0.02)
    figure.supxlabel("mean absolute value of the modulator over its channels, enlarged bilinearly", fontsize=8)
    return figure
