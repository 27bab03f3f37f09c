"""Mask R-CNN and Cascade Mask R-CNN of mmdet as our `BackboneRCNNForObjectDetection`."""

import re

from hf_models.configuration_backbone_rcnn import BackboneRCNNConfig

from ..mapping.facts import Facts, Shapes, count, has, size
from ..mapping.key_map import Rule
from .backbone_rcnn_config import build_config
from .mmdet import FPN_RULES, DetectionHead


def _stage(match: re.Match) -> str:
    # the one stage of Mask R-CNN has no number in the original
    return f"{'box' if match[1] == 'bbox' else 'mask'}_heads.{match[2] or '0.'}"


RULES = (
    *FPN_RULES,
    Rule(r"^neck\.lateral_convs\.(\d+)\.ln\.", r"neck.lateral_norms.\1.", optional=True),
    Rule(r"^neck\.fpn_convs\.(\d+)\.ln\.", r"neck.output_norms.\1.", optional=True),
    Rule(r"^rpn_head\.rpn_conv\.", "rpn.conv."),
    Rule(r"^rpn_head\.rpn_cls\.", "rpn.objectness."),
    Rule(r"^rpn_head\.rpn_reg\.", "rpn.deltas."),
    Rule(r"^roi_head\.(bbox|mask)_head\.(\d+\.)?", _stage),
    Rule(r"^(box_heads\.\d+)\.shared_convs\.(\d+)\.conv\.", r"\1.convs.\2.", optional=True),
    Rule(r"^(box_heads\.\d+)\.shared_convs\.(\d+)\.bn\.", r"\1.norms.\2.", optional=True),
    Rule(r"^(box_heads\.\d+)\.shared_fcs\.", r"\1.fcs."),
    Rule(r"^(box_heads\.\d+)\.fc_cls\.", r"\1.classifier."),
    Rule(r"^(box_heads\.\d+)\.fc_reg\.", r"\1.deltas."),
    Rule(r"^(mask_heads\.\d+)\.convs\.(\d+)\.conv\.", r"\1.convs.\2.", optional=True),
    Rule(r"^(mask_heads\.\d+)\.conv_logits\.", r"\1.classifier.", optional=True),
)


def _facts_of_weights(shapes: Shapes) -> Facts:
    classes = size(shapes, "box_heads.0.classifier.weight")
    with_masks = has(shapes, r"^mask_heads\.")
    return {
        "num_classes": classes and classes - 1,  # the last one is the background
        "neck.out_channels": size(shapes, "neck.output_convs.0.weight"),
        "LayerNorms in the neck": has(shapes, r"^neck\.lateral_norms\."),
        "stages": count(shapes, r"^box_heads\.(\d+)\."),
        "num_shared_convs": count(shapes, r"^box_heads\.0\.convs\.(\d+)\."),
        "num_shared_fcs": count(shapes, r"^box_heads\.0\.fcs\.(\d+)\."),
        "fc_out_channels": size(shapes, "box_heads.0.fcs.0.weight"),
        "mask_head": with_masks,
        "mask_head.num_convs": count(shapes, r"^mask_heads\.0\.convs\.(\d+)\.") if with_masks else None,
    }


def _facts_of_config(config: BackboneRCNNConfig) -> Facts:
    return {
        "num_classes": config.num_labels,
        "neck.out_channels": config.fpn_channels,
        "LayerNorms in the neck": config.fpn_norm == "layer",
        "stages": len(config.box_stds),
        "num_shared_convs": config.box_convs,
        "num_shared_fcs": config.box_fcs,
        "fc_out_channels": config.box_hidden_size,
        "mask_head": config.with_masks,
        "mask_head.num_convs": config.mask_convs,
    }


HEAD = DetectionHead(
    model_types=("backbone_rcnn",),
    title="R-CNN",
    signature="rpn_head.rpn_conv.weight",
    rules=RULES,
    detectors=("MaskRCNN", "CascadeRCNN", "FasterRCNN"),
    build_config=build_config,
    facts_of_weights=_facts_of_weights,
    facts_of_config=_facts_of_config,
    counted=("box_convs", "box_fcs", "mask_convs"),
)
