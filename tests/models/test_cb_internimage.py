"""Two InternImages as one backbone, against a slow implementation in the order of the original."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoBackbone, AutoConfig

from hf_models.configuration_cb_internimage import CBInternImageConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.modeling_cb_internimage import CBInternImageBackbone
from hf_models.modeling_internimage import InternImageBackbone
from hf_models.remote_code import auto_map_of

from ..harness.hub_tester import pixels, run_client

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SIZES = {
    # every layer that InternImage-H has
    **{"hidden_sizes": [16, 32, 64, 128], "depths": [1, 2, 4, 1], "groups": [1, 2, 4, 8], "depthwise_kernel_size": 5},
    **{"res_post_norm": True, "center_feature_scale": True, "intermediate_norm_layers": [1, 3], "mlp_ratio": 2.0},
}


def random_backbone(seed=0, **kwargs) -> CBInternImageBackbone:
    torch.manual_seed(seed)
    backbone = CBInternImageBackbone(CBInternImageConfig(**{**SIZES, "out_features": STAGES, **kwargs})).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return backbone


def images(batch_size=2, height=64, width=96) -> torch.Tensor:
    return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(1))


def slow_composite(backbone: CBInternImageBackbone, pixel_values: torch.Tensor) -> list[torch.Tensor]:
    """Level by level, channels last, the downsampling at the end of a level, grids by halving the stem's."""
    weights = backbone.state_dict()
    first = InternImageBackbone(InternImageConfig(**SIZES, out_features=STAGES)).eval()
    first.load_state_dict({name.replace(".assistant.", "."): weights[name] for name in weights if _of_first(name)})
    features = first(pixel_values).feature_maps
    stem = backbone.embeddings(pixel_values)
    height, width = stem.shape[2:]
    x, found = stem.permute(0, 2, 3, 1), []
    for i, stage in enumerate(backbone.encoder.lead.stages):
        f = torch.zeros_like(x)
        for j in range(4 - i):
            feature = features[i + j]
            if j > 0:
                link = f"encoder.links.{i}.{j - 1}."
                feature = F.conv2d(feature, weights[link + "weight"], weights[link + "bias"])
            rows = [row * feature.shape[2] // height for row in range(height)]
            columns = [column * feature.shape[3] // width for column in range(width)]
            f = f + feature[:, :, rows][:, :, :, columns].permute(0, 2, 3, 1)
        x = x + weights[f"encoder.scales.{i}.scale"].half().to(x.dtype) * f
        for k, layer in enumerate(stage.layers):
            x = layer(x)
            if i == 2 and k in (1, 3):
                x = stage.intermediate_norms[(1, 3).index(k)](x)
        x = stage.norm(x)
        found.append(x.permute(0, 3, 1, 2))
        if i < 3:
            x = backbone.encoder.lead.stages[i + 1].downsample(found[-1]).permute(0, 2, 3, 1)
            height, width = height // 2, width // 2
    return found


def _of_first(name: str) -> bool:
    return name.startswith(("embeddings.", "encoder.assistant."))


@torch.no_grad()
def test_composition_is_the_originals():
    backbone, pixel_values = random_backbone(), images()
    expected = slow_composite(backbone, pixel_values)
    for found, feature_map in zip(backbone(pixel_values).feature_maps, expected, strict=True):
        assert (found - feature_map).abs().max() < 1e-5 * feature_map.abs().max()


@torch.no_grad()
def test_scales_are_rounded_to_half_precision():
    backbone, pixel_values = random_backbone(), images()
    expected = backbone(pixel_values).feature_maps
    for scale in backbone.encoder.scales:
        scale.scale.copy_(scale.scale.half())
    for found, feature_map in zip(backbone(pixel_values).feature_maps, expected, strict=True):
        assert torch.equal(found, feature_map)


def test_it_is_a_backbone_as_any_other():
    config = CBInternImageConfig(**SIZES, out_features=["stem", "stage2", "stage4"])
    assert type(AutoConfig.for_model("cb_internimage")) is CBInternImageConfig
    backbone = AutoBackbone.from_config(config).eval()
    outputs = backbone(images(), output_hidden_states=True)
    assert backbone.channels == [feature_map.shape[1] for feature_map in outputs.feature_maps] == [16, 32, 128]
    assert len(outputs.hidden_states) == 5, "the stem and the stages of the lead, and not of the assistant"
    for feature_map, hidden in zip(outputs.feature_maps, (outputs.hidden_states[i] for i in (0, 2, 4)), strict=True):
        assert torch.equal(feature_map, hidden)
    assert isinstance(backbone(images(), return_dict=False), tuple)
    assert auto_map_of(config).keys() == {"AutoConfig", "AutoBackbone"}, "it is no classifier"
    with pytest.raises(ValueError, match=r"pixel_values: expected \(batch_size, 3, height, width\)"):
        backbone(torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize(("height", "width"), [(33, 65), (70, 94), (1, 1)])
def test_any_size(height, width):
    """The original takes multiples of 32 alone, to which detectors pad."""
    assert random_backbone()(images(height=height, width=width)).feature_maps[-1].isfinite().all()


@torch.inference_mode()
def test_saves_and_loads_without_the_package(tmp_path):
    backbone = random_backbone()
    backbone.save_pretrained(tmp_path / "model")
    loaded, info = CBInternImageBackbone.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values())
    expected = backbone(pixels()).feature_maps
    torch.testing.assert_close(loaded(pixels()).feature_maps, expected, rtol=0, atol=0)
    reference = "modeling_cb_internimage.CBInternImageBackbone"  # see `backbone_case`
    case = {"name": "cb", "class": reference, "id": str(tmp_path / "model"), "kwargs": {}}
    told, outputs = run_client(tmp_path / "client", {"HF_HOME": str(tmp_path)}, [case], absent=["hf_models"])
    assert not told["results"][0]["problems"]
    for i, feature_map in enumerate(expected):
        assert torch.equal(outputs[f"cb/feature_maps{i}"], feature_map)


def test_initialisation_and_parameters_of_h():
    torch.manual_seed(0)
    backbone = CBInternImageBackbone(CBInternImageConfig(**SIZES))
    assert all((scale.scale == 1).all() for scale in backbone.encoder.scales)
    with torch.device("meta"):
        h = CBInternImageBackbone(
            CBInternImageConfig(
                **{"hidden_sizes": [320, 640, 1280, 2560], "depths": [6, 6, 32, 6], "groups": [10, 20, 40, 80]},
                **{"depthwise_kernel_size": 5, "res_post_norm": True, "center_feature_scale": True},
                intermediate_norm_layers=[5, 11, 17, 23, 29],
            )
        )
    assert sum(parameter.numel() for parameter in h.parameters()) == 2_152_954_720


def test_trains_with_checkpointing_in_half_precision_and_in_one_graph():
    backbone = random_backbone(drop_path_rate=0.0, depths=[1, 1, 1, 1], intermediate_norm_layers=[0]).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            backbone.activation_checkpointing_enable()
        backbone.zero_grad()
        sum(feature_map.mean() for feature_map in backbone(images()).feature_maps).backward()
        gradients.append({name: parameter.grad for name, parameter in backbone.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])

    backbone = backbone.eval().requires_grad_(False)
    backbone.activation_checkpointing_disable()
    expected = backbone(images()).feature_maps[-1]
    compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()
    torch.testing.assert_close(compiled(images()).feature_maps[-1], expected)
    half = backbone.to(torch.bfloat16)(images()).feature_maps[-1]
    assert half.dtype == torch.bfloat16 and (half - expected).abs().max() < 0.05 * expected.abs().max()
