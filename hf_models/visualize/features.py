"""What the stages of any model distinguish: the main components of each feature map as colours."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import PreTrainedModel

from .figures import Figure, check_out, photo_and_maps, save_figure, show_map, style
from .image_view import ImageView
from .photo import load_photo, model_name

# Oklab: a colour space in which equal steps look equal. a and b in the cube roots of the cones' responses, then to RGB
OKLAB_A = (0.3963377774, -0.1055613458, -0.0894841775)
OKLAB_B = (0.2158037573, -0.0638541728, -1.2914855480)
CONES_TO_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def visualize_features(image: str | Path, model: str | Path, out: str | Path, *, size: int | None = None) -> None:
    """Draw the feature maps of all stages for an image file.

    Args:
        image: Path of the image.
        model: Folder or Hub id of an image classifier, or "default" for the embedded checkpoint.
        out: Picture to write.
        size: Side of the square that the model sees, instead of its processor's.

    Raises:
        InputError: The image or the model cannot be used, or `out` cannot be written.
    """
    out = check_out(out)
    photo, view, pixel_values, classifier = load_photo(image, model, size)
    maps = feature_colours(classifier, pixel_values)
    save_figure(draw_features(photo, view, maps, model_name(classifier)), out)


def feature_colours(model: PreTrainedModel, pixel_values: torch.Tensor) -> list[np.ndarray]:
    """The feature map of each stage in the colours of `component_colours`.

    Args:
        model: An image classifier.
        pixel_values: (1, 3, height, width).
    """
    with torch.inference_mode():
        feature_maps = model(pixel_values, output_hidden_states=True).hidden_states[1:]  # the first is the stem's
    return [component_colours(feature_map[0].cpu()) for feature_map in feature_maps]


def component_colours(feature_map: torch.Tensor) -> np.ndarray:
    """The three main components of a feature map (C, H, W) as sRGB colours (H, W, 3) in [0, 1].

    The first sets the lightness, which every reader sees; the others the hue and the saturation.
    """
    pixels = feature_map.flatten(1).T.double()  # (C, H, W) -> (H * W, C)
    pixels = pixels - pixels.mean(dim=0)
    _, _, directions = torch.linalg.svd(pixels, full_matrices=False)
    directions = directions[:3]
    # the sign of a component is arbitrary: its largest entry is made positive, so that a picture can be repeated
    signs = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True)).sign()
    components = pixels @ (directions * signs).T  # (H * W, up to 3)
    components = F.pad(components, (0, 3 - components.shape[1]))  # a map of 2 positions has 2 components
    low, high = components.quantile(0.01, dim=0), components.quantile(0.99, dim=0)
    shares = ((components - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    colours = _oklab_to_srgb(0.2 + 0.75 * shares[:, 0], *(0.3 * shares[:, 1:] - 0.15).T)
    return colours.unflatten(0, feature_map.shape[1:]).numpy()


def _oklab_to_srgb(lightness: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Colours (N,) of https://bottosson.github.io/posts/oklab/ as sRGB (N, 3), clipped to [0, 1]."""
    cones = lightness[:, None] + a[:, None] * a.new_tensor(OKLAB_A) + b[:, None] * b.new_tensor(OKLAB_B)
    linear = (cones**3 @ a.new_tensor(CONES_TO_RGB).T).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@style
def draw_features(image: Image.Image, view: ImageView, maps: list[np.ndarray], name: str) -> Figure:
    """Draw the colours of `feature_colours` beside the photo."""
    titles = [f"stage {number}\n{m.shape[1]} x {m.shape[0]} positions" for number, m in enumerate(maps, start=1)]
    title = f"{name}: positions of a stage with similar features have similar colours"
    figure, panels = photo_and_maps(title, image, view, titles)
    for axes, colours in zip(panels, maps, strict=True):
        show_map(axes, view, colours, interpolation="nearest")
    figure.supxlabel(
        "principal components of each stage: the first from dark to light, the second from green to red, "
        "the third from blue to yellow",
        fontsize=8,
    )
    return figure
