"""Renders the tables of the README, the pages and the kernels' cards from the zoo and the measurements: `make tables`.

Each table stands between two comments, which name it. The tests compare every table with what is rendered here.
"""

import re
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hf_models.evaluate.accuracy_table import accuracy_table
from hf_models.evaluate.speed import memory, model_tables, tables, training_step
from hf_models.zoo import find_checkpoint, list_models

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CARDS = {  # operator -> the card of its kernel
    **{
        name: ROOT / "kernels_src" / name / "CARD.md"
        for name in ("deformable-conv", "large-kernel-conv", "winograd-conv")
    },
    **dict.fromkeys(("deformable-attention", "roi-align", "nms"), ROOT / "kernels_src" / "detection-ops" / "CARD.md"),
}
sweep = runpy.run_path(str(CARDS["large-kernel-conv"].parent / "benchmarks" / "sweep.py"))
OPERATORS = {
    "flash_internimage": "deformable convolution DCNv4",
    "internimage": "deformable convolution DCNv3",
    "replknet": "depthwise convolutions up to 31 x 31",
    "smt": "scale-aware modulation, then attention",
}


def families_table() -> str:
    """A row for each family: what it can be had as, and the best that its authors report."""
    table = [["family", "operator", "paper", "original code", "checkpoints", "parameters", "top-1", "mIoU", "box AP"]]
    models = [find_checkpoint(name) for name in list_models()]
    for family in dict.fromkeys(model.family for model in models):
        ours = [model for model in models if model.family == family]
        classifiers = [model for model in ours if model.task == "image-classification"]
        sizes = [model.parameters for model in classifiers if model.parameters]
        top1 = [model.reported["top1"] for model in classifiers if _reports(model, "top1", "ImageNet-1K")]
        miou = [model.reported["miou"] for model in ours if _reports(model, "miou", "ADE20K")]
        box_ap = [model.reported["box_ap"] for model in ours if _reports(model, "box_ap", "COCO")]
        table.append(
            [
                classifiers[0].title.rpartition("-")[0],
                OPERATORS.get(family, ""),
                _link(f"arXiv {classifiers[0].paper.rpartition('/')[2]}", classifiers[0].paper),
                _link(classifiers[0].repository.rpartition("github.com/")[2], classifiers[0].repository),
                str(len(ours)),
                f"{min(sizes) / 1e6:,.0f} to {max(sizes) / 1e6:,.0f} M",
                f"{max(top1)}" if top1 else "",
                f"{max(miou)}" if miou else "",
                f"{max(box_ap)}" if box_ap else "",
            ]
        )
    return _markdown(table, text_columns=4)


def _reports(model, metric: str, data: str) -> bool:
    return metric in model.reported and model.test_set == data


def classifiers_table() -> str:
    """Every classifier of the zoo as a row of Markdown."""
    table = [["checkpoint", "model", "trained on", "parameters", "image", "top-1"]]
    for model in map(find_checkpoint, list_models(task="image-classification")):
        parameters = f"{model.parameters:,}" if model.parameters else ""
        top1 = str(model.reported.get("top1", ""))
        if top1 and model.test_set != "ImageNet-1K":
            top1 = f"{top1} ({model.test_set})"
        about = [_link(f"`{model.name}`", model.url), model.title, ", ".join(model.training_data)]
        table.append([*about, parameters, str(model.preprocessing.size), top1])
    return _markdown(table, text_columns=3)


def segmenters_table() -> str:
    """Every segmentation checkpoint of the zoo as a row of Markdown."""
    table = [["checkpoint", "model", "trained on", "parameters", "short side", "mIoU", "mIoU, several scales"]]
    for model in map(find_checkpoint, list_models(task="image-segmentation")):
        miou = [str(model.reported.get(metric, "")) for metric in ("miou", "miou_ms")]
        about = [_link(f"`{model.name}`", model.url), model.title, model.training_data[-1], f"{model.parameters:,}"]
        table.append([*about, str(model.preprocessing.short_edge), *miou])
    return _markdown(table, text_columns=3)


def detectors_table() -> str:
    """Every detector of the zoo as a row of Markdown."""
    table = [["checkpoint", "model", "trained on", "parameters", "size", "box AP", "mask AP"]]
    for model in map(find_checkpoint, list_models(task="object-detection")):
        size = model.image_processor().size
        reported = [(metric, str(value)) for metric, value in model.reported.items() if metric in model.metrics]
        masks = [value for metric, value in reported if metric == "mask_ap"]
        boxes = [_metric(model, metric, value) for metric, value in reported if metric != "mask_ap"]
        about = [_link(f"`{model.name}`", model.url), model.title, model.training_data[-1], f"{model.parameters:,}"]
        table.append([*about, f"{size.shortest_edge} x {size.longest_edge}", "; ".join(boxes), *(masks or [""])])
    return _markdown(table, text_columns=3)


def driving_table() -> str:
    """Every backbone of a driving network as a row of Markdown."""
    table = [["checkpoint", "backbone", "trained on", "licence", "parameters"]]
    for model in map(find_checkpoint, list_models(task="image-feature-extraction")):
        about = [_link(f"`{model.name}`", model.url), model.title, ", ".join(model.training_data), model.license]
        table.append([*about, f"{model.parameters:,}"])
    return _markdown(table, text_columns=4)


def _metric(model, metric: str, value: str) -> str:
    """A number of a detector, with what it is where that is not the box AP."""
    return value if metric == "box_ap" else f"{value} ({model.metrics[metric].removeprefix('Box ')})"


def _link(text: str, url: str) -> str:
    return f"[{text}]({url})"


def _markdown(table: list[list[str]], text_columns: int) -> str:
    return f"{tables.markdown(table, text_columns)}\n"


MODEL_TABLES = dict.fromkeys(model_tables.TABLES, "speed.md")  # name -> page
MODEL_TABLES |= {"8 bits": "quantization.md", "adopted layers": "adoption.md"}
SHORT = {"direction": "forward", "dtype": "float32", "threads": "1"}
TABLES: list[tuple[Path, str, Callable[[], str]]] = [
    (ROOT / "README.md", "families", families_table),
    (DOCS / "models.md", "families", families_table),
    (DOCS / "models.md", "classifiers", classifiers_table),
    (DOCS / "segmentation.md", "segmentation models", segmenters_table),
    (DOCS / "detection.md", "detection models", detectors_table),
    (DOCS / "conversion.md", "driving backbones", driving_table),
    (DOCS / "evaluation.md", "accuracy", accuracy_table),
    *(
        (DOCS / page, f"speed of {name}", partial(model_tables.models_table, name))
        for name, page in MODEL_TABLES.items()
    ),
    (DOCS / "detection.md", "speed of detectors", model_tables.detectors_table),
    (DOCS / "export.md", "speed of exported models", tables.exports_table),
    (DOCS / "speed.md", "memory", memory.memory_table),
    (DOCS / "training.md", "speed of training", training_step.training_table),
    *(
        (DOCS / "speed.md", f"speed of {name}", partial(tables.operators_table, operator=name, **SHORT))
        for name in CARDS
    ),
    *((card, f"speed of {name}", partial(tables.operators_table, operator=name)) for name, card in CARDS.items()),
    *((path, "sweep", sweep["summary"]) for path in (DOCS / "speed.md", CARDS["large-kernel-conv"])),
]


def between_markers(name: str) -> re.Pattern:
    """Finds the opening comment, the table and the closing comment."""
    return re.compile(
        rf"(<!-- {name}: rendered from [^\n]* by `make tables` -->\n)(.*?)(<!-- end of {name} -->)", re.S
    )


if __name__ == "__main__":
    for path, name, render in TABLES:
        text = path.read_text(encoding="utf-8")
        path.write_text(between_markers(name).sub(rf"\g<1>{render()}\g<3>", text), encoding="utf-8")
