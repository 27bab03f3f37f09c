"""The deformable operator, as it is tested whoever computes it: against outputs and gradients of the originals."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_models.deformable_aggregate import deformable_aggregate_reference

from .operator_tester import OperatorTester

FIXTURES = Path(__file__).parents[1] / "fixtures" / "operators"
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def goldens(name):
    """The cases of a golden file: name -> (parameters, tensors)."""
    cases = json.loads((FIXTURES / f"{name}.json").read_text())
    tensors = load_file(FIXTURES / f"{name}.safetensors")
    return {
        case: (
            parameters,
            {key.removeprefix(f"{case}."): tensor for key, tensor in tensors.items() if key.startswith(f"{case}.")},
        )
        for case, parameters in cases.items()
    }


DCNV3_OPS, DCNV4_OPS = goldens("dcnv3_ops"), goldens("dcnv4_op")
HALF_CASES = {"half", "bf16", "boundary"}  # tested on their own below
DCNV4_SAME_DTYPE = sorted(set(DCNV4_OPS) - HALF_CASES - {"flash_deform_attn"})


def assert_close(actual, expected, tolerance):
    expected = expected.to(actual.dtype).reshape(actual.shape)
    assert (actual - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


def unpack(packed, groups, points):
    """DCNv4's packed rows as offset (N, H, W, G, K, 2) and weight (N, H, W, G, K), both views."""
    packed = packed[..., : 3 * groups * points].unflatten(-1, (groups, 3 * points))
    return packed[..., : 2 * points].unflatten(-1, (points, 2)), packed[..., 2 * points :]


def dcnv4_aggregate(deformable_aggregate, parameters, value, packed):
    groups, kernel_size = parameters["group"], tuple(parameters["kernel"])
    points = kernel_size[0] * kernel_size[1] - parameters["remove_center"]
    return deformable_aggregate(
        value.unflatten(-1, (groups, -1)),
        *unpack(packed, groups, points),
        kernel_size=kernel_size,
        stride=parameters["stride"],
        padding=parameters["pad"],
        dilation=parameters["dilation"],
        offset_scale=parameters["offset_scale"],
        remove_center=bool(parameters["remove_center"]),
        softmax=parameters["softmax"],
    )


def random_inputs(dtype=torch.float64, batch=2, size=(5, 6), groups=2, channels=3, kernel_size=(3, 3), spread=1.0):
    points = kernel_size[0] * kernel_size[1]
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    value = normal(batch, *size, groups, channels)
    offset = normal(batch, *size, groups, points, 2) * spread
    return value, offset, normal(batch, *size, groups, points)


class DeformableAggregateTester(OperatorTester):
    """What the operator takes, does and refuses."""

    inputs = ("value", "offset", "weight")
    batched = inputs
    refusals = [
        (lambda v, o, w: (v[0], o, w), ValueError, r"value: expected \(N, H, W, G, D\), got \(5, 6, 2, 16\)"),
        (
            lambda v, o, w: (v, o[:, 1:], w),
            ValueError,
            r"offset: expected \(2, 5, 6, 2, 9, 2\), got \(2, 4, 6, 2, 9, 2\)",
        ),
        (lambda v, o, w: (v, o, w[..., :8]), ValueError, r"weight: expected \(2, 5, 6, 2, 9\), got \(2, 5, 6, 2, 8\)"),
        (lambda v, o, w: (v, o.float(), w), TypeError, "torch.float64, torch.float32, torch.float64"),
    ]
    reference = staticmethod(deformable_aggregate_reference)

    def small_case(self, dtype=torch.float32, batch=2, kind="ordinary"):
        shape = {
            "tiny": {"size": (3, 3), "channels": 2, "batch": 1},
            "ordinary": {"channels": 16, "batch": batch},
            "large": {"size": (17, 19), "groups": 6, "channels": 16, "spread": 3.0, "batch": batch},
        }[kind]
        return random_inputs(dtype, **shape), {"kernel_size": 3, "padding": 1, "softmax": True}

    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("case", DCNV3_OPS)
    def test_dcnv3_operator(self, function, case, dtype):
        parameters, tensors = DCNV3_OPS[case]
        groups, points = parameters["group"], parameters["points"]
        value = tensors["input"].to(dtype).unflatten(-1, (groups, -1)).requires_grad_()
        offset = tensors["offset"].to(dtype).unflatten(-1, (groups, points, 2)).requires_grad_()
        weight = tensors["mask"].to(dtype).unflatten(-1, (groups, points)).requires_grad_()
        out = function(
            value,
            offset,
            weight,
            kernel_size=(parameters["kernel_h"], parameters["kernel_w"]),
            stride=parameters["stride"],
            padding=parameters["pad"],
            dilation=parameters["dilation"],
            offset_scale=parameters["offset_scale"],
            remove_center=bool(parameters["remove_center"]),
        )
        out.backward(tensors["grad_output"].to(dtype))
        assert_close(out, tensors["output_f64"], TOLERANCE[dtype])
        assert_close(value.grad, tensors["grad_input_f64"], TOLERANCE[dtype])
        assert_close(offset.grad, tensors["grad_offset_f64"], TOLERANCE[dtype])
        assert_close(weight.grad, tensors["grad_mask_f64"], TOLERANCE[dtype])

    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("case", DCNV4_SAME_DTYPE)
    def test_dcnv4_operator(self, function, case, dtype):
        parameters, tensors = DCNV4_OPS[case]
        value = tensors["value"].to(dtype).requires_grad_()
        packed = tensors["offset_mask"].to(dtype).requires_grad_()
        out = dcnv4_aggregate(function, parameters, value, packed)
        out.backward(tensors["grad_out"].to(dtype).reshape(out.shape))
        assert_close(out, tensors["out"], TOLERANCE[dtype])
        assert_close(value.grad, tensors["grad_value"], TOLERANCE[dtype])
        assert_close(packed.grad, tensors["grad_offset_mask"], TOLERANCE[dtype])

    def test_dcnv4_boundary_positions(self, function):
        """Samples exactly on and beside the border: -1 and the size itself contribute nothing."""
        parameters, tensors = DCNV4_OPS["boundary"]
        out = dcnv4_aggregate(function, parameters, tensors["value"].double(), tensors["offset_mask"].double())
        assert_close(out, tensors["out"], 1e-10)

    @pytest.mark.parametrize(("case", "dtype"), [("half", torch.float16), ("bf16", torch.bfloat16)])
    def test_dcnv4_half_precision(self, function, case, dtype):
        """Half precision in and out, float32 in between: one rounding at the end."""
        inputs = DCNV4_OPS["half"][1]
        out = dcnv4_aggregate(function, DCNV4_OPS["k3"][0], inputs["value"].to(dtype), inputs["offset_mask"].to(dtype))
        expected = DCNV4_OPS[case][1]["out"]
        assert out.dtype == dtype
        torch.testing.assert_close(
            out.double(), expected.double().reshape(out.shape), rtol=torch.finfo(dtype).eps, atol=1e-5
        )

    @pytest.mark.parametrize("softmax", [False, True])
    def test_gradients_are_those_of_finite_differences(self, function, softmax):
        inputs = [tensor.requires_grad_() for tensor in random_inputs(batch=1, size=(3, 3), channels=2)]
        assert torch.autograd.gradcheck(
            lambda *args: function(*args, kernel_size=3, padding=1, softmax=softmax), inputs
        )

    def test_rectangular_kernel_on_every_axis(self, function):
        value, offset, weight = random_inputs(kernel_size=(1, 5))
        out = function(value, offset * 0, weight, kernel_size=(1, 5), padding=(0, 2))
        padded = torch.nn.functional.pad(value, (0, 0, 0, 0, 2, 2))
        expected = sum(padded[:, :, k : k + 6] * weight[..., k, None] for k in range(5))
        torch.testing.assert_close(out, expected.flatten(-2))

    def test_fused_softmax_is_softmax(self, function):
        value, offset, weight = random_inputs()
        fused = function(value, offset, weight, kernel_size=3, padding=1, softmax=True)
        apart = function(value, offset, weight.softmax(-1), kernel_size=3, padding=1)
        torch.testing.assert_close(fused, apart)

    @pytest.mark.parametrize("poison", [float("nan"), float("inf")])
    def test_a_poisoned_pixel_reaches_only_the_outputs_that_sample_it(self, function, poison):
        value, offset, weight = random_inputs(size=(8, 8), spread=0.0)
        value[0, 2, 2] = poison
        out = function(value, offset + 0.25, weight, kernel_size=3, padding=1)
        touched = ~out.isfinite().all(dim=-1)
        # offsets of a quarter pixel: the 3x3 grid and its right and lower neighbours read the pixel
        expected = torch.zeros_like(touched)
        expected[0, 0:4, 0:4] = True
        assert torch.equal(touched, expected)

    @pytest.mark.parametrize("position", [float("nan"), float("inf"), 1e30])
    def test_a_position_that_is_no_position_adds_nothing(self, function, position):
        inputs = random_inputs()
        value, offset, weight = (tensor.requires_grad_() for tensor in inputs)
        spoiled = offset.detach().clone()
        spoiled[..., 4, :] = position
        spoiled.requires_grad_()
        silent = weight.detach().clone()
        silent[..., 4] = 0
        out = function(value, spoiled, weight, kernel_size=3, padding=1)
        torch.testing.assert_close(out, function(value, offset, silent, kernel_size=3, padding=1))
        out.sum().backward()
        assert all(tensor.grad.isfinite().all() for tensor in (value, spoiled, weight))
        assert (spoiled.grad[..., 4, :] == 0).all()

    def test_strided_views_of_an_odd_number_of_channels(self, function):
        inputs, options = random_inputs(), {"kernel_size": 3, "padding": 1}
        strided = [torch.stack((tensor, tensor), dim=1)[:, 0] for tensor in inputs]
        torch.testing.assert_close(function(*strided, **options), function(*inputs, **options))
