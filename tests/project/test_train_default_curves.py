"""The comparison of trainings, from the files that they leave."""

import json
import runpy
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples/train_default_curves.py"


def write_run(folder, family, cpu_seconds):
    folder.mkdir()
    settings = {"family": family, "parameters": 2_900_000, "seed": 0, "epochs": 2}
    (folder / "run.json").write_text(json.dumps(settings))
    rows = [(50, cpu_seconds, ""), (60, cpu_seconds, 12.5), (120, cpu_seconds, 20)]
    lines = ["step,cpu_seconds,validation_top1", *(",".join(map(str, row)) for row in rows)]
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_accuracy_is_drawn_and_listed_over_the_cpu_time(tmp_path, monkeypatch, capsys):
    runs = [write_run(tmp_path / "a", "smt", 1800), write_run(tmp_path / "b", "internimage", 1800)]
    runs.append(write_run(tmp_path / "c", "internimage", 900))
    script = runpy.run_path(str(SCRIPT))
    trainings = [script["Training"](folder) for folder in runs]
    assert [training.hours for training in trainings] == [[1.0, 1.5], [1.0, 1.5], [0.5, 0.75]]
    assert trainings[0].top1 == [12.5, 20]
    monkeypatch.setattr("sys.argv", ["curves", str(tmp_path / "picture.png"), *map(str, runs)])
    script["main"]()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| smt | 2,900,000 | 0 | 2 | 1.50 | 20.00 |",
        "| internimage | 2,900,000 | 0 | 2 | 1.50 | 20.00 |",
        "| internimage | 2,900,000 | 0 | 2 | 0.75 | 20.00 |",
    ]
    assert Image.open(tmp_path / "picture.png").width > 300


def test_committed_comparisons_are_those_of_their_runs():
    training = SCRIPT.parent / "training"
    script = runpy.run_path(str(SCRIPT))
    adopted = sorted(path.name for path in (training / "adopted").iterdir())
    comparisons = [
        [training / family for family in ("flash_internimage", "internimage", "smt", "replknet")],
        [training / "adopted" / name for name in adopted if "replknet" not in name],
        [training / "adopted" / name for name in adopted if "replknet" in name],
    ]
    for runs in comparisons:
        assert script["table"](map(script["Training"], runs)) in (training / "README.md").read_text()
