"""SMT under UperNet, as its authors train it on ADE20K: their weights are not published, their settings are.

    hf-models convert smt_small.pth smt-small
    python examples/smt_upernet.py smt-small smt-small-upernet --num-labels 150

makes a model with a pretrained backbone and a new head, ready for transformers' Trainer. The authors report an mIoU of
49.2 for SMT-S and 49.6 for SMT-B after 160,000 steps on crops of 512 pixels.
"""

import argparse
import copy
from pathlib import Path

from transformers import UperNetConfig, UperNetForSemanticSegmentation

from hf_models.configuration_smt import SMTConfig
from hf_models.modeling_smt import SMTBackbone
from hf_models.zoo.segmentation import stock_image_processor
from hf_models.zoo.segmentation_recipe import SegmentationRecipe


def upernet_config(backbone: SMTConfig, num_labels: int = 150) -> UperNetConfig:
    """The authors' UperNet over any SMT; the widths of the heads are UperNet's defaults."""
    backbone = copy.deepcopy(backbone)
    backbone.out_features = backbone.stage_names[1:]
    recipe = SegmentationRecipe(size_divisor=None)
    return UperNetConfig(backbone_config=backbone, num_labels=num_labels, segmentation_recipe=recipe.to_dict())


def build(folder: str | Path, num_labels: int = 150) -> UperNetForSemanticSegmentation:
    """UperNet with a new head over the backbone of a converted classifier."""
    config = upernet_config(SMTConfig.from_pretrained(folder), num_labels)
    model = UperNetForSemanticSegmentation(config)
    model.backbone = SMTBackbone.from_pretrained(folder, out_features=config.backbone_config.out_features)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", help="folder of a converted SMT classifier")
    parser.add_argument("output", help="folder to write")
    parser.add_argument("--num-labels", type=int, default=150)
    args = parser.parse_args()
    build(args.classifier, args.num_labels).save_pretrained(args.output)
    stock_image_processor(SegmentationRecipe(size_divisor=None), "upernet", reduce_labels=True).save_pretrained(
        args.output
    )
