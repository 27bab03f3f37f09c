"""The README says what is true: its table is the zoo's, its code runs.

    python tests/test_readme.py

renders the table anew.
"""

import re
from pathlib import Path

from hf_models.zoo import get_model, list_models

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TABLE = re.compile(r"(?<=`python tests/test_readme.py` -->\n).*(?=<!-- end of models -->)", re.S)


def models_table() -> str:
    """Every checkpoint of the zoo as a row of Markdown."""
    rows = ["| checkpoint | model | parameters | trained on | image | top-1 |", "|---|---|--:|---|--:|--:|"]
    for model in map(get_model, list_models()):
        parameters = f"{model.parameters:,}" if model.parameters else ""
        training_data = ", ".join(model.training_data)
        top1 = model.reported.get("top1", "")
        cells = f"`{model.name}`", model.title, parameters, training_data, model.preprocessing.size, top1
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows) + "\n"


def test_table_is_the_zoo():
    (table,) = TABLE.findall(README.read_text(encoding="utf-8"))
    assert table == models_table(), "run `python tests/test_readme.py`"


def test_quickstart_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S))
    exec(compile(code, "README.md", "exec"), {})
    labels, logits, feature_maps = capsys.readouterr().out.splitlines()
    assert labels.count("score") == 3
    assert logits == "torch.Size([1, 202])"
    assert feature_maps.count("(1, ") == 4


if __name__ == "__main__":
    README.write_text(TABLE.sub(models_table(), README.read_text(encoding="utf-8")), encoding="utf-8")
