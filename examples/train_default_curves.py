"""Compare trainings of `train_default.py`: accuracy over cost in one picture, and a table in Markdown.

Trainings of one family with several seeds have one colour, and a row each.

    python examples/train_default_curves.py PICTURE.png RUN...

RUN is a folder with the `run.json` and the `curves.csv` of a training. Its cost is the CPU time of its steps, in all
threads and processes; measuring the accuracy is not counted.
"""

import argparse
import csv
import json
from pathlib import Path

from hf_models.visualize.figures import OKABE_ITO, PALE, Figure, check_out, new_figure, save_figure, style


class Training:
    """A training, read from its folder.

    Attributes:
        settings: The content of `run.json`.
        hours: Hours of CPU time up to each measurement of the accuracy.
        top1: Accuracy then, in percent.
    """

    def __init__(self, folder: Path):
        self.settings = json.loads((folder / "run.json").read_text())
        with (folder / "curves.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.hours, self.top1, seconds = [], [], 0.0
        for row in rows:
            seconds += float(row["cpu_seconds"])
            if top1 := row.get("held_back_top1") or row.get("validation_top1"):
                self.hours.append(seconds / 3600)
                self.top1.append(float(top1))


@style
def draw(trainings: list[Training]) -> Figure:
    figure = new_figure(6, 3.6, "Accuracy on photos held back while training")
    axes = figure.subplots()
    looks = {}  # of each family
    for training in trainings:
        family = training.settings["family"]
        label = None if family in looks else family  # one entry in the legend
        colour, marker = looks.setdefault(family, (OKABE_ITO[len(looks)], "os^Dv*P"[len(looks)]))
        axes.plot(training.hours, training.top1, color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
    axes.set_xlabel("training cost in hours of CPU time")
    axes.set_ylabel("top-1 in percent, at the size of the phase")
    axes.grid(color=PALE, alpha=0.2)
    axes.legend()
    return figure


def table(trainings: list[Training]) -> str:
    lines = ["| family | parameters | seed | epochs | CPU hours | top-1 |", "| --- | --: | --: | --: | --: | --: |"]
    for training in trainings:
        of = training.settings
        cost = f"{training.hours[-1]:.2f} | {training.top1[-1]:.2f}"
        lines.append(f"| {of['family']} | {of['parameters']:,} | {of['seed']} | {of['epochs']:g} | {cost} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=check_out)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    trainings = [Training(folder) for folder in arguments.runs]
    save_figure(draw(trainings), arguments.picture)
    print(table(trainings))


if __name__ == "__main__":
    main()
