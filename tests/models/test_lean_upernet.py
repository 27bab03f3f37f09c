"""UperNet in less memory: what transformers' returns, with the same weights."""

import pytest
import torch
from transformers import UperNetConfig
from transformers import UperNetForSemanticSegmentation as Stock

from hf_models.configuration_aligned_upernet import AlignedUperNetConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.modeling_aligned_upernet import AlignedUperNetForSemanticSegmentation
from hf_models.modeling_lean_upernet import UperNetForSemanticSegmentation, upernet_scores
from hf_models.segmentation import load_segmenter

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 5, (2, 64, 96), generator=torch.Generator().manual_seed(0))


def config(kind: type[UperNetConfig] = UperNetConfig) -> UperNetConfig:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = InternImageConfig(
        depths=[1] * 4, hidden_sizes=[8, 16, 16, 32], groups=[1, 2, 2, 2], out_features=stages
    )
    return kind(backbone_config=backbone, hidden_size=32, pool_scales=[1, 2], auxiliary_channels=8, num_labels=5)


@pytest.fixture(params=[UperNetConfig, AlignedUperNetConfig], ids=["upernet", "aligned"])
def models(request):
    """Ours and transformers', with the same weights and statistics of batches."""
    torch.manual_seed(0)
    ours_class = UperNetForSemanticSegmentation
    if request.param is AlignedUperNetConfig:
        ours_class = AlignedUperNetForSemanticSegmentation
    ours, stock = ours_class(config(request.param)), Stock(config())
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    stock.load_state_dict(ours.state_dict())
    if request.param is AlignedUperNetConfig:
        stock.decode_head.align_corners = stock.decode_head.psp_modules.align_corners = True
    return ours.eval(), stock.eval()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 3e-2)]
)
def test_scores_are_those_of_the_head(models, dtype, tolerance):
    ours, stock = (model.to(dtype) for model in models)
    with torch.no_grad():
        features = stock.backbone(IMAGES.to(dtype)).feature_maps
        found, expected = upernet_scores(ours.decode_head, features), stock.decode_head(features)
    assert found.dtype == dtype and found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_logits_and_loss_are_those_of_the_model():
    torch.manual_seed(0)
    stock, ours = Stock(config()).eval(), UperNetForSemanticSegmentation(config()).eval()
    ours.load_state_dict(stock.state_dict())
    expected = stock(IMAGES, labels=LABELS, output_hidden_states=True)
    found = ours(IMAGES, labels=LABELS, output_hidden_states=True)
    torch.testing.assert_close((found.loss, found.logits), (expected.loss, expected.logits))
    assert len(found.hidden_states) == len(expected.hidden_states) == 5
    assert isinstance(ours(IMAGES, return_dict=False), tuple)


def test_the_head_runs_with_gradients(models):
    ours, stock = models
    expected = stock.decode_head(stock.backbone(IMAGES).feature_maps)
    scores = upernet_scores(ours.decode_head, ours.backbone(IMAGES).feature_maps)
    assert torch.equal(scores, expected)
    scores.sum().backward()
    assert all(parameter.grad is not None for parameter in ours.decode_head.parameters())


@pytest.mark.parametrize("name", ["decode_head", "decode_head.fpn_bottleneck", "decode_head.fpn_bottleneck.conv"])
def test_a_hook_sees_what_it_would(models, name):
    seen = []
    for model in models:
        model.get_submodule(name).register_forward_hook(lambda module, inputs, out: seen.append(out))
    with torch.no_grad():
        for model in models:
            features = model.backbone(IMAGES).feature_maps
            upernet_scores(model.decode_head, features)
    assert len(seen) == 2 and torch.equal(*seen)


def test_a_replaced_convolution_is_called(models):
    """As an adapter, or a quantised layer."""
    ours, _ = models

    class Doubled(torch.nn.Conv2d):
        def forward(self, input):
            return super().forward(input) * 2

    with torch.no_grad():
        features = ours.backbone(IMAGES).feature_maps
        ours.decode_head.fpn_bottleneck.conv.__class__ = Doubled
        assert torch.equal(upernet_scores(ours.decode_head, features), ours.decode_head(features))


def test_what_is_saved_loads_in_both(tmp_path):
    stock = Stock(config()).eval()
    stock.save_pretrained(tmp_path / "stock")
    ours, _ = load_segmenter(tmp_path / "stock")
    assert type(ours) is UperNetForSemanticSegmentation
    ours.save_pretrained(tmp_path / "ours")
    again = Stock.from_pretrained(tmp_path / "ours")
    assert again.config.architectures == ["UperNetForSemanticSegmentation"]
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(IMAGES).logits, stock(IMAGES).logits)
