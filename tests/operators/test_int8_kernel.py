"""The functions of the kernel int8-linear, on every path of it."""

import random

import pytest
import torch
from kernels import get_local_kernel
from torch.nn import functional as F

from ..harness.kernel_builder import cpu_variant

NAME = "int8-linear"
PATHS = ("avx512_bf16", "avx512_vnni", "portable")
DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(scope="module")
def kernel():
    return get_local_kernel(cpu_variant(NAME))


@pytest.fixture(params=PATHS)
def path(request, kernel, monkeypatch):
    monkeypatch.setenv("INT8_LINEAR_CPU_PATH", request.param)
    try:
        assert kernel.cpu_path() == request.param
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    return request.param


class Layer:
    """Random weights, and the levels of an input of standard deviation 1."""

    def __init__(self, pick, generator, inputs, outputs):
        self.scale, self.zero_point = pick.uniform(0.005, 0.05), pick.choice([0, 255, pick.randint(0, 255)])
        self.weight = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
        self.weight_scale = torch.rand(outputs, generator=generator) / 100 / inputs**0.5 + 1e-4
        self.bias = torch.randn(outputs, generator=generator) if pick.random() < 0.7 else None

    def arguments(self, kernel):
        return self.scale, self.zero_point, kernel.pack(self.weight), self.weight_scale, self.bias

    def levels(self, x):
        return (x.double() / self.scale + self.zero_point).round().clamp(0, 255)

    def product(self, levels):
        weight = self.weight.double() * self.weight_scale.double()[:, None]
        bias = None if self.bias is None else self.bias.double()
        return F.linear((levels - self.zero_point) * self.scale, weight, bias)

    def step(self, count):
        """How much the result changes if `count` levels of the input change by one."""
        return count * self.scale * 127 * self.weight_scale.max().item()


def random_case(seed):
    """Any number of rows and channels, and layout; some numbers lie far beyond the levels."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    inputs, hidden, outputs = (pick.choice([1, 4, 16, 64, pick.randint(1, 200)]) for _ in range(3))
    size = pick.choice([(), (1,), (pick.randint(1, 130),), (2, 3, pick.randint(1, 20))])
    x = torch.randn(*size, inputs, generator=generator).to(pick.choice(DTYPES))
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.02, 1e3 * x, x)
    if len(size) == 3 and pick.random() < 0.5:  # as a convolution on (N, C, H, W) leaves it
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    return x, Layer(pick, generator, inputs, hidden), Layer(pick, generator, hidden, outputs)


def halfway(levels, margin):
    """How many numbers of a row may fall to either of two levels, being halfway between them."""
    return (((levels - levels.floor()) - 0.5).abs() < margin).sum(-1).max().item()


def check_random_case(kernel, seed):
    x, first, second = random_case(seed)
    epsilon = 2**-8 if x.dtype == torch.bfloat16 else 1e-6
    out, exact = kernel.linear(x, *first.arguments(kernel)), first.product(first.levels(x))
    ties = halfway((x.double() / first.scale + first.zero_point).clamp(0, 255), 1e-4)
    assert out.dtype == x.dtype and out.shape == exact.shape
    slack = epsilon * exact.abs() + 1e-5 + first.step(ties)
    assert ((out.double() - exact).abs() <= slack).all(), f"seed {seed}, linear"

    out = kernel.feed_forward(x, *first.arguments(kernel), *second.arguments(kernel))
    hidden = F.gelu(exact)
    exact = second.product(second.levels(hidden))
    ties = halfway((hidden / second.scale + second.zero_point).clamp(0, 255), 3e-4 / second.scale + first.step(ties))
    assert out.dtype == x.dtype and out.shape == exact.shape
    slack = epsilon * exact.abs() + 1e-5 + second.step(ties)
    assert ((out.double() - exact).abs() <= slack).all(), f"seed {seed}, feed_forward"


def test_random_cases(kernel, path):
    for seed in range(150):
        check_random_case(kernel, seed)


@pytest.mark.slow
def test_many_random_cases(kernel, path):
    for seed in range(1000, 3000):
        check_random_case(kernel, seed)


def identity(outputs=1):
    """Weights of 1 for one input, that leave its levels as they are."""
    return torch.eye(outputs, dtype=torch.int8), torch.ones(outputs)


def test_sums_are_exact(kernel, path):
    """The largest product of the longest row of these models, which 24 bits would not hold."""
    weight = torch.full((3, 10_000), 127, dtype=torch.int8)
    out = kernel.linear(torch.full((5, 10_000), 255.0), 1.0, 0, kernel.pack(weight), torch.ones(3), None)
    assert torch.equal(out, torch.full((5, 3), 255.0 * 127 * 10_000))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_and_the_ends_of_the_levels(kernel, path, dtype):
    weight, scale = identity()
    x = torch.tensor([-9.0, 0.49, 0.5, 1.5, 2.5, 254.6, 1e30, float("inf"), -float("inf"), float("nan")])
    out = kernel.linear(x[:, None].to(dtype), 1.0, 0, kernel.pack(weight), scale, None)[:, 0]
    assert out.tolist() == torch.tensor([0.0, 0, 0, 2, 2, 255, 255, 255, 0, 0]).to(dtype).tolist()


def test_gelu_everywhere(kernel, path):
    weight, scale = identity()
    x = torch.linspace(-12.75, 12.75, 256)[:, None]
    packed = kernel.pack(weight)
    hidden = kernel.feed_forward(x, 0.1, 128, packed, scale, None, 1e-3, 171, packed, scale, None)
    exact = F.gelu((x / 0.1 + 128).round().clamp(0, 255) * 0.1 - 12.8).clamp(-0.171, 0.084)
    assert (hidden - exact).abs().max() <= 0.5e-3 + 2e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_neither_threads_nor_the_batch_change_anything(kernel, dtype):
    _, first, second = random_case(7)
    x = torch.randn(700, first.weight.shape[1]).to(dtype)
    threads, found = torch.get_num_threads(), []

    def both(x):
        out = kernel.feed_forward(x, *first.arguments(kernel), *second.arguments(kernel))
        return torch.cat([kernel.linear(x, *first.arguments(kernel)), out], dim=1)

    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found += [both(x), torch.cat([both(rows) for rows in x.split([1, 50, 649])])]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_nothing_to_compute(kernel, path):
    weight, scale = kernel.pack(torch.zeros(8, 4, dtype=torch.int8)), torch.ones(8)
    last, last_scale = kernel.pack(torch.zeros(0, 8, dtype=torch.int8)), torch.ones(0)
    assert kernel.linear(torch.empty(0, 4), 1.0, 0, weight, scale, None).shape == (0, 8)
    out = kernel.feed_forward(torch.empty(3, 4), 1.0, 0, weight, scale, None, 1.0, 0, last, last_scale, None)
    assert out.shape == (3, 0)
    no_inputs = kernel.pack(torch.zeros(8, 0, dtype=torch.int8))
    assert torch.equal(kernel.linear(torch.empty(3, 0), 1.0, 0, no_inputs, scale, scale), torch.ones(3, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, x, w, s: k.pack(w.float()), "weight: expected int8 on a CPU"),
        (lambda k, x, w, s: k.pack(w[0]), r"weight: expected \(outputs, inputs\), got \(4\)"),
        (lambda k, x, w, s: k.linear(x.double(), 1.0, 0, k.pack(w), s, None), "input: expected float32 or bfloat16"),
        (
            lambda k, x, w, s: k.linear(x[0, 0], 1.0, 0, k.pack(w), s, None),
            r"input: expected \(..., inputs\), got \(\)",
        ),
        (lambda k, x, w, s: k.linear(x, 1.0, 0, w, s, None), r"weight: expected \(1, 2, 64\), got \(8, 4\)"),
        (lambda k, x, w, s: k.linear(x[:, :0], 1.0, 0, k.pack(w), s, None), r"weight: expected \(1, 1, 64\)"),
        (lambda k, x, w, s: k.linear(x, 1.0, 0, k.pack(w), s.double(), None), "weight_scale: expected float32"),
        (lambda k, x, w, s: k.linear(x, 1.0, 0, k.pack(w), s[None], None), r"weight_scale: expected \(outputs\)"),
        (lambda k, x, w, s: k.linear(x, 1.0, 0, k.pack(w), s, s[1:]), r"bias: expected \(8\), got \(7\)"),
        (lambda k, x, w, s: k.linear(x, 0.0, 0, k.pack(w), s, None), "scale: expected a positive number, got 0"),
        (lambda k, x, w, s: k.linear(x, 1.0, 256, k.pack(w), s, None), "zero_point: expected 0 to 255, got 256"),
        (
            lambda k, x, w, s: k.feed_forward(x, 1.0, 0, k.pack(w), s, None, 1.0, 0, k.pack(w), s, None),
            r"weight2: expected \(1, 3, 64\), got \(1, 2, 64\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(kernel, call, message):
    with pytest.raises(RuntimeError, match=message):
        call(kernel, torch.randn(2, 4), torch.ones(8, 4, dtype=torch.int8), torch.ones(8))


def test_derivatives_are_refused(kernel):
    weight, scale = identity(4)
    arguments = 1.0, 0, kernel.pack(weight), scale, None
    with pytest.raises(NotImplementedError, match="linear: the compiled kernel has no gradient"):
        kernel.linear(torch.randn(2, 4, requires_grad=True), *arguments)
    with torch.no_grad(), pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        x = torch.randn(2, 4)
        torch.func.jvp(lambda x: kernel.linear(x, *arguments), (x,), (x,))
