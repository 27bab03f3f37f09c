"""1x1 convolutions with what comes around them, and norms merged into kernels: on every path of the kernel."""

import random

import pytest
import torch
from kernels import get_local_kernel
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ..harness.kernel_builder import cpu_variant
from ..harness.kernel_tester import shifted
from ..harness.operator_tester import DTYPES

PATHS = ("avx512_bf16", "avx512", "avx2", "portable")
ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "gelu": F.gelu}
EPS = 1e-5


@pytest.fixture(scope="module")
def kernel():
    return get_local_kernel(cpu_variant("fused-layers"))


@pytest.fixture(params=PATHS)
def path(request, kernel, monkeypatch):
    monkeypatch.setenv("FUSED_LAYERS_CPU_PATH", request.param)
    try:
        assert kernel.cpu_path() == request.param
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    return request.param


class Case:
    """Random tensors of a dtype."""

    def __init__(self, seed):
        self.pick, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)
        self.dtype = self.pick.choice([torch.float32, torch.bfloat16, *DTYPES])

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def norm(self, channels):
        variance = (torch.rand(channels, generator=self.generator, dtype=torch.float64) + 0.3).to(self.dtype)
        return self.normal(channels), self.normal(channels), self.normal(channels), variance, EPS

    def sometimes(self, share, value):
        return value if self.pick.random() < share else None

    def size(self, largest):
        return self.pick.choice([1, 2, 16, 17, 48, self.pick.randint(1, largest)])


def exact_factors(norm):
    weight, bias, mean, variance, eps = (part.double() if isinstance(part, torch.Tensor) else part for part in norm)
    scale = weight / (variance + eps).sqrt()
    return scale, bias - mean * scale


def exact_conv(input, weight, bias, norm, activation, residual, input_norm, input_relu):
    x = input.double()
    if input_norm is not None:
        scale, shift = exact_factors(input_norm)
        x = x * scale + shift
    x = x.relu() if input_relu else x
    if input.dtype == torch.bfloat16:  # as the next product would see it
        x = x.to(input.dtype).double()
    x = x @ weight.double().T
    if norm is not None:
        scale, shift = exact_factors(norm)
        x = x * scale + shift
    elif bias is not None:
        x = x + bias.double()
    x = ACTIVATIONS[activation](x)
    return x if residual is None else x + residual.double()


def assert_near(actual, expected, seed, inputs, largest):
    assert actual.shape == expected.shape
    epsilon = torch.finfo(actual.dtype).eps
    rounded = {torch.float32: 1e-6, torch.float64: 1e-14}.get(actual.dtype, 0) * inputs**0.5
    half = {torch.bfloat16: 2**-10, torch.float16: 5e-6}.get(actual.dtype, 0)
    slack = expected.abs() * epsilon + largest * (rounded + half) + (1e-6 if epsilon > 1e-10 else 1e-13)
    error = ((actual.double() - expected).abs() - slack).max().item()
    assert error <= 0, f"seed {seed}: {error} too much ({actual.dtype}, {tuple(actual.shape)}, {inputs} inputs)"


def check_conv(kernel, seed):
    case = Case(seed)
    rows, inputs, outputs = case.size(200), case.size(300), case.size(100)
    x, weight = case.normal(rows, inputs), case.normal(outputs, inputs) / inputs**0.5
    if case.pick.random() < 0.3:
        x = shifted(x, 1)
    options = {
        "bias": case.sometimes(0.7, case.normal(outputs)),
        "norm": case.sometimes(0.4, case.norm(outputs)),
        "activation": case.pick.choice(list(ACTIVATIONS)),
        "residual": case.sometimes(0.4, case.normal(rows, outputs)),
        "input_norm": case.sometimes(0.4, case.norm(inputs)),
        "input_relu": case.pick.random() < 0.4,
    }
    out = kernel.pointwise_conv(x, weight, **options)
    assert out.dtype == x.dtype
    expected = exact_conv(x, weight, **options)
    largest = max(expected.abs().max().item(), 1.0)
    if x.dtype == torch.bfloat16 and options["input_norm"] is not None:
        # a normalised input may round to either neighbour where float32 and float64 differ
        scale, shift = exact_factors(options["input_norm"])
        factor = 1.0 if options["norm"] is None else exact_factors(options["norm"])[0].abs().max()
        largest += 4 * ((x.double() * scale + shift).abs().max() * weight.double().abs().max() * factor).item()
    assert_near(out, expected, seed, inputs, largest)


def check_merging(kernel, seed):
    case = Case(seed)
    channels, sides = case.size(40), [case.pick.choice([5, 7, 13, 27]) for _ in range(2)]
    small_sides = [case.pick.choice([1, 3, 5]) for _ in range(2)]
    kernels, small = case.normal(channels, 1, *sides), case.normal(channels, 1, *small_sides)
    norms = case.norm(channels), case.norm(channels)
    both = case.pick.random() < 0.7
    merged, bias = kernel.merge_norms_and_kernels(kernels, norms[0], *((small, norms[1]) if both else ()))
    (scale, shift), (small_scale, small_shift) = map(exact_factors, norms)
    expected = kernels.double() * scale[:, None, None, None]
    if both:
        margins = [m for side, s in zip(sides[::-1], small_sides[::-1], strict=True) for m in [(side - s) // 2] * 2]
        expected += F.pad(small.double() * small_scale[:, None, None, None], margins)
        shift = shift + small_shift
    assert_near(merged, expected, seed, 1, expected.abs().max().item() * (merged.dtype != torch.bfloat16))
    wide = torch.float64 if case.dtype == torch.float64 else torch.float32
    torch.testing.assert_close(bias, shift.to(wide), rtol=1e-5, atol=1e-5)


def test_random_cases(kernel, path):
    for seed in range(120):
        check_conv(kernel, seed)
        check_merging(kernel, seed)


@pytest.mark.slow
def test_many_random_cases(kernel, path):
    for seed in range(1000, 3000):
        check_conv(kernel, seed)
        check_merging(kernel, seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2000, 700, 33), (49, 1024, 64), (1568, 512, 16), (1, 4096, 1000)])
def test_sizes_of_models(kernel, path, dtype, shape):
    """Several chunks of rows; rows that fill no vector."""
    rows, inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator).to(dtype)
    weight = (torch.randn(outputs, inputs, generator=generator) / inputs**0.5).to(dtype)
    expected = x.double() @ weight.double().T
    assert_near(kernel.pointwise_conv(x, weight), expected, 0, inputs, 4.0)


def test_poison_reaches_only_its_row(kernel, path):
    for dtype in (torch.float32, torch.bfloat16):
        for number in (float("nan"), float("inf")):
            x = torch.randn(2, 27, 34).to(dtype)
            x[0, 20, 3] = x[1, 26, 33] = number
            weight = torch.randn(20, 34).to(dtype)
            out = kernel.pointwise_conv(x, weight, activation="relu", input_relu=True)
            assert torch.equal(out.isfinite().all(-1), x.isfinite().all(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neither_threads_nor_layout_change_anything(kernel, dtype):
    x, weight = torch.randn(3, 20, 50, 130).to(dtype), torch.randn(70, 130).to(dtype)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(kernel.pointwise_conv(x, weight, activation="gelu"))
    finally:
        torch.set_num_threads(threads)
    found.append(
        kernel.pointwise_conv(x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), weight, activation="gelu")
    )
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(("shape", "outputs"), [((0, 8), 4), ((3, 8), 0), ((2, 0, 8), 4)])
def test_nothing_to_compute(kernel, path, shape, outputs):
    out = kernel.pointwise_conv(torch.ones(shape), torch.ones(outputs, 8))
    assert out.shape == (*shape[:-1], outputs)


def test_no_inputs_give_the_bias(kernel, path):
    assert torch.equal(
        kernel.pointwise_conv(torch.ones(3, 0), torch.ones(4, 0), torch.arange(4.0)), torch.arange(4.0).expand(3, 4)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, x, w, b: k.pointwise_conv(x, w[:, 1:]), r"weight: expected \(4, 8\), got \(4, 7\)"),
        (lambda k, x, w, b: k.pointwise_conv(x, w[0]), r"weight: expected \(outputs, 8\), got \(8\)"),
        (lambda k, x, w, b: k.pointwise_conv(x, w.double()), "weight and input must share a dtype"),
        (lambda k, x, w, b: k.pointwise_conv(x, w, b[1:]), r"bias: expected \(4\), got \(3\)"),
        (lambda k, x, w, b: k.pointwise_conv(x, w, b, residual=x), r"residual: expected \(3, 4\), got \(3, 8\)"),
        (lambda k, x, w, b: k.pointwise_conv(x.int(), w.int()), "expected float32, float64, bfloat16 or float16"),
        (lambda k, x, w, b: k.pointwise_conv(x, w, norm=(b, b[1:], b, b, EPS)), r"bias: expected \(4\), got \(3\)"),
        (
            lambda k, x, w, b: k.merge_norms_and_kernels(w.view(4, 1, 2, 4), (b, b, b, b, EPS)),
            r"kernels: expected \(C, 1, odd, odd\), got \(4, 1, 2, 4\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(kernel, call, message):
    with pytest.raises(RuntimeError, match=message):
        call(kernel, torch.ones(3, 8), torch.ones(4, 8), torch.ones(4))


def test_derivatives_are_refused(kernel):
    x, weight = torch.ones(3, 8), torch.ones(4, 8, requires_grad=True)
    with pytest.raises(NotImplementedError, match="pointwise_conv: the compiled kernel has no gradient"):
        kernel.pointwise_conv(x, weight)


def test_what_pytorch_knows_of_the_operators(kernel):
    x, weight, bias = torch.randn(3, 8), torch.randn(4, 8), torch.randn(4)
    ones = torch.ones(8)
    norm, taps = (ones, ones, ones, ones, EPS), torch.randn(8, 1, 5, 5)
    for call in (
        lambda: kernel.pointwise_conv(x, weight, bias, input_norm=norm),
        lambda: kernel.merge_norms_and_kernels(taps, norm, taps[..., 1:4, 1:4], norm),
    ):
        torch.testing.assert_close(torch.compile(call, backend="aot_eager", fullgraph=True)(), call())
    with FlopCounterMode(display=False) as counter:
        kernel.pointwise_conv(x, weight, bias)
    assert counter.get_total_flops() == 2 * 3 * 8 * 4
