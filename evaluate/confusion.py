"""A picture of which class is taken for which."""

from pathlib import Path
from typing import Any

import numpy as np

from hf_models.visualize.figures import INK, PowerNorm, check_out, new_figure, save_figure, style

NAMED, COUNTED = 60, 25  # up to so many classes their names, and the numbers of images, are readable


@style
def draw_confusion(classes: list[dict[str, Any]], mistakes: list[dict[str, Any]], title: str, out: Path) -> None:
    """Draw a square for each two classes: the darker, the more of the images of one are taken for the other.

    Args:
        classes: As [`evaluate_classes`] returns them, as for `mistakes`.
        title: Shown above everything.
        out: File to write.
    """
    places = {entry["label"]: place for place, entry in enumerate(classes)}
    number = len(classes)
    counts = np.zeros((number, number), dtype=int)
    for entry in classes:
        counts[(places[entry["label"]],) * 2] += entry["right"]
    for entry in mistakes:
        counts[places[entry["label"]], places[entry["answer"]]] += entry["images"]
    side = min(max(0.35 * number, 3), 12)
    figure = new_figure(side + 2, side + 1.5, title)
    axes = figure.subplots()
    # the root, so that rare mistakes can be seen
    shares = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    figure.colorbar(image, ax=axes, label="% of the images of a class", shrink=0.8)
    axes.set_xlabel("answer of the model")
    axes.set_ylabel("class of the images")
    if number <= NAMED:
        labels = [entry["label"] for entry in classes]
        axes.set_xticks(range(number), labels, rotation=90, color=INK)
        axes.set_yticks(range(number), labels, color=INK)
    if number <= COUNTED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 40 else INK
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    save_figure(figure, check_out(out))
