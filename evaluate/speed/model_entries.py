"""The classifiers that `hf-models benchmark models` times: ours, and what users would run instead."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForImageClassification

from hf_models import deformable_conv, hub_kernels, large_kernel_conv, layers
from hf_models.errors import InputError
from hf_models.large_kernel_conv import ReparameterizableLargeKernelConv
from hf_models.zoo import find_checkpoint

from .adopted_entries import ADOPTED
from .modes import COMPILED, MODES
from .peers import grid_sample_core


@dataclass(frozen=True)
class Entry:
    """A model to time.

    Args:
        title: For tables.
        build: Makes it, in evaluation mode.
        original: The entry that is the same model as the original's users run it; the logits must agree.
        modes: In which modes it runs.
        channels_last: Whether its images are in this memory layout.
        needs_timm: Whether timm builds it.
        is_default: Whether it takes part when no models are named.
    """

    title: str
    build: Callable[[], nn.Module]
    original: str | None = None
    modes: Collection[str] = tuple(MODES)
    channels_last: bool = True
    needs_timm: bool = False
    is_default: bool = True

    def check(self, name: str) -> None:
        """Raise an InputError if timm is needed and does not import."""
        if self.needs_timm:
            _timm(name)


class PyTorchCore(nn.Module):
    """InternImage as the original without its operator: `grid_sample`, a softmax before it, and nn.Linear."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with (
            patch.object(deformable_conv, "deformable_aggregate", _softmax_and_grid_sample),
            patch.object(layers, "is_untouched", _never),
            patch.object(hub_kernels, "_has_kernel", _never),
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
            patch.object(hub_kernels, "_has_kernel", _never),
            patch.object(ReparameterizableLargeKernelConv, "forward", branches),
        ):
            return self.model.classifier(base.pooler(base.encoder(base.embeddings(images.contiguous()))))


def from_zoo(name: str, depths: Sequence[int] | None = None) -> nn.Module:
    """A model of the zoo with random weights, with its own or another number of layers in each stage.

    Layers that start at zero get weights too: trained offsets differ from pixel to pixel. With larger ones than these
    the untrained FlashInternImage is chaotic, and rounding changes its logits by half.
    """
    torch.manual_seed(0)
    config = find_checkpoint(name).config()
    if depths:
        config.depths = depths
    model = AutoModelForImageClassification.from_config(config).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.25 * module.in_features**-0.5)
    return model


def from_timm(name: str) -> nn.Module:
    """A model of timm with random weights."""
    timm = _timm(name)
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False).eval()


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision for another torch raises a RuntimeError
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{name}: timm does not import ({reason}). Run `pip install 'hf-models[benchmark]'`."
        ) from None
    return timm


def _never(*_) -> bool:
    """For `is_untouched` and `_has_kernel`: every layer is called, as PyTorch's own, and no kernel of ours runs."""
    return False


def _softmax_and_grid_sample(value, offset, weight, *, softmax, **geometry):
    if not softmax or geometry != {"kernel_size": 3, "padding": 1, "dilation": 1, "offset_scale": 1.0}:
        raise NotImplementedError(f"the PyTorch core here is that of InternImage-T, got {softmax=}, {geometry}")
    return grid_sample_core(value, offset, F.softmax(weight, dim=-1))


def _few_layers(title: str, name: str) -> Entry:
    """A model that torch.compile takes a minute for, and not many: with a layer or two of each kind."""
    build = partial(from_zoo, name, depths=(1, 1, 2, 1))
    return Entry(f"{title}, 5 layers", build, modes=("eager", *COMPILED), is_default=False)


NO_INT8 = tuple(mode for mode in MODES if mode != "int8")  # RepLKNet's products are convolutions
OF_OTHERS = tuple(mode for mode in NO_INT8 if mode != "baseline")
MODELS = {
    "internimage-t": Entry("InternImage-T", lambda: from_zoo("internimage_t_1k_224"), "internimage-t-original"),
    "internimage-t-original": Entry(
        "InternImage-T, original PyTorch core",
        lambda: PyTorchCore(from_zoo("internimage_t_1k_224")),
        modes=("eager",),
    ),
    "flash-internimage-t": Entry("FlashInternImage-T", lambda: from_zoo("flash_intern_image_t_1k_224")),
    "smt-t": Entry("SMT-T", lambda: from_zoo("smt_tiny")),
    "replknet-31b": Entry(
        "RepLKNet-31B", lambda: from_zoo("RepLKNet-31B_ImageNet-1K_224"), "replknet-31b-original", NO_INT8
    ),
    "replknet-31b-merged": Entry(
        "RepLKNet-31B, merged",
        lambda: from_zoo("RepLKNet-31B_ImageNet-1K_224").merge_reparameterization(),
        "replknet-31b-original",
        NO_INT8,
    ),
    "replknet-31b-original": Entry(
        "RepLKNet-31B, original's layout",
        lambda: DefaultLayout(from_zoo("RepLKNet-31B_ImageNet-1K_224")),
        modes=("eager",),
    ),
    "internimage-t-shallow": _few_layers("InternImage-T", "internimage_t_1k_224"),
    "flash-internimage-t-shallow": _few_layers("FlashInternImage-T", "flash_intern_image_t_1k_224"),
    "smt-t-shallow": _few_layers("SMT-T", "smt_tiny"),
    "replknet-31b-shallow": _few_layers("RepLKNet-31B", "RepLKNet-31B_ImageNet-1K_224"),
    "convnext-t": Entry(
        "ConvNeXt-T (timm)",
        lambda: from_timm("convnext_tiny").to(memory_format=torch.channels_last),
        modes=OF_OTHERS,
        needs_timm=True,
    ),
    "convnext-t-nchw": Entry(
        "ConvNeXt-T (timm), NCHW",
        lambda: from_timm("convnext_tiny"),
        modes=("eager", *COMPILED),
        channels_last=False,
        needs_timm=True,
    ),
    "swin-t": Entry(
        "Swin-T (timm)", lambda: from_timm("swin_tiny_patch4_window7_224"), modes=OF_OTHERS, needs_timm=True
    ),
    **{
        name: Entry(adopted.title, adopted.build, modes=("eager", *COMPILED), is_default=False)
        for name, adopted in ADOPTED.items()
    },
}
