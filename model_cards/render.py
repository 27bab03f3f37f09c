"""Renders `template.md` with the blocks of a task.

Every number on a card comes from the zoo, the config or a row of `evaluate/results`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader
from transformers import AutoBackbone, PreTrainedConfig

from hf_models.evaluate.accuracy_table import REPORTED, measured_rows
from hf_models.inference.tasks import task_of
from hf_models.remote_code import stock_classes
from hf_models.zoo import PublishedCheckpoint
from hf_models.zoo.segmentation_recipe import SegmentationRecipe

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent))  # Markdown: nothing to escape
# columns of the results that cards show
MEASURED = (
    *("metric", "value", "data", "n", "options", "size", "dtype"),
    *("processor", "kernel", "device", "torch", "transformers", "revision", "date"),
)

# training data of the zoo -> (id on the Hub, terms)
IMAGENET_TERMS = "for non-commercial research and education only (https://image-net.org/download)"
COCO_TERMS = "annotations under CC BY 4.0, images under Flickr's terms (https://cocodataset.org)"
DATASETS = {
    "ImageNet-1K": ("imagenet-1k", IMAGENET_TERMS),
    "ImageNet-22K": ("imagenet-22k", IMAGENET_TERMS),
    "Joint-427M": (None, "427 million images from LAION-400M, YFCC-15M and CC12M, each with terms of its own"),
    "MegData-73M": (None, "collected by Megvii and not public; its terms are unknown"),
    "iNaturalist 2018": (
        None,
        "for non-commercial research and education only, the images not to be passed on "
        "(https://github.com/visipedia/inat_comp/tree/master/2018)",
    ),
    "ADE20K": ("scene_parse_150", "for non-commercial research and education only (https://ade20k.csail.mit.edu)"),
    "COCO": (None, COCO_TERMS),
    "COCO-Stuff 10K": (None, COCO_TERMS),
    "COCO-Stuff 164K": (None, COCO_TERMS),
    "Argoverse 2": (None, "CC BY-NC-SA 4.0, which excludes commercial use (https://www.argoverse.org/about.html)"),
    "Cityscapes": (None, "for non-commercial use only (https://www.cityscapes-dataset.com/license)"),
    "LVIS v1": (
        None,
        "annotations under CC BY 4.0 (https://www.lvisdataset.org), images of COCO under Flickr's terms",
    ),
    "Mapillary Vistas": (
        None,
        "for non-commercial use only in its research edition (https://www.mapillary.com/dataset/vistas)",
    ),
    "NYU Depth V2": (None, "terms unknown (https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html)"),
    "Objects365": (None, "for academic research, images under Flickr's terms (https://www.objects365.org)"),
    "Open Images V6": (
        None,
        "annotations under CC BY 4.0, images listed as CC BY 2.0 (https://storage.googleapis.com/openimages/web)",
    ),
    "PASCAL VOC 2007 and 2012": (
        None,
        "images from Flickr, under Flickr's terms (http://host.robots.ox.ac.uk/pascal/VOC)",
    ),
    "nuScenes": (None, "for non-commercial use only (https://www.nuscenes.org/terms-of-use)"),
    "OpenLane-V2": (
        None,
        "made of nuScenes and Argoverse 2, whose terms must be agreed to and exclude commercial use "
        "(https://github.com/OpenDriveLab/OpenLane-V2#license)",
    ),
    "Pascal Context": (None, "images of PASCAL VOC 2010 from Flickr, under Flickr's terms"),
}
BACKBONE_TASK = "image-feature-extraction"
WIDGET = [
    {"src": f"https://huggingface.co/datasets/mishig/sample_images/resolve/main/{name}.jpg", "example_title": title}
    for name, title in (("tiger", "Tiger"), ("teapot", "Teapot"))
]


def render_card(
    model: PublishedCheckpoint | None,
    config: PreTrainedConfig,
    *,
    conversion: Mapping[str, Any] | None = None,
    measured: list[dict[str, str]] | None = None,
) -> str:
    """The complete README.md of a converted checkpoint: metadata, use, results, terms, provenance.

    Args:
        model: The published checkpoint, `None` for one that the zoo does not know.
        config: The config that is saved with the weights.
        conversion: What was converted and how, shown line by line, such as the source file and its sha256.
        measured: Rows of `evaluate/results/*.csv`, by default those of this checkpoint.
    """
    alone = _is_backbone(config)
    if model and alone and model.task != BACKBONE_TASK:  # what the authors say of the whole is nothing about it
        note = f"It is the backbone of {model.name}, without the head."
        model = replace(model, task=BACKBONE_TASK, reported={}, remeasured=[], notes=[note])
    if measured is None:
        measured = measured_rows(model.name) if model and not alone else []
    return _render(
        "blocks/backbone.md" if alone else f"blocks/{task_of(config) or 'other'}.md",
        _metadata(model, config, measured),
        model=model,
        config=config,
        architecture=model.title if model else _architecture(config),
        task=task_of(config),
        auto_class=_auto_class(config),
        terms={name: DATASETS[name][1] for name in model.training_data} if model else {},
        recipe_of=_recipe_of,
        conversion=conversion or {},
        measured=_shown(measured),
    )


def render_default_card(config: PreTrainedConfig) -> str:
    """The README.md of the embedded checkpoint."""
    metadata = ModelCardData(
        library_name="transformers",
        license="other",
        license_name="imagenet-research-terms",
        license_link="https://image-net.org/download",
        pipeline_tag="image-classification",
        tags=["vision", "image-classification", config.model_type],
        widget=WIDGET,
    )
    measured = _shown(measured_rows("embedded default"))
    return _render("default.md", metadata, config=config, measured=measured)


def _render(template: str, metadata: ModelCardData, **context: Any) -> str:
    return str(ModelCard(TEMPLATES.get_template(template).render(card_data=metadata.to_yaml(), **context)))


def _shown(measured: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{column: row[column] for column in MEASURED} for row in measured]


def _recipe_of(config: PreTrainedConfig) -> SegmentationRecipe:
    return SegmentationRecipe.from_dict(getattr(config, "segmentation_recipe", None) or {})


def _is_backbone(config: PreTrainedConfig) -> bool:
    """Whether the class that was saved is a backbone, without anything on it."""
    backbone = AutoBackbone._model_mapping.get(type(config), None)
    return backbone is not None and config.architectures == [backbone.__name__]


def _auto_class(config: PreTrainedConfig) -> str | None:
    """The Auto class for the class that was saved, where the config says which that is."""
    classes = stock_classes(config).items()
    return next((name for name, model in classes if model.__name__ in (config.architectures or ())), None)


def _architecture(config: PreTrainedConfig) -> str:
    name = type(config).__name__.removesuffix("Config")
    backbone = getattr(config, "backbone_config", None)
    return f"{_architecture(backbone)}, {name}" if backbone else name


def _metadata(
    model: PublishedCheckpoint | None, config: PreTrainedConfig, measured: list[dict[str, str]]
) -> ModelCardData:
    task = BACKBONE_TASK if _is_backbone(config) else task_of(config)
    backbone = getattr(config, "backbone_config", None)
    tags = ["vision", *([task] if task else []), config.model_type] + ([backbone.model_type] if backbone else [])
    if model is None:
        return ModelCardData(library_name="transformers", pipeline_tag=task, tags=tags)
    tags += [model.family] * (model.family not in tags)
    about = {
        "task_type": model.task,
        "dataset_type": DATASETS[model.test_set][0] or model.test_set.lower().replace(" ", "-"),
        "dataset_name": model.test_set,
        "dataset_split": model.test_split,
        "metric_type": model.hub_metric,
    }
    results = [
        EvalResult(
            **about,
            metric_name=f"{model.metrics[metric]} (reported by the authors)",
            metric_value=value,
            source_name="Reported by the authors, not measured by hf_models",
            source_url=model.repository,
        )
        for metric, value in model.reported.items()
        if metric in model.metrics
    ]
    results += [
        EvalResult(
            **about,
            metric_name=f"{model.metrics[REPORTED[row['data'], row['metric']]]} (measured, {row['dtype']})",
            metric_value=float(row["value"]),
        )
        for row in measured
        if REPORTED.get((row["data"], row["metric"])) in model.metrics
    ]
    return ModelCardData(
        license=model.license,
        library_name="transformers",
        pipeline_tag=model.task,
        tags=tags,
        widget=WIDGET,
        datasets=[DATASETS[name][0] for name in model.training_data if DATASETS[name][0]] or None,
        metrics=[about["metric_type"]] if results else None,
        model_name=model.name if results else None,
        eval_results=results or None,
    )
