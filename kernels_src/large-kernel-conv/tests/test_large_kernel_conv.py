"""Tests of the kernel on its own; see ../../conftest.py for what they run on."""

import pytest
import torch

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PATHS = ["amx", "avx512_bf16", "avx512", "avx2", "portable", "cuda"]


def make_inputs(device, dtype=torch.float64, channels=3, size=(6, 5), kernel_size=(7, 5)):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, channels, *size), (channels, 1, *kernel_size), (channels,)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape in shapes]


def one_tap_at_a_time(input, weight, bias):
    """The definition: each tap of the kernel adds a shifted image."""
    height, width = weight.shape[2:]
    padded = torch.nn.functional.pad(input, (width // 2, width // 2, height // 2, height // 2))
    out = bias[:, None, None].expand_as(input).clone()
    for row, column in torch.cartesian_prod(torch.arange(height), torch.arange(width)).tolist():
        shifted = padded[:, :, row : row + input.shape[2], column : column + input.shape[3]]
        out += weight[:, :, row, column, None] * shifted
    return out


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "kernel_size"), [(16, (31, 31)), (35, (13, 15)), (5, (7, 51))])
def test_forward(kernel, operators, device, path, dtype, layout, channels, kernel_size):
    inputs = make_inputs(device, dtype, channels, (19, 17), kernel_size)
    out = operators.depthwise_conv2d_forward(inputs[0].to(memory_format=layout), *inputs[1:])
    expected = one_tap_at_a_time(*(tensor.double() for tensor in inputs))
    epsilon = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=epsilon, atol=50 * epsilon * expected.abs().max().item())
    assert out.is_contiguous(memory_format=layout)


def test_small_kernels(kernel, device):
    """What the rule leaves to PyTorch is the same convolution."""
    inputs = make_inputs(device, kernel_size=(3, 3))
    torch.testing.assert_close(kernel.depthwise_conv2d(*inputs), one_tap_at_a_time(*inputs))


def test_gradients(kernel, device):
    inputs = [tensor.requires_grad_() for tensor in make_inputs(device)]
    assert torch.autograd.gradcheck(kernel.depthwise_conv2d, inputs)


def gradients(function, inputs):
    """Output and gradients."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    out = function(*inputs)
    out.backward(torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype))
    return [out.detach(), *(tensor.grad for tensor in inputs)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "kernel_size"), [((14, 14), (27, 27)), ((70, 45), (31, 13)), ((9, 80), (13, 51))])
def test_gradients_of_every_dtype(kernel, device, dtype, size, kernel_size):
    inputs = make_inputs(device, dtype, 17, size, kernel_size)
    ours, again = (gradients(kernel.depthwise_conv2d, inputs) for _ in range(2))
    exact = gradients(one_tap_at_a_time, [tensor.double() for tensor in inputs])
    for actual, same, expected in zip(ours, again, exact, strict=True):
        assert torch.equal(actual, same)
        error = (actual.double() - expected).abs().max() / expected.abs().max()
        assert error <= torch.finfo(dtype).eps * (50 if dtype in (torch.float32, torch.float64) else 1)


def test_a_poisoned_pixel_reaches_only_the_windows_that_have_it(kernel, device):
    inputs = make_inputs(device, torch.bfloat16, 16, (20, 20), (13, 13))
    inputs[0][0, 3, 10, 10] = float("inf")
    finite = torch.ones(2, 16, 20, 20, dtype=torch.bool)
    finite[0, 3, 4:17, 4:17] = False
    assert torch.equal(kernel.depthwise_conv2d(*inputs).isfinite().cpu(), finite)


def test_opcheck(operators, device):
    inputs = [tensor.requires_grad_() for tensor in make_inputs(device, torch.float32)]
    torch.library.opcheck(operators.depthwise_conv2d_forward.default, inputs)


def test_compile(kernel, device):
    inputs = make_inputs(device, torch.float32, 16, kernel_size=(15, 15))
    compiled = torch.compile(kernel.depthwise_conv2d, fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), kernel.depthwise_conv2d(*inputs))


def test_a_tensor_elsewhere_is_named(operators, device):
    if device == "cpu":
        pytest.skip("the operators of a GPU are asked where one tensor is there")
    input, weight, bias = make_inputs(device, torch.float32)
    with pytest.raises(RuntimeError, match="weight: expected to be on cuda:0 like input, got cpu"):
        operators.depthwise_conv2d_forward(input, weight.cpu(), bias)
