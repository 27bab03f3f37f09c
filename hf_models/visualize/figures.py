"""What all pictures share: matplotlib, colours that colour-blind readers can tell apart, panels, writing a file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..inference.files import replacing
from .image_view import ImageView

try:
    from matplotlib import colormaps, rc_context
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm, to_rgba_array
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
except ImportError:
    raise InputError("matplotlib: not installed, needed by pictures. Run `pip install matplotlib`.") from None

# Okabe and Ito, https://jfly.uni-koeln.de/color/, without black
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
INK, PALE = "#222222", "#888888"
DPI = 110
style = rc_context(  # a decorator for what draws
    {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.edgecolor": PALE,
        "axes.linewidth": 0.6,
        "xtick.color": PALE,
        "ytick.color": PALE,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
)


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure, apart from pyplot and its global state.

    Args:
        width: In inches; `height` likewise.
        title: Shown above everything.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.07)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def reduce_photo(image: Image.Image) -> Image.Image:
    """A copy of at most 1200 pixels a side: a picture shows no more, and every panel would take time for each."""
    copy = image.copy()
    copy.thumbnail((1200, 1200))
    return copy


def show_photo(axes: Axes, photo: Image.Image, view: ImageView) -> None:
    """Draw a photo in pixels of the image, with a frame around what the model sees, and the rest paler."""
    axes.imshow(photo, cmap="gray", vmin=0, vmax=255, extent=view.image_frame)
    left, right, bottom, top = view.frame
    image_left, image_right, image_bottom, image_top = view.image_frame
    for x, y, width, height in (
        (image_left, image_top, left - image_left, image_bottom - image_top),
        (right, image_top, image_right - right, image_bottom - image_top),
        (left, image_top, right - left, top - image_top),
        (left, bottom, right - left, image_bottom - bottom),
    ):
        if width > 0 and height > 0:
            axes.add_patch(Rectangle((x, y), width, height, facecolor="white", alpha=0.6, linewidth=0))
    for colour, line in (("white", 2.5), (INK, 1)):
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=line)
        )
    axes.set_xlim(min(image_left, left), max(image_right, right))
    axes.set_ylim(max(image_bottom, bottom), min(image_top, top))


def show_map(axes: Axes, view: ImageView, values: np.ndarray, **options) -> AxesImage:
    """Draw a map (height, width[, 3]) of a model where its image is, in pixels of the image; returns the artist."""
    return axes.imshow(values, extent=view.frame, **options)


def photo_and_maps(title: str, image: Image.Image, view: ImageView, names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with the photo at the left, and the axes of one square panel for each of `names`."""
    left, right, bottom, top = view.frame
    aspect = (right - left) / (bottom - top)
    side = 2.3
    widths = [max(side * ratio, 1.6) for ratio in (image.width / image.height, *[aspect] * len(names))]
    figure = new_figure(sum(widths) + 0.5, side + 1.1, title)
    first, *others = figure.subplots(1, len(names) + 1, width_ratios=widths)
    show_photo(first, reduce_photo(image), view)
    first.set_title(f"the photo, seen\nat {view.size[0]} x {view.size[1]} pixels")
    for axes, name in zip(others, names, strict=True):
        axes.set_title(name)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure, others


def check_out(out: str | Path) -> Path:
    """The path of a picture to write.

    Raises:
        InputError: Its name or folder cannot be used.
    """
    out = Path(out)
    formats = sorted(FigureCanvasAgg.get_supported_filetypes())
    if out.suffix.lower().removeprefix(".") not in formats:
        raise InputError(f"{out}: not a name of a picture. Give one that ends in .png, .pdf or .svg.")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}.")
    return out


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure; the file appears complete or not at all.

    Raises:
        InputError: It cannot be written.
    """
    with replacing(out) as beside:
        figure.savefig(beside)


def figure_image(figure: Figure) -> Image.Image:
    """A figure as an RGB image."""
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


__all__ = [
    "INK",
    "OKABE_ITO",
    "PALE",
    "Axes",
    "Figure",
    "Line2D",
    "PowerNorm",
    "Rectangle",
    "check_out",
    "colormaps",
    "figure_image",
    "new_figure",
    "photo_and_maps",
    "reduce_photo",
    "save_figure",
    "show_map",
    "show_photo",
    "style",
    "to_rgba_array",
]
