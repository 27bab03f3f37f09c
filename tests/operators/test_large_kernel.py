"""The compiled large-kernel convolution against its definition in float64: the build for CPUs, and the CUDA source."""

import random
import sys

import pytest
import torch
from kernels import get_local_kernel
from torch import nn
from torch.nn import functional as F

from hf_models.large_kernel_conv import LargeKernelDepthwiseConv2d, depthwise_conv2d, depthwise_conv2d_reference

from ..harness.kernel_builder import KERNELS_SRC, cpu_variant
from ..harness.kernel_tester import CompiledKernel, EmulatedKernel, KernelTester, load_module, shifted
from ..harness.operator_tester import DTYPES, results

# The path for processors with AMX runs on emulated tiles: the kernel's own tests.
emulated_amx = load_module(KERNELS_SRC / "large-kernel-conv" / "tests" / "test_amx.py")
convolve = emulated_amx.convolve
test_emulated_amx_random_cases = emulated_amx.test_random_cases
test_emulated_amx_poison = emulated_amx.test_poison_reaches_only_the_windows_that_have_it


def random_inputs(batch=2, channels=5, size=(8, 9), kernel_size=(7, 5), dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, channels, *size), (channels, 1, *kernel_size), (channels,)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def exact(input, weight, bias):
    """In float64; PyTorch has no fast path for large kernels there, so the taps are one product of matrices."""
    height, width = weight.shape[2:]
    columns = F.unfold(input, (height, width), padding=(height // 2, width // 2))  # (N, C KH KW, H W)
    columns = columns.unflatten(1, (input.shape[1], -1))
    out = (weight.flatten(1)[None, :, None] @ columns).squeeze(2) + (0 if bias is None else bias[:, None])
    return out.view_as(input)


def make_case(batch, channels, size, kernel_size, dtype, layout=torch.contiguous_format):
    input, weight, bias = random_inputs(batch, channels, size, kernel_size, dtype)
    gradient = random_inputs(batch, channels, size, kernel_size, dtype, seed=1)[0]
    return [input.to(memory_format=layout), weight, bias], gradient.to(memory_format=layout)


class LargeKernelConv(KernelTester):
    kernel_name, function_name, layer = "large-kernel-conv", "depthwise_conv2d", "LargeKernelDepthwiseConv2d"
    operator = staticmethod(depthwise_conv2d)
    counted = staticmethod(depthwise_conv2d_reference)
    inputs = ("input", "weight", "bias")
    batched = ("input",)
    cpu_paths = ("amx", "avx512_bf16", "avx512", "avx2", "portable")
    benchmark = "7x13_1"
    gradients_of_every_order = True
    refusals = [
        (lambda x, w, b: (x[0], w, b), ValueError, r"input: expected \(N, C, H, W\), got \(16, 8, 9\)"),
        (lambda x, w, b: (x[:, 1:], w, b), ValueError, r"weight: expected \(15, 1, KH, KW\), got \(16, 1, 15, 13\)"),
        (lambda x, w, b: (x, w[..., 1:], b), ValueError, r"weight: expected odd KH and KW, got \(15, 12\)"),
        (lambda x, w, b: (x, w, b[1:]), ValueError, r"bias: expected \(16,\), got \(15,\)"),
        (lambda x, w, b: (x, w.float(), b), TypeError, "share a dtype, got torch.float64, torch.float32"),
    ]
    operator_refusals = [
        ("depthwise_conv2d_forward", lambda x, w, b: (x, w[..., 1:], b), "kernel_size: expected two odd numbers"),
        ("depthwise_conv2d_forward", lambda x, w, b: (x, w, b[1:]), r"bias: expected \(16\), got \(15\)"),
        ("depthwise_conv2d_forward", lambda x, w, b: (x, w.double(), b), "weight and input must share a dtype"),
        (
            "depthwise_conv2d_backward_weight",
            lambda x, w, b: (x[:1], x, [3, 3]),
            r"grad_output: expected \(2, 16, 8, 9\), got \(1, 16, 8, 9\)",
        ),
    ]
    reference = staticmethod(exact)

    def function_of(self, kernel, monkeypatch):
        """Without the rule that leaves small kernels to PyTorch."""
        monkeypatch.setattr(sys.modules[f"{kernel.__name__}._conv"], "kernel_is_faster", lambda *_: True)
        return kernel.depthwise_conv2d

    def small_case(self, dtype=torch.float32, batch=2, kind="ordinary"):
        shape = {
            "tiny": (1, 2, (4, 5), (7, 3)),
            "ordinary": (batch, 16, (8, 9), (15, 13)),
            "large": (batch, 40, (37, 19), (13, 11)),
        }[kind]
        return random_inputs(*shape, dtype), {}

    def random_case(self, seed):
        pick = random.Random(seed)
        channels = pick.choice([1, 2, 3, 5, 8, 16, 17, 32, 33, pick.randint(1, 130)])
        size = [pick.choice([1, 2, 3, 5, 7, 8, 9, 14, 17, 25, pick.randint(1, 130)]) for _ in range(2)]
        kernel_size = [pick.choice([1, 3, 5, 7, 9, 11, 13, 27, 31, 51]) for _ in range(2)]
        batch = pick.choice([1, 1, 2, 3])
        # bounds the time of a case, not the size of any one side
        while batch * channels * size[0] * size[1] * kernel_size[0] * kernel_size[1] > 4e6:
            if channels > 3:
                channels //= 2
            else:
                longest = max(size)
                size[size.index(longest)] = longest // 2
        dtype = pick.choice([torch.float32, *DTYPES])
        input, weight, bias = random_inputs(batch, channels, size, kernel_size, dtype, seed)
        gradient = random_inputs(batch, channels, size, kernel_size, dtype, seed + 1)[0]
        layouts = [lambda t: t, lambda t: t.to(memory_format=torch.channels_last), lambda t: t.transpose(2, 3).mT]
        layouts.append(lambda t: F.pad(t, (1, 2, 3, 1))[:, :, 3:-1, 1:-2])
        input, gradient = pick.choice(layouts)(input), pick.choice(layouts)(gradient)
        return (input, weight, bias if pick.random() < 0.7 else None), gradient, {}

    def operator_calls(self):
        input, weight, bias = (tensor.requires_grad_() for tensor in random_inputs())
        input = input.detach().to(memory_format=torch.channels_last).requires_grad_()
        yield "depthwise_conv2d_forward", input, weight, bias
        yield "depthwise_conv2d_forward", input, weight, None
        yield "depthwise_conv2d_backward_weight", input, input, [7, 5]
        yield "depthwise_conv2d_backward_bias", input

    def module(self):
        class Mine(nn.Conv2d):
            def forward(self, input):
                return exact(input, self.weight, self.bias)

        return Mine(16, 16, 15, padding=7, groups=16), random_inputs(channels=16)[:1]

    @pytest.mark.parametrize("kernel_size", [5, 13, 31])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_rounds_once(self, function, kernel_size, dtype):
        """The exact sum, to 1e-6 of its terms, rounded: where that lies between two numbers, either of them."""
        inputs = random_inputs(channels=17, size=(20, 15), kernel_size=(kernel_size, kernel_size), dtype=dtype)
        expected = exact(*(tensor.double() for tensor in inputs))
        slack = 1e-6 * exact(*(tensor.double().abs() for tensor in inputs))
        out = function(*inputs)
        assert (out >= (expected - slack).to(dtype)).all()
        assert (out <= (expected + slack).to(dtype)).all()

    @pytest.mark.parametrize("poison", [float("nan"), float("inf")])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("kernel_size", [(7, 5), (15, 31)])
    def test_poison_reaches_only_the_windows_that_have_it(self, function, poison, dtype, kernel_size):
        """Taps outside the image are left out, not multiplied by zero: that matters where the weight is infinite."""
        input, weight, bias = random_inputs(channels=18, size=(40, 50), kernel_size=kernel_size, dtype=dtype)
        input[1, 16, 19, 20], weight[3, 0, 0, 1] = poison, poison
        top, left = (size // 2 for size in kernel_size)
        finite = torch.ones(2, 18, 40, 50, dtype=torch.bool)
        finite[1, 16, 19 - top : 20 + top, 20 - left : 21 + left] = False
        finite[:, 3, top:, left - 1 :] = False  # the outputs that have a pixel under tap (0, 1)
        assert torch.equal(function(input, weight, bias).isfinite(), finite)

    @pytest.mark.parametrize("shape", [(2, 0, 5, 5), (2, 3, 0, 5)])
    def test_no_channels_and_no_pixels(self, function, shape):
        inputs = random_inputs(shape[0], shape[1], shape[2:], (5, 5))
        out, _, *gradients = results(function, inputs)
        assert out.shape == shape
        assert not any(gradient.any() for gradient in gradients)


class TestCompiled(CompiledKernel, LargeKernelConv):
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("kernel_size", [3, 31])
    def test_the_output_has_the_layout_of_the_input(self, kernel, layout, kernel_size):
        """The smaller convolution is PyTorch's."""
        input, weight, bias = random_inputs(channels=16, kernel_size=(kernel_size, kernel_size))
        input = input.to(memory_format=layout)
        out = kernel.depthwise_conv2d(input, weight, bias)
        assert out.stride() == input.stride()
        torch.testing.assert_close(out, exact(input, weight, bias), rtol=1e-5, atol=1e-5)

    def test_large_numbers_do_not_overflow_on_the_way(self, function):
        """A Fourier transform of this image would."""
        input, weight = torch.full((1, 16, 56, 56), 2.0**120), torch.zeros(16, 1, 31, 31)
        weight[:, :, 15, 15:17] = 2.0**7
        out = function(input, weight)
        assert torch.equal(out[..., -1], torch.full((1, 16, 56), 2.0**127))
        assert out[..., :-1].isinf().all()

    @pytest.mark.parametrize("batch", [1, 3])
    def test_the_number_of_threads_changes_nothing_for_few_channels(self, default_function, batch):
        """There is less than a block of channels: the rows of an image are dealt out."""
        self.check_threads(default_function, random_inputs(batch, 3, (37, 19), (13, 11)))


class TestLayer:
    @pytest.fixture(params=["kernel", "reference"])
    def layer(self, request, monkeypatch):
        """The drop-in, on the kernel or on the reference."""
        function = None
        if request.param == "kernel":
            function = get_local_kernel(cpu_variant("large-kernel-conv")).depthwise_conv2d
        monkeypatch.setattr("hf_models.large_kernel_conv.get_function", lambda *_: function)
        return LargeKernelDepthwiseConv2d(16, (15, 13))

    def test_state_dict_and_numbers_of_conv2d(self, layer):
        conv = nn.Conv2d(16, 16, (15, 13), padding=(7, 6), groups=16)
        assert {k: v.shape for k, v in layer.state_dict().items()} == {
            k: v.shape for k, v in conv.state_dict().items()
        }
        conv.load_state_dict(layer.state_dict())
        input = random_inputs(channels=16)[0]
        torch.testing.assert_close(layer(input), conv(input), rtol=1e-5, atol=1e-5)

    def test_autocast(self, layer):
        input = random_inputs(channels=16)[0]
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(input)
        assert out.dtype == torch.bfloat16
        out.sum().backward()
        assert layer.weight.grad.dtype == torch.float32

    @pytest.mark.parametrize(
        "options",
        [
            {"padding": (7, 6), "groups": 16},
            {"padding": "same", "groups": 16, "bias": False},
            {"padding": 6, "groups": 16},
            {"groups": 16, "stride": 2},
            {"padding": (14, 12), "groups": 16, "dilation": 2},
            {"padding": (7, 6), "groups": 16, "padding_mode": "reflect"},
            {"padding": 2},
            {"padding": (7, 6), "groups": 4},
        ],
    )
    def test_arguments_are_those_of_conv2d(self, layer, options):
        """Whatever the kernel does not compute is PyTorch's, so that adapters can build on the class."""
        layer = type(layer)(16, 16, (15, 13), **options)
        conv = nn.Conv2d(16, 16, (15, 13), **options)
        conv.load_state_dict(layer.state_dict())
        for input in (random_inputs(channels=16, size=(30, 28))[0], random_inputs(channels=16, size=(30, 28))[0][0]):
            torch.testing.assert_close(layer(input), conv(input), rtol=1e-4, atol=1e-4)

    def test_even_kernels_are_an_error(self):
        with pytest.raises(ValueError, match=r"kernel_size: expected odd numbers, got \(3, 4\)"):
            LargeKernelDepthwiseConv2d(2, (3, 4))


def test_the_reference_is_exact():
    inputs = random_inputs(dtype=torch.float64)
    torch.testing.assert_close(depthwise_conv2d_reference(*inputs), exact(*inputs))


def test_the_reference_keeps_the_layout_but_on_a_cpu():
    input, weight, bias = random_inputs(channels=16)
    assert depthwise_conv2d_reference(input, weight, bias).stride(1) == 1
    out = depthwise_conv2d_reference(*(tensor.to("meta") for tensor in (input, weight, bias)))
    assert out.is_contiguous()


class TestCudaSource(EmulatedKernel, LargeKernelConv):
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize(
        ("batch", "channels", "size", "kernel_size"),
        [
            (3, 20, (7, 7), (13, 13)),
            (2, 16, (14, 14), (27, 27)),  # columns of 28 bytes
            (1, 3, (40, 28), (31, 29)),
            (2, 9, (33, 17), (3, 31)),  # one more than tiles have
            (1, 2, (8, 40), (51, 51)),  # the largest kernel
            (1, 1, (300, 9), (5, 3)),  # more rows than a block has
            (1, 5, (2, 150), (1, 35)),  # more columns than steps of 16 that a warp has
        ],
    )
    def test_every_number(self, default_function, monkeypatch, batch, channels, size, kernel_size, dtype, layout):
        """Exact to the rounding of the result, and of sums in the arithmetic's precision, in any order of threads."""
        inputs, gradient = make_case(batch, channels, size, kernel_size, dtype, layout)
        ours = results(default_function, inputs, gradient)
        wide = results(exact, [tensor.double() for tensor in inputs], gradient.double())
        terms = results(exact, [tensor.double().abs() for tensor in inputs], gradient.double().abs())
        precision = 2**-50 if dtype == torch.float64 else 2**-21
        for actual, expected, of_terms in zip(ours, wide, terms, strict=True):
            allowed = precision * of_terms + torch.finfo(dtype).eps * expected.abs()
            assert ((actual.double() - expected).abs() <= allowed).all()
        monkeypatch.setenv("EMULATOR_ORDER", "reverse")
        assert all(map(torch.equal, ours, results(default_function, inputs, gradient)))

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_layouts_that_are_not_aligned(self, default_function, dtype, layout):
        (input, weight, bias), gradient = make_case(2, 16, (9, 16), (7, 5), dtype, layout)
        expected = results(default_function, (input, weight, bias), gradient)

        def move(tensor, shift):
            if layout == torch.channels_last:
                return shifted(tensor.permute(0, 2, 3, 1), shift).permute(0, 3, 1, 2)
            return shifted(tensor, shift)

        for shift in (1, 2, 4):
            moved = results(default_function, (move(input, shift), weight, bias), move(gradient, shift))
            assert all(map(torch.equal, expected, moved))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_part_of_a_larger_tensor(self, default_function, dtype, layout):
        (input, weight, bias), gradient = make_case(2, 16, (9, 16), (7, 5), dtype, layout)
        parts = [input[:, :9, 1:, :13], weight[:9], bias[:9], gradient[:, :9, 1:, :13]]
        copies = [part.clone(memory_format=torch.contiguous_format) for part in parts]
        expected = results(default_function, copies[:3], copies[3])
        # the gradient of the bias is PyTorch's sum, whose order depends on the layout
        assert all(map(torch.equal, expected[:3], results(default_function, parts[:3], parts[3])[:3]))

    @pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-10), (torch.bfloat16, 1e-4)])
    def test_more_images_than_blocks_for_the_gradient_of_the_weight(self, operators, dtype, precision):
        inputs, gradient = make_case(1100, 1, (26, 1), (51, 9), dtype)
        expected = results(exact, [tensor.double() for tensor in inputs], gradient.double())[2]
        actual = operators.depthwise_conv2d_backward_weight(gradient, inputs[0], [51, 9])
        torch.testing.assert_close(actual.double(), expected, rtol=torch.finfo(dtype).eps, atol=precision)

    @pytest.mark.parametrize("poisoned", ["input", "gradient"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(("size", "kernel_size"), [((20, 21), (7, 5)), ((5, 40), (3, 51))])
    def test_poison_reaches_only_the_weights_that_meet_it(self, function, dtype, size, kernel_size, poisoned):
        (input, weight, bias), gradient = make_case(2, 3, size, kernel_size, dtype)
        poison, other = (input, gradient) if poisoned == "input" else (gradient, input)
        poison[1, 2, 1, 2] = float("inf")
        where, ones = poison.isinf().double(), torch.ones_like(other).double()
        marks = (where, ones) if poisoned == "input" else (ones, where)
        meets = results(exact, (marks[0], weight.double(), bias.double()), marks[1])[2] != 0
        ours = results(function, (input, weight, bias), gradient)[2]
        assert meets.any() and not meets.all()
        assert torch.equal(~ours.isfinite(), meets)
        input, gradient = input.nan_to_num(posinf=0), gradient.nan_to_num(posinf=0)
        clean = results(function, (input, weight, bias), gradient)[2]
        torch.testing.assert_close(ours[~meets], clean[~meets])

    def test_kernels_that_are_too_large(self, operators):
        (input, weight, bias), gradient = make_case(1, 1, (3, 3), (53, 3), torch.float32)
        with pytest.raises(RuntimeError, match=r"kernel_size: expected at most \(51, 51\) on a GPU, got \(53, 3\)"):
            operators.depthwise_conv2d_forward(input, weight, bias)
        with pytest.raises(RuntimeError, match=r"kernel_size: expected at most \(51, 51\) on a GPU, got \(53, 3\)"):
            operators.depthwise_conv2d_backward_weight(gradient, input, [53, 3])
