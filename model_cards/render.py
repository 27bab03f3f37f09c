"""Renders `template.md`. Every number on a card comes from the zoo, the config or a row of `evaluate/results`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from hf_models.zoo import ZooModel

TEMPLATE = Path(__file__).with_name("template.md")

# training data of the zoo -> (id on the Hub, terms)
IMAGENET_TERMS = "for non-commercial research and education only (https://image-net.org/download)"
DATASETS = {
    "ImageNet-1K": ("imagenet-1k", IMAGENET_TERMS),
    "ImageNet-22K": ("imagenet-22k", IMAGENET_TERMS),
    "Joint-427M": (None, "427 million images from LAION-400M, YFCC-15M and CC12M, each with terms of its own"),
    "MegData-73M": (None, "collected by Megvii and not public; its terms are unknown"),
}
METRICS = {"top1": "Top-1 accuracy", "top5": "Top-5 accuracy"}


def render_card(
    model: ZooModel | None,
    config: PreTrainedConfig,
    *,
    conversion: Mapping[str, Any] | None = None,
    measured: list[dict[str, Any]] | None = None,
) -> str:
    """The complete README.md of a converted checkpoint: metadata, use, results, terms, provenance.

    Args:
        model: The published checkpoint, `None` for one that the zoo does not know.
        config: The config that is saved with the weights.
        conversion: What was converted and how, shown line by line, such as the source file and its sha256.
        measured: Rows of `evaluate/results/*.csv` for this checkpoint: column -> value.
    """
    card = ModelCard.from_template(
        _metadata(model, config),
        template_path=str(TEMPLATE),
        model=model,
        config=config,
        architecture=model.title if model else type(config).__name__.removesuffix("Config"),
        terms={name: DATASETS[name][1] for name in model.training_data} if model else {},
        metrics=METRICS,
        conversion=conversion or {},
        measured=measured or [],
    )
    return str(card)


def _metadata(model: ZooModel | None, config: PreTrainedConfig) -> ModelCardData:
    tags = ["vision", "image-classification", config.model_type]
    if model is None:
        return ModelCardData(library_name="transformers", pipeline_tag="image-classification", tags=tags)
    reported = [
        EvalResult(
            task_type=model.task,
            dataset_type="imagenet-1k",
            dataset_name="ImageNet-1K",
            dataset_split="validation",
            metric_type="accuracy",
            metric_name=f"{METRICS[metric]} (reported by the authors)",
            metric_value=value,
            source_name="Reported by the authors, not measured by hf_models",
            source_url=model.repository,
        )
        for metric, value in model.reported.items()
        if metric in METRICS
    ]
    return ModelCardData(
        license=model.license,
        library_name="transformers",
        pipeline_tag=model.task,
        tags=tags,
        datasets=[DATASETS[name][0] for name in model.training_data if DATASETS[name][0]] or None,
        metrics=["accuracy"] if reported else None,
        model_name=model.name if reported else None,
        eval_results=reported or None,
    )
