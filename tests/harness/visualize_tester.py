"""Small models whose deformable layers really deform, and photos for them."""

import torch
from PIL import Image

from hf_models.configuration_flash_internimage import FlashInternImageConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.configuration_smt import SMTConfig
from hf_models.deformable_conv import DCNv3, DCNv4
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.modeling_flash_internimage import FlashInternImageForImageClassification
from hf_models.modeling_internimage import InternImageForImageClassification
from hf_models.modeling_smt import SMTForImageClassification

SHAPE = {"hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 2, 1], "groups": [2, 2, 4, 4], "num_labels": 5}


def deformable_model(family):
    """A tiny model of a family with random offsets and weights (zero in a new model), and its image processor."""
    torch.manual_seed(0)
    if family == "internimage":
        model = InternImageForImageClassification(InternImageConfig(**SHAPE, offset_scale=1.5))
    else:
        model = FlashInternImageForImageClassification(FlashInternImageConfig(**SHAPE, offset_scale=0.5))
    for module in model.modules():
        for name in ("offset", "mask", "offset_mask"):
            if isinstance(module, (DCNv3, DCNv4)) and hasattr(module, name):
                torch.nn.init.normal_(getattr(module, name).weight, std=0.1)
                torch.nn.init.normal_(getattr(module, name).bias, std=0.7)
    square = {"height": 160, "width": 160}
    return model.eval(), ImageNetImageProcessor(size={"shortest_edge": 180}, crop_size=square)


def smt_model():
    """A tiny SMT, and its image processor."""
    torch.manual_seed(0)
    config = SMTConfig(
        hidden_sizes=[16, 16, 32, 32], depths=[1, 2, 4, 1], num_attention_heads=[1, 1, 2, 2], num_labels=5
    )
    square = {"height": 64, "width": 64}
    return SMTForImageClassification(config).eval(), ImageNetImageProcessor(size=square, do_center_crop=False)


def save_model(family, folder):
    for part in smt_model() if family == "smt" else deformable_model(family):
        part.save_pretrained(folder)
    return folder


def photo(width=300, height=200):
    """A picture without symmetry."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (5, 7, 3), generator=generator, dtype=torch.uint8).numpy()
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
