"""A picture of precision over recall."""

from pathlib import Path

import numpy as np

from hf_models.visualize.figures import INK, PALE, check_out, colormaps, new_figure, save_figure, style

from .coco_metrics import Precision

TITLES = {"box": "boxes", "mask": "masks"}


@style
def draw_curves(found: dict[str, Precision], title: str, out: Path) -> None:
    """Draw, for boxes and for masks, the precision at each recall, for every IoU from which a detection is right.

    Args:
        found: Key of `TITLES` -> what was measured.
        title: Shown above everything.
        out: File to write.
    """
    figure = new_figure(5.4 * len(found) + 0.4, 4.4, title)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (kind, measured) in zip(panels, found.items(), strict=True):
        recalls = np.linspace(0, 100, measured.curves.shape[1])
        colours = colormaps["cividis"](np.linspace(0, 0.9, len(measured.curves)))
        for threshold, curve, colour in zip(measured.thresholds, measured.curves, colours, strict=True):
            axes.plot(recalls, curve, color=colour, linewidth=1.3, label=f"{threshold:.2f}: {curve.mean():.1f}")
        axes.set_title(f"{TITLES[kind]}, AP {measured.summary['AP']:.1f}", color=INK)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.grid(color=PALE, linewidth=0.3)
        axes.set_xlabel("recall in %")
        axes.legend(title="IoU: AP", loc="upper left", bbox_to_anchor=(1, 1))
    panels[0].set_ylabel("precision in %, mean of the classes")
    save_figure(figure, check_out(out))
