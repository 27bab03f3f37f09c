"""The convolution with fewer multiplications: on every path of the kernel, and when the module runs instead of it."""

import random
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from kernels import get_local_kernel
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hf_models import hub_kernels
from hf_models.dense_conv import conv3x3, dense_conv
from hf_models.feature_pyramid import FeaturePyramid
from hf_models.modeling_backbone_fcos import Tower
from hf_models.modeling_backbone_rcnn import BoxHead, MaskHead, RegionProposalHead

from ..harness.kernel_builder import cpu_variant
from ..harness.kernel_tester import shifted

NAME = "winograd-conv"
PATHS = ("avx512", "avx2", "portable")


@pytest.fixture(scope="module")
def kernel():
    return get_local_kernel(cpu_variant(NAME))


@pytest.fixture(params=PATHS)
def path(request, kernel, monkeypatch):
    monkeypatch.setenv("WINOGRAD_CONV_CPU_PATH", request.param)
    try:
        assert kernel.cpu_path() == request.param
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    return request.param


def normal(*shape, generator=None):
    return torch.randn(*shape, generator=generator)


def exact(input, weight, bias=None, relu=False):
    out = F.conv2d(input.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    return F.relu(out) if relu else out


def random_case(seed):
    """Any size, number of channels and layout."""
    pick, make = random.Random(seed), partial(normal, generator=torch.Generator().manual_seed(seed))
    in_channels = pick.choice([1, 3, 16, 64, 256, 257, pick.randint(1, 600)])
    out_channels = pick.choice([1, 4, 8, 32, 33, pick.randint(1, 100)])
    longest = max(1, min(40, int((5e5 / in_channels / out_channels) ** 0.5)))
    x = make(pick.choice([1, 1, 2, 3]), in_channels, pick.randint(1, longest), pick.randint(1, longest))
    x = x * pick.choice([0.1, 1, 10]) + pick.choice([0, 0, 3])
    weight, bias = make(out_channels, in_channels, 3, 3), make(out_channels)
    if pick.random() < 0.7:
        x = x.to(memory_format=torch.channels_last)
    elif pick.random() < 0.5:
        x = shifted(x, 1)
    if pick.random() < 0.3:
        weight = weight.to(memory_format=torch.channels_last)
    return x, weight, bias if pick.random() < 0.7 else None, pick.random() < 0.5


def check_random_case(kernel, seed):
    """Errors are a share of what the sum would be if nothing cancelled."""
    x, weight, bias, relu = random_case(seed)
    out, expected = kernel.conv3x3(x, weight, bias, relu), exact(x, weight, bias, relu)
    assert out.shape == expected.shape and out.is_contiguous(memory_format=torch.channels_last)
    scale = F.conv2d(x.abs(), weight.abs(), None if bias is None else bias.abs(), padding=1).max()
    error = (out - expected).abs().max().item() / scale.item()
    assert error <= 1e-6, f"seed {seed}: {error} ({tuple(x.shape)}, {tuple(weight.shape)})"


def test_random_cases(kernel, path):
    for seed in range(40):
        check_random_case(kernel, seed)


@pytest.mark.slow
def test_many_random_cases(kernel, path):
    for seed in range(1000, 3000):
        check_random_case(kernel, seed)


def test_the_error_is_about_that_of_pytorch(kernel, path):
    generator = torch.Generator().manual_seed(0)
    x, weight = normal(1, 256, 20, 24, generator=generator), normal(256, 256, 3, 3, generator=generator)
    x = F.relu(x).to(memory_format=torch.channels_last)
    expected = exact(x, weight)
    errors = [(out - expected).norm() for out in (kernel.conv3x3(x, weight), F.conv2d(x, weight, padding=1))]
    assert errors[0] <= 3 * errors[1]
    assert errors[0] <= 1e-6 * expected.norm()


def test_poison_reaches_only_what_it_must(kernel, path):
    x = normal(2, 20, 9, 10).to(memory_format=torch.channels_last)
    x[1, 7, 4, 5] = float("nan")
    poisoned = kernel.conv3x3(x, torch.ones(3, 20, 3, 3), relu=True).isnan().any(1)
    expected = torch.zeros(2, 9, 10, dtype=torch.bool)
    expected[1, 3:6, 4:7] = True
    assert torch.equal(poisoned, expected)


def test_an_image_does_not_depend_on_its_company(kernel, path):
    x, weight, bias = normal(3, 300, 9, 11), normal(40, 300, 3, 3), normal(40)
    together = kernel.conv3x3(x, weight, bias)
    assert all(torch.equal(kernel.conv3x3(x[i : i + 1], weight, bias)[0], together[i]) for i in range(3))


def test_the_number_of_threads_changes_nothing(kernel):
    x, weight, bias = normal(2, 70, 21, 23), normal(66, 70, 3, 3), normal(66)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(kernel.conv3x3(x, weight, bias, True))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_weights_that_change_are_seen(kernel):
    x, weight = normal(1, 64, 16, 16), normal(64, 64, 3, 3)
    before = kernel.conv3x3(x, weight)
    weight.mul_(2)
    assert torch.equal(kernel.conv3x3(x, weight), 2 * before)


@pytest.mark.parametrize("shape", [(0, 8, 5, 6), (2, 8, 0, 6), (2, 8, 5, 0)])
def test_nothing_to_compute(kernel, path, shape):
    assert kernel.conv3x3(torch.empty(shape), torch.empty(4, 8, 3, 3)).shape == (shape[0], 4, *shape[2:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, x, w, b: k.conv3x3(x, w[:, 1:], b), r"weight: expected \(4, 8, 3, 3\), got \(4, 7, 3, 3\)"),
        (lambda k, x, w, b: k.conv3x3(x, w[..., 1:], b), r"weight: expected \(4, 8, 3, 3\), got \(4, 8, 3, 2\)"),
        (lambda k, x, w, b: k.conv3x3(x, w[0], b), r"weight: expected \(O, C, 3, 3\), got \(8, 3, 3\)"),
        (lambda k, x, w, b: k.conv3x3(x, w, b[1:]), r"bias: expected \(4\), got \(3\)"),
        (lambda k, x, w, b: k.conv3x3(x, w, b.double()), "bias and input must share a dtype"),
        (lambda k, x, w, b: k.conv3x3(x.bfloat16(), w.bfloat16()), "input: expected float32"),
        (lambda k, x, w, b: k.conv3x3(x[:, :0], w[:, :0]), "input: expected channels"),
    ],
)
def test_what_does_not_fit_is_refused(kernel, call, message):
    with pytest.raises(RuntimeError, match=message):
        call(kernel, normal(2, 8, 5, 6), normal(4, 8, 3, 3), normal(4))


def test_derivatives_are_refused(kernel):
    x, weight = normal(1, 8, 5, 6), normal(4, 8, 3, 3)
    with pytest.raises(NotImplementedError, match="conv3x3: the compiled kernel has no gradient"):
        kernel.conv3x3(x, weight.requires_grad_())
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: kernel.conv3x3(x, weight.detach()), (x,), (x,))


def test_shapes_for_tracing(kernel):
    arguments = normal(2, 8, 5, 6), normal(4, 8, 3, 3), normal(4), True
    compiled = torch.compile(kernel.conv3x3, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), kernel.conv3x3(*arguments))


# dense_conv of hf_models: when does the kernel run?


@pytest.fixture
def calls(kernel, monkeypatch):
    """The calls of the kernel that were made."""
    found = []

    class Counted:
        def conv3x3(self, *arguments):
            found.append(arguments)
            return kernel.conv3x3(*arguments)

    decision = hub_kernels.KernelStatus(NAME, "cpu", "local", None, None, (), "the tests' build", ())
    none = hub_kernels.KernelStatus("others", "cpu", "reference", None, None, (), "not for these tests", ())
    monkeypatch.setattr(
        hub_kernels, "_choose", lambda name, _: (Counted(), decision) if name == NAME else (None, none)
    )
    monkeypatch.setattr(hub_kernels, "_modules", {})
    return found


@pytest.fixture
def conv():
    torch.manual_seed(0)
    return nn.Conv2d(64, 64, 3, padding=1)


X = normal(1, 64, 20, 24, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("relu", [False, True])
@torch.no_grad()
def test_the_kernel_runs_where_only_numbers_are_wanted(conv, calls, relu):
    out, expected = dense_conv(conv, X, relu), exact(X, conv.weight, conv.bias, relu)
    assert len(calls) == 1 and out.stride() == conv(X).stride()
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-6 * expected.max().item())
    conv.weight.mul_(2)
    conv.bias.mul_(2)
    assert torch.equal(dense_conv(conv, X, relu), 2 * out)


@pytest.mark.parametrize(
    "other",
    [
        lambda: nn.Conv2d(64, 64, 3, stride=2, padding=1),
        lambda: nn.Conv2d(64, 64, 3),
        lambda: nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        lambda: nn.Conv2d(64, 64, 3, padding=1, groups=2),
        lambda: nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        lambda: nn.Conv2d(64, 64, 5, padding=2),
        lambda: nn.Conv2d(64, 4, 3, padding=1),
        lambda: type("Adapter", (nn.Conv2d,), {})(64, 64, 3, padding=1),
    ],
)
@torch.no_grad()
def test_other_convolutions_are_pytorchs(calls, other):
    conv = other()
    assert torch.equal(dense_conv(conv, X), conv(X)) and not calls


@pytest.mark.parametrize(
    "change",
    [lambda x: x.contiguous(), lambda x: x[:, :, :6, :6], lambda x: x[0].permute(1, 2, 0).permute(2, 0, 1)],
)
@torch.no_grad()
def test_other_maps_are_pytorchs(conv, calls, change):
    """Of another layout, few pixels, or no batch."""
    assert torch.equal(dense_conv(conv, change(X), True), F.relu(conv(change(X)))) and not calls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@torch.no_grad()
def test_other_dtypes_are_pytorchs(conv, calls, dtype):
    conv = conv.to(dtype)
    assert torch.equal(dense_conv(conv, X.to(dtype)), conv(X.to(dtype))) and not calls


def test_the_module_runs_with_gradients(conv, calls):
    assert dense_conv(conv, X).requires_grad and not calls


@torch.no_grad()
def test_the_module_runs_in_autocast(conv, calls):
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dense_conv(conv, X), conv(X))
    assert not calls


@torch.no_grad()
def test_a_hook_sees_what_it_would(conv, calls):
    seen = []
    conv.register_forward_hook(lambda module, inputs, out: seen.append(out))
    assert torch.equal(dense_conv(conv, X), seen[0]) and not calls


@torch.no_grad()
def test_another_forward_is_called(conv, calls):
    """As offloading puts one in its place."""
    conv.forward = lambda x: x + 1
    assert torch.equal(dense_conv(conv, X), X + 1) and not calls


@torch.no_grad()
def test_the_module_runs_where_more_than_numbers_is_wanted(conv, calls):
    def function(x):
        return dense_conv(conv, x, True)

    expected = F.relu(conv(X))
    torch.testing.assert_close(torch.func.vmap(function)(X[:, None])[:, 0], expected)
    torch.testing.assert_close(torch.func.jvp(function, (X,), (X,))[0], expected)
    with FlopCounterMode(display=False) as counter:
        function(X)
    assert counter.get_total_flops() == 2 * 9 * 64 * 64 * 20 * 24 and not calls


@torch.no_grad()
def test_a_compiled_model_keeps_it(conv, calls):
    compiled = torch.compile(partial(dense_conv, conv, relu=True), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(X), dense_conv(conv, X, relu=True)) and len(calls) == 2
    with torch.enable_grad():
        assert compiled(X).requires_grad and len(calls) == 2


@torch.no_grad()
def test_an_exported_model_runs_where_no_kernel_is(calls):
    head = RegionProposalHead(SIZES)
    exported, traced = torch.export.export(head, ((X,),)).module(), torch.jit.trace(head, ((X,),), check_trace=False)
    assert not calls
    torch.testing.assert_close(exported((X,)), head((X,)))
    torch.testing.assert_close(traced((X,)), head((X,)))


@torch.no_grad()
def test_the_function_of_tensors(conv, calls):
    for x in (X, X.contiguous()):
        torch.testing.assert_close(conv3x3(x, conv.weight), F.conv2d(x, conv.weight, padding=1))
    assert len(calls) == 1, "the other layout is PyTorch's"


SIZES = SimpleNamespace(
    fpn_channels=64,
    box_convs=1,
    box_fcs=1,
    box_hidden_size=8,
    mask_convs=2,
    head_convs=2,
    num_labels=3,
    group_norm_groups=2,
)


@pytest.mark.parametrize(
    ("head", "input", "times"),
    [
        (FeaturePyramid([64, 64], 64, "layer"), (X, X[:, :, ::2]), 2),
        (FeaturePyramid([64, 64], 64, strided_levels=1), (X, X[:, :, ::2]), 2),
        (RegionProposalHead(SIZES), (X, X[:, :, ::2]), 2),
        (MaskHead(SIZES), X[:, :, :14, :14], 2),
        (BoxHead(SIZES).eval(), torch.cat((X[:, :, :7, :7],) * 4), 1),
        (Tower(SIZES), X, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_heads_compute_the_same_by_it(calls, head, input, times):
    plain = head(input)
    assert not calls
    with torch.no_grad():
        torch.testing.assert_close(head(input), plain)
    assert len(calls) == times
