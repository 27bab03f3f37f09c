"""A small detector with random weights that finds something on every photo."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForObjectDetection

from hf_models.image_processing_detection import DetectionImageProcessor


def make_detector(folder: Path, **kwargs) -> Path:
    """A folder with a Mask R-CNN of five classes on a small SMT, for images of about 96 x 64 pixels."""
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4, "mlp_ratios": [1] * 4}
    backbone = AutoConfig.for_model("smt", **sizes, num_attention_heads=[4, 4, 1, 1], out_indices=[1, 2, 3, 4])
    heads = {"fpn_channels": 8, "box_hidden_size": 16, "mask_convs": 1, "rpn_post_nms": 50, "max_detections": 10}
    config = AutoConfig.for_model("backbone_rcnn", backbone_config=backbone, num_labels=5, **heads | kwargs)
    model = AutoModelForObjectDetection.from_config(config).eval()
    with torch.no_grad():  # random heads are as unsure as can be; these are not
        model.box_heads[-1].classifier.weight.normal_(std=2)
        for head in model.mask_heads:
            head.classifier.weight.normal_(std=8)
    model.save_pretrained(folder)
    DetectionImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder
