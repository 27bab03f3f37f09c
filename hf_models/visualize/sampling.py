"""Draws where a deformable layer reads."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from .figures import (
    INK,
    OKABE_ITO,
    PALE,
    Axes,
    Figure,
    Line2D,
    Rectangle,
    check_out,
    new_figure,
    reduce_photo,
    save_figure,
    show_photo,
    style,
    to_rgba_array,
)
from .image_view import ImageView
from .photo import load_photo
from .sampling_points import SamplingPoints, sampling_points

MARKERS = "os^"  # groups beyond the colours differ by marker
MAX_GROUPS = 16  # panels that fit
LARGEST, SMALLEST = 90, 3  # areas of markers in square points
PHOTO_WIDTH, MAX_PHOTO_HEIGHT, PANEL = 5.0, 6.0, 1.35  # inches
PIXEL = {"linestyle": "", "marker": "X", "markersize": 8, "markerfacecolor": "white", "markeredgecolor": INK}


def visualize_sampling(
    image: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    at: tuple[float, float] | None = None,
    stage: int | None = None,
    layer: int | None = None,
    size: int | None = None,
) -> None:
    """Draw the points that a deformable layer samples for one pixel of an image file.

    Args:
        image: Path of the image.
        model: Folder or Hub id of an image classifier, or "default" for the embedded checkpoint.
        out: Picture to write.
        at: Pixel (x, y) of the image; by default the middle of what the model sees.
        stage: From 1; by default the third, or the last of fewer.
        layer: From 1; the stage's last by default.
        size: Side of the square that the model sees, instead of its processor's.

    Raises:
        InputError: The image, the model, the pixel or the layer cannot be used, or `out` cannot be written.
    """
    out = check_out(out)
    photo, view, pixel_values, classifier = load_photo(image, model, size)
    points = sampling_points(classifier, pixel_values, view, at=at, stage=stage, layer=layer)
    save_figure(draw_sampling(photo, view, points), out)


@style
def draw_sampling(image: Image.Image, view: ImageView, points: SamplingPoints) -> Figure:
    """Draw sampling points on their image: all groups together, and each group larger in a panel of its own.

    In every panel the points of group i are one collection with the label `group i`. Of more than 16 groups those are
    shown whose points move farthest.
    """
    grid_x, grid_y = points.grid
    reach = np.hypot(points.x - grid_x, points.y - grid_y).mean(axis=1)  # (groups,)
    shown = np.sort(np.argsort(-reach, kind="stable")[:MAX_GROUPS])
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    height = max(PANEL * rows, min(PHOTO_WIDTH * image.height / image.width, MAX_PHOTO_HEIGHT)) + 1.1
    figure = new_figure(PHOTO_WIDTH + PANEL * columns, height, points.name)
    layout = figure.add_gridspec(rows, columns + 1, width_ratios=[PHOTO_WIDTH, *[PANEL] * columns])
    overview = figure.add_subplot(layout[:, 0])
    photo = reduce_photo(image).convert("L")  # grey, for the colours to stand out
    show_photo(overview, photo, view)
    overview.plot(*points.at, **PIXEL)
    overview.set_xlabel("pixels of the photo; framed: what the model sees; dashed: the panels", fontsize=7, color=PALE)
    x, y = points.at
    count = f"{len(shown)} of {len(points.x)} groups" if len(shown) < len(points.x) else f"{len(shown)} groups"
    overview.set_title(
        f"what it reads for the pixel ({x:.0f}, {y:.0f}): {points.x.shape[1]} points in each of {count}"
    )
    window_x, window_y = _window(points, shown)
    for number, group in enumerate(shown):
        axes = figure.add_subplot(layout[number // columns, number % columns + 1])
        axes.imshow(photo, cmap="gray", vmin=0, vmax=255, alpha=0.55, extent=view.image_frame)
        axes.set(xlim=window_x, ylim=window_y, xticks=[], yticks=[])
        axes.set_title(f"group {group}", fontsize=8, pad=3)
        axes.plot([grid_x, points.x[group]], [grid_y, points.y[group]], color=INK, linewidth=0.7)
        axes.plot(grid_x, grid_y, "+", color=INK, markersize=4, markeredgewidth=0.8)
        axes.plot(*points.at, **PIXEL)
        for panel, factor in ((axes, 1.0), (overview, 0.4)):
            _scatter(
                panel, points, group, MARKERS[number // len(OKABE_ITO)], OKABE_ITO[number % len(OKABE_ITO)], factor
            )
    corner, side = (window_x[0], window_y[1]), window_x[1] - window_x[0]
    for colour, line in (("white", "-"), (INK, (0, (4, 3)))):
        overview.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linestyle=line))
    figure.legend(handles=_legend(points), loc="outside lower center", ncols=6 if figure.get_figwidth() > 9 else 3)
    return figure


def _areas(weight: np.ndarray, largest: float) -> np.ndarray:
    return SMALLEST + (LARGEST - SMALLEST) * np.abs(weight) / (largest or 1)  # all are 0 in a new DCNv4


def _scatter(axes: Axes, points: SamplingPoints, group: int, marker: str, colour: str, factor: float) -> None:
    """Positive weights are filled, negative ones are rings; points that read nothing are pale."""
    positive, shown = points.weight[group] >= 0, np.where(points.read[group], 1.0, 0.3)
    axes.scatter(
        points.x[group],
        points.y[group],
        s=_areas(points.weight[group], np.abs(points.weight).max()) * factor,
        marker=marker,
        facecolors=to_rgba_array(np.where(positive, colour, "white"), shown),
        edgecolors=to_rgba_array(np.where(positive, INK, colour), shown),
        linewidths=np.where(positive, 0.5, 1.6),
        zorder=3,
        label=f"group {group}",
    )


def _window(points: SamplingPoints, shown: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of x and of y of a square around all points that are shown."""
    spans = []
    for positions, regular in ((points.x, points.grid[0]), (points.y, points.grid[1])):
        positions = np.concatenate((positions[shown].ravel(), regular))
        spans.append((positions.min(), positions.max()))
    half = max(high - low for low, high in spans) * 0.58
    (left, right), (top, bottom) = (((low + high) / 2 - half, (low + high) / 2 + half) for low, high in spans)
    return (left, right), (bottom, top)


def _legend(points: SamplingPoints) -> list[Line2D]:
    largest = np.abs(points.weight).max()

    def entry(label: str, share: float, **options) -> Line2D:
        size = math.sqrt(_areas(np.asarray(share), 1))
        options = {"marker": "o", "markerfacecolor": "#BBBBBB", "markeredgecolor": INK} | options
        return Line2D([], [], linestyle="", markersize=size, label=label, **options)

    entries = [Line2D([], [], **PIXEL, label="the pixel")]
    entries += [entry(f"weight {share * largest:.2g}", share) for share in (1, 0.3)]
    if (points.weight < 0).any():
        ring = {"markerfacecolor": "white", "markeredgecolor": "#777777", "markeredgewidth": 1.6}
        entries.append(entry("negative weight", 0.5, **ring))
    if not points.read.all():
        entries.append(entry("outside, read as 0", 0.5, alpha=0.3))
    entries.append(Line2D([], [], color=INK, linewidth=0.7, label="from the regular grid (+) to the point"))
    return entries
