"""Deformable attention: the reference, the compiled kernel, and transformers' layers on it."""

import copy
import random
import sys

import pytest
import torch
from torch import nn
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr import modeling_deformable_detr

from hf_models.multi_scale_deformable_attention import (
    MultiScaleDeformableAttention,
    multi_scale_deformable_attention,
    multi_scale_deformable_attention_reference,
)

from ..harness.kernel_tester import TRANSFORMED_GRADIENTS, CompiledKernel, EmulatedKernel, KernelTester
from ..harness.operator_tester import OperatorTester, results

SHAPES = [(6, 5), (3, 4), (1, 2)]
stock = modeling_deformable_detr.MultiScaleDeformableAttention()


def random_inputs(dtype=torch.float64, batch=2, queries=7, heads=2, channels=16, points=2, shapes=SHAPES, seed=0):
    """Locations reach over the edges; they are whole 1024ths, so that no rounding moves a sample across a pixel."""
    generator = torch.Generator().manual_seed(seed)
    positions = sum(height * width for height, width in shapes)
    value = torch.randn(batch, positions, heads, channels, generator=generator, dtype=torch.float64)
    weights = torch.randn(batch, queries, heads, len(shapes), points, generator=generator, dtype=torch.float64)
    locations = torch.rand(*weights.shape, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    return tuple(tensor.to(dtype) for tensor in (value, (locations * 1024).round() / 1024, weights))


class AttentionTester(OperatorTester):
    """What the operator takes, does and refuses."""

    inputs = ("value", "sampling_locations", "attention_weights")
    batched = inputs
    reference = staticmethod(multi_scale_deformable_attention_reference)

    def small_case(self, dtype=torch.float32, batch=2, kind="ordinary"):
        shape = {
            "tiny": {"queries": 3, "channels": 2, "batch": 1},
            "ordinary": {"batch": batch},
            "large": {"queries": 300, "heads": 3, "batch": batch},
        }[kind]
        return random_inputs(dtype, **shape), {"spatial_shapes": SHAPES}

    def test_it_is_transformers_step(self, function):
        inputs = random_inputs(torch.float32)
        expected = stock(inputs[0], None, SHAPES, None, *inputs[1:], 64)
        torch.testing.assert_close(function(*inputs, spatial_shapes=SHAPES), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("poison", [float("nan"), float("inf")])
    def test_a_poisoned_pixel_reaches_only_what_samples_it(self, function, poison):
        value, _, weights = random_inputs()
        value[0, 0] = poison  # the first pixel of the first map
        locations = torch.full((*weights.shape, 2), 2.0, dtype=torch.float64)  # outside
        locations[:, 0, :, 0, 0] = -0.05  # beside that pixel, half outside
        out = function(value, locations, weights, spatial_shapes=SHAPES)
        touched = torch.zeros(2, 7, dtype=torch.bool)
        touched[0, 0] = True
        assert torch.equal(~out.isfinite().all(dim=-1), touched)
        assert not out[:, 1:].any()

    @pytest.mark.parametrize("position", [float("nan"), float("inf"), -float("inf"), 1e30])
    def test_a_position_that_is_no_position_adds_nothing(self, function, position):
        value, locations, weights = random_inputs()
        locations[..., 1, 1] = position
        silent = weights.clone()
        silent[..., 1] = 0
        out, *gradients = results(function, (value, locations, weights), spatial_shapes=SHAPES)
        torch.testing.assert_close(out, function(value, locations, silent, spatial_shapes=SHAPES))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert not gradients[1][..., 1, :].any() and not gradients[2][..., 1].any()


class TestReference(AttentionTester):
    refusals = [
        (lambda v, o, w: (v[:, 1:], o, w), RuntimeError, r"split_with_sizes expects .* sum exactly to 43"),
    ]
    refused_derivatives = ("double_backward", "double_backward_trick")  # by PyTorch's `embedding_bag`

    @pytest.fixture
    def function(self):
        return self.reference


class Attention(nn.Module):
    """What kernelize replaces: it is called as transformers' layers call theirs."""

    forward = modeling_deformable_detr.MultiScaleDeformableAttention.forward


class DetectionOps(KernelTester, AttentionTester):
    kernel_name, function_name = "detection-ops", "multi_scale_deformable_attention"
    layer = "MultiScaleDeformableAttention"
    operator = staticmethod(multi_scale_deformable_attention)
    counted = staticmethod(multi_scale_deformable_attention_reference)
    refused_derivatives = (
        *TRANSFORMED_GRADIENTS,
        *("jvp", "jacfwd", "dual_numbers", "double_backward", "double_backward_trick"),
    )
    cpu_paths = ("avx512", "avx2", "portable")
    benchmark = "decoder"
    refusals = [
        (lambda v, o, w: (v[0], o, w), ValueError, r"value: expected \(N, S, heads, channels\), got \(44, 2, 16\)"),
        (lambda v, o, w: (v[:, 1:], o, w), ValueError, r"spatial_shapes: expected 43 positions like value, got 44"),
        (
            lambda v, o, w: (v, o[:, :, :, 1:], w),
            ValueError,
            r"sampling_locations: expected \(2, 7, 2, 3, 2, 2\), got \(2, 7, 2, 2, 2, 2\)",
        ),
        (
            lambda v, o, w: (v, o, w[..., 1:]),
            ValueError,
            r"attention_weights: expected \(2, 7, 2, 3, 2\), got \(2, 7, 2, 3, 1\)",
        ),
        (lambda v, o, w: (v, o.float(), w), TypeError, "torch.float64, torch.float32, torch.float64"),
    ]
    sizes = [side for shape in SHAPES for side in shape]
    operator_refusals = [
        (
            "deformable_attention_forward",
            lambda v, o, w: (v, o, w, [6, 5]),
            "spatial_shapes: expected 44 positions like value, got 30",
        ),
        (
            "deformable_attention_forward",
            lambda v, o, w: (v, o, w, [10, 10, -8, 7, 0, 0]),  # 44 positions
            "spatial_shapes: expected 0 to 2\\^24, got -8",
        ),
        (
            "deformable_attention_forward",
            lambda v, o, w: (v, o[..., 0], w, [6, 5, 3, 4, 1, 2]),
            r"sampling_locations: expected \(N, Q, heads, levels, points, 2\), got \(2, 7, 2, 3, 2\)",
        ),
        ("deformable_attention_forward", lambda v, o, w: (v, o.double(), w, [6, 5, 3, 4, 1, 2]), "share a dtype"),
        (
            "deformable_attention_backward",
            lambda v, o, w: (torch.ones(2, 7, 5), v, o, w, [6, 5, 3, 4, 1, 2]),
            r"grad_output: expected \(2, 7, 32\), got \(2, 7, 5\)",
        ),
    ]

    def random_case(self, seed):
        pick = random.Random(seed)
        sides = [1, 2, 3, 5, 8, 16]
        shapes = [(pick.choice(sides), pick.choice(sides)) for _ in range(pick.choice([1, 2, 3, 4, 5]))]
        dtype = pick.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16])
        sizes = {
            "batch": pick.choice([1, 2]),
            "queries": pick.choice([1, 3, 10]),
            "heads": pick.choice([1, 2, 3, 8]),
            "channels": pick.choice([32, 32, 1, 5, 16, 20, 48, 64, 100]),
            "points": pick.choice([4, 4, 1, 3, 7]),
        }
        inputs = random_inputs(dtype, shapes=shapes, seed=seed, **sizes)
        gradient = torch.randn(*inputs[2].shape[:2], sizes["heads"] * sizes["channels"]).to(dtype)
        return inputs, gradient, {"spatial_shapes": shapes}

    def operator_calls(self):
        inputs = random_inputs(torch.float32)
        yield "deformable_attention_forward", *(tensor.clone().requires_grad_() for tensor in inputs), self.sizes
        yield "deformable_attention_backward", torch.ones(2, 7, 32), *inputs, self.sizes

    def module(self):
        value, *others = random_inputs(torch.float32)
        return Attention(), (value, None, SHAPES, None, *others, 64)

    def test_derivatives_that_only_a_reference_has(self, kernel, monkeypatch):
        monkeypatch.setattr(sys.modules[f"{kernel.__name__}._attention"], "_reference", None)
        inputs = random_inputs()

        def function(*inputs):
            return kernel.multi_scale_deformable_attention(*inputs, spatial_shapes=SHAPES)

        with pytest.raises(NotImplementedError, match=r"no forward-mode derivatives .* `set_reference`"):
            torch.func.jvp(function, inputs, inputs)
        with pytest.raises(NotImplementedError, match=r"no second derivatives .* `set_reference`"):
            torch.autograd.functional.jvp(function, inputs, inputs)
        kernel.set_reference(multi_scale_deformable_attention_reference)
        actual = torch.func.jvp(function, inputs, inputs)[1]
        torch.testing.assert_close(torch.autograd.functional.jvp(function, inputs, inputs)[1], actual)


class TestCompiled(CompiledKernel, DetectionOps):
    pass


class TestCudaSource(EmulatedKernel, DetectionOps):
    def test_more_levels_than_it_has_room_for(self, function):
        shapes = [(1, 1)] * 17
        with pytest.raises(RuntimeError, match="spatial_shapes: expected at most 16 levels, got 17"):
            function(*random_inputs(shapes=shapes), spatial_shapes=shapes)


@pytest.fixture(params=["encoder", "decoder"])
def layer(request):
    """A layer of transformers, and the arguments of its forward."""
    config = DeformableDetrConfig(d_model=32, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=16)
    config.num_feature_levels = len(SHAPES)
    kinds = {
        "encoder": modeling_deformable_detr.DeformableDetrEncoderLayer,
        "decoder": modeling_deformable_detr.DeformableDetrDecoderLayer,
    }
    layer = kinds[request.param](config).eval()
    for parameter in layer.parameters():
        parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    positions = sum(height * width for height, width in SHAPES)
    memory, queries = torch.randn(2, positions, 32), torch.randn(2, 5, 32)
    arguments = {
        "reference_points": torch.rand(2, positions if request.param == "encoder" else 5, len(SHAPES), 2),
        "spatial_shapes": torch.tensor(SHAPES),
        "spatial_shapes_list": SHAPES,
        "level_start_index": torch.tensor([0, 30, 42]),
    }
    if request.param == "encoder":
        return layer, {"hidden_states": memory, "attention_mask": torch.ones(2, positions).bool(), **arguments}
    arguments["object_queries_position_embeddings"] = torch.randn(2, 5, 32)
    return layer, {"hidden_states": queries, "encoder_hidden_states": memory, **arguments}


def on_ours(layer):
    """A copy of a layer of transformers that computes attention by our operator, as our models do."""
    layer = copy.deepcopy(layer)
    for module in layer.modules():
        if isinstance(module, modeling_deformable_detr.DeformableDetrMultiscaleDeformableAttention):
            module.attn = MultiScaleDeformableAttention()
    return layer


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


class TestLayers:
    def test_transformers_layers_compute_the_same_on_it(self, layer):
        layer, arguments = layer
        ours = on_ours(layer)
        assert ours.state_dict().keys() == layer.state_dict().keys()
        expected, actual = layer(**arguments), ours(**arguments)
        torch.testing.assert_close(first_of(actual), first_of(expected), rtol=1e-5, atol=1e-5)
        first_of(actual).sum().backward()
        first_of(expected).sum().backward()
        for parameter, other in zip(ours.parameters(), layer.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-4)

    def test_autocast_leaves_several_dtypes(self, layer):
        layer, arguments = layer
        with torch.autocast("cpu", torch.bfloat16):
            first_of(on_ours(layer)(**arguments)).sum().backward()

    def test_half_precision_samples_in_float32(self):
        value, locations, weights = random_inputs(torch.bfloat16)
        expected = multi_scale_deformable_attention(
            value.float(), locations.float() + 1e-3, weights.float(), spatial_shapes=SHAPES
        )
        out = multi_scale_deformable_attention(value, locations.float() + 1e-3, weights, spatial_shapes=SHAPES)
        assert torch.equal(out, expected.bfloat16())

    def test_what_is_exported_is_grid_sample(self):
        value, *others = random_inputs(torch.float32)
        arguments = (value, torch.tensor(SHAPES), SHAPES, None, *others, 64)
        program = torch.export.export(MultiScaleDeformableAttention(), arguments)
        assert any("grid_sampler" in str(node.target) for node in program.graph.nodes)
        torch.testing.assert_close(program.module()(*arguments), stock(*arguments))
