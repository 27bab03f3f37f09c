"""The README says what is true: its tables are those of the zoo and of the measurements, its code runs.

    python tests/project/test_readme.py

renders the tables anew, and those on the kernels' cards.
"""

import re
import runpy
from functools import partial
from pathlib import Path

import pytest

from hf_models.evaluate.accuracy_table import accuracy_table
from hf_models.evaluate.speed import tables
from hf_models.zoo import find_checkpoint, list_models

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
CARDS = {name: ROOT / "kernels_src" / name / "CARD.md" for name in ("deformable-conv", "large-kernel-conv")}
sweep = runpy.run_path(str(CARDS["large-kernel-conv"].parent / "benchmarks" / "sweep.py"))


def models_table() -> str:
    """Every classifier of the zoo as a row of Markdown."""
    rows = ["| checkpoint | model | parameters | trained on | image | top-1 |", "|---|---|--:|---|--:|--:|"]
    for model in map(find_checkpoint, list_models(task="image-classification")):
        parameters = f"{model.parameters:,}" if model.parameters else ""
        training_data = ", ".join(model.training_data)
        top1 = model.reported.get("top1", "")
        if top1 and model.test_set != "ImageNet-1K":
            top1 = f"{top1} ({model.test_set})"
        cells = f"`{model.name}`", model.title, parameters, training_data, model.preprocessing.size, top1
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows) + "\n"


def segmenters_table() -> str:
    """Every segmentation checkpoint of the zoo as a row of Markdown."""
    rows = ["| checkpoint | model | parameters | trained on | short side | mIoU | several scales |"]
    rows.append("|---|---|--:|---|--:|--:|--:|")
    for model in map(find_checkpoint, list_models(task="image-segmentation")):
        miou, several = (model.reported.get(metric, "") for metric in ("miou", "miou_ms"))
        size, data = model.preprocessing.short_edge, model.training_data[-1]
        cells = f"`{model.name}`", model.title, f"{model.parameters:,}", data, size, miou, several
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows) + "\n"


SHORT = {"direction": "forward", "dtype": "float32", "threads": "1"}
TABLES = [
    (README, "models", models_table),
    (README, "accuracy", accuracy_table),
    (README, "segmentation models", segmenters_table),
    (README, "speed of models", tables.models_table),
    (README, "speed of RepLKNet-31B", tables.originals_table),
    (README, "speed of exported models", tables.exports_table),
    *((README, f"speed of {name}", partial(tables.operators_table, operator=name, **SHORT)) for name in CARDS),
    *((card, f"speed of {name}", partial(tables.operators_table, operator=name)) for name, card in CARDS.items()),
    *((path, "sweep", sweep["summary"]) for path in (README, CARDS["large-kernel-conv"])),
]


def between_markers(name: str) -> re.Pattern:
    return re.compile(
        rf"(<!-- {name}: rendered from [^\n]* by `python tests/project/test_readme.py` -->\n)"
        rf"(.*?)(<!-- end of {name} -->)",
        re.S,
    )


@pytest.mark.parametrize(("path", "name", "render"), TABLES)
def test_table_is_what_it_is_rendered_from(path, name, render):
    ((_, table, _),) = between_markers(name).findall(path.read_text(encoding="utf-8"))
    assert table == render(), "run `python tests/project/test_readme.py`"


def test_quickstart_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S))
    exec(compile(code, "README.md", "exec"), {})
    labels, logits, feature_maps = capsys.readouterr().out.splitlines()
    assert labels.count("score") == 3
    assert logits == "torch.Size([1, 202])"
    assert feature_maps.count("(1, ") == 3


if __name__ == "__main__":
    for path, name, render in TABLES:
        text = path.read_text(encoding="utf-8")
        path.write_text(between_markers(name).sub(rf"\g<1>{render()}\g<3>", text), encoding="utf-8")
