"""The classifiers that `hf-models benchmark models` times: ours, and what users would run instead."""

from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForImageClassification

from hf_models import deformable_conv, large_kernel_conv, layers
from hf_models.errors import InputError
from hf_models.inference.int8 import convert_to_int8, input_spans
from hf_models.large_kernel_conv import ReparameterizableLargeKernelConv
from hf_models.zoo import find_checkpoint

from .adopted_entries import ADOPTED
from .peers import grid_sample_core


@dataclass(frozen=True)
class Entry:
    """A model to time.

    Args:
        title: For tables.
        build: Makes it, in evaluation mode.
        original: The entry that is the same model as the original's users run it; the logits must agree.
    """

    title: str
    build: Callable[[], nn.Module]
    original: str | None = None


class PyTorchCore(nn.Module):
    """InternImage as the original without its operator: `grid_sample`, a softmax before it, and nn.Linear."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with (
            patch.object(deformable_conv, "deformable_aggregate", _softmax_and_grid_sample),
            patch.object(layers, "is_untouched", _never),
        ):
            return self.model(images).logits


class DefaultLayout(nn.Module):
    """RepLKNet as the original runs: nn.Conv2d, every map contiguous in (N, C, H, W), kernels not merged."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        base = self.model.base_model  # whose own `forward` would change the layout
        branches = ReparameterizableLargeKernelConv.sum_of_branches
        with (
            patch.object(layers, "is_untouched", _never),
            patch.object(large_kernel_conv, "is_untouched", _never),
            patch.object(ReparameterizableLargeKernelConv, "forward", branches),
        ):
            return self.model.classifier(base.pooler(base.encoder(base.embeddings(images.contiguous()))))


def from_zoo(name: str) -> nn.Module:
    """A model of the zoo with random weights.

    Layers that start at zero get weights too: trained offsets differ from pixel to pixel, by about one pixel.
    """
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(find_checkpoint(name).config()).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


def in_int8(name: str) -> nn.Module:
    """The model as `hf-models quantize --calibration` makes it, calibrated with noise."""
    model = from_zoo(name)
    side = model.config.image_size
    return convert_to_int8(model, input_spans(model, [torch.randn(2, 3, side, side)]))


def from_timm(name: str) -> nn.Module:
    """A model of timm with random weights."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision for another torch raises a RuntimeError
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{name}: timm does not import ({reason}). Run `pip install 'hf-models[benchmark]'`."
        ) from None
    return timm.create_model(name, pretrained=False).eval()


def _never(*_) -> bool:
    """For `is_untouched`: every layer is called, as PyTorch's own."""
    return False


def _softmax_and_grid_sample(value, offset, weight, *, softmax, **geometry):
    if not softmax or geometry != {"kernel_size": 3, "padding": 1, "dilation": 1, "offset_scale": 1.0}:
        raise NotImplementedError(f"the PyTorch core here is that of InternImage-T, got {softmax=}, {geometry}")
    return grid_sample_core(value, offset, F.softmax(weight, dim=-1))


MODELS = {
    "internimage-t": Entry("InternImage-T", lambda: from_zoo("internimage_t_1k_224"), "internimage-t-original"),
    "internimage-t-original": Entry(
        "InternImage-T, original PyTorch core", lambda: PyTorchCore(from_zoo("internimage_t_1k_224"))
    ),
    "flash-internimage-t": Entry("FlashInternImage-T", lambda: from_zoo("flash_intern_image_t_1k_224")),
    "internimage-t-int8": Entry("InternImage-T, 8 bits", lambda: in_int8("internimage_t_1k_224")),
    "flash-internimage-t-int8": Entry("FlashInternImage-T, 8 bits", lambda: in_int8("flash_intern_image_t_1k_224")),
    "smt-t": Entry("SMT-T", lambda: from_zoo("smt_tiny")),
    "replknet-31b": Entry("RepLKNet-31B", lambda: from_zoo("RepLKNet-31B_ImageNet-1K_224"), "replknet-31b-original"),
    "replknet-31b-merged": Entry(
        "RepLKNet-31B, merged",
        lambda: from_zoo("RepLKNet-31B_ImageNet-1K_224").merge_reparameterization(),
        "replknet-31b-original",
    ),
    "replknet-31b-original": Entry(
        "RepLKNet-31B, original's layout", lambda: DefaultLayout(from_zoo("RepLKNet-31B_ImageNet-1K_224"))
    ),
    "convnext-t": Entry("ConvNeXt-T (timm)", lambda: from_timm("convnext_tiny")),
    "swin-t": Entry("Swin-T (timm)", lambda: from_timm("swin_tiny_patch4_window7_224")),
    **{name: Entry(title, build) for name, (title, build) in ADOPTED.items()},
}
