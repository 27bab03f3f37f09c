"""The model that `finetune_segmentation.py` trains, and its loss."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F
from training_photos import UNLABELLED
from transformers import AutoBackbone, AutoConfig, PreTrainedModel, UperNetConfig

from hf_models.configuration_segformer_head import SegformerHeadConfig
from hf_models.inference.loading import loading
from hf_models.inference.tasks import task_of
from hf_models.modeling_lean_upernet import UperNetForSemanticSegmentation
from hf_models.modeling_segformer_head import SegformerHeadForSemanticSegmentation
from hf_models.segmentation import SegmentationRecipe, recipe_of, segmenter_class

HEADS = {
    "upernet": (UperNetConfig, UperNetForSemanticSegmentation, {"use_auxiliary_head": False}),
    "segformer": (SegformerHeadConfig, SegformerHeadForSemanticSegmentation, {}),
}


def build(model: str, names: list[str], head: str, width: int, image_size: int | None) -> PreTrainedModel:
    """The model to train, with new layers for these classes, and a recipe for the size of the images in its config."""
    classes = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    with loading(model, "a model to fine-tune"):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        if task_of(config) == "image-segmentation":
            segmenter = segmenter_class(model).from_pretrained(
                model, dtype=torch.float32, ignore_mismatched_sizes=True, trust_remote_code=False, **classes
            )
            if getattr(segmenter, "auxiliary_head", None):  # it helps a new model to learn its first layers
                segmenter.auxiliary_head, segmenter.config.use_auxiliary_head = None, False
            recipe = recipe_of(segmenter)
        else:
            config_class, model_class, options = HEADS[head]
            # `AutoBackbone.from_pretrained` takes no folders
            backbone = AutoBackbone._model_mapping[type(config)].from_pretrained(
                model, out_features=config.stage_names[1:], dtype=torch.float32
            )
            backbone.config.num_labels = 0  # it has no classifier
            options = {"backbone_config": backbone.config, "hidden_size": width, **options, **classes}
            segmenter = model_class(config_class(**options))
            segmenter.backbone = backbone
            recipe = SegmentationRecipe(size_divisor=None)
    if image_size:
        recipe = replace(recipe, short_edge=image_size, long_edge=4 * image_size)
    segmenter.config.segmentation_recipe = recipe.to_dict()
    return segmenter


class PixelLoss:
    """Cross entropy, the mean over the labelled pixels of all processes and accumulated batches.

    Args:
        pixels: Of each class, in the training masks.
        balance: How much more a pixel of a rare class weighs: 0 for none, 1 for as much as makes classes equal.
    """

    def __init__(self, pixels: np.ndarray, balance: float):
        share = torch.tensor(pixels / pixels.sum(), dtype=torch.float32)
        weight = share.clamp(min=1 / pixels.sum()) ** -balance
        self.weight = weight / (share * weight).sum()  # 1 on average

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        logits, weight = outputs.logits.float(), self.weight.to(labels.device)
        losses = F.cross_entropy(logits, labels, weight, ignore_index=UNLABELLED, reduction="sum")
        return losses / num_items_in_batch.clamp(min=1)


def masks_of_classes(crops: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """A batch for Mask2Former, whose own loss takes a mask (height, width) of each class in an image."""
    labels = [crop["labels"] for crop in crops]
    classes = [label[label != UNLABELLED].unique() for label in labels]
    return {
        "pixel_values": torch.stack([crop["pixel_values"] for crop in crops]),
        "mask_labels": [(label == of[:, None, None]).float() for label, of in zip(labels, classes, strict=True)],
        "class_labels": classes,
    }
