"""Networks of others with large kernels and DCNv4: transformers' and timm's, changed in place."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextV2Config,
    DINOv3ConvNextConfig,
    IJepaConfig,
    ResNetConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    ViTConfig,
    ViTForImageClassification,
)

from hf_models.adopted_layers import DepthwiseDCNv4, TokenDCNv4, depthwise_convs
from hf_models.adoption import adopt_dcnv4, adopt_large_kernels, drop_class_token
from hf_models.configuration_convnext_dcnv4 import ConvNextDCNv4Config
from hf_models.configuration_convnext_large_kernel import ConvNextLargeKernelConfig
from hf_models.configuration_vit_dcnv4 import ViTDCNv4Config
from hf_models.errors import InputError
from hf_models.large_kernel_conv import LargeKernelDepthwiseConv2d

SIZES = (31, 29, 27, 13)
STAGES = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}
VIT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
VIT |= {"image_size": 64, "patch_size": 8}
CONVNEXTS = [
    (auto_class, config_class)
    for config_class in (ConvNextConfig, ConvNextV2Config, DINOv3ConvNextConfig)
    for auto_class in (AutoModelForImageClassification, AutoModel, AutoBackbone)
    if config_class in auto_class._model_mapping
]
# of the tables of the DCNv4 and RepLKNet papers' sizes: hidden_sizes, depths
T, S = ((96, 192, 384, 768), (3, 3, 9, 3)), ((96, 192, 384, 768), (3, 3, 27, 3))
B = ((128, 256, 512, 1024), (3, 3, 27, 3))


def images(batch_size=2, height=64, width=96):
    return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(1))


def perturbed(model: nn.Module) -> nn.Module:
    """All of whose layers matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def built(auto_class, config):
    torch.manual_seed(0)
    return perturbed(auto_class.from_config(config))


def outputs(model, pixel_values=None):
    with torch.no_grad():
        values = model(images() if pixel_values is None else pixel_values).values()
    return [tensor for value in values for tensor in (value if isinstance(value, tuple) else [value])]


def assert_same(got, expected, tolerance=1e-5):
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


# --- large kernels


@pytest.mark.parametrize(("auto_class", "config_class"), CONVNEXTS)
def test_large_kernels_change_nothing_and_survive_saving(auto_class, config_class, tmp_path):
    model = built(auto_class, config_class(**STAGES, num_labels=5))
    parameters, stock = dict(model.named_parameters()), type(model)
    expected = outputs(model)
    assert adopt_large_kernels(model) is model
    assert [conv.kernel_size[0] for conv in depthwise_convs(model).values()] == [31, 29, 27, 27, 13]
    assert isinstance(model, stock) and not model.training
    assert_same(outputs(model), expected)
    kept = {name for name, parameter in model.named_parameters() if parameter is parameters[name]}
    assert parameters.keys() - kept == {f"{name}.weight" for name in depthwise_convs(model)}
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert_same(outputs(loaded.eval()), outputs(model), tolerance=0)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is type(model.config) and config.num_labels == 5
    assert auto_class._model_mapping[type(config)] is type(model)


@pytest.mark.slow
def test_convnext_t_of_timm_agrees(tmp_path):
    """The size of the paper; before = after = saved and loaded = timm's own with these kernel sizes."""
    timm = pytest.importorskip("timm")
    theirs = perturbed(timm.create_model("convnext_tiny", kernel_sizes=SIZES)).eval()
