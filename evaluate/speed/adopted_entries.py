"""Networks of others that `hf-models benchmark models` times, as they are and with the layers of this project."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification

from hf_models.adoption import adopt_dcnv4, adopt_large_kernels


class AnySize(nn.Module):
    """I-JEPA of transformers, which takes images of other sizes than that of training only when it is told so."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images, interpolate_pos_encoding=True).logits


def from_transformers(model_type: str, adopt: Callable | None = None) -> nn.Module:
    """A classifier with random weights, as the default of its config; offsets differ from pixel to pixel."""
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model(model_type, num_labels=1000)).eval()
    if adopt is not None:
        adopt(model)
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.25 * module.in_features**-0.5)
    return model


class Adopted(NamedTuple):
    """A network to time.

    Attributes:
        title: For tables.
        build: Makes it.
        stock: Key of the network that it was before, if it is another one.
    """

    title: str
    build: Callable[[], nn.Module]
    stock: str | None = None


convnext, ijepa = partial(from_transformers, "convnext"), partial(from_transformers, "ijepa")
ADOPTED = {  # key of the command -> the network
    "convnext-t-own": Adopted("ConvNeXt-T (transformers)", convnext),
    "convnext-t-dcnv4": Adopted("ConvNeXt-T with DCNv4", partial(convnext, adopt_dcnv4), "convnext-t-own"),
    "convnext-t-31x31": Adopted("ConvNeXt-T, 31-29-27-13", partial(convnext, adopt_large_kernels), "convnext-t-own"),
    "vit-b-own": Adopted("ViT-B/16 without class token", lambda: AnySize(ijepa())),
    "vit-b-dcnv4": Adopted("ViT-B/16 with DCNv4", partial(ijepa, adopt_dcnv4), "vit-b-own"),
}
