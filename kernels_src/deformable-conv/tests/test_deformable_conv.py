"""Tests of the kernel on its own; see ../../conftest.py for what they run on."""

import pytest
import torch

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PATHS = ["avx512", "avx2", "portable", "cuda"]


def make_inputs(device, dtype=torch.float64, channels=4, kernel_size=3):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

    points = kernel_size**2
    return normal(2, 4, 5, 2, channels), normal(2, 4, 5, 2, points, 2), normal(2, 4, 5, 2, points)


def one_sample_at_a_time(value, offset, weight, kernel_size, padding):
    """The definition, number by number."""
    batch, height, width, groups, channels = value.shape
    out = value.new_zeros(batch, height, width, groups, channels)
    for n, row, column, g, k in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
        x = column - padding + k // kernel_size + offset[n, row, column, g, k, 0].item()
        y = row - padding + k % kernel_size + offset[n, row, column, g, k, 1].item()
        for pixel_x in (int(x // 1), int(x // 1) + 1):
            for pixel_y in (int(y // 1), int(y // 1) + 1):
                if 0 <= pixel_x < width and 0 <= pixel_y < height:
                    share = (1 - abs(x - pixel_x)) * (1 - abs(y - pixel_y)) * weight[n, row, column, g, k]
                    out[n, row, column, g] += share * value[n, pixel_y, pixel_x, g]
    return out.flatten(-2)


def gradients(kernel, inputs, **options):
    """Output and gradients."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    out = kernel.deformable_aggregate(*inputs, **options)
    out.backward(torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype))
    return [out.detach(), *(tensor.grad for tensor in inputs)]


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "kernel_size"), [(16, 3), (32, 3), (64, 3), (5, 3), (20, 5)])
def test_forward(kernel, device, path, dtype, channels, kernel_size):
    inputs = make_inputs(device, dtype, channels, kernel_size)
    out = kernel.deformable_aggregate(*inputs, kernel_size=kernel_size, padding=kernel_size // 2)
    expected = one_sample_at_a_time(*(t.double().cpu() for t in inputs), kernel_size, kernel_size // 2)
    tolerance = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double().cpu(), expected, rtol=tolerance, atol=tolerance * 50)


@pytest.mark.parametrize("softmax", [False, True])
def test_gradients_are_those_of_finite_differences(kernel, device, softmax):
    inputs = [tensor[:1, :3, :3].requires_grad_() for tensor in make_inputs(device, channels=2)]
    options = {"kernel_size": 3, "padding": 1, "softmax": softmax}
    # atomics add in any order
    assert torch.autograd.gradcheck(
        lambda *args: kernel.deformable_aggregate(*args, **options), inputs, nondet_tol=1e-12
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "kernel_size"), [(16, 3), (32, 3), (64, 3), (5, 3), (20, 5), (300, 3)])
def test_gradients_of_every_dtype(kernel, device, dtype, channels, kernel_size):
    inputs = make_inputs(device, dtype, channels, kernel_size)
    options = {"kernel_size": kernel_size, "padding": kernel_size // 2, "softmax": True}
    ours = gradients(kernel, inputs, **options)
    exact = gradients(kernel, [tensor.double() for tensor in inputs], **options)
    for actual, expected in zip(ours, exact, strict=True):
        assert actual.dtype == dtype
        error = (actual.double() - expected).abs().max() / expected.abs().max().clamp(min=1)
        assert error <= torch.finfo(dtype).eps * (200 if dtype in (torch.float32, torch.float64) else 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deterministic_bits(kernel, device, deterministic, dtype):
    """They are the same in every run, and whatever else is in the batch."""
    inputs = make_inputs(device, dtype, 16)
    options = {"kernel_size": 3, "padding": 1}
    first = gradients(kernel, inputs, **options)
    assert all(map(torch.equal, first, gradients(kernel, inputs, **options)))
    alone = kernel.deformable_aggregate(*(tensor[1:] for tensor in inputs), **options)
    assert torch.equal(first[0][1:], alone)


def test_a_poisoned_pixel_reaches_only_what_samples_it(kernel, device):
    value, offset, weight = make_inputs(device, torch.float32, 16)
    value[0, 0, 0] = float("nan")
    out = kernel.deformable_aggregate(value, offset * 0 + 0.25, weight, kernel_size=3, padding=1)
    expected = torch.zeros(2, 4, 5, dtype=torch.bool)
    expected[0, :2, :2] = True
    assert torch.equal(out.isnan().any(-1).cpu(), expected)


def test_opcheck(operators, device):
    inputs = [tensor.requires_grad_() for tensor in make_inputs(device, torch.float32)]
    options = ([3, 3], [1, 1], [1, 1], [1, 1], 1.0, False, True)
    torch.library.opcheck(operators.deformable_aggregate_forward.default, (*inputs, *options))
    gradient = torch.ones(2, 4, 5, 8, device=device)
    inputs = [tensor.detach() for tensor in inputs]
    torch.library.opcheck(operators.deformable_aggregate_backward.default, (gradient, *inputs, *options, True))


def test_compile(kernel, device):
    inputs = make_inputs(device, torch.float32)
    compiled = torch.compile(kernel.deformable_aggregate, fullgraph=True)
    out = compiled(*inputs, kernel_size=3, padding=1)
    torch.testing.assert_close(out, kernel.deformable_aggregate(*inputs, kernel_size=3, padding=1))


def test_a_tensor_elsewhere_is_named(kernel, device):
    if device == "cpu":
        pytest.skip("the operators of a GPU are asked where one tensor is there")
    value, offset, weight = make_inputs(device, torch.float32)
    with pytest.raises(RuntimeError, match="weight: expected to be on cuda:0 like value, got cpu"):
        kernel.deformable_aggregate(value, offset, weight.cpu(), kernel_size=3, padding=1)
