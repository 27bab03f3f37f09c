"""The functions of fused_layers: on every path of the kernel, and when the modules run instead of it."""

import random
from functools import partial

import pytest
import torch
from kernels import get_local_kernel
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers.activations import ACT2FN

from hf_models import hub_kernels
from hf_models.fused_layers import activate, add_branch, add_branch_and_norm, conv_norm_activation, layer_norm
from hf_models.layers import DropPath, LayerScale, depthwise_layer

from ..harness.kernel_builder import cpu_variant
from ..harness.kernel_tester import shifted
from ..harness.operator_tester import DTYPES

NAME = "fused-layers"
PATHS = ("avx512_bf16", "avx512", "avx2", "portable")
HALF = (torch.bfloat16, torch.float16)
EPS = 1e-6


@pytest.fixture(scope="module")
def kernel():
    return get_local_kernel(cpu_variant(NAME))


@pytest.fixture(params=PATHS)
def path(request, kernel, monkeypatch):
    monkeypatch.setenv("FUSED_LAYERS_CPU_PATH", request.param)
    try:
        assert kernel.cpu_path() == request.param
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    return request.param


def norm_of(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], weight, bias, EPS)


def depthwise_of(x, taps, taps_bias):
    out = F.conv2d(x.permute(0, 3, 1, 2), taps, taps_bias, padding=1, groups=x.shape[-1])
    return out.permute(0, 2, 3, 1)


def random_case(seed):
    """Any number of channels, layout and dtype; the means of the rows are far from 0 in one case of four."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    dtype, channels = pick.choice([torch.float32, *DTYPES]), pick.choice([1, 3, 16, 64, pick.randint(1, 300)])
    size = [pick.choice([1, 1, 2]), pick.randint(1, 9), pick.choice([1, 2, 5, pick.randint(1, 100)])]
    if channels > 100:
        size[2] = min(size[2], 12)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    factor, shift = pick.choice([(0.1, 0), (1, 0), (4, 0), (1, 3)])
    x = normal(*size, channels) * factor + shift
    x, y = x.to(dtype), normal(*size, channels).to(dtype)
    if pick.random() < 0.3:  # as a convolution on (N, C, H, W) leaves it
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    if pick.random() < 0.3:
        y = shifted(y, 1)
    scale, weight, bias, taps_bias = (normal(channels).to(dtype) for _ in range(4))
    return (
        x,
        y,
        scale if pick.random() < 0.7 else None,
        weight,
        bias,
        (normal(channels, 1, 3, 3) / 3).to(dtype),
        taps_bias,
    )


def assert_near(actual, expected, dtype, seed, name, absolute=0.0):
    """One rounding in half precision; sums in float32 else, in other orders."""
    assert actual.dtype == dtype and actual.shape == expected.shape
    epsilon = torch.finfo(dtype).eps
    slack = expected.abs() * epsilon * 0.51 + 1e-5 if dtype in HALF else expected.abs().clamp(min=1) * epsilon * 100
    error = ((actual.double() - expected).abs() - slack - absolute).max().item()
    assert error <= 0, f"seed {seed}, {name}: {error} too much ({dtype}, {tuple(actual.shape)})"


def check_random_case(kernel, seed):
    x, y, scale, weight, bias, taps, taps_bias = random_case(seed)
    wide = [None if t is None else t.double() for t in (x, y, scale, weight, bias, taps, taps_bias)]
    wide_x, wide_y, wide_scale, wide_weight, wide_bias, wide_taps, wide_taps_bias = wide
    dtype = x.dtype
    near = partial(assert_near, dtype=dtype, seed=seed)
    # rows of few numbers may be nearly constant: then a norm magnifies what float32 rounds
    conditioned = wide_x.var(-1, correction=0).min() > 1e-2
    if conditioned:
        near(kernel.layer_norm(x, weight, bias, EPS), norm_of(wide_x, wide_weight, wide_bias), name="layer_norm")
    total, normalized = kernel.add_layer_norm(x, y, scale, weight, bias, EPS)
    near(total, wide_x + wide_y * (1 if scale is None else wide_scale), name="sum")
    if total.double().var(-1, correction=0).min() > 1e-2:
        near(normalized, norm_of(total.double(), wide_weight, wide_bias), name="norm of the sum")
    exact = F.gelu(wide_x)
    gelu = kernel.gelu(x)
    if dtype == torch.bfloat16:
        near(gelu, exact, name="gelu", absolute=exact.abs() * 2**-9 + 4e-5)
    elif dtype == torch.float64:
        near(gelu, exact, name="gelu")
    else:
        near(gelu, exact, name="gelu", absolute=1e-6)
    slope = torch.ops.aten.gelu_backward(torch.ones_like(wide_x), wide_x)
    rough = 0.0 if dtype == torch.float64 else wide_y.abs() * 4e-6
    near(kernel.gelu_backward(y, x), wide_y * slope, name="gelu_backward", absolute=rough)
    features = depthwise_of(wide_x, wide_taps, wide_taps_bias)
    if features.var(-1, correction=0).min() > 1e-2:
        exact = F.gelu(norm_of(features, wide_weight, wide_bias))
        rough = exact.abs() * 2**-9 + 5e-5 if dtype == torch.bfloat16 else 1e-5
        fused = kernel.depthwise_norm_gelu(x, taps, taps_bias, weight, bias, EPS)
        near(fused, exact, name="depthwise_norm_gelu", absolute=rough)


def check_random_product(kernel, seed):
    """`linear` and `feed_forward` against float64, with what may be left out there or not."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    dtype = pick.choice([torch.float32, *DTYPES])
    rows = pick.choice([(pick.randint(1, 70),), (2, 3, pick.randint(1, 9)), (300,)])
    depth, hidden, columns = (pick.choice([1, 2, 16, 64, pick.randint(1, 150)]) for _ in range(3))

    def normal(*shape, some=1.0):
        made = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        return made if pick.random() < some else None

    def wide(tensor):
        return None if tensor is None else tensor.double()

    def product(x, weight, bias, error):
        """The exact one, and how far from it one may be that is computed from numbers with an error."""
        reach = F.linear(x.abs(), weight.abs(), None if bias is None else bias.abs())
        rounding = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps * 16
        return F.linear(x, weight, bias), reach * rounding + F.linear(error, weight.abs())

    def near(name, actual, exact, slack):
        residual_, scale_ = wide(residual), wide(scale)
        if scale is not None:
            exact, slack = exact * scale_, slack * scale_.abs()
        if residual is not None:
            exact = residual_ + exact
        info = torch.finfo(dtype)
        slack = slack + exact.abs().clamp(min=info.smallest_normal) * info.eps  # below, the steps get no smaller
        assert actual.dtype == dtype and actual.shape == exact.shape
        error = ((actual.double() - exact).abs() - slack).max().item()
        assert error <= 0, f"seed {seed}, {name}: {error} too much ({dtype}, {rows}, {depth}, {hidden}, {columns})"

    x, weight, bias = normal(*rows, depth), normal(columns, depth), normal(columns, some=0.7)
    residual, scale = normal(*rows, columns, some=0.5), normal(columns, some=0.5)
    if pick.random() < 0.3:
        x = shifted(x, 1)
    exact = product(wide(x), wide(weight), wide(bias), torch.zeros_like(x, dtype=torch.float64))
    near("linear", kernel.linear(x, weight, bias, residual, scale), *exact)

    weight1, bias1 = normal(hidden, depth) / depth**0.5, normal(hidden, some=0.7)
    weight2, bias2 = normal(columns, hidden), normal(columns, some=0.7)
    between, error = product(wide(x), wide(weight1), wide(bias1), torch.zeros_like(x, dtype=torch.float64))
    between = F.gelu(between)
    of_gelu = {torch.float64: 0.0, torch.bfloat16: 4e-5}.get(dtype, 1e-6)
    error = 2 * error + of_gelu + between.abs() * (torch.finfo(dtype).eps * (1 + (dtype == torch.bfloat16) / 4))
    exact = product(between, wide(weight2), wide(bias2), error)
    near("feed_forward", kernel.feed_forward(x, weight1, bias1, weight2, bias2, residual, scale), *exact)


def test_random_cases(kernel, path):
    for seed in range(150):
        check_random_case(kernel, seed)
        check_random_product(kernel, seed)


@pytest.mark.slow
def test_many_random_cases(kernel, path):
    for seed in range(1000, 3000):
        check_random_case(kernel, seed)
        check_random_product(kernel, seed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_everywhere(kernel, path, dtype):
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64).to(dtype)
    exact = F.gelu(x.double())
    bits, near_zero = {torch.bfloat16: (9, 4e-5), torch.float16: (12, 1e-6)}.get(dtype, (60, 1e-6))
    slack = exact.abs() * 2.0**-bits + near_zero + exact.abs() * torch.finfo(dtype).eps / 2
    assert ((kernel.gelu(x).double() - exact).abs() <= slack).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_backward_everywhere(kernel, path, dtype):
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64).to(dtype)
    exact = torch.ops.aten.gelu_backward(torch.ones(len(x), dtype=torch.float64), x.double())
    slack = exact.abs() * torch.finfo(dtype).eps / 2 + (1e-12 if dtype == torch.float64 else 4e-6)
    assert ((kernel.gelu_backward(torch.ones_like(x), x).double() - exact).abs() <= slack).all()
    nan, *ends = kernel.gelu_backward(torch.ones(3, dtype=dtype), torch.tensor([float("nan"), 3e4, -3e4], dtype=dtype))
    assert nan.isnan() and abs(ends[0] - 1) < 4e-6 and abs(ends[1]) < 4e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_of_extremes(kernel, path, dtype):
    x = torch.tensor([0.0, -0.0, torch.finfo(dtype).max, float("inf"), float("nan"), -3e4], dtype=dtype)
    out = kernel.gelu(x)
    torch.testing.assert_close(out[:4], x[:4])
    assert out[4].isnan() and abs(out[5]) < 4e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_far_from_zero(kernel, path, dtype):
    """The variance is computed around the mean, so a large mean takes nothing from it."""
    x = (torch.arange(64.0) % 2 + 100).to(dtype).expand(3, 64)
    ones, zeros = torch.ones(64, dtype=dtype), torch.zeros(64, dtype=dtype)
    torch.testing.assert_close(kernel.layer_norm(x, ones, zeros, EPS), (x - 100.5) * 2, rtol=1e-3, atol=1e-3)


def test_poison_reaches_only_what_it_must(kernel, path):
    x = torch.randn(1, 5, 6, 20)
    x[0, 2, 3, 7] = float("nan")
    ones, taps = torch.ones(20), torch.ones(20, 1, 3, 3)
    poisoned = kernel.depthwise_norm_gelu(x, taps, ones, ones, ones, EPS).isnan().any(-1)
    expected = torch.zeros(1, 5, 6, dtype=torch.bool)
    expected[0, 1:4, 2:5] = True
    assert torch.equal(poisoned, expected)
    assert torch.equal(kernel.layer_norm(x, ones, ones, EPS).isnan().any(-1), x.isnan().any(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_nothing(kernel, dtype):
    x, vector, taps = torch.randn(2, 40, 50, 33).to(dtype), torch.rand(33).to(dtype), torch.rand(33, 1, 3, 3).to(dtype)
    weight = torch.randn(33, 33).to(dtype)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(
                [
                    kernel.layer_norm(x, vector, vector, EPS),
                    *kernel.add_layer_norm(x, x, vector, vector, vector, EPS),
                    kernel.gelu(x),
                    kernel.gelu_backward(x, x),
                    kernel.depthwise_norm_gelu(x, taps, vector, vector, vector, EPS),
                    *(kernel.linear(rows, weight, vector, rows, vector) for rows in (x, x[0, 0])),
                    *(kernel.feed_forward(rows, weight, vector, weight, None) for rows in (x, x[0, 0])),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    assert all(all(map(torch.equal, found[0], other)) for other in found[1:])


@pytest.mark.parametrize("shape", [(0, 5, 6, 8), (2, 0, 6, 8), (2, 5, 6, 0)])
def test_nothing_to_compute(kernel, path, shape):
    x, vector, taps = torch.empty(shape), torch.empty(shape[-1]), torch.empty(shape[-1], 1, 3, 3)
    outs = [
        kernel.layer_norm(x, vector, vector, EPS),
        *kernel.add_layer_norm(x, x, None, vector, vector, EPS),
        kernel.gelu(x),
        kernel.gelu_backward(x, x),
        kernel.depthwise_norm_gelu(x, taps, vector, vector, vector, EPS),
        kernel.linear(x, torch.empty(shape[-1], shape[-1]), vector),
        kernel.feed_forward(x, torch.empty(3, shape[-1]), None, torch.empty(shape[-1], 3), None),
    ]
    assert all(out.shape == shape for out in outs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, x, v, t: k.layer_norm(x, v[1:], v, EPS), r"weight: expected \(8\), got \(7\)"),
        (lambda k, x, v, t: k.layer_norm(x, v, v.double(), EPS), "bias and input must share a dtype"),
        (lambda k, x, v, t: k.add_layer_norm(x, x[:1], v, v, v, EPS), r"branch: expected \(2, 3, 4, 8\), got \(1,"),
        (lambda k, x, v, t: k.add_layer_norm(x, x, v[1:], v, v, EPS), r"scale: expected \(8\), got \(7\)"),
        (lambda k, x, v, t: k.gelu_backward(x[:1], x), r"gradient: expected \(2, 3, 4, 8\), got \(1,"),
        (lambda k, x, v, t: k.gelu_backward(x.double(), x), "gradient and input must share a dtype"),
        (lambda k, x, v, t: k.linear(x, x[0, 0, :, 1:]), r"weight: expected \(C_out, 8\), got \(4, 7\)"),
        (lambda k, x, v, t: k.linear(x, x[0, 0], v), r"bias: expected \(4\), got \(8\)"),
        (
            lambda k, x, v, t: k.linear(x, x[0, 0], residual=x),
            r"residual: expected \(2, 3, 4, 4\), got",
        ),
        (lambda k, x, v, t: k.feed_forward(x, x[0, 0], None, x[0, 0], None), r"weight2: expected \(C_out, 4\)"),
        (lambda k, x, v, t: k.gelu(x.int()), "expected float32, float64, bfloat16 or float16"),
        (lambda k, x, v, t: k.depthwise_norm_gelu(x[0], t, v, v, v, EPS), r"input: expected \(N, H, W, C\)"),
        (lambda k, x, v, t: k.depthwise_norm_gelu(x, t[..., 1:], v, v, v, EPS), r"kernel: expected \(8, 1, 3, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(kernel, call, message):
    with pytest.raises(RuntimeError, match=message):
        call(kernel, torch.randn(2, 3, 4, 8), torch.ones(8), torch.ones(8, 1, 3, 3))


def test_derivatives_are_refused(kernel):
    x = torch.randn(2, 8, requires_grad=True)
    with pytest.raises(NotImplementedError, match="gelu: the compiled kernel has no gradient"):
        kernel.gelu(x).sum().backward()
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(kernel.gelu, (x.detach(),), (x.detach(),))


def test_shapes_for_tracing(kernel):
    x, vector, taps = torch.randn(2, 3, 4, 8), torch.ones(8), torch.ones(8, 1, 3, 3)
    for call in (
        lambda: kernel.layer_norm(x, vector, vector, EPS),
        lambda: kernel.add_layer_norm(x, x, None, vector, vector, EPS),
        lambda: kernel.gelu(x),
        lambda: kernel.gelu_backward(x, x),
        lambda: kernel.depthwise_norm_gelu(x, taps, vector, vector, vector, EPS),
        lambda: kernel.linear(x, x[0, 0], None),
        lambda: kernel.feed_forward(x, x[0, 0], None, x[0, 0].T, vector, x, vector),
    ):
        torch.testing.assert_close(torch.compile(call, backend="aot_eager", fullgraph=True)(), call())


# The functions of hf_models: when does the kernel run?


class Block(nn.Module):
    """Every function of fused_layers, on modules as the models have them."""

    def __init__(self):
        super().__init__()
        self.conv, self.conv_norm, self.activation = depthwise_layer(8, 3), nn.LayerNorm(8), ACT2FN["gelu"]
        self.scale, self.drop_path, self.norm = LayerScale(8, 0.5), DropPath(0.1), nn.LayerNorm(8)

    def forward(self, x):
        branch = conv_norm_activation(self.conv, self.conv_norm, self.activation, x)
        x, normalized = add_branch_and_norm(x, branch, self.scale, self.drop_path, self.norm)
        return add_branch(x, activate(self.activation, layer_norm(self.norm, normalized)), self.scale, self.drop_path)

    def plain(self, x):
        branch = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.scale(self.activation(self.conv_norm(branch))))
        return x + self.drop_path(self.scale(self.activation(self.norm(self.norm(x)))))


@pytest.fixture
def calls(kernel, monkeypatch):
    """The names of the kernel's functions that ran."""
    found = []

    class Counted:
        def __getattr__(self, name):
            found.append(name)
            return getattr(kernel, name)

    decision = hub_kernels.KernelStatus(NAME, "cpu", "local", None, None, (), "the tests' build", ())
    monkeypatch.setattr(hub_kernels, "_choose", lambda *_: (Counted(), decision))
    monkeypatch.setattr(hub_kernels, "_modules", {})
    return found


@pytest.fixture
def block():
    torch.manual_seed(0)
    block = Block().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


X = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_kernel_runs_where_only_numbers_are_wanted(block, calls, dtype):
    block, x = block.to(dtype), X.to(dtype)
    with torch.no_grad():
        out, expected = block(x), block.double().plain(x.double())
    assert calls == ["depthwise_norm_gelu", "add_layer_norm", "layer_norm", "gelu"]
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}[dtype]
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("freezing", [False, True])
def test_compiled_graphs_call_what_the_eager_model_calls(block, kernel, dtype, freezing, monkeypatch):
    from torch._inductor import config

    decision = hub_kernels.KernelStatus(NAME, "cpu", "local", None, None, (), "the tests' build", ())
    monkeypatch.setattr(hub_kernels, "_choose", lambda *_: (kernel, decision))
    monkeypatch.setattr(hub_kernels, "_modules", {NAME: {}})
    block, x, called = block.to(dtype), X.to(dtype), []

    def backend(module, _):
        called.extend(str(node.target) for node in module.graph.nodes if kernel.__name__ in str(node.target))
        return module.forward

    torch._dynamo.reset()
    with torch.no_grad(), config.patch(freezing=freezing):
        out = torch.compile(block, backend=backend, fullgraph=True)(x)
        if freezing and dtype == torch.bfloat16 and not kernel.multiplies_fast(dtype):  # the compiler's products do
            assert not called
        else:
            names = ["depthwise_norm_gelu", "add_layer_norm", "layer_norm", "gelu"]
            assert [name.split(".")[-1] for name in called] == names
            tolerance = 2 * torch.finfo(dtype).eps  # a product and a sum are rounded together, or each
            torch.testing.assert_close(out, block(x), rtol=tolerance, atol=tolerance)


def with_a_hook(block):
    for module in block.children():
        module.register_forward_hook(lambda *_: None)


def with_other_layers(block):
    """What adapters and quantisation do: a module of another class in the place of a layer."""
    for name, module in block.named_children():
        other = type(f"Other{type(module).__name__}", (type(module),), {})
        module.__class__ = other
        setattr(block, name, module)


def with_another_forward(block):
    """What offloading does."""
    for module in block.children():
        module.forward = module.forward


@pytest.mark.parametrize("change", [with_a_hook, with_other_layers, with_another_forward])
def test_the_modules_run_where_they_are_changed(block, calls, change):
    change(block)
    with torch.no_grad():
        assert torch.equal(block(X), block.plain(X))
    assert not calls


@pytest.mark.parametrize("module", ["conv", "conv_norm", "scale", "drop_path", "norm"])
def test_a_hook_on_one_module_sees_what_it_would(block, calls, module):
    seen = []
    getattr(block, module).register_forward_hook(lambda module, inputs, out: seen.append(out))
    with torch.no_grad():
        out = block(X)
        times = len(seen)
        torch.testing.assert_close(out, block.plain(X))
    assert len(seen) == 2 * times > 0


def test_only_gelu_runs_with_gradients(block, calls):
    x = X.clone().requires_grad_()
    ours = torch.autograd.grad(block(x).sum(), (x, *block.parameters()))
    plain = torch.autograd.grad(block.plain(x).sum(), (x, *block.parameters()))
    assert set(calls) == {"gelu", "gelu_backward"}
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_the_modules_run_in_autocast(block, calls):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block(X), torch.addcmul(*partial_sums(block)))
    assert not calls


def partial_sums(block):
    """As [`Block.plain`], but with each sum in one rounding, as `add_branch` has it."""
    branch = block.conv(X.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    x = torch.addcmul(X, block.activation(block.conv_norm(branch)), block.scale.scale)
    return x, block.activation(block.norm(block.norm(x))), block.scale.scale


@torch.no_grad()
def test_the_modules_run_where_more_than_numbers_is_wanted(block, calls):
    expected = block.plain(X)
    torch.testing.assert_close(torch.func.vmap(block)(X[:, None])[:, 0], expected)
    torch.testing.assert_close(torch.func.jvp(block, (X,), (X,))[0], expected)
    torch.testing.assert_close(torch.export.export(block, (X,)).module()(X), expected)
    torch.testing.assert_close(torch.jit.trace(block, (X,), check_trace=False)(X), expected)
    with FlopCounterMode(display=False) as counter:
        block(X)
    assert counter.get_total_flops() > 0 and not calls


def test_the_modules_run_while_training(block, calls):
    """Stochastic depth drops whole samples, so the branch is no plain sum."""
    with torch.no_grad():
        block.train()(X)
    assert "add_layer_norm" not in calls


# LayerNorm's gradients


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", HALF)
def test_gradients_of_layer_norm_are_added_in_float32(dtype, autocast, threads):
    """At 20,000 rows PyTorch's own are off by more than a tenth in bfloat16, and the sum of ones is 256."""
    generator = torch.Generator().manual_seed(0)
    x, gradient = torch.randn(2, 20_000, 16, generator=generator).to(dtype)
    norm = nn.LayerNorm(16)
    nn.init.normal_(norm.weight, generator=generator)
    norm.to(torch.float32 if autocast else dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for of_output in (gradient, torch.ones_like(gradient)):
            given = x.clone().requires_grad_()
            with torch.autocast("cpu", dtype, enabled=autocast):
                out = layer_norm(norm, given)
            assert out.dtype == dtype
            found = torch.autograd.grad(out, (given, norm.weight, norm.bias), of_output)
            wide = [tensor.detach().double().requires_grad_() for tensor in (given, norm.weight, norm.bias)]
            exact = torch.autograd.grad(F.layer_norm(wide[0], (16,), *wide[1:]), wide, of_output.double())
            for actual, expected in zip(found, exact, strict=True):
                assert (actual.double() - expected).norm() <= 1e-2 * expected.norm()
    finally:
        torch.set_num_threads(before)


def test_layer_norm_in_float32_is_pytorchs(block):
    x = X.clone().requires_grad_()
    assert torch.equal(layer_norm(block.norm, x), block.norm(x))
