"""The compiled deformable operator against the reference: the build for CPUs, and the CUDA source."""

import random
import sys

import pytest
import torch
from torch import nn

from hf_models.deformable_aggregate import deformable_aggregate, deformable_aggregate_reference

from ..harness.deformable_aggregate_tester import DeformableAggregateTester, random_inputs, unpack
from ..harness.kernel_tester import TRANSFORMED_GRADIENTS, CompiledKernel, EmulatedKernel, KernelTester, shifted
from ..harness.operator_tester import results

OPTIONS = ([3, 3], [1, 1], [1, 1], [1, 1], 1.0, False, False)


class Aggregation(nn.Module):
    kernel_size, stride, padding, dilation, offset_scale, remove_center, softmax = 3, 1, 1, 1, 1.0, False, True

    def forward(self, value, offset, weight):
        return DeformableAggregateTester.reference(value, offset, weight, kernel_size=3, padding=1, softmax=True)


class DeformableConv(KernelTester, DeformableAggregateTester):
    kernel_name, function_name, layer = "deformable-conv", "deformable_aggregate", "DeformableAggregation"
    operator = staticmethod(deformable_aggregate)
    counted = staticmethod(deformable_aggregate_reference)
    refused_derivatives = (
        *TRANSFORMED_GRADIENTS,
        *("jvp", "jacfwd", "dual_numbers", "double_backward", "double_backward_trick"),
    )
    cpu_paths = ("avx512", "avx2", "portable")
    benchmark = "T7"
    operator_refusals = [
        (
            "deformable_aggregate_forward",
            lambda v, o, w: (v, o[..., :8, :], w, *OPTIONS),
            r"offset: expected \(2, 5, 6, 2, 9, 2\), got \(2, 5, 6, 2, 8, 2\)",
        ),
        ("deformable_aggregate_forward", lambda v, o, w: (v, o.double(), w, *OPTIONS), "share a dtype"),
        (
            "deformable_aggregate_forward",
            lambda v, o, w: (v.int(), o.int(), w.int(), *OPTIONS),
            "value: expected float32, float64, bfloat16 or float16",
        ),
        (
            "deformable_aggregate_backward",
            lambda v, o, w: (torch.ones(2, 5, 6, 5), v, o, w, *OPTIONS),
            r"grad_output: expected \(2, 5, 6, 32\), got \(2, 5, 6, 5\)",
        ),
    ]

    def random_case(self, seed):
        """Offsets are whole 1024ths of a pixel, so that no rounding moves a sample across a pixel."""
        pick = random.Random(seed)
        generator = torch.Generator().manual_seed(seed)
        kernel_size = pick.choice([(3, 3), (3, 3), (3, 3), (1, 1), (2, 3), (1, 5), (5, 5), (7, 7)])
        remove_center = kernel_size in [(3, 3), (5, 5)] and pick.random() < 0.3
        points = kernel_size[0] * kernel_size[1] - remove_center
        groups, channels = pick.choice([1, 2, 3, 5]), pick.choice([16, 32, 64, 1, 5, 20, 48, 80])
        stride, dilation = (
            (pick.choice([1, 1, 2, 3]), pick.choice([1, 2])),
            (pick.choice([1, 1, 2]), pick.choice([1, 3])),
        )
        padding = tuple(
            pick.choice([0, 1, 2, spread * (size // 2)]) for size, spread in zip(kernel_size, dilation, strict=True)
        )
        out_size = [pick.choice([1, 2, 3, 5]) for _ in range(2)]
        size = [
            max(1, (out - 1) * step + spread * (side - 1) + 1 - 2 * pad)
            for out, step, spread, side, pad in zip(out_size, stride, dilation, kernel_size, padding, strict=True)
        ]
        out_size = [
            (side + 2 * pad - spread * (k - 1) - 1) // step + 1
            for side, pad, spread, k, step in zip(size, padding, dilation, kernel_size, stride, strict=True)
        ]
        dtype = pick.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16])
        reach = pick.choice([0.5, 2, 3 * max(size)])
        shape = (pick.choice([1, 2]), *out_size, groups, points)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        offset = (
            (torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 2 - 1) * reach * 1024
        ).round() / 1024
        weight = normal(*shape)
        if pick.random() < 0.3:  # packed as in DCNv4
            packed = torch.cat((offset.flatten(-2), weight), dim=-1).to(dtype)
            offset, weight = packed[..., : 2 * points].unflatten(-1, (points, 2)), packed[..., 2 * points :]
        inputs = [tensor.to(dtype) for tensor in (normal(shape[0], *size, groups, channels), offset, weight)]
        options = {
            "kernel_size": kernel_size,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "offset_scale": pick.choice([1.0, 1.0, 2.0, 0.5]),
            "remove_center": remove_center,
            "softmax": pick.random() < 0.5,
        }
        return inputs, normal(*shape[:3], groups * channels).to(dtype), options

    def operator_calls(self):
        inputs = random_inputs(dtype=torch.float32, channels=16)
        for softmax in (False, True):
            options = (*OPTIONS[:-1], softmax)
            yield "deformable_aggregate_forward", *(tensor.clone().requires_grad_() for tensor in inputs), *options
            yield "deformable_aggregate_backward", torch.ones(2, 5, 6, 32), *inputs, *options

    def module(self):
        return Aggregation(), random_inputs(dtype=torch.float32, channels=16)

    def test_sides_of_one_pixel(self, function):
        """A single row or column has no second pixel to interpolate with."""
        for size in [(1, 1), (1, 4), (4, 1)]:
            inputs = random_inputs(dtype=torch.float32, size=size, channels=16)
            out = function(*inputs, kernel_size=3, padding=1)
            torch.testing.assert_close(out, self.reference(*inputs, kernel_size=3, padding=1))

    @pytest.mark.parametrize("kernel_size", [3, 5])
    def test_softmax_of_any_weights(self, function, kernel_size):
        """The kernel shifts weights only where it must: far from zero, far apart, infinite, or no number."""
        points = kernel_size**2
        value, offset, weight = random_inputs(dtype=torch.float32, channels=16, kernel_size=(kernel_size, kernel_size))
        for row, shift in enumerate((-1000.0, -90.0, 0.0, 90.0, 1000.0)):
            weight[0, row] += shift
        weight[1, 0] *= 60
        weight[1, 1, :, :, : points // 2] = -float("inf")
        weight[1, 2, :, :, 1] = float("inf")
        weight[1, 3, :, :, 2] = float("nan")
        weight[1, 4] = -float("inf")
        options = {"kernel_size": kernel_size, "padding": kernel_size // 2, "softmax": True}
        out = function(value, offset, weight, **options)
        expected = self.reference(value, offset, weight, **options)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5, equal_nan=True)

    def test_more_elements_than_an_int32_counts(self, function):
        """Views into memory that is never written: the second image lies 2^31 elements after the first."""
        small = random_inputs(dtype=torch.bfloat16, channels=16)
        far = 2**31 + 64
        views = []
        for tensor in small:
            view = torch.empty(far + tensor[0].numel(), dtype=tensor.dtype).as_strided(
                tensor.shape, (far, *tensor.stride()[1:])
            )
            views.append(view.copy_(tensor))
        out = function(*views, kernel_size=3, padding=1)
        assert torch.equal(out, function(*small, kernel_size=3, padding=1))

    def test_derivatives_that_only_a_reference_has(self, kernel, monkeypatch):
        monkeypatch.setattr(sys.modules[f"{kernel.__name__}._aggregate"], "_reference", None)
        inputs = tuple(random_inputs())

        def function(*inputs):
            return kernel.deformable_aggregate(*inputs, kernel_size=3, padding=1)

        with pytest.raises(NotImplementedError, match=r"no forward-mode derivatives .* `set_reference`"):
            torch.func.jvp(function, inputs, inputs)
        with pytest.raises(NotImplementedError, match=r"no second derivatives .* `set_reference`"):
            torch.autograd.functional.jvp(function, inputs, inputs)
        kernel.set_reference(deformable_aggregate_reference)
        actual = torch.func.jvp(function, inputs, inputs)[1]
        torch.testing.assert_close(torch.autograd.functional.jvp(function, inputs, inputs)[1], actual)

    @pytest.mark.parametrize("poison", [float("nan"), float("inf")])
    @pytest.mark.parametrize("channels", [5, 16, 32])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_poison_stays_where_it_is_sampled(self, function, poison, channels, dtype):
        """Non-finite pixels, weights and gradients reach exactly the numbers that they reach in the reference."""
        value, offset, weight = random_inputs(dtype=dtype, size=(8, 8), channels=channels, spread=2.0)
        value[0, 0, 0], value[1, 3, 5, 0, 0], weight[0, 6, 6, 0, 4] = poison, poison, poison
        gradient = torch.ones(2, 8, 8, 2 * channels, dtype=dtype)
        gradient[1, 7, 7, 0] = poison
        results = []
        for aggregate in (function, self.reference):
            inputs = [tensor.clone().requires_grad_() for tensor in (value, offset, weight)]
            out = aggregate(*inputs, kernel_size=3, padding=1)
            out.backward(gradient)
            results.append([out, inputs[0].grad])
        for ours, expected in zip(*results, strict=True):
            assert torch.equal(ours.isfinite(), expected.isfinite())
            finite = expected.isfinite()
            torch.testing.assert_close(ours[finite], expected[finite], rtol=0.02, atol=torch.finfo(dtype).eps * 20)

    def test_packed_views_are_read_without_a_copy(self, function):
        value, offset, weight = random_inputs(dtype=torch.float32, channels=16)
        packed = torch.cat((offset.flatten(-2), weight), dim=-1).flatten(-2)
        half = torch.cat((value, value), dim=3)[:, :, :, :2]  # the first groups of a wider tensor
        views = unpack(packed, 2, 9)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            out = function(half, *views, kernel_size=3, padding=1)
        assert not {"aten::clone", "aten::copy_", "aten::contiguous"} & {event.name for event in profile.events()}
        assert torch.equal(out, function(value, offset, weight, kernel_size=3, padding=1))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_alignment_changes_no_bit_without_softmax(self, function, dtype):
        inputs, options = random_inputs(dtype=dtype, channels=16), {"kernel_size": 3, "padding": 1}
        expected = function(*inputs, **options)
        for shift in (1, 2, 4):
            assert torch.equal(function(*(shifted(tensor, shift) for tensor in inputs), **options), expected)

    def test_a_kernel_without_points(self, function):
        """1x1 without its centre."""
        value, offset, weight = random_inputs(dtype=torch.float32, kernel_size=(1, 1))
        out = function(value, offset[..., :0, :], weight[..., :0], kernel_size=1, remove_center=True)
        assert (out == 0).all()


class TestCompiled(CompiledKernel, DeformableConv):
    def test_inductor_keeps_the_strides_of_packed_views(self, default_function):
        """The gradient is that of eager mode."""

        def run(value, packed):
            offset, weight = unpack(packed, 2, 9)
            return default_function(value, offset, weight, kernel_size=3, padding=1).square().sum()

        value, offset, weight = random_inputs(dtype=torch.float32, channels=16)
        packed = torch.cat((offset.flatten(-2), weight), dim=-1).flatten(-2)
        gradients = []
        for trained in (run, torch.compile(run, fullgraph=True)):
            inputs = [tensor.clone().requires_grad_() for tensor in (value, packed)]
            trained(*inputs).backward()
            gradients.append([tensor.grad for tensor in inputs])
        torch.testing.assert_close(*gradients)


class TestCudaSource(EmulatedKernel, DeformableConv):
    @pytest.fixture
    def deterministic(self):
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)

    def test_random_cases_in_order(self, function, deterministic):
        self.check_random_cases(function, range(100, 120))

    @pytest.mark.parametrize("channels", [67, 300])
    def test_more_channels_than_a_warp_takes_at_once(self, function, channels):
        """With more points, too, than shared memory takes at once."""
        inputs = random_inputs(batch=1, size=(2, 3), groups=1, channels=channels, kernel_size=(4, 5))
        options = {"kernel_size": (4, 5), "padding": (1, 2), "stride": 1, "softmax": True}
        inputs = (inputs[0], *(tensor[:, :1] for tensor in inputs[1:]))
        for ours, expected in zip(
            results(function, inputs, **options), results(self.reference, inputs, **options), strict=True
        ):
            torch.testing.assert_close(ours, expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_deterministic_bits_depend_on_nothing_else(self, kernel, monkeypatch, deterministic, dtype):
        """Neither on the order of threads nor on the other images of the batch."""
        function = kernel.deformable_aggregate
        inputs = random_inputs(dtype=dtype, batch=3, channels=20, spread=3.0)
        options = {"kernel_size": 3, "padding": 1, "softmax": True}
        together = results(function, inputs, **options)
        monkeypatch.setenv("EMULATOR_ORDER", "reverse")
        assert all(map(torch.equal, together, results(function, inputs, **options)))
        for i in range(3):
            alone = results(function, [tensor[i : i + 1] for tensor in inputs], **options)
            assert all(torch.equal(a[i : i + 1], b) for a, b in zip(together, alone, strict=True))
