"""A small segmentation model of 150 classes, and a folder as ADEChallengeData2016 has it."""

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, SegformerImageProcessorPil, UperNetConfig, UperNetForSemanticSegmentation

from hf_models.zoo.segmentation_recipe import SegmentationRecipe

SIZES = [(90, 70), (64, 64), (70, 120), (33, 80)]  # width, height
RECIPE = SegmentationRecipe(short_edge=64, long_edge=96)


def make_model(folder, num_labels=150):
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4, "mlp_ratios": [1] * 4}
    backbone = AutoConfig.for_model("smt", **sizes, num_attention_heads=[4, 4, 1, 1], out_indices=[1, 2, 3, 4])
    config = UperNetConfig(backbone_config=backbone, hidden_size=16, use_auxiliary_head=False, num_labels=num_labels)
    model = UperNetForSemanticSegmentation(config).eval()
    with torch.no_grad():  # random weights answer the same everywhere; this spreads the answers
        model.decode_head.classifier.weight.normal_(std=3)
        model.decode_head.classifier.bias[:20] = 10  # wall, building, sky, ...: some of which are on every photo
    model.config.segmentation_recipe = RECIPE.to_dict()
    model.save_pretrained(folder)
    SegformerImageProcessorPil().save_pretrained(folder)
    return folder


def make_folder(root, sizes=SIZES):
    random = np.random.default_rng(0)
    for part in ("images", "annotations"):
        (root / part / "validation").mkdir(parents=True)
    for index, (width, height) in enumerate(sizes):
        name = f"ADE_val_{index + 1:08}"
        pixels = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height))
        pixels.save(root / "images" / "validation" / f"{name}.jpg")
        mask = random.integers(0, 151, (height // 8 + 1, width // 8 + 1), dtype=np.uint8)
        mask = np.kron(mask, np.ones((8, 8), dtype=np.uint8))[:height, :width]
        Image.fromarray(mask).save(root / "annotations" / "validation" / f"{name}.png")
    return root
