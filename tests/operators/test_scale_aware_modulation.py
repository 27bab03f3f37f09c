"""SMT's operators and layers: on every path of the kernel, and when the modules run instead of it."""

import copy
import random

import pytest
import torch
from kernels import get_local_kernel
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hf_models import hub_kernels
from hf_models.configuration_smt import SMTConfig
from hf_models.modeling_smt import SMTMLP, SMTAttention, SMTLayer, SMTModulation

from ..harness.kernel_builder import cpu_variant
from ..harness.kernel_tester import shifted
from ..harness.operator_tester import DTYPES

NAME = "fused-layers"
PATHS = ("avx512_bf16", "avx512", "avx2", "portable")
HALF = (torch.bfloat16, torch.float16)
EPS = 1e-5


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


# The operators, from PyTorch's; each takes and returns (N, H, W, C).


def depthwise(x, kernel, bias):
    out = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=kernel.shape[-1] // 2, groups=x.shape[-1])
    return out.permute(0, 2, 3, 1)


def add_depthwise_gelu(x, kernel, bias):
    return F.gelu(x + depthwise(x, kernel, bias))


def mix_scales(x, kernels, biases, expand, expand_bias, mean, variance, weight, bias, eps):
    heads = [depthwise(*of_head) for of_head in zip(x.chunk(4, -1), kernels, biases, strict=True)]
    mixed = torch.stack(heads, -1).flatten(-2).permute(0, 3, 1, 2)  # (N, H, W, D, 4) -> (N, 4 D, H, W)
    expanded = F.conv2d(mixed, expand, expand_bias, groups=x.shape[-1] // 4)
    return F.gelu(F.batch_norm(expanded, mean, variance, weight, bias, eps=eps)).permute(0, 2, 3, 1)


def attend(query, key_value, heads, kernel, bias):
    key, value = key_value.chunk(2, -1)
    # (N, H, W, C) -> (N, H W, heads, C / heads) -> (N, heads, H W, C / heads)
    split = [t.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value)]
    attended = F.scaled_dot_product_attention(*split).transpose(1, 2).reshape(query.shape)
    return attended + depthwise(value, kernel, bias)


REFERENCES = {"add_depthwise_gelu": add_depthwise_gelu, "mix_scales": mix_scales, "attend": attend}


class Numbers:
    """Random numbers of a dtype, some of them not in order in memory."""

    def __init__(self, seed, dtype):
        self.pick, self.dtype = random.Random(seed), dtype
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape, scale=1.0):
        numbers = (torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale).to(self.dtype)
        return shifted(numbers, 1) if self.pick.random() < 0.2 else numbers

    def map(self, *shape):
        x = self(*shape)
        if self.pick.random() < 0.3:  # as a convolution on (N, C, H, W) leaves it
            x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        return x


def inputs_of_add(numbers, size, channels):
    return numbers.map(*size, channels), numbers(channels, 1, 3, 3, scale=1 / 3), numbers(channels)


def inputs_of_mixing(numbers, size, channels):
    """`channels` is that of a head."""
    kernels = [numbers(channels, 1, k, k, scale=1 / k) for k in (3, 5, 7, 9)]
    parameters = [numbers(8 * channels) for _ in range(5)]
    parameters[2] = (numbers(8 * channels).double().abs() + 0.3).to(numbers.dtype)
    biases, expand = [numbers(channels) for _ in kernels], numbers(8 * channels, 4, 1, 1, scale=0.5)
    return numbers.map(*size, 4 * channels), kernels, biases, expand, *parameters, EPS


def inputs_of_attention(numbers, size, channels):
    """`channels` is that of a head."""
    heads = numbers.pick.choice([1, 2, 3])
    channels *= heads
    kernel, bias = numbers(channels, 1, 3, 3, scale=1 / 3), numbers(channels)
    return numbers.map(*size, channels), numbers.map(*size, 2 * channels), heads, kernel, bias


INPUTS = {"add_depthwise_gelu": inputs_of_add, "mix_scales": inputs_of_mixing, "attend": inputs_of_attention}


def random_inputs(name, seed):
    numbers = Numbers(seed, random.Random(seed).choice([torch.float32, *DTYPES]))
    pick = numbers.pick
    size = pick.choice([1, 1, 2]), pick.randint(1, 15), pick.choice([1, 2, 7, 14, 15, pick.randint(1, 30)])
    return INPUTS[name](numbers, size, pick.choice([1, 3, 16, 32, pick.randint(1, 40)]))


def widened(inputs):
    return [
        [t.double() for t in value] if isinstance(value, list) else value.double() if torch.is_tensor(value) else value
        for value in inputs
    ]


def check_random_case(kernel, name, seed):
    inputs = random_inputs(name, seed)
    actual, expected, dtype = getattr(kernel, name)(*inputs), REFERENCES[name](*widened(inputs)), inputs[0].dtype
    assert actual.dtype == dtype and actual.shape == expected.shape and actual.is_contiguous()
    epsilon, largest = torch.finfo(dtype).eps, max(1.0, expected.abs().max().item())
    # one rounding in half precision, and GELU to 9 bits in bfloat16; sums in float32 else, in other orders
    slack = expected.abs() * epsilon * (1.01 if dtype == torch.bfloat16 else 0.51) if dtype in HALF else 0
    error = ((actual.double() - expected).abs() - slack).max().item()
    tolerance = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 5e-6, torch.bfloat16: 5e-5}[dtype]
    assert error <= tolerance * largest, f"{name}, seed {seed}: {error / largest} too much ({dtype})"


@pytest.mark.parametrize("name", REFERENCES)
def test_random_cases(kernel, path, name):
    for seed in range(30):
        check_random_case(kernel, name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_many_random_cases(kernel, path, name):
    for seed in range(1000, 3000):
        check_random_case(kernel, name, seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", REFERENCES)
def test_nothing_depends_on_threads_or_batch(kernel, name, dtype):
    inputs = INPUTS[name](Numbers(0, dtype), (3, 29, 31), 20)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(getattr(kernel, name)(*inputs))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])
    maps = {"attend": 2}.get(name, 1)  # how many of the inputs are maps
    alone = getattr(kernel, name)(*(x[1:2] for x in inputs[:maps]), *inputs[maps:])
    assert torch.equal(found[0][1:2], alone)


def test_poison_reaches_only_what_it_must(kernel, path):
    """A pixel that is no number reaches what the largest kernel of its head reaches, at every border."""
    for y, x in ((0, 0), (5, 14), (20, 29)):
        inputs = inputs_of_mixing(Numbers(0, torch.float32), (1, 21, 30), 5)
        inputs[0][0, y, x, 5:10] = float("nan")  # the head with kernels of 5 x 5
        reached = kernel.mix_scales(*inputs).isnan().any(-1)[0]
        expected = torch.zeros(21, 30, dtype=torch.bool)
        expected[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
        assert torch.equal(reached, expected)


def test_large_scores(kernel, path):
    """The largest score is subtracted before the exponential: no overflow."""
    query, key_value, heads, taps, bias = inputs_of_attention(Numbers(1, torch.float32), (1, 6, 7), 16)
    expected = attend(*widened((query * 100, key_value, heads, taps, bias)))
    torch.testing.assert_close(
        kernel.attend(query * 100, key_value, heads, taps, bias).double(), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("size", [(0, 5, 6), (2, 0, 6)])
@pytest.mark.parametrize("name", REFERENCES)
def test_nothing_to_compute(kernel, path, name, size):
    inputs = INPUTS[name](Numbers(0, torch.float32), size, 8)
    assert getattr(kernel, name)(*inputs).shape[:3] == size


def changed(name, index, change):
    inputs = list(INPUTS[name](Numbers(3, torch.float32), (1, 4, 5), 4))
    inputs[index] = change(inputs[index])
    return inputs


@pytest.mark.parametrize(
    ("name", "index", "change", "message"),
    [
        ("add_depthwise_gelu", 0, lambda t: t[0], r"input: expected \(N, H, W, C\)"),
        ("add_depthwise_gelu", 1, lambda t: t[..., 1:], r"kernel: expected \(4, 1, 3, 3\), got \(4, 1, 3, 2\)"),
        ("add_depthwise_gelu", 2, lambda t: t.double(), "kernel_bias and input must share a dtype"),
        ("mix_scales", 0, lambda t: t[..., 1:], r"input: expected \(N, H, W, C\), with C a multiple of 4"),
        ("mix_scales", 1, lambda t: t[1:], "kernels: expected 4, got 3"),
        ("mix_scales", 2, lambda t: t[1:], "kernel_biases: expected 4, got 3"),
        ("mix_scales", 1, lambda t: t[::-1], r"kernels: expected \(4, 1, 3, 3\), got \(4, 1, 9, 9\)"),
        ("mix_scales", 3, lambda t: t[1:], r"expand: expected \(32, 4, 1, 1\), got \(31, 4, 1, 1\)"),
        ("mix_scales", 6, lambda t: t.double(), "variance and input must share a dtype"),
        ("attend", 0, lambda t: t[0], r"query: expected \(N, H, W, C\)"),
        ("attend", 1, lambda t: t[:, 1:], r"key_value: expected \(1, 4, 5, "),
        ("attend", 2, lambda t: 5, "heads: expected a divisor of "),
        ("attend", 4, lambda t: t[1:], "kernel_bias: expected "),
    ],
)
def test_what_does_not_fit_is_refused(kernel, name, index, change, message):
    with pytest.raises(RuntimeError, match=message):
        getattr(kernel, name)(*changed(name, index, change))


@pytest.mark.parametrize("name", REFERENCES)
def test_derivatives_are_refused(kernel, name):
    inputs = changed(name, 0, lambda t: t.requires_grad_())
    with pytest.raises(NotImplementedError, match=f"{name}: the compiled kernel has no gradient"):
        getattr(kernel, name)(*inputs)


@pytest.mark.parametrize("name", REFERENCES)
def test_shapes_for_tracing(kernel, name):
    inputs, call = INPUTS[name](Numbers(0, torch.float32), (2, 3, 4), 8), getattr(kernel, name)
    compiled = torch.compile(lambda: call(*inputs), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(), call(*inputs))


# The layers of the model: when does the kernel run?

CONFIG = SMTConfig(hidden_sizes=(16, 16, 16, 16), num_attention_heads=(2, 2, 2, 2))
CONFIG._attn_implementation = "sdpa"  # as a model chooses it
LAYERS = {
    "mix_scales": lambda: SMTModulation(CONFIG, 16),
    "add_depthwise_gelu": lambda: SMTMLP(CONFIG, 16, 4),
    "attend": lambda: SMTAttention(CONFIG, 16, 2),
}
X = torch.randn(2, 5, 6, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def calls(kernel, monkeypatch):
    """The names of the kernel's functions that ran."""
    found = []

    class Counted:
        @staticmethod
        def multiplies_fast(dtype):
            return True  # on any processor, so that whole layers run by the kernel here

        def __getattr__(self, name):
            found.append(name)
            return getattr(kernel, name)

    decision = hub_kernels.KernelStatus(NAME, "cpu", "local", None, None, (), "the tests' build", ())
    monkeypatch.setattr(hub_kernels, "_choose", lambda *_: (Counted(), decision))
    monkeypatch.setattr(hub_kernels, "_modules", {})
    return found


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


@pytest.fixture
def layer(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    if name == "mix_scales":
        nn.init.normal_(layer.batch_norm.running_mean)
        nn.init.uniform_(layer.batch_norm.running_var, 0.5, 2)
    return layer


def plain(layer, x):
    """What the modules compute: with gradients they run."""
    with torch.enable_grad():
        return layer(x.clone().requires_grad_()).detach()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_kernel_runs_where_only_numbers_are_wanted(layer, name, calls, dtype):
    out = layer.to(dtype)(X.to(dtype))
    assert name in calls
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}[dtype]
    torch.testing.assert_close(out.double(), plain(layer.double(), X.double()), rtol=tolerance, atol=tolerance)


def with_a_hook(layer):
    for module in layer.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_: None)


def with_other_layers(layer):
    """What adapters and quantisation do: modules of another class."""
    for module in layer.modules():
        if not list(module.children()):
            module.__class__ = type(f"Other{type(module).__name__}", (type(module),), {})


def with_another_forward(layer):
    """What offloading does."""
    for module in layer.modules():
        if not list(module.children()):
            module.forward = module.forward


@torch.no_grad()
@pytest.mark.parametrize("change", [with_a_hook, with_other_layers, with_another_forward])
def test_the_modules_run_where_they_are_changed(layer, name, calls, change):
    change(layer)
    assert torch.equal(layer(X), plain(layer, X)) and name not in calls


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "module"),
    [("mix_scales", module) for module in ("head_convs.2", "expand", "batch_norm", "activation")]
    + [("add_depthwise_gelu", module) for module in ("depthwise_conv", "activation")]
    + [("attend", "local_conv")],
)
def test_a_hook_on_one_module_sees_what_it_would(layer, module, calls):
    seen = []
    layer.get_submodule(module).register_forward_hook(lambda module, inputs, out: seen.append(out))
    torch.testing.assert_close(layer(X), plain(layer, X))
    assert len(seen) == 2
    torch.testing.assert_close(*seen)


def test_the_modules_run_with_gradients(layer, name, calls):
    layer(X).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters()) and name not in calls


@torch.no_grad()
def test_the_modules_run_in_autocast(layer, name, calls):
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(X), plain(layer, X))
    assert name not in calls


@torch.no_grad()
def test_the_modules_run_where_more_than_numbers_is_wanted(layer, name, calls):
    expected = plain(layer, X)
    torch.testing.assert_close(torch.func.vmap(layer)(X[:, None])[:, 0], expected)
    torch.testing.assert_close(torch.export.export(layer, (X,)).module()(X), expected)
    torch.testing.assert_close(torch.jit.trace(layer, (X,), check_trace=False)(X), expected)
    with FlopCounterMode(display=False) as counter:
        layer(X)
    assert counter.get_total_flops() > 0 and name not in calls


@torch.no_grad()
def test_the_kernel_runs_when_compiled(layer, name, calls):
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), layer(X))
    assert calls.count(name) >= 2


@torch.no_grad()
@pytest.mark.parametrize("name", ["mix_scales"])
def test_batch_statistics_are_those_of_the_batch(layer, name, calls):
    layer.train()(X)
    assert layer.batch_norm.num_batches_tracked == 1 and name not in calls


@torch.no_grad()
@pytest.mark.parametrize("name", ["mix_scales"])
@pytest.mark.parametrize("change", [{"num_modulation_heads": 2}, {"expand_ratio": 3}, {"hidden_act": "relu"}])
def test_the_modules_run_for_other_modulations(name, calls, change):
    layer = SMTModulation(SMTConfig(hidden_sizes=(16,) * 4, num_attention_heads=(1,) * 4, **change), 16).eval()
    torch.testing.assert_close(layer(X), plain(layer, X))
    assert name not in calls


@torch.no_grad()
@pytest.mark.parametrize("name", ["attend"])
def test_the_chosen_attention_runs(layer, name, calls):
    layer.config = SMTConfig()
    layer.config._attn_implementation = "eager"
    torch.testing.assert_close(layer(X), plain(layer, X))
    assert name not in calls


# Whole layers by the kernel alone


FEED_FORWARD = ["layer_norm", "linear", "add_depthwise_gelu", "linear"]
MODULATION = ["layer_norm", "linear", "mix_scales", "linear", "linear", "linear", *FEED_FORWARD]
ATTENTION = ["layer_norm", "linear", "linear", "attend", "linear", *FEED_FORWARD]


@pytest.fixture(params=[0, 3], ids=["modulation", "attention"])
def whole(request):
    torch.manual_seed(0)
    config = SMTConfig(
        hidden_sizes=(16,) * 4, num_attention_heads=(2,) * 4, layer_scale_init_value=0.5, hidden_dropout_prob=0.5
    )
    config._attn_implementation = "sdpa"
    layer = SMTLayer(config, stage=request.param, layer=0, drop_path_rate=0.5).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def leaves(module):
    return [child for child in module.modules() if not list(child.children())]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_layer(whole, calls, dtype):
    out = whole.to(dtype)(X.to(dtype))
    assert calls == (MODULATION if "mix_scales" in calls else ATTENTION)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(out.double(), plain(whole.double(), X.double()), rtol=tolerance, atol=tolerance)


def by_a_hook(module):
    module.register_forward_hook(lambda module, inputs, out: out + 1)


def by_another_class(module):
    kind = type(module)
    module.__class__ = type(f"Other{kind.__name__}", (kind,), {"forward": lambda self, x: kind.forward(self, x) + 1})


def by_another_forward(module):
    forward = module.forward
    module.forward = lambda x: forward(x) + 1


@torch.no_grad()
@pytest.mark.parametrize("change", [by_a_hook, by_another_class, by_another_forward])
def test_each_module_of_a_whole_layer_counts(whole, calls, change):
    before = whole(X)
    for number in range(len(leaves(whole))):
        changed = copy.deepcopy(whole)
        change(leaves(changed)[number])
        out = changed(X)
        torch.testing.assert_close(out, plain(changed, X), rtol=1e-4, atol=1e-4)
        assert not torch.equal(out, before)


def with_circular_padding(layer):
    for conv in leaves(layer):
        if isinstance(conv, nn.Conv2d) and conv.kernel_size != (1, 1):
            conv.padding_mode, conv._reversed_padding_repeated_twice = "circular", [conv.padding[0]] * 4


def with_dilation(layer):
    for conv in leaves(layer):
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            conv.dilation = conv.padding = (2, 2)


def without_norm_or_fast_attention(layer):
    if isinstance(layer.mixer, SMTModulation):
        layer.mixer.batch_norm = nn.Identity()
    else:
        layer.mixer.config._attn_implementation = "eager"


@torch.no_grad()
@pytest.mark.parametrize("change", [with_circular_padding, with_dilation, without_norm_or_fast_attention])
def test_a_whole_layer_of_another_kind(whole, calls, change):
    change(whole)
    torch.testing.assert_close(whole(X), plain(whole, X), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_whole_layer_in_training(whole, calls):
    """Dropout and stochastic depth."""
    assert not torch.equal(whole.train()(X), whole(X))
