"""What users put on top of a model works as on any model of transformers: its layers are PyTorch's own."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageClassification
from transformers.models.detr.modeling_detr import DetrConfig, DetrForObjectDetection, DetrFrozenBatchNorm2d

from hf_models import large_kernel_conv
from hf_models.configuration_flash_internimage import FlashInternImageConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.configuration_replknet import RepLKNetConfig
from hf_models.configuration_smt import SMTConfig
from hf_models.large_kernel_conv import LargeKernelDepthwiseConv2d, ReparameterizableLargeKernelConv
from hf_models.modeling_replknet import RepLKNetBackbone

SIZES = {"hidden_sizes": (16, 32, 64, 128), "depths": (1, 1, 2, 1), "num_labels": 5}
FAMILIES = {
    "internimage": InternImageConfig(**SIZES, groups=(1, 2, 4, 8), center_feature_scale=True),
    "flash_internimage": FlashInternImageConfig(**SIZES, groups=(1, 2, 4, 8), depthwise_kernel_size=3),
    "smt": SMTConfig(**SIZES, num_attention_heads=(1, 2, 4, 8)),
    "replknet": RepLKNetConfig(**SIZES, kernel_sizes=(31, 29, 27, 13)),
}
LAYERS = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d)


pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


@pytest.fixture(params=FAMILIES)
def model(request):
    """A classifier all of whose layers matter."""
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(copy.deepcopy(FAMILIES[request.param])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def images(batch_size=2):
    return torch.randn(batch_size, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def logits(model):
    with torch.no_grad():
        return model(images()).logits


def layers_of(model, *kinds):
    return [module for module in model.modules() if isinstance(module, kinds)]


def test_layers_are_those_of_pytorch(model):
    assert {type(layer) for layer in layers_of(model, *LAYERS)} <= set(LAYERS)


def test_every_layer_is_called_where_a_hook_looks(model):
    expected, called = logits(model), []
    for layer in layers_of(model, *LAYERS):
        layer.register_forward_hook(lambda layer, inputs, output: called.append(layer))
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    assert sorted(map(id, called)) == sorted(map(id, layers_of(model, *LAYERS)))


def test_copies_and_pickles(model):
    expected = logits(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(logits(other), expected)


def test_functional_call_takes_the_weights_given(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = logits(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        out = torch.func.functional_call(model, state, images()).logits
    assert torch.equal(out, expected)


def test_gradients_of_each_image(model):
    """As privacy and influence methods take them: `vmap` over `grad` of `functional_call`."""
    weights, batch = dict(model.named_parameters()), images()

    def loss(weights, image):
        return torch.func.functional_call(model, weights, image[None]).logits.sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, batch)
    for i, image in enumerate(batch):
        expected = torch.autograd.grad(loss(weights, image), list(weights.values()))
        for ours, exact in zip(each.values(), expected, strict=True):
            scale = exact.abs().max()
            torch.testing.assert_close(ours[i] / scale, exact / scale, rtol=1e-3, atol=1e-3)


def test_weight_hooks(model):
    """Pruning and weight normalisation act on what is computed, with gradients and without."""
    expected = logits(model)
    for layer in layers_of(model, nn.Linear, nn.Conv2d):
        parametrizations.weight_norm(layer)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    model = copy.deepcopy(model)
    for layer in layers_of(model, nn.Linear, nn.Conv2d):
        nn.utils.parametrize.remove_parametrizations(layer, "weight")
        prune.l1_unstructured(layer, "weight", 0.5)
    pruned = logits(model)
    assert (pruned - expected).abs().max() > 1e-3
    torch.testing.assert_close(model(images()).logits.detach(), pruned, rtol=1e-4, atol=1e-4)


def test_dynamic_quantisation_finds_every_linear_layer(model):
    expected, linears = logits(model), len(layers_of(model, nn.Linear))
    model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert len(layers_of(model, torch.ao.nn.quantized.dynamic.Linear)) == linears
    assert not layers_of(model, nn.Linear)
    assert (logits(model) - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchao_quantises(model, kind):
    quantization = pytest.importorskip("torchao.quantization")
    expected = logits(model)
    quantization.quantize_(model, getattr(quantization, kind)())
    out = logits(model)
    assert (out - expected).abs().max() < 0.1 * expected.abs().max()
    torch.testing.assert_close(model(images()).logits.detach(), out, rtol=1e-3, atol=1e-3)


def test_lora_on_every_linear_layer_and_convolution(model):
    peft = pytest.importorskip("peft")
    expected = logits(model)
    targets = [
        name
        for name, layer in model.named_modules()
        # peft wants a rank that the groups divide, and 1x1 layers where there are groups
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    out = adapted(images()).logits
    out.sum().backward()
    assert (out - expected).abs().max() > 1e-3
    torch.testing.assert_close(logits(adapted), out.detach(), rtol=1e-4, atol=1e-4)
    if isinstance(model.config, RepLKNetConfig):
        with pytest.raises(ValueError, match=r"Conv2d: .* cannot be merged; .* `merge_and_unload`"):
            model.merge_reparameterization()
    merged = adapted.merge_and_unload()
    assert {type(layer) for layer in layers_of(merged, nn.Linear, nn.Conv2d)} <= {nn.Linear, nn.Conv2d}
    torch.testing.assert_close(logits(merged), out.detach(), rtol=1e-3, atol=1e-3)


def test_lora_on_large_kernels():
    """Of RepLKNet, and of a network that adopted our layer in the place of nn.Conv2d."""
    peft = pytest.importorskip("peft")
    layer = LargeKernelDepthwiseConv2d(16, 13)
    network = nn.Sequential(layer, nn.ReLU())
    adapted = peft.get_peft_model(network, peft.LoraConfig(r=16, target_modules=["0"], init_lora_weights=False))
    x = torch.randn(1, 16, 9, 9)
    base = adapted.base_model.model[0]
    out = adapted(x)
    lora = base.lora_B["default"](base.lora_A["default"](x)) * base.scaling["default"]
    torch.testing.assert_close(out, (base.base_layer(x) + lora).relu())


@pytest.mark.parametrize("merged", [False, True])
def test_flops_are_counted_whoever_computes(model, merged):
    if merged:
        if not isinstance(model.config, RepLKNetConfig):
            pytest.skip("only RepLKNet merges its kernels")
        model.merge_reparameterization()

    def count(model, x, backward=False):
        with FlopCounterMode(display=False) as counter:
            out = model(x).logits
            if backward:
                out.sum().backward()
        return counter.get_total_flops()

    model.set_attn_implementation("eager")  # PyTorch has no formula for its fused attention on a CPU
    with torch.no_grad():
        counts = [count(model, images())]
    with torch.inference_mode():
        counts.append(count(model, images()))
    counts.append(count(model, images()))
    counts.append(count(copy.deepcopy(model).to("meta"), images().to("meta")))
    assert len(set(counts)) == 1
    assert count(model, images(), backward=True) > 2.5 * counts[0]


def test_meta_gives_shapes(model):
    outputs = model.to("meta")(images().to("meta"), output_hidden_states=True)
    assert outputs.logits.shape == (2, 5) and outputs.logits.is_meta
    assert all(hidden.is_meta for hidden in outputs.hidden_states)


def test_derivatives_of_models(model):
    """Along a direction: forward mode and the double-backward trick against finite differences."""
    if isinstance(model.config, SMTConfig):
        model.set_attn_implementation("eager")  # PyTorch has neither for its fused attention
    model, x = model.double(), images(1).double()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)

    def run(x):
        return model(x).logits

    with torch.no_grad():
        expected = (run(x + 1e-6 * direction) - run(x - 1e-6 * direction)) / 2e-6
        _, tangent = torch.func.jvp(run, (x,), (direction,))
    torch.testing.assert_close(tangent, expected, rtol=1e-4, atol=1e-5)


def detector():
    """DETR on a RepLKNet; it puts norms of its own, with frozen statistics, in the place of BatchNorm."""
    torch.manual_seed(0)
    backbone = copy.deepcopy(FAMILIES["replknet"])
    backbone.out_features = ["stage4"]
    sides = ("encoder", "decoder")
    small = {
        f"{side}_{name}": number
        for side in sides
        for name, number in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))
    }
    model = DetrForObjectDetection(
        DetrConfig(backbone_config=backbone, d_model=16, num_queries=3, num_labels=2, **small)
    ).eval()
    for module in model.modules():
        if type(module) is DetrFrozenBatchNorm2d:
            module.running_mean += 0.3 * torch.randn_like(module.running_mean)
            module.running_var += torch.rand_like(module.running_var)
            module.weight += 0.3 * torch.randn_like(module.weight)
            module.bias += 0.3 * torch.randn_like(module.bias)
    return model


def test_replknet_in_a_detector_merges_its_kernels(monkeypatch):
    """For one call without gradients, and for good."""
    ran, original = [], large_kernel_conv.depthwise_conv2d
    monkeypatch.setattr(
        large_kernel_conv,
        "depthwise_conv2d",
        lambda input, weight, bias=None: ran.append(weight.shape[-1]) or original(input, weight, bias),
    )
    model = detector()
    branches = [module for module in model.modules() if isinstance(module, ReparameterizableLargeKernelConv)]
    assert all(type(branch.large.norm) is DetrFrozenBatchNorm2d for branch in branches)
    expected = model(images()).logits.detach()
    assert ran.count(31) == ran.count(5) - 4 == 1
    ran.clear()
    assert torch.allclose(logits(model), expected, rtol=1e-4, atol=1e-5)
    assert ran.count(31) == 1 and 5 not in ran
    backbone = next(module for module in model.modules() if isinstance(module, RepLKNetBackbone))
    backbone.merge_reparameterization()
    assert not any(type(module) is DetrFrozenBatchNorm2d for module in backbone.modules())
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
