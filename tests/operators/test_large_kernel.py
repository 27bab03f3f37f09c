"""The compiled large-kernel convolution against F.conv2d in float64, as a user loads it."""

import importlib.util
import random
import sys

import pytest
import torch
from kernels import KernelizeFallback, LocalLayerRepository, Mode, get_local_kernel, kernelize, use_kernel_mapping
from kernels import use_kernel_forward_from_hub as layer_name
from torch import nn
from torch.nn import functional as F

from hf_models import hub_kernels
from hf_models.large_kernel_conv import LargeKernelDepthwiseConv2d, depthwise_conv2d_reference

from ..harness.kernel_builder import KERNELS_SRC, built_kernel

FOLDER = KERNELS_SRC / "large-kernel-conv"
PATHS = ["avx512_bf16", "avx512", "avx2", "portable"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The path for processors with AMX runs on emulated tiles: the kernel's own tests.
emulated_amx = load(FOLDER / "tests" / "test_amx.py")
convolve = emulated_amx.convolve
test_emulated_amx_random_cases = emulated_amx.test_random_cases
test_emulated_amx_poison = emulated_amx.test_poison_reaches_only_the_windows_that_have_it


def cpu_variant():
    """Its own folder, because a PyTorch for GPUs would choose another variant; by one path, so that it loads once."""
    (variant,) = (built_kernel("large-kernel-conv") / "build").glob("*-cpu-*")
    return variant


@pytest.fixture(scope="session")
def kernel():
    return get_local_kernel(cpu_variant())


@pytest.fixture(params=PATHS)
def path(request, kernel, monkeypatch):
    """Every compute path that this processor runs; the one with AMX is tested by test_amx.py."""
    monkeypatch.setenv("LARGE_KERNEL_CONV_CPU_PATH", request.param)
    try:
        assert kernel.cpu_path() == request.param
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    return request.param


@pytest.fixture
def operators(kernel):
    return sys.modules[f"{kernel.__name__}._ops"].ops


@pytest.fixture
def always(kernel, monkeypatch):
    """The public function without the rule that leaves small kernels to PyTorch."""
    monkeypatch.setattr(sys.modules[f"{kernel.__name__}._conv"], "kernel_is_faster", lambda *_: True)
    return kernel.depthwise_conv2d


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


def random_case(seed):
    """Inputs and the gradient of the output, in any layout."""
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
    return input, weight, bias if pick.random() < 0.7 else None, gradient


def check_random_cases(function, seeds):
    for seed in seeds:
        *inputs, gradient = random_case(seed)
        ours = [None if tensor is None else tensor.detach().requires_grad_() for tensor in inputs]
        wide = [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in inputs]
        out, expected = function(*ours), exact(*wide)
        out.backward(gradient)
        expected.backward(gradient.double())
        epsilon = torch.finfo(out.dtype).eps
        tolerance = epsilon if out.dtype in (torch.bfloat16, torch.float16) else 50 * epsilon
        pairs = [("output", out, expected)]
        names = ("input", "weight", "bias")
        pairs += [(name, a.grad, b.grad) for name, a, b in zip(names, ours, wide, strict=True) if a is not None]
        for name, actual, wanted in pairs:
            assert actual.dtype == out.dtype
            error = (actual.double() - wanted).abs().max().item() / max(1.0, wanted.abs().max().item())
            shapes = [tuple(tensor.shape) for tensor in inputs[:2]]
            assert error <= tolerance, f"seed {seed}, {name}: {error / epsilon:.1f} eps ({shapes=}, {out.dtype})"


def test_random_cases(always, path):
    check_random_cases(always, range(150))


@pytest.mark.slow
def test_many_random_cases(always, path):
    check_random_cases(always, range(1000, 3000))


@pytest.mark.parametrize("kernel_size", [5, 13, 31])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(always, path, kernel_size, dtype):
    """The exact sum, to 1e-6 of its terms, rounded: where that lies between two numbers, either of them."""
    inputs = random_inputs(channels=17, size=(20, 15), kernel_size=(kernel_size, kernel_size), dtype=dtype)
    expected = exact(*(tensor.double() for tensor in inputs))
    slack = 1e-6 * exact(*(tensor.double().abs() for tensor in inputs))
    out = always(*inputs)
    assert (out >= (expected - slack).to(dtype)).all()
    assert (out <= (expected + slack).to(dtype)).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel_size", [3, 31])
def test_the_output_has_the_layout_of_the_input(kernel, layout, kernel_size):
    input, weight, bias = random_inputs(channels=16, kernel_size=(kernel_size, kernel_size))
    input = input.to(memory_format=layout)
    out = kernel.depthwise_conv2d(input, weight, bias)
    assert out.stride() == input.stride()
    torch.testing.assert_close(out, exact(input, weight, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel_size", [(7, 5), (15, 31)])
def test_poison_reaches_only_the_windows_that_have_it(always, path, poison, dtype, kernel_size):
    """Taps outside the image are left out, not multiplied by zero: that matters where the weight is infinite."""
    input, weight, bias = random_inputs(channels=18, size=(40, 50), kernel_size=kernel_size, dtype=dtype)
    input[1, 16, 19, 20], weight[3, 0, 0, 1] = poison, poison
    top, left = (size // 2 for size in kernel_size)
    finite = torch.ones(2, 18, 40, 50, dtype=torch.bool)
    finite[1, 16, 19 - top : 20 + top, 20 - left : 21 + left] = False
    finite[:, 3, top:, left - 1 :] = False  # the outputs that have a pixel under tap (0, 1)
    assert torch.equal(always(input, weight, bias).isfinite(), finite)


def test_large_numbers_do_not_overflow_on_the_way(always, path):
    """A Fourier transform of this image would."""
    input, weight = torch.full((1, 16, 56, 56), 2.0**120), torch.zeros(16, 1, 31, 31)
    weight[:, :, 15, 15:17] = 2.0**7
    out = always(input, weight)
    assert torch.equal(out[..., -1], torch.full((1, 16, 56), 2.0**127))
    assert out[..., :-1].isinf().all()


def test_gradients_of_both_orders(always, path):
    inputs = [t.requires_grad_() for t in random_inputs(1, 2, (4, 5), (7, 3), torch.float64)]
    assert torch.autograd.gradcheck(always, inputs)
    assert torch.autograd.gradgradcheck(always, inputs)


def test_opcheck(operators):
    input, weight, bias = (tensor.requires_grad_() for tensor in random_inputs())
    input = input.detach().to(memory_format=torch.channels_last).requires_grad_()
    torch.library.opcheck(operators.depthwise_conv2d_forward.default, (input, weight, bias))
    torch.library.opcheck(operators.depthwise_conv2d_forward.default, (input, weight, None))
    torch.library.opcheck(operators.depthwise_conv2d_backward_weight.default, (input, input, [7, 5]))
    torch.library.opcheck(operators.depthwise_conv2d_backward_bias.default, (input,))


def test_export(kernel, tmp_path):
    model = LargeKernelDepthwiseConv2d(16, 15)
    function = kernel.depthwise_conv2d
    model.forward = lambda input: function(input, model.weight, model.bias)
    input = torch.randn(2, 16, 12, 12).to(memory_format=torch.channels_last)
    program = torch.export.export(model, (input,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.export.save(program, tmp_path / "model.pt2")
    input = torch.randn(3, 16, 12, 12).to(memory_format=torch.channels_last)
    out = torch.export.load(tmp_path / "model.pt2").module()(input)
    torch.testing.assert_close(out, model(input))


def test_inductor_trains_in_one_graph(kernel):
    inputs = random_inputs(channels=16, kernel_size=(15, 15))
    gradients = []
    for function in (kernel.depthwise_conv2d, torch.compile(kernel.depthwise_conv2d, fullgraph=True)):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        function(*leaves).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_number_of_threads_changes_nothing(always, batch, channels):
    inputs = random_inputs(batch, channels, (37, 19), (13, 11))
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            leaves = [tensor.clone().requires_grad_() for tensor in inputs]
            out = always(*leaves)
            out.sin().sum().backward()
            results.append([out, *(leaf.grad for leaf in leaves)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 0, 5, 5), (2, 3, 0, 5)])
def test_empty_inputs(always, shape):
    input, weight, bias = (t.requires_grad_() for t in random_inputs(shape[0], shape[1], shape[2:], (5, 5)))
    out = always(input, weight, bias)
    out.sum().backward()
    assert out.shape == shape
    assert not weight.grad.any()
    assert not bias.grad.any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, w, b: (x[0], w, b), ValueError, r"input: expected \(N, C, H, W\), got \(5, 8, 9\)"),
        (lambda x, w, b: (x[:, 1:], w, b), ValueError, r"weight: expected \(4, 1, KH, KW\), got \(5, 1, 7, 5\)"),
        (lambda x, w, b: (x, w[..., 1:], b), ValueError, r"weight: expected odd KH and KW, got \(7, 4\)"),
        (lambda x, w, b: (x, w, b[1:]), ValueError, r"bias: expected \(5,\), got \(4,\)"),
        (lambda x, w, b: (x, w.float(), b), TypeError, "share a dtype, got torch.float64, torch.float32"),
    ],
)
def test_errors_name_both_values(kernel, change, error, message):
    with pytest.raises(error, match=message):
        kernel.depthwise_conv2d(*change(*random_inputs(dtype=torch.float64)))


def test_operators_check_what_they_read(operators):
    """They are callable without the public function, and must never read where there is nothing."""
    input, weight, bias = random_inputs()
    with pytest.raises(RuntimeError, match=r"weight: expected \(5, 1, 7, 4\)|kernel_size: expected two odd numbers"):
        operators.depthwise_conv2d_forward(input, weight[..., 1:], bias)
    with pytest.raises(RuntimeError, match=r"bias: expected \(5\), got \(4\)"):
        operators.depthwise_conv2d_forward(input, weight, bias[1:])
    with pytest.raises(RuntimeError, match=r"grad_output: expected \(2, 5, 8, 9\), got \(1, 5, 8, 9\)"):
        operators.depthwise_conv2d_backward_weight(input[:1], input, [3, 3])


def test_kernelize_replaces_a_layer(kernel):
    class Mine(nn.Conv2d):
        def forward(self, input):
            raise AssertionError("this forward should have been replaced")

    mine = layer_name("LargeKernelDepthwiseConv2d")(Mine)(16, 16, 15, padding=7, groups=16)
    repository = LocalLayerRepository(repo_path=cpu_variant(), layer_name="LargeKernelDepthwiseConv2d")
    with use_kernel_mapping({"LargeKernelDepthwiseConv2d": {"cpu": repository}}, inherit_mapping=False):
        mine = kernelize(mine, mode=Mode.TRAINING, device="cpu", use_fallback=KernelizeFallback.NONE)
    input = random_inputs(channels=16)[0]
    torch.testing.assert_close(mine(input), exact(input, mine.weight, mine.bias), rtol=1e-5, atol=1e-5)


class TestLayer:
    @pytest.fixture(params=["kernel", "reference"])
    def layer(self, request, monkeypatch):
        """The drop-in, on the kernel or on the reference."""
        function = None
        if request.param == "kernel":
            function = get_local_kernel(cpu_variant()).depthwise_conv2d
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


def test_the_kernel_is_registered(kernel):
    assert hub_kernels.KERNELS["large-kernel-conv"].dtypes == tuple(str(dtype)[6:] for dtype in DTYPES)


def test_the_kernels_own_benchmark(kernel):
    module = load(FOLDER / "benchmarks" / "benchmark.py")
    for benchmark in (module.Forward, module.ForwardBFloat16, module.Backward):
        instance = benchmark()
        instance.kernel = kernel
        instance.setup_7x13_1()
        instance.benchmark_7x13_1()
        expected = instance.verify_7x13_1()
        tolerance = 0.02 if instance.out.dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(instance.out, expected, rtol=tolerance, atol=tolerance)
