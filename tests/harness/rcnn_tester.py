"""Small detectors with random weights, whose scores, boxes and masks differ from place to place."""

import torch
from transformers import AutoModelForObjectDetection

from hf_models.configuration_backbone_rcnn import BackboneRCNNConfig

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SMALL = {"num_labels": 4, "fpn_channels": 8, "box_hidden_size": 16, "rpn_pre_nms": 40, "rpn_post_nms": 25}
SMALL |= {"max_detections": 10, "anchor_scale": 4, "roi_finest_scale": 12, "mask_convs": 2}
CASCADE = {"box_stds": [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]}
CASCADE |= {"box_convs": 2, "box_fcs": 1}
BACKBONES = {
    "internimage": {"groups": [1, 2, 4, 8], "layer_scale_init_value": 1.0},
    "flash_internimage": {"groups": [1, 2, 4, 8], "layer_scale_init_value": 1.0},
    "smt": {"num_attention_heads": [1, 1, 2, 2]},
    "replknet": {"kernel_sizes": [9, 9, 7, 5]},
    "convnext": {},  # of transformers
    "convnext_large_kernel": {},
    "convnext_dcnv4": {"group_width": 16},
}


def small_config(backbone: str = "internimage", **kwargs) -> BackboneRCNNConfig:
    stages = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "out_features": STAGES}
    backbone_config = {"model_type": backbone, **stages, **BACKBONES[backbone]}
    return BackboneRCNNConfig(backbone_config=backbone_config, **SMALL | kwargs)


def small_model(backbone: str = "internimage", seed: int = 0, **kwargs):
    torch.manual_seed(seed)
    model = AutoModelForObjectDetection.from_config(small_config(backbone, **kwargs)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("objectness.weight", "deltas.weight", "classifier.weight")):
                tensor.normal_(std=3 * tensor[0].numel() ** -0.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(std=0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
    return model


def padded_images(*sizes: tuple[int, int], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random images of these sizes (width, height), as an image processor gives them."""
    height, width = (-(-max(size[axis] for size in sizes) // 32) * 32 for axis in (1, 0))
    pixel_values = torch.zeros(len(sizes), 3, height, width)
    pixel_mask = torch.zeros(len(sizes), height, width, dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    for values, mask, (columns, rows) in zip(pixel_values, pixel_mask, sizes, strict=True):
        values[:, :rows, :columns] = torch.randn(3, rows, columns, generator=generator)
        mask[:rows, :columns] = 1
    return {"pixel_values": pixel_values, "pixel_mask": pixel_mask}
