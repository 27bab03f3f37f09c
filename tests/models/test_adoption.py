"""Networks of others with large kernels and DCNv4: those of transformers and timm, and any other, changed in place."""

import re

import pytest
import torch
from torch import nn
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextV2Config,
    DetrConfig,
    DetrForObjectDetection,
    DINOv3ConvNextConfig,
    IJepaConfig,
    ResNetConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    ViTConfig,
)

from hf_models.adopted_layers import TokenDCNv4, depthwise_convs
from hf_models.adoption import adopt_dcnv4, adopt_large_kernels, drop_class_token
from hf_models.configuration_convnext_dcnv4 import ConvNextDCNv4Config
from hf_models.configuration_convnext_large_kernel import ConvNextLargeKernelConfig
from hf_models.configuration_vit_dcnv4 import ViTDCNv4Config
from hf_models.deformable_conv import DCNv4
from hf_models.errors import InputError
from hf_models.remote_code import auto_map_of

SIZES = (31, 29, 27, 13)
STAGES = {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1]}
VIT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
VIT |= {"image_size": 64, "patch_size": 8}
CONVNEXTS = [
    (auto_class, config_class)
    for config_class in (ConvNextConfig, ConvNextV2Config, DINOv3ConvNextConfig)
    for auto_class in (AutoModelForImageClassification, AutoModel, AutoBackbone)
    if config_class in auto_class._model_mapping
]
IJEPAS = [(AutoModelForImageClassification, IJepaConfig), (AutoModel, IJepaConfig)]


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
    """Every tensor that a model of transformers returns."""
    with torch.no_grad():
        values = model(images() if pixel_values is None else pixel_values).values()
    return [tensor for value in values for tensor in (value if isinstance(value, tuple) else [value])]


def assert_same(got, expected, tolerance=1e-5):
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def assert_survives_saving(model, auto_class, folder):
    """By the Auto classes, and with every bit."""
    model.save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    assert auto_class._model_mapping[type(config)] is type(model)
    loaded, info = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert_same(outputs(loaded.eval()), outputs(model), tolerance=0)
    assert config.id2label == model.config.id2label
    assert {f"{reference.split('.')[0]}.py" for reference in auto_map_of(config).values()} <= {
        path.name for path in folder.iterdir()
    }


# --- large kernels


@pytest.mark.parametrize(("auto_class", "config_class"), CONVNEXTS)
def test_large_kernels_change_nothing_and_survive_saving(auto_class, config_class, tmp_path):
    model = built(auto_class, config_class(**STAGES, num_labels=5))
    parameters, stock = dict(model.named_parameters()), type(model)
    expected = outputs(model)
    assert adopt_large_kernels(model) is model
    assert isinstance(model, stock) and not any(module.training for module in model.modules())
    assert_same(outputs(model), expected)
    convs = depthwise_convs(model)
    assert [conv.kernel_size[0] for conv in convs.values()] == [31, 29, 27, 27, 13]
    kept = {name for name, parameter in model.named_parameters() if parameter is parameters[name]}
    assert parameters.keys() - kept == {f"{name}.weight" for name in convs}
    assert_survives_saving(model, auto_class, tmp_path)


def names_of_transformers(name: str) -> str:
    """A weight's name in timm's ConvNeXt -> that in transformers'."""
    for pattern, ours in (
        (r"^stem\.0", "embeddings.patch_embeddings"),
        (r"^stem\.1", "embeddings.layernorm"),
        (r"^stages", "encoder.stages"),
        (r"\.downsample\.", ".downsampling_layer."),
        (r"\.blocks\.", ".layers."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.norm\.", ".layernorm."),
        (r"\.mlp\.fc", ".pwconv"),
        (r"\.gamma$", ".layer_scale_parameter"),
        (r"^head\.layernorm", "layernorm"),
        (r"^head\.fc", "classifier"),
    ):
        name = re.sub(pattern, ours, name)
    return name if name.startswith("classifier") else f"convnext.{name}"


@pytest.fixture
def timm():
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision for another torch raises a RuntimeError
        pytest.skip(f"timm does not import: {error}")
    return timm


def test_convnext_t_agrees_with_timm(timm, tmp_path):
    """The size of the paper: before = after = saved and loaded = timm's own option for kernel sizes."""
    torch.manual_seed(0)
    plain, large = (timm.create_model("convnext_tiny", **options).eval() for options in ({}, {"kernel_sizes": SIZES}))
    config = ConvNextConfig(num_labels=1000, layer_norm_eps=1e-6)
    model = built(AutoModelForImageClassification, config)
    names = {name: names_of_transformers(name) for name in plain.state_dict()}
    state = model.state_dict()
    assert sorted(names.values()) == sorted(state)
    plain.load_state_dict({name: state[ours] for name, ours in names.items()})
    x = images(1, 96, 64)
    (expected,) = outputs(model, x)
    adopt_large_kernels(model)
    state = model.state_dict()
    large.load_state_dict({name: state[ours] for name, ours in names.items()})
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        for got in (model(x).logits, loaded(x).logits, plain(x), large(x), adopt_large_kernels(plain)(x)):
            assert_same([got], [expected])


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels, bias=False)

    def forward(self, x):
        return x + self.conv(x)


def other_network():
    """One that is neither transformers' nor timm's: two widths, and convolutions that stay what they are."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 4, 4), Block(8), Block(8)),
        *(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 16, 1), Block(16), nn.Conv2d(16, 5, 3, padding=1)),
    )


def test_any_other_network():
    torch.manual_seed(0)
    network = other_network()
    network[5].conv.weight.requires_grad_(False)
    network.eval().to(torch.float64)
    x = images(2, 64, 96).double()
    with torch.no_grad():
        expected = network(x)
        assert adopt_large_kernels(network, (13, 9)) is network
        torch.testing.assert_close(network(x), expected)
    kernels = [module.kernel_size[0] for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert kernels == [4, 13, 13, 3, 1, 9, 3]
    assert not network[5].conv.weight.requires_grad and network[5].conv.bias is None
    adopt_dcnv4(network, group_width=4)
    assert [module.groups for module in network.modules() if isinstance(module, DCNv4)] == [2, 2, 4]
    assert network(x).shape == expected.shape and network(x).dtype == torch.float64


@pytest.mark.parametrize(
    ("model", "sizes", "message"),
    [
        (ResNetConfig(), SIZES, r"ResNetForImageClassification: none of those that can be changed: .*ConvNextModel"),
        (
            ConvNextConfig(**STAGES),
            (31, 29),
            r"kernel_sizes: expected one for each of the 4 stages of Conv.*\[31, 29\]",
        ),
        (ConvNextConfig(**STAGES), (31, 29, 27, 5), r"kernel_sizes: expected odd ones from 7 for ConvNext.*got 5"),
        (ConvNextConfig(**STAGES), (31, 30, 27, 13), "kernel_sizes: expected odd ones .*got 30"),
        (ConvNextLargeKernelConfig(**STAGES), SIZES, "ConvNextLargeKernelForImageClassification: none of those"),
        (other_network, SIZES, r"one for each of the 2 widths of depthwise convolutions \(8, 16\) of Sequential"),
        (lambda: nn.Conv2d(3, 8, 3), SIZES, "Conv2d: no depthwise convolutions that keep the size of the map"),
    ],
)
def test_large_kernels_are_refused_in_one_line(model, sizes, message):
    model = model() if callable(model) else AutoModelForImageClassification.from_config(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=message) as error:
        adopt_large_kernels(model, sizes)
    assert "\n" not in str(error.value)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


# --- DCNv4


@pytest.mark.parametrize(("auto_class", "config_class"), CONVNEXTS + IJEPAS)
def test_dcnv4_survives_saving(auto_class, config_class, tmp_path):
    sizes = VIT if config_class is IJepaConfig else STAGES
    model = built(auto_class, config_class(**sizes, num_labels=5))
    stock, shapes = type(model), [tensor.shape for tensor in outputs(model, images(width=64))]
    assert adopt_dcnv4(model, group_width=16) is model
    assert isinstance(model, stock) and model.config.group_width == 16
    assert [tensor.shape for tensor in outputs(model, images(width=64))] == shapes
    assert not depthwise_convs(model) and not any(module.training for module in model.modules())
    assert_survives_saving(perturbed(model), auto_class, tmp_path)
    hidden_states = model(images(), output_hidden_states=True).hidden_states
    assert len(hidden_states) == len(model.config.stage_names)


def test_dcnv4_starts_as_an_average():
    """In a model that adopts it, in one from a config, and where a checkpoint has no weights for it."""
    adopted = adopt_dcnv4(AutoModel.from_config(ConvNextConfig(**STAGES)))
    made = AutoModel.from_config(ConvNextDCNv4Config(**STAGES))
    torch.manual_seed(0)
    x = torch.randn(1, 32, 5, 6)
    for model in (adopted, made, AutoModel.from_config(ViTDCNv4Config(**VIT))):
        for layer in (module for module in model.modules() if isinstance(module, DCNv4)):
            assert not layer.offset_mask.weight.any()
            assert layer.offset_mask.bias.unique().tolist() == pytest.approx([0, 1 / 9])
    average = nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    for model in (adopted, made):
        torch.testing.assert_close(model.encoder.stages[0].layers[0].dwconv(x), average)


def test_missing_weights_start_as_in_a_new_model(tmp_path):
    AutoModelForImageClassification.from_config(ConvNextConfig(**STAGES)).save_pretrained(tmp_path)
    config = ConvNextDCNv4Config(**STAGES)
    model, info = AutoModelForImageClassification.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert {name.split(".dwconv.")[1] for name in info["missing_keys"]} == {
        "dcn.offset_mask.weight",
        "dcn.offset_mask.bias",
    }
    for layer in (module for module in model.modules() if isinstance(module, DCNv4)):
        assert not layer.offset_mask.weight.any()
        assert layer.offset_mask.bias.unique().tolist() == pytest.approx([0, 1 / 9])


def first_gradient(config):
    """Its norm, and its largest entry in the layers in question."""
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(config)
    model(images(4), labels=torch.arange(4)).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    largest = max(gradient.abs().max() for name, gradient in gradients.items() if ".dwconv." in name)
    return torch.stack([gradient.norm() for gradient in gradients.values()]).norm(), largest


def test_the_first_step_is_as_long_as_without_dcnv4():
    """With weights of zero, as the original's module starts, the LayerNorm behind it would see nothing but zeros."""
    sizes = {"hidden_sizes": [32, 64, 128, 256], "depths": [2, 2, 4, 2], "num_labels": 10}
    (stock, stock_layers), (ours, our_layers) = map(
        first_gradient, (ConvNextConfig(**sizes), ConvNextDCNv4Config(**sizes))
    )
    assert ours.isfinite() and 1 / 3 < ours / stock < 3
    assert our_layers < 3 * stock_layers


@pytest.mark.parametrize("with_projections", [True, False])
def test_dcnv4_learns_under_autocast(with_projections):
    sizes = {"hidden_sizes": [32, 64], "depths": [1, 1], "num_stages": 2, "num_labels": 10}
    config = ViTDCNv4Config(**VIT, num_labels=10) if with_projections else ConvNextDCNv4Config(**sizes)
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(config).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(images(4), labels=torch.arange(4)).loss
    loss.backward()
    gradients = [parameter.grad for name, parameter in model.named_parameters() if "mask_token" not in name]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    with torch.no_grad():
        torch.testing.assert_close(loss, model(images(4), labels=torch.arange(4)).loss, rtol=0.02, atol=0.02)


def test_a_vit_keeps_the_projections_of_its_attention():
    vit = built(AutoModelForImageClassification, ViTConfig(**VIT, num_labels=5))
    ijepa = drop_class_token(vit)
    assert type(ijepa).__name__ == "IJepaForImageClassification" and not ijepa.training
    block, theirs = ijepa.ijepa.layers[1], vit.vit.layers[1]
    torch.testing.assert_close(block.attention.state_dict(), theirs.attention.state_dict(), rtol=0, atol=0)
    positions = ijepa.ijepa.embeddings.position_embeddings
    assert torch.equal(positions, vit.vit.embeddings.position_embeddings[:, 1:])
    assert positions.data_ptr() != vit.vit.embeddings.position_embeddings.data_ptr()
    attention = block.attention
    adopt_dcnv4(ijepa)
    assert block.attention.dcn.value_proj is attention.v_proj and block.attention.dcn.output_proj is attention.o_proj
    assert ijepa(images(width=96)).logits.shape == (2, 5), "any size"
    base = drop_class_token(built(AutoModel, ViTConfig(**VIT)))
    assert adopt_dcnv4(base)(images()).last_hidden_state.shape == (2, 8 * 12, 64)


class TimmAttention(nn.Module):
    """As timm's ViT calls and names it."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x, attn_mask=None, is_causal=False):
        raise AssertionError("not called")


class TimmViT(nn.Module):
    def __init__(self, cls_token=False):
        super().__init__()
        self.attn = TimmAttention()
        if cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 32))

    def forward(self, tokens):
        return self.attn(tokens, attn_mask=None, is_causal=False)


class WindowViT(TimmViT):
    """Its attention needs to know more than tokens and masks, as that of Swin."""

    def __init__(self):
        super().__init__()
        self.attn.forward = lambda x, mask, window: x


def test_a_vit_that_is_not_of_transformers():
    torch.manual_seed(0)
    vit, tokens = TimmViT(), torch.randn(2, 36, 32)
    value, output = vit.attn.qkv, vit.attn.proj
    adopt_dcnv4(vit, group_width=16)
    assert isinstance(vit.attn, TokenDCNv4)
    # (2, 36, 32) -> (2, 32, 6, 6), and back
    values = nn.functional.linear(tokens, value.weight[64:], value.bias[64:]).mT.unflatten(2, (6, 6))
    average = nn.functional.avg_pool2d(values, 3, stride=1, padding=1).flatten(2).mT
    torch.testing.assert_close(vit(tokens), output(average))
    with pytest.raises(ValueError, match="a square of patches and nothing else, got 35"):
        vit(tokens[:, 1:])


def test_a_vit_of_timm(timm):
    vit = timm.create_model("vit_tiny_patch16_224", class_token=False, global_pool="avg", img_size=64, num_classes=5)
    assert adopt_dcnv4(vit)(images(width=64)).shape == (2, 5)
    with pytest.raises(InputError, match="VisionTransformer: has a class token"):
        adopt_dcnv4(timm.create_model("vit_tiny_patch16_224"))
    with pytest.raises(InputError, match="ResNet: no depthwise convolutions"):
        adopt_large_kernels(timm.create_model("resnet18"))


@pytest.mark.parametrize(
    ("model", "width", "message"),
    [
        (ViTConfig(**VIT), 32, "ViTForImageClassification: has a class token, .*; `drop_class_token` makes one"),
        (lambda: TimmViT(cls_token=True), 32, "TimmViT: has a class token"),
        (ConvNextConfig(**STAGES), 24, "group_width: expected a divisor of 32, 64, 96, 128 for ConvNext.* got 24"),
        (ConvNextConfig(**STAGES), 0, "group_width: expected a divisor"),
        (IJepaConfig(**VIT), 48, "group_width: expected a divisor of 64 for IJepaForImageClassification, got 48"),
        (ResNetConfig(), 32, "ResNetForImageClassification: none of those that can be changed: .*IJepaModel"),
        (WindowViT, 32, "WindowViT: neither"),
        (lambda: nn.Linear(3, 3), 32, "Linear: neither depthwise convolutions .* nor a ViT's attention"),
    ],
)
def test_dcnv4_is_refused_in_one_line(model, width, message):
    model = model() if callable(model) else AutoModelForImageClassification.from_config(model)
    with pytest.raises(InputError, match=message) as error:
        adopt_dcnv4(model, width)
    assert "\n" not in str(error.value)
    assert not any(isinstance(module, DCNv4) for module in model.modules())


def test_only_a_vit_can_lose_its_class_token():
    with pytest.raises(InputError, match=r"ConvNextModel: cannot lose its class token. Give a ViTModel or ViTFor"):
        drop_class_token(AutoModel.from_config(ConvNextConfig(**STAGES)))


# --- sizes and heads


@pytest.mark.parametrize(
    ("hidden_sizes", "depths", "stock", "large", "dcnv4"),
    [
        ((96, 192, 384, 768), (3, 3, 9, 3), 28_589_128, 31_934_536, {16: 33_731_920, 32: 31_012_264}),
        ((96, 192, 384, 768), (3, 3, 27, 3), 50_223_688, 58_269_256, {16: 59_511_520, 32: 54_574_264}),
        (
            *((128, 256, 512, 1024), (3, 3, 27, 3), 88_591_464, 99_318_888),
            {16: 105_386_592, 32: 96_539_376, 64: 92_117_304},
        ),
    ],
    ids=["T", "S", "B"],
)
def test_parameters_of_convnext(hidden_sizes, depths, stock, large, dcnv4):
    sizes = {"hidden_sizes": hidden_sizes, "depths": depths, "num_labels": 1000}
    assert parameters(ConvNextConfig(**sizes)) == stock
    assert parameters(ConvNextLargeKernelConfig(**sizes)) == large
    assert {width: parameters(ConvNextDCNv4Config(**sizes, group_width=width)) for width in dcnv4} == dcnv4


def test_parameters_of_vit():
    small = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_labels": 1000}
    assert parameters(ViTConfig(num_labels=1000)) == 86_567_656 and parameters(ViTConfig(**small)) == 22_050_664
    counts = [parameters(ViTDCNv4Config(num_labels=1000, group_width=width)) for width in (16, 32, 64)]
    assert counts == [84_351_400, 78_371_656, 75_418_696]
    assert parameters(ViTDCNv4Config(**small)) == 20_017_096


def parameters(config) -> int:
    with torch.device("meta"):
        return AutoModelForImageClassification.from_config(config).num_parameters()


@pytest.mark.parametrize("adopt", [adopt_large_kernels, adopt_dcnv4])
def test_a_model_with_a_head_saves_its_backbone_with_the_code(adopt, tmp_path):
    backbone = ConvNextConfig(**STAGES, out_features=["stage1", "stage2", "stage3", "stage4"])
    head = {"hidden_size": 8, "pool_scales": [1, 2], "auxiliary_channels": 4, "num_labels": 5}
    torch.manual_seed(0)
    model = perturbed(UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, **head)))
    expected = outputs(model)
    adopt(model)
    if adopt is adopt_large_kernels:
        assert_same(outputs(model), expected)
    model.save_pretrained(tmp_path)
    loaded, info = UperNetForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert_same(outputs(loaded.eval()), outputs(model))
    assert type(loaded.backbone) is type(model.backbone)
    assert (tmp_path / f"modeling_{model.config.backbone_config.model_type}.py").is_file()


def test_vit_dcnv4_under_heads():
    """All its maps have one size: UperNet takes several of them, DETR the last."""
    stages = ViTDCNv4Config(**VIT, out_features=["stage1", "stage2"])
    head = {"hidden_size": 8, "pool_scales": [1, 2], "use_auxiliary_head": False}
    segmenter = UperNetForSemanticSegmentation(UperNetConfig(backbone_config=stages, **head | {"num_labels": 5}))
    assert segmenter(images()).logits.shape == (2, 5, 64, 96)
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 3}
    detector = DetrForObjectDetection(DetrConfig(backbone_config=ViTDCNv4Config(**VIT), **small))
    assert detector(images()).pred_boxes.shape == (2, 3, 4)
