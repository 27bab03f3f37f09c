"""A picture of the shape bias: a row for each category, as in the original study."""

from pathlib import Path
from typing import Any

from hf_models.visualize.figures import INK, OKABE_ITO, PALE, check_out, new_figure, save_figure, style


@style
def draw_shape_bias(measured: dict[str, dict[str, Any]], title: str, out: Path) -> None:
    """Draw the share of shape decisions in each category as a point with its standard error, and over all as a line.

    Args:
        measured: Name of a model -> its details, as [`evaluate_shape_bias`] returns them; up to seven models.
        title: Shown above everything.
        out: File to write.
    """
    names = sorted({entry["category"] for details in measured.values() for entry in details["categories"]})
    figure = new_figure(6, 0.28 * len(names) + 1.8, title)
    axes = figure.subplots()
    for (name, details), colour in zip(measured.items(), OKABE_ITO[4:] + OKABE_ITO[:4], strict=False):
        decided = [entry for entry in details["categories"] if entry["shape_bias"] is not None]
        axes.errorbar(
            [entry["shape_bias"] for entry in decided],
            [names.index(entry["category"]) for entry in decided],
            xerr=[entry["standard_error"] for entry in decided],
            fmt="o",
            color=colour,
            elinewidth=0.8,
        )
        label = f"{name}: {details['shape_bias']:.1f} ± {details['standard_error']:.1f} %"
        axes.axvline(details["shape_bias"], color=colour, linewidth=1.3, label=label)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.grid(axis="y", color=PALE, linewidth=0.3)
    axes.set_xlabel("shape decisions in % of the decisions for shape or texture")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
    save_figure(figure, check_out(out))
